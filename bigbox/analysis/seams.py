"""Are there seams? Every question asked of a painted box at the owners' boundaries, with a verdict.

On each axis the owner of a voxel is decided by that axis alone (see `bigbox.scheduler.tiling`), so
a seam is a whole plane of the box, and a tile's owned voxels are a cuboid between six of them::

    | owned by 0   | 1        | 2            | 3        |     planes: first voxel of each owner
    0              32         56             88         112

A statistic is taken on every plane of voxels, the seams' planes are compared with the planes
around them, and the scatter of the planes away from seams says how much is chance. Nothing about
the field is assumed but that it is statistically the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from bigbox.analysis.cells import Block, Blocks, all_layers, check_shape, each
from bigbox.analysis.findings import Finding, Harmonics, Profile, SeamReport, StageResidual
from bigbox.analysis.look import Look, student
from bigbox.analysis.planes import MEMORY, PATTERNS, Gains, measure
from bigbox.analysis.scores import Scores, sample_values
from bigbox.errors import BadInput
from bigbox.scheduler.stages import stage, stages
from bigbox.scheduler.tiling import AXES, Tiling

__all__ = [
    "Finding",
    "Harmonics",
    "Profile",
    "SeamReport",
    "StageResidual",
    "seams",
    "stage_residuals",
]

HARMONIC = " at order "

# Beyond this excess kurtosis, or skewness, the tests are made on the field's normal scores.
HEAVY_TAIL, SKEW = 1.0, 0.5

# Bonferroni's bound on the tests' p, times this: their tails are those of Student's t and of F with
# degrees of freedom that were themselves estimated. Measured in tests/benchmarks/SPECTRA.md.
CAUTION = 3.0


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

    Where a sample of the field has heavy tails or is skewed, a few bright voxels decide the mean
    of a plane, and no test holds what it promises: the tests are then made on the field's normal
    scores, which a seam shows in as well.

    Raises BadInput for an array of another shape than the tiling's, not finite, or constant.
    """
    if not 0 < false_alarm_rate < 1:
        raise BadInput(f"false-alarm rate {false_alarm_rate}: must lie between 0 and 1")
    check_shape(array, tiling, "field")
    scores = _scores_of(sample_values(array, tiling.shape))
    plain, planes = measure(array, tiling, scores=scores, memory=memory, workers=workers)
    if plain.least == plain.most:
        raise BadInput(f"field: is constant ({plain.least:g} everywhere): it has no seams to find")
    sides = (1.0,) * 3 if box_size is None else _voxels(box_size, tiling.shape)
    findings: list[Finding] = []
    ratios, harmonics, profiles = [], [], []
    for i, (itself, axis) in enumerate(zip(plain.axes, planes.axes, strict=True)):
        stride, periodic = tiling.tile - tiling.overlap, tiling.periodic[i]
        seen = Look(itself, AXES[i], stride, periodic)
        ratios.append((seen.ratio("jump", itself.jump), seen.ratio("kink", itself.kink)))
        profiles.append(seen.profile(plain.offset))
        look = Look(axis, AXES[i], stride, periodic)
        findings += [look.ratio(name, getattr(axis, name))[0] for name in ("jump", "kink")]
        findings += look.steps()
        findings += [
            look.contrast("texture", axis.texture),
            look.contrast("mean", axis.mean, offset=planes.offset),
        ]
        for quantity, profile in (("mean", axis.mean), ("variance", axis.square - axis.mean**2)):
            found = look.harmonics(quantity, profile, tiling, i, sides[i])
            harmonics.append(found)
            findings += [
                Finding(f"{quantity}{HARMONIC}{o:g}", AXES[i], r, 1.0, z, p)
                for o, r, z, p in zip(found.order, found.ratio, found.z, found.p, strict=True)
            ]
    findings += _together(findings) + _gain_tests(planes.gains)
    usable = [f for f in findings if np.isfinite(f.p)]
    if not usable:
        raise BadInput(
            f"box of {tiling.counts} tiles: too few planes away from seams to compare with;"
            " seams can be looked for in larger boxes"
        )
    strongest = min(usable, key=lambda f: (f.p, -abs(f.z)))
    p_value = min(1.0, CAUTION * strongest.p * len(usable))
    mean = float(plain.axes[0].mean.mean())
    variance = float(plain.axes[0].square.mean()) - mean**2
    return SeamReport(
        shape=tiling.shape,
        counts=tiling.counts,
        mean=plain.offset + mean,
        rms=float(np.sqrt(variance)),
        ratio=np.array([jump[0].value for jump, _ in ratios]),
        ratio_error=np.array([jump[1] for jump, _ in ratios]),
        kink=np.array([kink[0].value for _, kink in ratios]),
        kink_error=np.array([kink[1] for _, kink in ratios]),
        profiles=tuple(profiles),
        harmonics=tuple(harmonics),
        tests=tuple(findings),
        scores=scores is not None,
        false_alarm_rate=false_alarm_rate,
        p_value=p_value,
        alarm=bool(p_value < false_alarm_rate),
        strongest=strongest,
    )


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
    check_shape(array, tiling, "field")
    check_shape(reference, tiling, "reference")
    layers = all_layers(tiling)
    threads = workers or 1
    blocks = list(Blocks.choose(tiling, layers, 0, memory, threads))
    edge = [np.zeros(n, bool) for n in tiling.shape]
    for line, one in zip(edge, layers, strict=True):
        line[one.seams] = line[one.seams - 1] = True

    def sums(block: Block) -> npt.NDArray[np.float64]:
        """Per stage: voxels, residual, its square, voxels and square at seams; last: reference."""
        truth = block.read(reference).astype(np.float64)
        rest = block.read(array) - truth
        x, y, z = (line[slice(*b)] for line, b in zip(edge, block.bounds, strict=True))
        seam = x[:, None, None] | y[None, :, None] | z
        cells = np.ix_(*(np.arange(*c) for c in block.cells))
        of_cell = stage(tiling, tiling.index(np.stack(np.broadcast_arrays(*cells), -1)), colouring)
        found = np.zeros((stages(tiling, colouring) + 1, 5))
        starts = [
            one.starts[slice(*c)] - b[0]
            for one, c, b in zip(layers, block.cells, block.bounds, strict=True)
        ]
        for column, values in enumerate(
            (np.ones_like(rest), rest, rest**2, seam.astype(np.float64), seam * rest**2)
        ):
            total = values
            for axis in range(3):
                total = np.add.reduceat(total, starts[axis], axis=axis)
            np.add.at(found[:, column], of_cell, total)
        found[-1, :3] = truth.size, truth.sum(), (truth**2).sum()
        return found

    total = np.zeros((stages(tiling, colouring) + 1, 5))
    for _, found in each(sums, blocks, threads):
        total += found
    if not np.isfinite(total).all():
        raise BadInput("residual: the field or the reference is not finite; repair it first")
    count, mean, square = total[-1, :3]
    spread = np.sqrt(max(square / count - (mean / count) ** 2, 0.0))
    tiles = np.bincount(
        stage(tiling, np.arange(tiling.size), colouring), minlength=stages(tiling, colouring)
    )
    return tuple(
        StageResidual(
            stage=s,
            tiles=int(tiles[s]),
            voxels=int(row[0]),
            mean=float(row[1] / row[0]),
            rms=float(np.sqrt(row[2] / row[0])),
            rms_at_seams=float(np.sqrt(row[4] / row[3])) if row[3] else np.nan,
            relative=float(np.sqrt(row[2] / row[0]) / spread) if spread > 0 else np.nan,
        )
        for s, row in enumerate(total[:-1])
    )


