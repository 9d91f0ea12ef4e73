"""Are there seams? Every question asked of a painted box at the owners' boundaries, with a verdict.

On each axis the owner of a voxel is decided by that axis alone (see `scheduler.tiling`), so a seam
is a whole plane of the box, and a tile's owned voxels are a cuboid between six of them::

    | owned by 0   | 1        | 2            | 3        |     planes: first voxel of each owner
    0              32         56             88         112

A statistic is taken on every plane of voxels, the seams' planes are compared with the planes
around them, and the scatter of the planes away from seams says how much is chance. Nothing about
the field is assumed but that it is statistically the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.tiling import Tiling

Float = npt.NDArray[np.float64]

MEMORY = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One question: `value` beside `expected` without seams, its significance z and tail p.

    z is the number of standard deviations of a Gaussian with the same p (two-sided).
    """

    name: str
    axis: str
    value: float
    expected: float
    z: float
    p: float


@dataclass(frozen=True)
class Profile:
    """Folded on the seams of one axis: mean and variance by distance to the nearest seam.

    distance: int64 (n,), voxels; d >= 0 is the d-th voxel after the seam in the tile painted
    later, -1 the last voxel of the tile painted earlier. mean (field unit), variance (its square),
    with one standard deviation each from the scatter of the planes; planes: planes averaged.
    """

    axis: str
    distance: npt.NDArray[np.int64]
    mean: Float
    mean_error: Float
    variance: Float
    variance_error: Float
    planes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Harmonics:
    """Power of the planes' means at multiples of the tile frequency over that of its neighbours.

    order: (m,) in units of 1 / tile (1/2: alternate tiles); k: h/Mpc if the box size is known,
    else per voxel; ratio: (m,) 1 without seams; z, p as in `Finding`. quantity: "mean" or
    "variance".
    """

    axis: str
    quantity: str
    order: Float
    k: Float
    ratio: Float
    z: Float
    p: Float


@dataclass(frozen=True)
class SeamReport:
    """What `seams` found. ratio: mean squared difference of neighbours across seams over inside,
    per axis, with its error; kink: the same with third differences.

    alarm: whether any test is less likely than it may be for `false_alarm_rate` per box.
    """

    shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    mean: float
    rms: float
    ratio: Float
    ratio_error: Float
    kink: Float
    kink_error: Float
    profiles: tuple[Profile, ...]
    harmonics: tuple[Harmonics, ...]
    tests: tuple[Finding, ...]
    false_alarm_rate: float
    p_value: float
    alarm: bool
    strongest: Finding

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON; NaN becomes null."""
        raise NotImplementedError


@dataclass(frozen=True)
class StageResidual:
    """Box minus reference over the voxels that tiles of one stage own.

    mean, rms: in the field's unit; rms_at_seams: of the voxels next to a seam, on both its sides;
    relative: rms over the reference's rms about its mean, everywhere.
    """

    stage: int
    tiles: int
    voxels: int
    mean: float
    rms: float
    rms_at_seams: float
    relative: float


def seams(
    array: Any,
    tiling: Tiling,
    *,
    box_size: float | Sequence[float] | None = None,
    false_alarm_rate: float = 0.01,
    memory: int = MEMORY,
    workers: int | None = None,
) -> SeamReport:
    """Look for seams in a painted field (X, Y, Z): numpy, zarr or dask, out of core.

    memory: bytes that the blocks in work may take together; workers: threads of dask.
    Raises BadInput for an array of another shape than the tiling's, not finite, or constant.
    """
    raise NotImplementedError


def stage_residuals(
    array: Any,
    reference: Any,
    tiling: Tiling,
    *,
    colouring: str = "levels",
    memory: int = MEMORY,
    workers: int | None = None,
) -> tuple[StageResidual, ...]:
    """Residual of a stitched box against a reference, by stage of the tile that owns the voxel."""
    raise NotImplementedError
