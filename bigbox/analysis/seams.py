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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from bigbox.analysis.planes import (
    MEMORY,
    PATTERNS,
    AxisPlanes,
    Block,
    Blocks,
    Float,
    Gains,
    Scores,
    all_layers,
    check_shape,
    each,
    measure,
    sample_values,
)
from bigbox.errors import BadInput
from scheduler.stages import stage, stages
from scheduler.tiling import AXES, Tiling

HARMONIC = " at order "

# Beyond this excess kurtosis, or skewness, the tests are made on the field's normal scores.
HEAVY_TAIL, SKEW = 1.0, 0.5

# Multiples of the tile frequency; halves see what alternates from tile to tile.
ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)

# Frequencies on either side of a multiple that tell its power without seams.
NEIGHBOURS = 6

# Bonferroni's bound on the tests' p, times this: their tails are those of Student's t and of F with
# degrees of freedom that were themselves estimated. Measured in tests/benchmarks/SPECTRA.md.
CAUTION = 3.0

# Signs over the cells of a plane, see AxisPlanes.signed.
SIGNS = ("none", "second axis", "third axis", "both")


@dataclass(frozen=True)
class Finding:
    """One question: `value` beside `expected` without seams, its significance z and tail p.

    z: standard deviations of a Gaussian with the same p. Two-sided, but for the harmonics, where
    only an excess counts.
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

    scores: whether the tests and harmonics are of the field's normal scores; ratio, kink and
    profiles are of the field itself in any case.
    p_value: bound on the chance that a box without seams has so strong a test among `tests`;
    alarm: whether it is below `false_alarm_rate`. mean, rms: of the field, in its unit.
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
    scores: bool
    false_alarm_rate: float
    p_value: float
    alarm: bool
    strongest: Finding

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON; NaN becomes null."""
        return _json(asdict(self))


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