def _scores_of(sample: npt.NDArray[np.float32]) -> Scores | None:
    """Normal scores where the sample calls for them."""
    values = sample.astype(np.float64)
    if not np.isfinite(values).all() or values.min() == values.max():
        return None
    if abs(stats.skew(values)) < SKEW and stats.kurtosis(values) < HEAVY_TAIL:
        return None
    scores = Scores.of(values)
    return scores if len(scores.values) > 2 else None


def _together(findings: Sequence[Finding]) -> list[Finding]:
    """The same test on the three axes as one: their z added up (Stouffer)."""
    joint = []
    for name in dict.fromkeys(f.name for f in findings):
        zs = [f.z for f in findings if f.name == name and np.isfinite(f.z)]
        if len(zs) > 1:
            z = float(np.sum(zs) / np.sqrt(len(zs)))
            value = float(np.mean([f.value for f in findings if f.name == name]))
            expected = float(np.mean([f.expected for f in findings if f.name == name]))
            one_sided = HARMONIC in name
            p = float(stats.norm.sf(z) if one_sided else 2 * stats.norm.sf(abs(z)))
            joint.append(Finding(name, "all", value, expected, z, p))
    return joint


def _gain_tests(gains: Gains) -> list[Finding]:
    """Whether the texture of odd and of even tiles differs, by each pattern of axes.

    The cells of a pattern's two signs against each other, the scatter from the cells themselves.
    """
    around = float(gains.plain[0] / gains.plain[1])
    weighted, mixed, volume = gains.squares
    variance = weighted - 2 * around * mixed + around**2 * volume
    found = []
    for (texture, balance), pattern in zip(gains.signed, PATTERNS, strict=True):
        name = "texture of odd tiles on " + "".join(
            a for a, on in zip(AXES, pattern, strict=True) if on
        )
        if gains.cells < 8 or not variance > 0:
            found.append(Finding(name, "all", np.nan, around, np.nan, np.nan))
            continue
        excess = texture - around * balance
        z, p = student(float(excess / np.sqrt(variance)), gains.cells - 1)
        found.append(Finding(name, "all", around - excess / gains.plain[1], around, z, p))
    return found


def _voxels(box_size: float | Sequence[float], shape: tuple[int, int, int]) -> tuple[float, ...]:
    if isinstance(box_size, (int, float)):
        return (float(box_size) / shape[0],) * 3
    return tuple(float(s) / n for s, n in zip(box_size, shape, strict=True))
