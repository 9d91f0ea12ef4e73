"""Measure power spectra out of core: the exact FFT in two passes over the box, in bounded memory.

    P(k) = V <|delta_k|^2>,   delta_k = FFT(field) / N_voxels,   V the volume of the box

in (Mpc/h)^3 times the field's unit squared, k in h/Mpc, averaged over the modes of a bin of |k|.
The zero mode is left out. The mean |k| of a bin's modes is its k. A mode and its conjugate count as
two, so `modes / 2` are independent. The field is not changed by default; `normalise=True` takes
T_b / <T_b> (Mishra, Trotta & Viel 2025 (LODI), eqs. 15-16).

    pass 1, slabs of x      read ──► FFT over y and z ──► scratch, chunks of (x, some y, all z)
    pass 2, pencils         scratch (all x, some y, all z) ──► FFT over x ──► bins of |k|

Nothing is approximated: the modes are those of one FFT of the whole box in float32. The scratch
takes 4 bytes for each voxel of each field and is removed afterwards. Both passes run on dask.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt
import scipy.fft
import zarr

from bigbox.analysis.spectra.modes import (
    CHUNK_MODES,
    Bins,
    Conventions,
    ModeSums,
    Place,
    Shells,
    Window,
    divisor,
    power_unit,
)
from bigbox.analysis.spectra.spectrum import Pair, Spectrum
from bigbox.blockwise import map_blocks
from bigbox.errors import BadInput

MEMORY = 1 << 30

# Bytes of temporary memory for each mode whose bin is looked up, see ModeSums.
_BINNING = 80 * CHUNK_MODES


class Resources(TypedDict, total=False):
    """What a measurement out of core may use.

    Attributes
    ----------
    memory : Bytes that the blocks in work may take together, beside the libraries (0.2 GB).
    scratch : Folder for the half-transformed box, 4 bytes a voxel; None: the system's.
    workers : Threads; each has its share of the memory.
    """

    memory: int
    scratch: str | Path | None
    workers: int


class Options(Conventions, Resources):
    """Conventions and resources."""


def power(
    array: Any,
    box_size: float | Sequence[float],
    other: Any = None,
    *,
    edges: npt.ArrayLike | None = None,
    unit: str = "",
    **options: Unpack[Options],
) -> Spectrum:
    """Return the spectrum of a periodic array (X, Y, Z), or its cross spectrum with `other`.

    The arrays may be of zarr, dask, HDF5 or numpy.

    Parameters
    ----------
    box_size : Mpc/h, one number for a box of cubic voxels (its x axis) or one per axis.
    edges : h/Mpc, ascending; None: bins of width 2 pi / L around its multiples, to Nyquist.
    unit : The field's unit, for the label alone ("mK").
    **options : See `Conventions` and `Resources`.

    Raises
    ------
    BadInput
        For arrays that cannot be used, too little memory, or too little disk.
    """
    arrays = [array] if other is None else [array, other]
    return _spectra(arrays, box_size, edges, unit, options)[-1]


def pair(
    first: Any,
    second: Any,
    box_size: float | Sequence[float],
    *,
    edges: npt.ArrayLike | None = None,
    unit: str = "",
    **options: Unpack[Options],
) -> Pair:
    """Return the auto spectra of two arrays and their cross spectrum, in the same two passes."""
    return Pair(*_spectra([first, second], box_size, edges, unit, options))


def _spectra(
    arrays: Sequence[Any],
    box_size: float | Sequence[float],
    edges: npt.ArrayLike | None,
    unit: str,
    options: Options,
) -> list[Spectrum]:
    shells = Shells.of(arrays[0].shape, box_size, edges)
    sums = mode_sums(arrays, box_size, shells, **options)
    return sums.spectra(shells.edges, power_unit(unit, options.get("normalise", False)))


def mode_sums(
    arrays: Sequence[Any],
    box_size: float | Sequence[float],
    bins: Bins,
    *,
    window: Window | tuple[Window, Window] = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    **resources: Unpack[Resources],
) -> ModeSums:
    """Return the sums over all modes in any bins, for one array or two."""

    def empty() -> ModeSums:
        products = 2 * len(arrays) - 1
        return ModeSums(arrays[0].shape, box_size, bins, window, shot_noise, products)

    empty()  # refuses what is wrong before anything is read
    return collect(arrays, empty, normalise=normalise, **resources)


class Collector(Protocol):
    """What is kept of the modes: see ModeSums."""

    def add(self, at: Place, modes: Sequence[npt.NDArray[Any]]) -> None:
        """Take a block: `at` is its place in the rfftn, `modes` those of each field."""
        ...

    def merge(self, other: Self) -> None:
        """Add what was kept of other blocks."""
        ...


Kept = TypeVar("Kept", bound=Collector)


def collect(
    arrays: Sequence[Any],
    empty: Callable[[], Kept],
    *,
    normalise: bool = False,
    memory: int = MEMORY,
    scratch: str | Path | None = None,
    workers: int = 1,
) -> Kept:
    """Transform the arrays, show every mode once to collectors made by `empty`, and merge these."""
    shape = tuple(int(n) for n in arrays[0].shape)
    for other in arrays[1:]:
        if tuple(other.shape) != shape:
            raise BadInput(f"fields have shapes {shape} and {other.shape}: they must be alike")
    sizes = BlockSizes.choose(arrays, memory, workers)
    folder = Path(tempfile.gettempdir() if scratch is None else scratch)
    _check_disk(folder, sizes.scratch_bytes)
    work = Path(tempfile.mkdtemp(prefix="bigbox-spectra-", dir=folder))
    try:
        halves = [_planes(a, i, sizes, work, normalise) for i, a in enumerate(arrays)]
        return _pencils(halves, sizes, empty)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of the blocks: planes read and transformed at a time, rows of y in a pencil block.

    memory(one worker) = max of: slab * Y * Z * 4 bytes + the planes being transformed;
                                 fields * X * pencil * (Z/2 + 1) * 16 bytes + the binning.
    """

    shape: tuple[int, int, int]
    fields: int
    slab: int
    planes: int
    pencil: int
    workers: int

    @classmethod
    def choose(cls, arrays: Sequence[Any], memory: int, workers: int) -> BlockSizes:
        """Choose the largest blocks that fit; raise BadInput with the least memory needed."""
        x, y, z = (int(n) for n in arrays[0].shape)
        share = memory // max(workers, 1)
        # A plane as float32, less its mean, transformed, and as the bytes that zarr writes.
        read, transform = 4 * y * z, 3 * 8 * y * (z // 2 + 1)
        row = 2 * 8 * len(arrays) * x * (z // 2 + 1)
        least = max(read + transform, row + _BINNING)
        if share < least:
            raise BadInput(
                f"spectrum of {x} x {y} x {z} voxels: {memory / 2**20:.0f} MiB for"
                f" {workers} workers is too little, it needs {workers * least / 2**20:.0f} MiB"
            )
        planes = next(p for p in (8, 4, 2, 1) if p == 1 or p <= min(share // 4 // transform, x))
        # Planes of x in a chunk of the array; of dask, chunks are tuples.
        chunk = int(np.ravel((getattr(arrays[0], "chunks", None) or (1,))[0])[0])
        slab = max(1, min(x, (share - planes * transform) // read))
        # Whole chunks of the box where they fit: none is read twice. Whole chunks of the scratch
        # in any case: each has one writer.
        if slab >= chunk:
            slab = min(slab // chunk * chunk, max(chunk, 64))
        slab = slab // planes * planes
        pencil = max(1, min(y, (share - _BINNING) // row, 64))
        return cls((x, y, z), len(arrays), slab, planes, pencil, max(workers, 1))

    @property
    def scratch_bytes(self) -> int:
        """Return the bytes of disk that the half-transformed fields take."""
        x, y, z = self.shape
        return 8 * self.fields * x * y * (z // 2 + 1)


@dataclass(frozen=True)
class _HalfTransform:
    """A field transformed over y and z, without its planes' means; and those, over the mean."""

    modes: zarr.Array[Any]
    means: npt.NDArray[np.float64]
    factor: float


def _planes(
    array: Any, number: int, sizes: BlockSizes, work: Path, normalise: bool
) -> _HalfTransform:
    """Pass 1 for one field."""
    x, y, z = sizes.shape
    modes = zarr.create_array(
        work / f"{number}.zarr",
        shape=(x, y, z // 2 + 1),
        chunks=(sizes.planes, sizes.pencil, z // 2 + 1),
        dtype="complex64",
        compressors=None,
        fill_value=0,
    )

    def one(first: int) -> tuple[npt.NDArray[np.float64], float, float]:
        last = min(first + sizes.slab, x)
        slab = np.asarray(array[first:last], np.float32)
        means = slab.mean(axis=(1, 2), dtype=np.float64)
        least, most = float(slab.min()), float(slab.max())
        if not np.isfinite(means).all():
            bad = np.argwhere(~np.isfinite(slab))[0] + (first, 0, 0)
            raise BadInput(
                f"field {number + 1}: voxel {tuple(int(i) for i in bad)} is not finite;"
                " paint or repair it first"
            )
        for low in range(first, last, sizes.planes):
            high = min(low + sizes.planes, last)
            rows = slice(low - first, high - first)
            part = slab[rows] - means[rows, None, None].astype(np.float32)
            half = scipy.fft.rfft2(part, axes=(1, 2), overwrite_x=True)
            # Exact instead: the rounded means are not what was to be taken away.
            half[:, 0, 0] = 0
            modes[low:high] = half
        return means, least, most

    found = list(map_blocks(one, range(0, x, sizes.slab), workers=sizes.workers))
    means = np.concatenate([m for m, _, _ in found])
    least, most = min(low for _, low, _ in found), max(high for _, _, high in found)
    if least == most:
        raise BadInput(f"field {number + 1}: is constant ({least:g}): it has no spectrum")
    mean = float(means.mean())
    factor = 1.0 / divisor(mean, f"field {number + 1}") if normalise else 1.0
    return _HalfTransform(modes, means - mean, factor)


def _pencils(
    halves: Sequence[_HalfTransform], sizes: BlockSizes, empty: Callable[[], Kept]
) -> Kept:
    """Pass 2: transform along x and bin."""
    _, y, z = sizes.shape

    def one(first: int) -> Kept:
        last = min(first + sizes.pencil, y)
        blocks = []
        for half in halves:
            block = np.asarray(half.modes[:, first:last])
            if first == 0:
                block[:, 0, 0] = half.means * (y * z)
            block = scipy.fft.fft(block, axis=0, overwrite_x=True)
            if half.factor != 1.0:
                block *= np.float32(half.factor)
            blocks.append(block)
        sums = empty()
        sums.add((slice(None), slice(first, last), slice(None)), blocks)
        return sums

    total = empty()
    for sums in map_blocks(one, range(0, y, sizes.pencil), workers=sizes.workers):
        total.merge(sums)
    return total


def _check_disk(folder: Path, need: int) -> None:
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder for the scratch; make it or choose another")
    free = shutil.disk_usage(folder).free
    if need > free:
        raise BadInput(
            f"{folder}: the scratch needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free;"
            " choose another folder with --scratch or make room"
        )
