"""Sum modes in bins of |k| and divide out the mass assignment's window: shared by all spectra."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.spectrum import Float, Spectrum
from bigbox.errors import BadInput

Window = str | None
Axes = tuple[Float, Float, Float]
Place = tuple[slice, slice, slice]

EVERYTHING: Place = (slice(None), slice(None), slice(None))

# Mass assignment schemes and the power of sinc in their window (Hockney & Eastwood 1981).
WINDOWS = {"ngp": 1, "cic": 2, "tsc": 3}

# Modes whose bins are found at a time: about 60 bytes each of temporary memory.
CHUNK_MODES = 1 << 18


class Conventions(TypedDict, total=False):
    """What a spectrum is of.

    Attributes
    ----------
    window : "ngp", "cic" or "tsc": divide each mode by that mass assignment's window squared; two
        of them for a cross spectrum of fields that were assigned differently.
    shot_noise : (Mpc/h)^3, 1 / number density of the particles: subtracted from each mode before
        the window is divided out, with the aliased shape of the window (Jing 2005, eq. 21).
    normalise : Spectrum of field / <field>.
    """

    window: Window | tuple[Window, Window]
    shot_noise: float
    normalise: bool


def default_edges(shape: Sequence[int], box_size: float | Sequence[float]) -> Float:
    """Return edges (h/Mpc) of bins of width 2 pi / L around its multiples, up to Nyquist.

    L is the longest side. No mode of a cubic box falls on an edge.
    """
    sides = box_sides(shape, box_size)
    step = 2 * np.pi / max(sides)
    count = int(nyquist(shape, sides) / step + 1e-9) + 1
    return np.asarray((np.arange(count) + 0.5) * step, np.float64)


def log_edges(shape: Sequence[int], box_size: float | Sequence[float], per_decade: int) -> Float:
    """Return edges (h/Mpc) of bins of equal ratio, none narrower than the default bins or empty."""
    fine = default_edges(shape, box_size)
    keep, ratio = [fine[0]], 10.0 ** (1.0 / per_decade)
    for edge in fine[1:]:
        if edge >= keep[-1] * ratio * (1 - 1e-12):
            keep.append(edge)
    if keep[-1] < fine[-1]:
        keep.append(fine[-1])
    return np.array(keep)


def box_sides(shape: Sequence[int], box_size: float | Sequence[float]) -> tuple[float, ...]:
    """Return the sides of the box, Mpc/h: one number is the x axis of a box of cubic voxels."""
    if len(shape) != 3:
        raise BadInput(f"field has {len(shape)} dimensions {tuple(shape)}: spectra need 3")
    if isinstance(box_size, (int, float)):
        sides = tuple(float(box_size) * n / shape[0] for n in shape)
    else:
        sides = tuple(float(s) for s in box_size)
    if len(sides) != 3 or not all(math.isfinite(s) and s > 0 for s in sides):
        raise BadInput(f"box size {box_size}: must be one or three lengths > 0 in Mpc/h")
    return sides


def nyquist(shape: Sequence[int], sides: Sequence[float]) -> float:
    """Return the least Nyquist wavenumber of the three axes, h/Mpc."""
    return min(np.pi * n / s for n, s in zip(shape, sides, strict=True))


def power_unit(unit: str, normalise: bool) -> str:
    """Return the unit of P(k) for a field in `unit`."""
    return "(Mpc/h)^3" if normalise or unit in ("", "1") else f"(Mpc/h)^3 {unit}^2"


class Bins(Protocol):
    """Which bin a mode falls into."""

    size: int
    coordinates: int  # that are averaged over each bin

    def place(self, k: Axes) -> tuple[npt.NDArray[np.int64], tuple[Float, ...]]:
        """Return bins of a block of modes, 1 .. size (others: none), and what to average there.

        k: wavenumbers of the block's rows on each axis; all arrays are flat, in C order.
        """
        ...


class Shells:
    """Bins of |k| between ascending edges in h/Mpc. The zero mode is in none of them."""

    coordinates = 1

    def __init__(self, edges: npt.ArrayLike) -> None:
        self.edges = check_edges(edges)
        self.size = len(self.edges) - 1
        steps = np.diff(self.edges)
        self._step = float(steps.mean()) if np.ptp(steps) < 1e-9 * steps[0] else 0.0

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        box_size: float | Sequence[float],
        edges: npt.ArrayLike | None = None,
    ) -> Shells:
        """Return bins between `edges`, or the default ones of a box."""
        return cls(default_edges(shape, box_size) if edges is None else edges)

    def place(self, k: Axes) -> tuple[npt.NDArray[np.int64], tuple[Float, ...]]:
        """Return bin and |k| of each mode."""
        kx, ky, kz = k
        length = np.sqrt((kx[:, None] ** 2 + ky**2)[:, :, None] + kz**2).ravel()
        return self.number(length), (length,)

    def number(self, length: Float) -> npt.NDArray[np.int64]:
        """Return the bin of each wavenumber."""
        number: npt.NDArray[np.int64]
        if self._step:
            # Equal steps are counted off, which takes a tenth of the time of a search.
            number = ((length - (self.edges[0] - self._step)) * (1 / self._step)).astype(np.int64)
            np.clip(number, 0, self.size + 1, out=number)
        else:
            number = np.searchsorted(self.edges, length, side="right").astype(np.int64)
        number[length == 0] = 0
        return number


class ModeSums:
    """Sums of mode power in bins, taken block by block over the half-space of an rfftn.

    Modes with k_z = 0 or k_z = Nyquist stand for themselves, all others for their conjugate too.
    Shared by the spectra in memory and out of core, so that they bin alike. The sums of blocks
    can be taken apart and merged.
    """

    def __init__(
        self,
        shape: Sequence[int],
        box_size: float | Sequence[float],
        bins: Bins,
        window: Window | tuple[Window, Window] = None,
        shot_noise: float = 0.0,
        products: int = 1,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.sides = box_sides(shape, box_size)
        self.bins = bins
        self.windows = check_windows(window)
        self.shot_noise = float(shot_noise)
        if self.shot_noise and self.windows[0] != self.windows[1]:
            raise BadInput(
                f"shot noise {shot_noise:g} with windows {self.windows[0]} and {self.windows[1]}:"
                " two different windows have no shot noise in common; set it to 0"
            )
        # Two fields give products 11, 22, 12: the first window twice, the second twice, both.
        first, second = (0 if w is None else WINDOWS[w] for w in self.windows)
        self._orders = [(first, first), (second, second), (first, second)][-products:]
        # Number of modes, coordinates, powers.
        self._sums = np.zeros((1 + bins.coordinates + products, bins.size))
        self._scale = math.prod(self.sides) / float(math.prod(self.shape)) ** 2

    @property
    def nyquist(self) -> float:
        """Return the least Nyquist wavenumber of the three axes, h/Mpc."""
        return nyquist(self.shape, self.sides)

    def add(self, at: Place, modes: Sequence[npt.NDArray[Any]]) -> None:
        """Add a block: `at` is its place in the rfftn, `modes` the one or two fields' modes."""
        rows = modes[0].shape[0]
        step = max(1, CHUNK_MODES // modes[0][0].size)
        first = at[0].indices(self.shape[0])[0]
        for low in range(0, rows, step):
            high = min(low + step, rows)
            place = (slice(first + low, first + high), at[1], at[2])
            self._add(place, _products([m[low:high] for m in modes], len(self._orders)))

    def _add(self, at: Place, products: Sequence[Float]) -> None:
        axes = wavenumbers(self.shape, self.sides)
        k = (axes[0][at[0]], axes[1][at[1]], axes[2][at[2]])
        number, coordinates = self.bins.place(k)
        weight = np.full(len(k[2]), 2.0)
        first, nz = at[2].indices(self.shape[2] // 2 + 1)[0], self.shape[2]
        for own in (0, nz // 2) if nz % 2 == 0 else (0,):
            if first <= own < first + len(weight):
                weight[own - first] = 1.0
        flat = np.broadcast_to(weight, tuple(map(len, k))).ravel()
        for total, values in zip(self._sums, (1.0, *coordinates), strict=False):
            total += self._total(number, flat * values)
        powers = self._sums[-len(products) :]
        for total, product, orders in zip(powers, products, self._orders, strict=True):
            product *= self._scale * weight
            if self.shot_noise:
                product -= self.shot_noise * weight * self._per_axis(k, _aliased, orders[0])
            if any(orders):
                product /= self._per_axis(k, _sinc, sum(orders))
            total += self._total(number, product.ravel())

    def _total(self, number: npt.NDArray[np.int64], values: Float) -> Float:
        sums = np.bincount(number, values, minlength=self.bins.size + 2)
        return np.asarray(sums[1 : self.bins.size + 1], np.float64)

    def _per_axis(self, k: Axes, of: Callable[[Float, int], Float], order: int) -> Float:
        """Product over the axes of a function of the half phase k h / 2 and the order."""
        x, y, z = (
            of(row * (side / n) / 2, order)
            for row, side, n in zip(k, self.sides, self.shape, strict=True)
        )
        return x[:, None, None] * y[None, :, None] * z[None, None, :]

    def merge(self, other: ModeSums) -> None:
        """Add the sums of other blocks of the same box."""
        self._sums += other._sums

    def means(self) -> tuple[npt.NDArray[np.int64], list[Float], list[Float]]:
        """Return modes, mean coordinates and mean power of each bin, NaN where it has no modes."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = list(self._sums[1:] / self._sums[0])
        power = len(means) - len(self._orders)
        return np.rint(self._sums[0]).astype(np.int64), means[:power], means[power:]

    def spectra(self, edges: Float, units: str) -> list[Spectrum]:
        """Return one spectrum for each product; for bins in |k|."""
        modes, (k, *_), power = self.means()
        names = [w for w in dict.fromkeys(self.windows) if w]
        kinds = ["auto", "auto", "cross"] if len(power) == 3 else ["auto"]
        return [
            Spectrum(
                k=k,
                power=p,
                modes=modes,
                edges=edges,
                kind=kind,
                units=units,
                k_nyquist=self.nyquist,
                window=" x ".join(names),
                shot_noise=self.shot_noise,
            )
            for p, kind in zip(power, kinds, strict=True)
        ]


def wavenumbers(shape: Sequence[int], sides: Sequence[float]) -> Axes:
    """Return wavenumbers (h/Mpc) of the rows of an rfftn on each axis, the z axis halved."""
    kx, ky = (
        np.asarray(2 * np.pi / s * np.fft.fftfreq(n, 1.0 / n), np.float64)
        for n, s in zip(shape[:2], sides[:2], strict=True)
    )
    return kx, ky, np.asarray(2 * np.pi / sides[2] * np.arange(shape[2] // 2 + 1), np.float64)


def _products(modes: Sequence[npt.NDArray[Any]], count: int) -> list[Float]:
    """|FFT|^2 of one block of modes; of two, both and Re(FFT1 FFT2*), or this alone."""
    a, b = modes[0], modes[-1]
    cross = a.real.astype(np.float64) * b.real + a.imag.astype(np.float64) * b.imag
    if count == 1:
        return [cross]
    own = (m.real.astype(np.float64) ** 2 + m.imag.astype(np.float64) ** 2 for m in modes)
    return [*own, cross]


def _sinc(phase: Float, order: int) -> Float:
    return np.asarray(np.sinc(phase / np.pi) ** order, np.float64)


def _aliased(phase: Float, order: int) -> Float:
    """Sum of the squared window over all aliases, along one axis: what white noise comes out as."""
    s = np.sin(phase) ** 2
    if order == WINDOWS["cic"]:
        return 1 - 2 / 3 * s
    if order == WINDOWS["tsc"]:
        return 1 - s + 2 / 15 * s**2
    return np.ones_like(s)


def check_edges(edges: npt.ArrayLike) -> Float:
    """Return bin edges as float64; raise BadInput where they are not two or more, ascending."""
    values = np.asarray(edges, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all() or values[0] < 0:
        raise BadInput(f"bin edges {values}: must be two or more ascending wavenumbers in h/Mpc")
    return values


def check_windows(window: Window | tuple[Window, Window]) -> tuple[Window, Window]:
    """Return the windows of both fields; raise BadInput for a name that does not exist."""
    both = (window, window) if window is None or isinstance(window, str) else tuple(window)
    for name in both:
        if name is not None and name not in WINDOWS:
            raise BadInput(f"window {name!r} is not known: choose {', '.join(WINDOWS)} or none")
    return both[0], both[1]


def divisor(mean: float, name: str) -> float:
    """Return the mean that `normalise` divides by; raise BadInput where it is zero."""
    if mean == 0 or not math.isfinite(1.0 / mean):
        raise BadInput(f"{name}: has mean {mean:g}; T_b / <T_b> needs a mean that is not zero")
    return mean