class Look:
    """The planes of one axis, those at seams beside those away from them.

    seam             planes at a distance of `near` and more are clean; a plane is compared
     |               with the mean of clean planes at a distance of near .. far
    -+--------------------------------------+-
     |   near   clean  clean  clean   near  |
    """

    def __init__(self, axis: AxisPlanes, name: str, stride: int, periodic: bool) -> None:
        self.axis, self.name, self.periodic = axis, name, periodic
        self.seams = axis.layers.seams
        self.near, self.far = axis.reach + 1, stride // 2 + 2
        n = axis.layers.length
        away = np.full(n, n)
        for shift in range(-self.far, self.far + 1):
            at = self.seams + shift
            at = at % n if periodic else at[(at >= 0) & (at < n)]
            away[at] = np.minimum(away[at], abs(shift))
        self.clean = away >= self.near

    def ratio(self, name: str, profile: Float) -> tuple[Finding, float]:
        """Mean at the seams over the mean elsewhere, its error, and the test."""
        found = self.contrast(name, profile)
        seam = np.zeros(len(profile), bool)
        seam[self.seams] = True
        inside = np.nanmean(profile[~seam])
        if not len(self.seams) or not inside > 0:
            return Finding(name, self.name, np.nan, 1.0, np.nan, np.nan), np.nan
        value = float(np.nanmean(profile[seam]) / inside)
        error = self._scatter(self._against(profile))[0] / np.sqrt(len(self.seams))
        return Finding(name, self.name, value, 1.0, found.z, found.p), float(error / inside)

    def contrast(self, name: str, profile: Float, offset: float = 0.0) -> Finding:
        """Seam planes against the clean planes around them; two-sided Student test.

        "texture" and "mean" are averaged over the two planes on either side of the seam first.
        """
        smooth = profile
        if name in ("texture", "mean"):
            smooth = np.mean([self._shifted(profile, s) for s in (-2, -1, 0, 1)], axis=0)
        against = self._against(smooth)
        scatter, freedom = self._scatter(against)
        here = against[self.seams]
        here = here[np.isfinite(here)]
        if not len(here) or not scatter > 0:
            return Finding(name, self.name, np.nan, np.nan, np.nan, np.nan)
        t = float(here.mean() / (scatter / np.sqrt(len(here))))
        around = float(np.nanmean(smooth[self.clean])) + offset
        return Finding(name, self.name, around + float(here.mean()), around, *_student(t, freedom))

    def steps(self) -> list[Finding]:
        """Steps of the field from tile to tile, of fixed sign, alternating, and at random."""
        weights = self._step_weights()
        if weights is None:
            return []
        sign = self.axis.layers.sign
        # From the tile before the seam to the tile after it.
        after = np.searchsorted(self.axis.layers.starts, self.seams, side="right") - 1
        alternate = (sign[after] - sign[after - 1]) / 2
        found = []
        for column, name in enumerate(SIGNS):
            step = self._estimate(self.axis.signed[:, column], weights)
            scatter, freedom = self._scatter(step)
            turns = [("alternating", alternate)]
            if column == 0:
                turns.append(("equal", np.ones(len(self.seams))))
            for turn, sense in turns:
                here = step[self.seams] * sense
                use = np.isfinite(here) & (sense != 0)
                label = f"{turn} step" + (f", sign of {name}" if column else "")
                if not use.any() or not scatter > 0:
                    found.append(Finding(label, self.name, np.nan, 0.0, np.nan, np.nan))
                    continue
                value = float(here[use].mean())
                t = value / (scatter / np.sqrt(use.sum()))
                found.append(Finding(label, self.name, value, 0.0, *_student(t, freedom)))
        square = np.einsum("xjk,j,k->x", self.axis.product, weights, weights)
        found.append(self.contrast("random step, squared", square))
        return found

    def _step_weights(self) -> Float | None:
        """Best linear unbiased estimate of a step between planes, (2 reach,), they add up to 0.

        Generalised least squares for a constant and a step, with the covariance of the cells'
        means that the clean planes show.
        """
        k = 2 * self.axis.reach
        if not self.clean.any():
            return None
        covariance = np.nanmean(self.axis.product[self.clean], axis=0)
        if not np.isfinite(covariance).all() or not np.trace(covariance) > 0:
            return None
        # A part in a million of white noise: smooth fields have windows that are all but singular.
        covariance = covariance + np.eye(k) * (1e-6 * np.trace(covariance) / k)
        model = np.stack([np.ones(k), np.arange(k) >= k // 2], axis=1).astype(np.float64)
        solved = np.linalg.solve(covariance, model)
        return np.asarray(np.linalg.solve(model.T @ solved, solved.T)[1])

    def _estimate(self, profile: Float, weights: Float) -> Float:
        """Weighted sum over the planes around each border, NaN where there are none."""
        reach = self.axis.reach
        parts = [w * self._shifted(profile, j - reach) for j, w in enumerate(weights)]
        return np.asarray(np.sum(parts, axis=0), np.float64)

    def _shifted(self, profile: Float, by: int) -> Float:
        """Value `by` planes further on; NaN past an open end."""
        moved = np.roll(profile, -by).astype(np.float64)
        if not self.periodic and by > 0:
            moved[-by:] = np.nan
        if not self.periodic and by < 0:
            moved[:-by] = np.nan
        return moved

    def _against(self, profile: Float) -> Float:
        """Each plane less the mean of the clean planes at a distance of near .. far."""
        good = self.clean & np.isfinite(profile)
        total, count = np.zeros(len(profile)), np.zeros(len(profile))
        for shift in range(self.near, self.far + 1):
            for by in (-shift, shift):
                if 2 * shift >= len(profile):
                    continue
                use = self._shifted(good.astype(np.float64), by)
                value = self._shifted(np.where(good, profile, 0.0), by)
                total += np.nan_to_num(value)
                count += np.nan_to_num(use)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(profile - total / count)

    def _scatter(self, values: Float) -> tuple[float, float]:
        """Standard deviation over the clean planes, and its degrees of freedom.

        Neighbouring planes are alike: n planes with autocorrelation rho_l tell the variance as
        well as n / (1 + 2 sum rho_l^2) independent ones.
        """
        good = self.clean & np.isfinite(values)
        if good.sum() < 3:
            return np.nan, np.nan
        centred = np.where(good, values - values[good].mean(), 0.0)
        variance = float((centred**2).sum() / good.sum())
        if not variance > 0:
            return np.nan, np.nan
        total = 1.0
        for lag in range(1, min(self.far, len(values) // 4) + 1):
            pairs = good & np.roll(good, lag)
            if pairs.sum() >= 8:
                rho = float((centred * np.roll(centred, lag))[pairs].mean() / variance)
                total += 2 * rho**2
        freedom = max(good.sum() / total, 2.0) - 1
        return float(np.sqrt(variance * (freedom + 1) / freedom)), freedom

    def harmonics(
        self, quantity: str, profile: Float, tiling: Tiling, axis: int, voxel: float
    ) -> Harmonics:
        """Power at multiples of the tile frequency over that of the frequencies beside them.

        The phase runs evenly from each tile's origin to the next, so that strides that differ by
        a voxel do not smear the lines.
        """
        count, n = tiling.counts[axis], tiling.shape[axis]
        origins = tiling.origins(axis).astype(np.float64)
        edges = np.append(origins, n if self.periodic else origins[-1] + n / max(count, 1))
        phase = np.interp(np.arange(n), edges, np.arange(count + 1))
        centred = profile - profile.mean()

        def power(order: float) -> float:
            return float(abs(np.exp(2j * np.pi * order * phase) @ centred) ** 2)

        orders = [o for o in ORDERS if (o % 1 == 0 or count % 2 == 0) and o * count < n / 2]
        lines = {round(o * count) for o in orders}
        ratio, ps = [], []
        for order in orders:
            line = round(order * count)
            # In pairs: between two frequencies a spectrum that falls with k lies below their mean.
            beside = [
                line + d * side
                for d in range(1, min(NEIGHBOURS, line - 1) + 1)
                for side in (-1, 1)
                if not lines & {line - d, line + d}
            ]
            around = [power(j / count) for j in beside]
            if len(around) < 2 or not sum(around) > 0:
                ratio.append(np.nan)
                ps.append(np.nan)
                continue
            ratio.append(power(order) / float(np.mean(around)))
            ps.append(float(stats.f.sf(ratio[-1], 2, 2 * len(around))))
        p = np.array(ps)
        wave = 2 * np.pi * np.array(orders) * count / (n * voxel)
        return Harmonics(self.name, quantity, np.array(orders), wave, np.array(ratio), _z_of(p), p)

    def profile(self, offset: float) -> Profile:
        """Mean and variance folded on the seams, by distance into the tile painted later."""
        layers, n = self.axis.layers, self.axis.layers.length
        first = np.searchsorted(layers.starts, np.arange(n), side="right") - 1
        start, end = layers.starts[first], np.append(layers.starts[1:], n)[first]
        before, after = np.arange(n) - start, end - 1 - np.arange(n)
        # A layer of a lower colour than its neighbour lies on the negative side of their seam.
        into = np.where(layers.sign[first] < 0, 1, -1)
        nearest = np.minimum(before, after)
        distance = np.where(into > 0, nearest, -1 - nearest)
        variance = self.axis.square - self.axis.mean**2
        values = np.unique(distance)
        rows = [self._fold(distance == d, variance) for d in values]
        columns = [np.array(c) for c in zip(*rows, strict=True)]
        return Profile(
            self.name,
            values.astype(np.int64),
            columns[0] + offset,
            columns[1],
            columns[2],
            columns[3],
            columns[4].astype(np.int64),
        )

    def _fold(self, at: npt.NDArray[np.bool_], variance: Float) -> tuple[float, ...]:
        count = int(at.sum())
        row: list[float] = []
        for values in (self.axis.mean[at], variance[at]):
            spread = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
            row += [float(values.mean()), float(spread)]
        return (*row, count)


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

    def sums(block: Block) -> Float:
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
        z, p = _student(float(excess / np.sqrt(variance)), gains.cells - 1)
        found.append(Finding(name, "all", around - excess / gains.plain[1], around, z, p))
    return found


def _student(t: float, freedom: float) -> tuple[float, float]:
    """(z, two-sided p) of a t value; z stays finite where p is too small for a number."""
    log_half = float(stats.t.logsf(abs(t), freedom))
    p = float(min(1.0, 2 * np.exp(log_half)))
    z = float(stats.norm.isf(p / 2)) if p > 1e-300 else abs(t)
    return float(np.copysign(z, t)), p


def _z_of(p: Float) -> Float:
    """z of one-sided p, positive where there is more than expected."""
    return np.asarray(stats.norm.isf(np.clip(p, 1e-300, 1 - 1e-16)), np.float64)


def _voxels(box_size: float | Sequence[float], shape: tuple[int, int, int]) -> tuple[float, ...]:
    if isinstance(box_size, (int, float)):
        return (float(box_size) / shape[0],) * 3
    return tuple(float(s) / n for s, n in zip(box_size, shape, strict=True))


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
