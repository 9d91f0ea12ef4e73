"""Look for seams: every question asked of a painted box at the owners' boundaries, with a verdict.

On each axis the owner of a voxel is decided by that axis alone (see `bigbox.analysis.seams.cells`),
so a seam is a whole plane of the box. A statistic is taken on every plane of voxels, the seams'
planes are compared with the planes around them, and the scatter of the planes away from seams says
how much is chance. Nothing about the field is assumed but that it is statistically the same
everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from bigbox.analysis.seams.axis_tests import AxisTests, Finding, Harmonics, Profile, student
from bigbox.analysis.seams.cells import Block, check_shape, choose_blocks, layers_of
from bigbox.analysis.seams.planes import PATTERNS, PointFunction, TextureSums, Values, plane_sums
from bigbox.analysis.spectra.modes import Float
from bigbox.analysis.spectra.power import MEMORY
from bigbox.blockwise import map_blocks
from bigbox.errors import BadInput
from bigbox.scheduler.stages import stage, stages
from bigbox.scheduler.tiling import AXES, Tiling

HARMONIC = " at order "

# Beyond this excess kurtosis, or skewness, the tests are made on the field's normal scores.
HEAVY_TAIL, SKEW = 1.0, 0.5

# The scores' range and steps; the cut-outs that are sampled, per axis, and their edge.
SCORE_LIMIT, SCORE_STEP = 4.5, 1 / 64
SAMPLES, SAMPLE_EDGE = 3, 32

# Bonferroni's bound on the tests' p, times this: their tails are those of Student's t and of F with
# degrees of freedom that were themselves estimated. Measured on Gaussian boxes without seams.
CAUTION = 3.0


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


def find_seams(
    array: Any,
    tiling: Tiling,
    *,
    false_alarm_rate: float = 0.01,
    memory: int = MEMORY,
    workers: int = 1,
) -> SeamReport:
    """Look for seams in a painted field (X, Y, Z): numpy, zarr or dask, out of core.

    Where a sample of the field has heavy tails or is skewed, a few bright voxels decide the mean
    of a plane, and no test holds what it promises: the tests are then made on the field's normal
    scores, which a seam shows in as well.

    memory: bytes that the blocks in work may take together. Raise BadInput for an array of another
    shape than the tiling's, not finite, or constant.
    """
    if not 0 < false_alarm_rate < 1:
        raise BadInput(f"false-alarm rate {false_alarm_rate}: must lie between 0 and 1")
    check_shape(array, tiling, "field")
    scores = _scores_of(sample_values(array, tiling.shape))
    plain, planes = plane_sums(array, tiling, scores=scores, memory=memory, workers=workers)
    if plain.least == plain.most:
        value = f"{plain.offset + plain.least:g}"
        raise BadInput(f"field: is constant ({value} everywhere): it has no seams to find")
    findings: list[Finding] = []
    ratios, harmonics, profiles = [], [], []
    for i, (itself, axis) in enumerate(zip(plain.axes, planes.axes, strict=True)):
        stride, periodic = tiling.tile - tiling.overlap, tiling.periodic[i]
        seen = AxisTests(itself, AXES[i], stride, periodic)
        pairs = [seen.ratio(name, getattr(itself, name)) for name in ("jump", "kink")]
        ratios.append([number for one, error in pairs for number in (one.value, error)])
        profiles.append(seen.profile(plain.offset))
        tests = AxisTests(axis, AXES[i], stride, periodic)
        findings += [tests.ratio(name, getattr(axis, name))[0] for name in ("jump", "kink")]
        findings += [*tests.steps(), tests.contrast("texture", axis.texture)]
        findings.append(tests.contrast("mean", axis.mean, offset=planes.offset))
        for quantity, profile in (("mean", axis.mean), ("variance", axis.square - axis.mean**2)):
            found = tests.harmonics(quantity, profile, tiling, i)
            harmonics.append(found)
            findings += [
                Finding(f"{quantity}{HARMONIC}{o:g}", AXES[i], r, 1.0, z, p)
                for o, r, z, p in zip(found.order, found.ratio, found.z, found.p, strict=True)
            ]
    findings += _together(findings) + _gain_tests(planes.textures)
    usable = [f for f in findings if np.isfinite(f.p)]
    if not usable:
        raise BadInput(
            f"box of {tiling.counts} tiles: too few planes away from seams to compare with;"
            " seams can be looked for in larger boxes"
        )
    strongest = min(usable, key=lambda f: (f.p, -abs(f.z)))
    p_value = min(1.0, CAUTION * strongest.p * len(usable))
    ratio, ratio_error, kink, kink_error = np.array(ratios, np.float64).T
    mean = float(plain.axes[0].mean.mean())
    variance = float(plain.axes[0].square.mean()) - mean**2
    return SeamReport(
        mean=plain.offset + mean,
        rms=float(np.sqrt(variance)),
        ratio=ratio,
        ratio_error=ratio_error,
        kink=kink,
        kink_error=kink_error,
        profiles=tuple(profiles),
        harmonics=tuple(harmonics),
        tests=tuple(findings),
        scores=scores is not None,
        false_alarm_rate=false_alarm_rate,
        p_value=p_value,
        alarm=bool(p_value < false_alarm_rate),
        strongest=strongest,
    )


def sample_values(array: Any, shape: Sequence[int]) -> Values:
    """Return values of a few small cut-outs spread over the box, as many as there are."""
    starts = (
        np.unique(np.linspace(0, max(0, n - SAMPLE_EDGE), SAMPLES).astype(int)) for n in shape
    )
    cuts = (tuple(slice(i, i + SAMPLE_EDGE) for i in at) for at in itertools.product(*starts))
    return np.concatenate([np.asarray(array[cut], np.float32).ravel() for cut in cuts])


def normal_scores(sample: Values | Float) -> PointFunction | None:
    """Return the function that makes a field Gaussian point by point, from a sample of its values.

    A field that is statistically the same everywhere stays so, and no longer do a few bright
    voxels decide what the mean of a plane is. Values beyond the sample's get the scores of its
    ends. None for a sample of one or two values.
    """
    scores = np.linspace(-SCORE_LIMIT, SCORE_LIMIT, 1 + int(2 * SCORE_LIMIT / SCORE_STEP))
    known, first = np.unique(np.quantile(sample, stats.norm.cdf(scores)), return_index=True)
    if len(known) < 3:
        return None
    return lambda values: np.interp(values, known, scores[first]).astype(np.float32)


def _scores_of(sample: Values) -> PointFunction | None:
    """Return normal scores where the sample calls for them."""
    values = sample.astype(np.float64)
    if not np.isfinite(values).all() or values.min() == values.max():
        return None
    if abs(stats.skew(values)) < SKEW and stats.kurtosis(values) < HEAVY_TAIL:
        return None
    return normal_scores(values)


def _together(findings: Sequence[Finding]) -> list[Finding]:
    """Combine the same test on the three axes: their z added up (Stouffer)."""
    joint = []
    for name in dict.fromkeys(f.name for f in findings):
        alike = [f for f in findings if f.name == name]
        zs = [f.z for f in alike if np.isfinite(f.z)]
        if len(zs) > 1:
            z = float(np.sum(zs) / np.sqrt(len(zs)))
            value, expected = (
                float(np.mean([getattr(f, n) for f in alike])) for n in ("value", "expected")
            )
            p = float(stats.norm.sf(z) if HARMONIC in name else 2 * stats.norm.sf(abs(z)))
            joint.append(Finding(name, "all", value, expected, z, p))
    return joint


def _gain_tests(textures: TextureSums) -> list[Finding]:
    """Whether the texture of odd and of even tiles differs, by each pattern of axes.

    The cells of a pattern's two signs against each other, the scatter from the cells themselves.
    """
    around = float(textures.plain[0] / textures.plain[1])
    weighted, mixed, volume = textures.squares
    variance = weighted - 2 * around * mixed + around**2 * volume
    found = []
    for (texture, balance), pattern in zip(textures.signed, PATTERNS, strict=True):
        axes = "".join(a for a, on in zip(AXES, pattern, strict=True) if on)
        name = f"texture of odd tiles on {axes}"
        if textures.cells < 8 or not variance > 0:
            found.append(Finding(name, "all", expected=around))
            continue
        excess = texture - around * balance
        z, p = student(float(excess / np.sqrt(variance)), textures.cells - 1)
        found.append(Finding(name, "all", around - excess / textures.plain[1], around, z, p))
    return found


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


def stage_residuals(
    array: Any,
    reference: Any,
    tiling: Tiling,
    *,
    colouring: str = "levels",
    memory: int = MEMORY,
    workers: int = 1,
) -> tuple[StageResidual, ...]:
    """Return residuals of a stitched box against a reference, by stage of the owning tile."""
    check_shape(array, tiling, "field")
    check_shape(reference, tiling, "reference")
    layers, last = layers_of(tiling), stages(tiling, colouring)
    blocks = choose_blocks(tiling, layers, 0, memory, workers)
    edge = [np.zeros(n, bool) for n in tiling.shape]
    for line, one in zip(edge, layers, strict=True):
        line[one.seams] = line[one.seams - 1] = True

    def sums(block: Block) -> npt.NDArray[np.float64]:
        """Per stage: voxels, residual, its square, voxels and square at seams; last: reference."""
        truth = block.read(reference).astype(np.float64)
        rest = block.read(array) - truth
        x, y, z = (line[slice(*b)] for line, b in zip(edge, block.bounds, strict=True))
        seam = x[:, None, None] | y[None, :, None] | z
        cells = np.ix_(*(o.owner[slice(*c)] for o, c in zip(layers, block.cells, strict=True)))
        of_cell = stage(tiling, tiling.index(np.stack(np.broadcast_arrays(*cells), -1)), colouring)
        found = np.zeros((last + 1, 5))
        for column, values in enumerate(
            (np.ones_like(rest), rest, rest**2, seam.astype(np.float64), seam * rest**2)
        ):
            total = block.cell_sums(values, layers, (0, 1, 2))
            np.add.at(found[:, column], of_cell, total)
        found[-1, :3] = truth.size, truth.sum(), (truth**2).sum()
        return found

    total = np.zeros((last + 1, 5))
    for found in map_blocks(sums, blocks, workers=workers):
        total += found
    if not np.isfinite(total).all():
        raise BadInput("residual: the field or the reference is not finite; repair it first")
    count, mean, square = total[-1, :3]
    spread = np.sqrt(max(square / count - (mean / count) ** 2, 0.0))
    tiles = np.bincount(stage(tiling, np.arange(tiling.size), colouring), minlength=last)
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
        for s, row in enumerate(total[:last])
    )
