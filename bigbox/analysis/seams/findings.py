"""Hold what the search for seams returns: findings, folded profiles, harmonics, the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.spectrum import Float


@dataclass(frozen=True)
class Finding:
    """One question: `value` beside `expected` without seams, its significance z and tail p.

    z: standard deviations of a Gaussian with the same p. Two-sided, but for the harmonics, where
    only an excess counts.
    """

    name: str
    axis: str
    value: float = np.nan
    expected: float = np.nan
    z: float = np.nan
    p: float = np.nan


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

    order: (m,) in units of 1 / tile (1/2: alternate tiles); ratio: (m,) 1 without seams; z, p as in
    `Finding`. quantity: "mean" or "variance".
    """

    axis: str
    quantity: str
    order: Float
    ratio: Float
    z: Float
    p: Float


@dataclass(frozen=True)
class SeamReport:
    """What `find_seams` found.

    ratio: mean squared difference of neighbours across seams over inside, per axis, with its error;
    kink: the same with third differences. scores: whether the tests and harmonics are of the
    field's normal scores; ratio, kink and profiles are of the field itself in any case.
    p_value: bound on the chance that a box without seams has so strong a test among `tests`;
    alarm: whether it is below `false_alarm_rate`. mean, rms: of the field, in its unit.
    """

    mean: float
    rms: float
    ratio: Float
    ratio_error: Float
    kink: Float
    kink_error: Float
    profiles: tuple[Profile, ...]
    harmonics: tuple[Harmonics, ...]
    tests: tuple[Finding, ...]
    scores: bool
    false_alarm_rate: float
    p_value: float
    alarm: bool
    strongest: Finding
