"""Test the planes at the seams of one axis against the planes away from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from bigbox.analysis.seams.planes import AxisPlanes
from bigbox.analysis.spectra.modes import Float
from bigbox.scheduler.tiling import Tiling

# Multiples of the tile frequency; halves see what alternates from tile to tile.
ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)

# Frequencies on either side of a multiple that tell its power without seams.
NEIGHBOURS = 6

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


class AxisTests:
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
        """Return the mean at the seams over the mean elsewhere, its error, and the test."""
        found = self.contrast(name, profile)
        seam = np.zeros(len(profile), bool)
        seam[self.seams] = True
        inside = np.nanmean(profile[~seam])
        if not len(self.seams) or not inside > 0:
            return Finding(name, self.name, expected=1.0), np.nan
        value = float(np.nanmean(profile[seam]) / inside)
        error = self._scatter(self._against(profile))[0] / np.sqrt(len(self.seams))
        return Finding(name, self.name, value, 1.0, found.z, found.p), float(error / inside)

    def contrast(self, name: str, profile: Float, offset: float = 0.0) -> Finding:
        """Test seam planes against the clean planes around them; two-sided Student test.

        "texture" and "mean" are averaged over the two planes on either side of the seam first.
        """
        smooth = profile
        if name in ("texture", "mean"):
            smooth = np.mean([self._shifted(profile, s) for s in (-2, -1, 0, 1)], axis=0)
        against = self._against(smooth)
        here = against[self.seams]
        step, z, p = self._student(here[np.isfinite(here)], against)
        if not np.isfinite(step):
            return Finding(name, self.name)
        around = float(np.nanmean(smooth[self.clean])) + offset
        return Finding(name, self.name, around + step, around, z, p)

    def _student(self, here: Float, planes: Float) -> tuple[float, float, float]:
        """Return the mean of the values `here`, its z and p by the scatter of the clean planes."""
        scatter, freedom = self._scatter(planes)
        if not len(here) or not scatter > 0:
            return np.nan, np.nan, np.nan
        mean = float(here.mean())
        return mean, *student(mean / (scatter / np.sqrt(len(here))), freedom)

    def steps(self) -> list[Finding]:
        """Test for steps from tile to tile, of fixed sign, alternating, and at random."""
        weights = self._step_weights()
        if weights is None:
            return []
        sign = self.axis.layers.sign
        # From the tile before the seam to the tile after it.
        after = np.searchsorted(self.axis.layers.starts, self.seams, side="right") - 1
        alternate = (sign[after] - sign[after - 1]) / 2
        found = []
        for column, name in enumerate(SIGNS):
            line, reach = self.axis.signed[:, column], self.axis.reach
            # Over the planes around each border.
            parts = [w * self._shifted(line, j - reach) for j, w in enumerate(weights)]
            step = np.asarray(np.sum(parts, axis=0), np.float64)
            turns = [("alternating", alternate)]
            if column == 0:
                turns.append(("equal", np.ones(len(self.seams))))
            for turn, sense in turns:
                here = step[self.seams] * sense
                value, z, p = self._student(here[np.isfinite(here) & (sense != 0)], step)
                label = f"{turn} step" + (f", sign of {name}" if column else "")
                found.append(Finding(label, self.name, value, 0.0, z, p))
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
        """Return the standard deviation over the clean planes, and its degrees of freedom.

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

    def harmonics(self, quantity: str, profile: Float, tiling: Tiling, axis: int) -> Harmonics:
        """Compare power at multiples of the tile frequency with that of frequencies beside them.

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
            known = len(around) >= 2 and sum(around) > 0
            ratio.append(power(order) / float(np.mean(around)) if known else np.nan)
            ps.append(float(stats.f.sf(ratio[-1], 2, 2 * len(around))) if known else np.nan)
        p = np.array(ps)
        # Positive where there is more than expected.
        z = np.asarray(stats.norm.isf(np.clip(p, 1e-300, 1 - 1e-16)), np.float64)
        return Harmonics(self.name, quantity, np.array(orders), np.array(ratio), z, p)

    def profile(self, offset: float) -> Profile:
        """Return mean and variance folded on the seams, by distance into the tile painted later."""
        layers, n = self.axis.layers, self.axis.layers.length
        first = np.searchsorted(layers.starts, np.arange(n), side="right") - 1
        start, end = layers.starts[first], np.append(layers.starts[1:], n)[first]
        before, after = np.arange(n) - start, end - 1 - np.arange(n)
        # A layer of a lower colour than its neighbour lies on the negative side of their seam.
        into = np.where(layers.sign[first] < 0, 1, -1)
        nearest = np.minimum(before, after)
        distance = np.where(into > 0, nearest, -1 - nearest)
        values, planes = np.unique(distance, return_counts=True)
        folded = []
        for line in (self.axis.mean, self.axis.square - self.axis.mean**2):
            parts = [line[distance == d] for d in values]
            errors = [p.std(ddof=1) / np.sqrt(len(p)) if len(p) > 1 else np.nan for p in parts]
            folded += [np.array([part.mean() for part in parts]), np.array(errors)]
        mean, mean_error, variance, variance_error = folded
        mean = mean + offset
        return Profile(self.name, values, mean, mean_error, variance, variance_error, planes)


def student(t: float, freedom: float) -> tuple[float, float]:
    """Return (z, two-sided p) of a t value; z stays finite where p is too small for a number."""
    log_half = float(stats.t.logsf(abs(t), freedom))
    p = float(min(1.0, 2 * np.exp(log_half)))
    z = float(stats.norm.isf(p / 2)) if p > 1e-300 else abs(t)
    return float(np.copysign(z, t)), p
