"""Hold a power spectrum, and sum up the modes that it is made of, in bins of |k|."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput
from bigbox.store.geometry import sides_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes as Canvas

Float = npt.NDArray[np.float64]
Axes = tuple[Float, Float, Float]
Place = tuple[slice, slice, slice]

EVERYTHING: Place = (slice(None), slice(None), slice(None))

# Mass assignment schemes and the power of sinc in their window (Hockney & Eastwood 1981).
WINDOWS = {"ngp": 1, "cic": 2, "tsc": 3}

# Modes whose bins are found at a time: about 60 bytes each of temporary memory.
CHUNK_MODES = 1 << 18


@dataclass(frozen=True)
class Spectrum:
    """A power spectrum in bins of |k|; arrays of one value per bin.

    k: mean |k| of the bin's modes, h/Mpc. power: (Mpc/h)^3 x unit^2. modes: number of modes, a mode
    and its conjugate counted as two. edges: (bins + 1,) h/Mpc. errors: one standard deviation,
    like power, or None; error_kind says where they come from. A bin without modes has k and power
    NaN.
    """

    k: Float
    power: Float
    modes: npt.NDArray[np.int64]
    edges: Float
    units: str = "(Mpc/h)^3"
    errors: Float | None = None
    error_kind: str = ""
    k_nyquist: float = math.nan
    window: str = ""
    shot_noise: float = 0.0

    @property
    def delta2(self) -> Float:
        """Return the dimensionless power k^3 P / (2 pi^2), in the field's unit squared."""
        return self.k**3 * self.power / (2 * np.pi**2)

    @property
    def mode_errors(self) -> Float:
        """Return the scatter of a Gaussian field's auto spectrum: P sqrt(2 / modes)."""
        return np.abs(self.power) * np.sqrt(2.0 / np.maximum(self.modes, 1))

    def with_errors(self, errors: npt.ArrayLike, kind: str) -> Spectrum:
        """Return the spectrum with `errors` (one standard deviation per bin) and their origin."""
        return replace(self, errors=np.asarray(errors, np.float64), error_kind=kind)

    def to_xarray(self) -> xarray.Dataset:
        """Return power, error and modes over k as an xarray data set."""
        from bigbox.analysis.spectra.shown import to_xarray

        return to_xarray(self)

    def plot(self, ax: Canvas | None = None, label: str | None = None, **line: Any) -> Canvas:
        """Draw P(k) with a band of one standard deviation; return the axes, new ones if None.

        line: as for `Axes.plot`.
        """
        from bigbox.analysis.spectra.shown import draw

        return draw(self, ax, label, **line)


@dataclass(frozen=True)
class Pair:
    """The spectra of two fields and their cross spectrum, in the same bins."""

    first: Spectrum
    second: Spectrum
    cross: Spectrum

    @property
    def correlation(self) -> Float:
        """Return r(k) = P12 / sqrt(P11 P22), NaN where an auto spectrum is not > 0."""
        product = self.first.power * self.second.power
        good = (product > 0) & (self.first.power > 0)
        return np.where(good, self.cross.power / np.sqrt(np.where(good, product, 1.0)), np.nan)

    @property
    def transfer(self) -> Float:
        """Return sqrt(P11 / P22), the amplitude of the first field over the second's."""
        one, two = self.first.power, self.second.power
        good = (two > 0) & (one >= 0)
        return np.where(good, np.sqrt(np.where(good, one / two, 0.0)), np.nan)

    def to_xarray(self) -> xarray.Dataset:
        """Return the spectra, r(k) and the transfer function over k as an xarray data set."""
        from bigbox.analysis.spectra.shown import pair_to_xarray

        return pair_to_xarray(self)

    def plot(self, ax: Canvas | None = None, label: str | None = None, **line: Any) -> Canvas:
        """Draw r(k); return the axes, new ones if None."""
        from bigbox.analysis.spectra.shown import draw_correlation

        return draw_correlation(self, ax, label, **line)


class Conventions(TypedDict, total=False):
    """What a spectrum is of.

    window: "ngp", "cic" or "tsc": divide each mode by that mass assignment's window squared.
    shot_noise: (Mpc/h)^3, 1 / number density of the particles: subtracted from each mode before the
    window is divided out, with the aliased shape of the window (Jing 2005, eq. 21).
    normalise: spectrum of field / <field>. unit: the field's, for the label alone ("mK").
    """

    window: str | None
    shot_noise: float
    normalise: bool
    unit: str


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
    return sides_of(shape, box_size)


