"""Which bin of |k| a mode falls into, and the mass assignment's window: shared by all spectra."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectrum import Float, Spectrum
from bigbox.errors import BadInput

Window = str | None

# Mass assignment schemes and the power of sinc in their window (Hockney & Eastwood 1981).
WINDOWS = {"ngp": 1, "cic": 2, "tsc": 3}


def default_edges(shape: Sequence[int], box_size: float | Sequence[float]) -> Float:
    """Edges (h/Mpc) of bins of width 2 pi / L around its multiples, up to the Nyquist wavenumber.

    L is the longest side. No mode of a cubic box falls on an edge.
    """
    sides = box_sides(shape, box_size)
    step = 2 * np.pi / max(sides)
    count = int(nyquist(shape, sides) / step + 1e-9) + 1
    return np.asarray((np.arange(count) + 0.5) * step, np.float64)


def log_edges(shape: Sequence[int], box_size: float | Sequence[float], per_decade: int) -> Float:
    """Edges (h/Mpc) of bins of equal ratio, never narrower than the default bins: none is empty."""
    fine = default_edges(shape, box_size)
    keep, ratio = [fine[0]], 10.0 ** (1.0 / per_decade)
    for edge in fine[1:]:
        if edge >= keep[-1] * ratio * (1 - 1e-12):
            keep.append(edge)
    if keep[-1] < fine[-1]:
        keep.append(fine[-1])
    return np.array(keep)


def box_sides(shape: Sequence[int], box_size: float | Sequence[float]) -> tuple[float, ...]:
    """Sides of the box, Mpc/h: one number is the x axis of a box of cubic voxels."""
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
    """The least Nyquist wavenumber of the three axes, h/Mpc."""
    return min(np.pi * n / s for n, s in zip(shape, sides, strict=True))


def label(unit: str, normalise: bool) -> str:
    """Unit of P(k) for a field in `unit`."""
    return "(Mpc/h)^3" if normalise or unit in ("", "1") else f"(Mpc/h)^3 {unit}^2"


class Shells:
    """Sums of mode power in bins of |k|, taken block by block over the half-space of an rfftn.

    Modes with k_z = 0 or k_z = Nyquist stand for themselves, all others for their conjugate too.
    Shared by the spectra in memory and out of core, so that they bin alike.
    """

    def __init__(
        self,
        shape: Sequence[int],
        box_size: float | Sequence[float],
        edges: npt.ArrayLike | None = None,
        window: Window | tuple[Window, Window] = None,
        shot_noise: float = 0.0,
        products: int = 1,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.sides = box_sides(shape, box_size)
        self.edges = check_edges(default_edges(shape, box_size) if edges is None else edges)
        self.windows = check_windows(window)
        self.shot_noise = float(shot_noise)
        if self.shot_noise and self.windows[0] != self.windows[1]:
            raise BadInput(
                f"shot noise {shot_noise:g} with windows {self.windows[0]} and {self.windows[1]}:"
                " two different windows have no shot noise in common; set it to 0"
            )
        # Two fields give products 11, 22, 12: the first window twice, the second twice, both.
        first, second = self._order(0), self._order(1)
        self._orders = [(first, first), (second, second), (first, second)][-products:]
        steps = np.diff(self.edges)
        self._step = float(steps.mean()) if np.ptp(steps) < 1e-9 * steps[0] else 0.0
        n = len(self.edges) - 1
        self.modes = np.zeros(n, np.int64)
        self.k_sum = np.zeros(n)
        volume = math.prod(self.sides)
        self._scale = volume / float(math.prod(self.shape)) ** 2

    def _order(self, which: int) -> int:
        name = self.windows[which]
        return 0 if name is None else WINDOWS[name]

    def axes(self) -> tuple[Float, Float, Float]:
        """Wavenumbers (h/Mpc) of the rows of an rfftn on each axis; Nyquist counts as positive."""
        (nx, ny, nz), (lx, ly, lz) = self.shape, self.sides
        kx, ky = (
            np.asarray(2 * np.pi / s * np.fft.fftfreq(n, 1.0 / n), np.float64)
            for n, s in ((nx, lx), (ny, ly))
        )
        return kx, ky, np.asarray(2 * np.pi / lz * np.arange(nz // 2 + 1), np.float64)

    def add(
        self, at: tuple[slice, slice, slice], products: Sequence[npt.NDArray[Any]]
    ) -> list[Float]:
        """Sums over the modes of one block, (bins,) for each of `products`; counts the modes.

        at: the block's place in the rfftn; products: |FFT|^2 or Re(FFT1 FFT2*) of the block.
        """
        kx, ky, kz = (k[s] for k, s in zip(self.axes(), at, strict=True))
        length = np.sqrt(kx[:, None, None] ** 2 + ky[None, :, None] ** 2 + kz**2).ravel()
        number = self._bin(length)
        weight = np.full(len(kz), 2.0)
        first, nz = at[2].indices(self.shape[2] // 2 + 1)[0], self.shape[2]
        for own in (0, nz // 2) if nz % 2 == 0 else (0,):
            if first <= own < first + len(kz):
                weight[own - first] = 1.0
        weight = np.broadcast_to(weight, (len(kx), len(ky), len(kz))).ravel()
        inside = slice(1, len(self.edges))
        size = len(self.edges) + 1

        def total(values: npt.NDArray[Any]) -> Float:
            return np.asarray(np.bincount(number, values, minlength=size)[inside], np.float64)

        self.modes += np.rint(total(weight)).astype(np.int64)
        self.k_sum += total(weight * length)
        sums = []
        for product, orders in zip(products, self._orders, strict=True):
            mode = product.astype(np.float64) * self._scale
            if self.shot_noise:
                mode -= self.shot_noise * self._per_axis(at, _aliased, orders[0])
            if any(orders):
                mode /= self._per_axis(at, _sinc, sum(orders))
            sums.append(total(weight * mode.ravel()))
        return sums

    def _per_axis(
        self, at: tuple[slice, slice, slice], of: Callable[[Float, int], Float], order: int
    ) -> Float:
        """Product over the axes of a function of the half phase k h / 2 and the order."""
        x, y, z = (
            of(k[s] * (side / n) / 2, order)
            for k, s, side, n in zip(self.axes(), at, self.sides, self.shape, strict=True)
        )
        return x[:, None, None] * y[None, :, None] * z[None, None, :]

    def _bin(self, length: Float) -> npt.NDArray[np.int64]:
        """Bin 1 .. n of each |k|, 0 below the edges, n + 1 above; the zero mode is always 0."""
        if self._step:
            number = np.floor((length - self.edges[0]) / self._step) + 1
            number = np.clip(number, 0, len(self.edges)).astype(np.int64)
        else:
            number = np.searchsorted(self.edges, length, side="right")
        number[length == 0] = 0
        return number

    def spectrum(self, total: Float, kind: str, units: str) -> Spectrum:
        """The spectrum from the sums of all blocks."""
        filled = self.modes > 0
        count = np.where(filled, self.modes, 1)
        names = [w for w in dict.fromkeys(self.windows) if w]
        return Spectrum(
            k=np.where(filled, self.k_sum / count, np.nan),
            power=np.where(filled, total / count, np.nan),
            modes=self.modes.copy(),
            edges=self.edges,
            kind=kind,
            units=units,
            k_nyquist=float(nyquist(self.shape, self.sides)),
            window=" x ".join(names),
            shot_noise=self.shot_noise,
        )


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
    """Bin edges as float64; raises BadInput where they are no ascending list of two or more."""
    values = np.asarray(edges, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all() or values[0] < 0:
        raise BadInput(f"bin edges {values}: must be two or more ascending wavenumbers in h/Mpc")
    return values


def check_windows(window: Window | tuple[Window, Window]) -> tuple[Window, Window]:
    """The windows of both fields; raises BadInput for a name that does not exist."""
    both = (window, window) if window is None or isinstance(window, str) else tuple(window)
    for name in both:
        if name is not None and name not in WINDOWS:
            raise BadInput(f"window {name!r} is not known: choose {', '.join(WINDOWS)} or none")
    return both[0], both[1]