def nyquist(shape: Sequence[int], sides: Sequence[float]) -> float:
    """Return the least Nyquist wavenumber of the three axes, h/Mpc."""
    return min(np.pi * n / s for n, s in zip(shape, sides, strict=True))


def spectrum_unit(unit: str, normalise: bool, order: int = 2) -> str:
    """Return the unit of P(k), or of the bispectrum (order 3), for a field in `unit`."""
    volume = f"(Mpc/h)^{3 * (order - 1)}"
    return volume if normalise or unit in ("", "1") else f"{volume} {unit}^{order}"


class Shells:
    """Bins of |k| between ascending edges in h/Mpc. The zero mode is in none of them."""

    def __init__(self, edges: npt.ArrayLike) -> None:
        self.edges = ascending(edges, "wavenumbers in h/Mpc", 0.0)
        self.size = len(self.edges) - 1
        steps = np.diff(self.edges)
        self._step = float(steps.mean()) if np.ptp(steps) < 1e-9 * steps[0] else 0.0

    def place(self, k: Axes) -> tuple[npt.NDArray[np.int64], tuple[Float, ...]]:
        """Return the bin, 1 .. size (others: none), and |k| of each mode of a block, flat.

        k: wavenumbers of the block's rows on each axis.
        """
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


class CylinderBins:
    """Bins of (|k_parallel|, |k_perpendicular|), numbered row by row; the zero mode is in none."""

    def __init__(self, parallel: npt.ArrayLike, transverse: npt.ArrayLike, axis: int) -> None:
        self.parallel, self.transverse, self.axis = Shells(parallel), Shells(transverse), axis
        self.size = self.parallel.size * self.transverse.size

    def place(self, k: Axes) -> tuple[npt.NDArray[np.int64], tuple[Float, ...]]:
        """Return the bin of each mode, and nothing that is averaged over a bin."""
        full = np.broadcast_arrays(k[0][:, None, None], k[1][None, :, None], k[2])
        first, second = (full[a].ravel() for a in range(3) if a != self.axis)
        along = np.asarray(abs(full[self.axis].ravel()), np.float64)
        width = np.asarray(np.sqrt(first**2 + second**2), np.float64)
        # The wavenumber 0 along or across belongs to the first bin, unlike the zero mode.
        i, j = (
            np.where((at == 0) & (shells.edges[0] == 0), 1, shells.number(at))
            for shells, at in ((self.parallel, along), (self.transverse, width))
        )
        inside = (i > 0) & (i <= self.parallel.size) & (j > 0) & (j <= self.transverse.size)
        inside &= (along > 0) | (width > 0)
        number = np.where(inside, (i - 1) * self.transverse.size + j, 0)
        return number.astype(np.int64), ()


class ModeSums:
    """Sums of mode power in bins, taken block by block over the half-space of an rfftn.

    Modes with k_z = 0 or k_z = Nyquist stand for themselves, all others for their conjugate too.
    Shared by the spectra in memory and out of core, so that they bin alike. The sums of blocks
    can be taken apart and added up.
    """

    def __init__(
        self,
        shape: Sequence[int],
        box_size: float | Sequence[float],
        bins: Shells | CylinderBins,
        window: str | None = None,
        shot_noise: float = 0.0,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.sides = box_sides(shape, box_size)
        self.bins = bins
        if window is not None and window not in WINDOWS:
            raise BadInput(f"window {window!r} is not known: choose {', '.join(WINDOWS)} or none")
        self.window, self.shot_noise = window, float(shot_noise)
        self._scale = math.prod(self.sides) / float(math.prod(self.shape)) ** 2

    def block(self, at: Place, modes: Sequence[npt.NDArray[Any]]) -> Float:
        """Return the sums of a block: number of modes, coordinates, powers; each by bin.

        at: its place in the rfftn. modes: those of the one or two fields.
        """
        rows = modes[0].shape[0]
        step = max(1, CHUNK_MODES // modes[0][0].size)
        first = at[0].indices(self.shape[0])[0]
        total: Any = 0.0
        for low in range(0, rows, step):
            high = min(low + step, rows)
            place = (slice(first + low, first + high), at[1], at[2])
            total = total + self._chunk(place, [m[low:high] for m in modes])
        return np.asarray(total, np.float64)

    def _chunk(self, at: Place, modes: Sequence[npt.NDArray[Any]]) -> Float:
        axes = wavenumbers(self.shape, self.sides)
        k = (axes[0][at[0]], axes[1][at[1]], axes[2][at[2]])
        number, coordinates = self.bins.place(k)
        weight = np.full(len(k[2]), 2.0)
        first, nz = at[2].indices(self.shape[2] // 2 + 1)[0], self.shape[2]
        for own in (0, nz // 2) if nz % 2 == 0 else (0,):
            if first <= own < first + len(weight):
                weight[own - first] = 1.0
        flat = np.broadcast_to(weight, tuple(map(len, k))).ravel()
        summed = [flat, *(flat * values for values in coordinates)]
        order = 0 if self.window is None else WINDOWS[self.window]
        for product in _products(modes):
            product *= self._scale * weight
            if self.shot_noise:
                product -= self.shot_noise * weight * self._per_axis(k, _aliased, order)
            if order:
                product /= self._per_axis(k, lambda x, n: np.sinc(x / np.pi) ** n, 2 * order)
            summed.append(product.ravel())
        size = self.bins.size
        return np.array([np.bincount(number, v, size + 2)[1 : size + 1] for v in summed])

    def _per_axis(self, k: Axes, of: Callable[[Float, int], Float], order: int) -> Float:
        """Product over the axes of a function of the half phase k h / 2 and the order."""
        x, y, z = (
            of(row * (side / n) / 2, order)
            for row, side, n in zip(k, self.sides, self.shape, strict=True)
        )
        return x[:, None, None] * y[None, :, None] * z[None, None, :]

    def means(self, sums: Float) -> tuple[npt.NDArray[np.int64], Float]:
        """Return modes, and mean coordinates and powers of each bin, NaN where it has no modes."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.rint(sums[0]).astype(np.int64), sums[1:] / sums[0]

    def spectra(self, sums: Float, edges: Float, units: str) -> list[Spectrum]:
        """Return one spectrum for each product; for bins in |k|."""
        modes, (k, *powers) = self.means(sums)
        about: Any = {"window": self.window or "", "shot_noise": self.shot_noise, "units": units}
        about["k_nyquist"] = nyquist(self.shape, self.sides)
        return [Spectrum(k, power, modes, edges, **about) for power in powers]


def wavenumbers(shape: Sequence[int], sides: Sequence[float]) -> Axes:
    """Return wavenumbers (h/Mpc) of the rows of an rfftn on each axis, the z axis halved."""
    kx, ky = (
        np.asarray(2 * np.pi / s * np.fft.fftfreq(n, 1.0 / n), np.float64)
        for n, s in zip(shape[:2], sides[:2], strict=True)
    )
    return kx, ky, np.asarray(2 * np.pi / sides[2] * np.arange(shape[2] // 2 + 1), np.float64)


def _products(modes: Sequence[npt.NDArray[Any]]) -> list[Float]:
    """|FFT|^2 of one block of modes; of two, both and Re(FFT1 FFT2*)."""
    own = [m.real.astype(np.float64) ** 2 + m.imag.astype(np.float64) ** 2 for m in modes]
    if len(modes) == 1:
        return own
    a, b = modes
    cross = a.real.astype(np.float64) * b.real + a.imag.astype(np.float64) * b.imag
    return [*own, cross]


def _aliased(phase: Float, order: int) -> Float:
    """Sum of the squared window over all aliases, along one axis: what white noise comes out as."""
    s = np.sin(phase) ** 2
    if order == WINDOWS["cic"]:
        return 1 - 2 / 3 * s
    if order == WINDOWS["tsc"]:
        return 1 - s + 2 / 15 * s**2
    return np.ones_like(s)


def ascending(edges: npt.ArrayLike, what: str, least: float = -math.inf) -> Float:
    """Return bin edges as float64; raise BadInput where they are not two or more, ascending."""
    values = np.asarray(edges, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all() or values[0] < least:
        raise BadInput(f"bin edges {values}: must be two or more ascending {what}")
    return values


def divisor(mean: float, name: str) -> float:
    """Return the mean that `normalise` divides by; raise BadInput where it is zero."""
    if mean == 0 or not math.isfinite(1.0 / mean):
        raise BadInput(f"{name}: has mean {mean:g}; T_b / <T_b> needs a mean that is not zero")
    return mean


def jsonable(value: Any) -> Any:
    """Return arrays, lists, dictionaries and dataclasses as JSON; what is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: jsonable(v) for key, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
