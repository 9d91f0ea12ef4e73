"""Power spectra out of core: the exact FFT in two passes over the box, in bounded memory.

    pass 1, slabs of x      read ──► FFT over y and z ──► scratch, chunks of (x, some y, all z)
    pass 2, pencils         scratch (all x, some y, all z) ──► FFT over x ──► bins of |k|

Nothing is approximated: the modes are those of one FFT of the whole box in float32, and they fall
into the same bins as in `bigbox.analysis.power`. The scratch takes 4 bytes for each voxel of each
field and is removed afterwards. Both passes run on dask's threads.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import dask
import numpy as np
import numpy.typing as npt
import scipy.fft
import zarr

from bigbox.analysis.shells import (
    CHUNK_MODES,
    Bins,
    ModeSums,
    Shells,
    Window,
    default_edges,
    label,
    mean_of,
)
from bigbox.analysis.spectrum import Pair, Spectrum
from bigbox.errors import BadInput

MEMORY = 1 << 30

# Bytes of temporary memory for each mode whose bin is looked up, see ModeSums.
_BINNING = 80 * CHUNK_MODES


def power_large(
    array: Any,
    box_size: float | Sequence[float],
    other: Any = None,
    *,
    edges: npt.ArrayLike | None = None,
    window: Window | tuple[Window, Window] = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    unit: str = "",
    memory: int = MEMORY,
    scratch: str | Path | None = None,
    workers: int = 1,
) -> Spectrum:
    """Spectrum of a periodic array (X, Y, Z), zarr, dask, HDF5 or numpy, or its cross spectrum.

    memory   bytes that the blocks in work may take together, beside the libraries (0.2 GB)
    scratch  folder for the half-transformed box, 4 bytes a voxel; None: the system's
    workers  threads; each has its share of the memory

    Everything else as in `bigbox.analysis.power.power`; the transform is in float32. Raises
    BadInput for arrays that cannot be used, too little memory, or too little disk.
    """
    shells = Shells(default_edges(array.shape, box_size) if edges is None else edges)
    sums = mode_sums(
        [array] if other is None else [array, other],
        box_size,
        shells,
        window=window,
        shot_noise=shot_noise,
        normalise=normalise,
        memory=memory,
        scratch=scratch,
        workers=workers,
    )
    return sums.spectra(shells.edges, label(unit, normalise))[-1]


def pair_large(
    first: Any,
    second: Any,
    box_size: float | Sequence[float],
    *,
    edges: npt.ArrayLike | None = None,
    window: Window | tuple[Window, Window] = None,
    normalise: bool = False,
    unit: str = "",
    memory: int = MEMORY,
    scratch: str | Path | None = None,
    workers: int = 1,
) -> Pair:
    """The auto spectra of two arrays and their cross spectrum, in the same two passes."""
    shells = Shells(default_edges(first.shape, box_size) if edges is None else edges)
    sums = mode_sums(
        [first, second],
        box_size,
        shells,
        window=window,
        normalise=normalise,
        memory=memory,
        scratch=scratch,
        workers=workers,
    )
    return Pair(*sums.spectra(shells.edges, label(unit, normalise)))


def mode_sums(
    arrays: Sequence[Any],
    box_size: float | Sequence[float],
    bins: Bins,
    *,
    window: Window | tuple[Window, Window] = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    memory: int = MEMORY,
    scratch: str | Path | None = None,
    workers: int = 1,
) -> ModeSums:
    """The sums over all modes in any bins, for one array or two; see `power_large`."""
    shape = tuple(int(n) for n in arrays[0].shape)

    def empty() -> ModeSums:
        return ModeSums(shape, box_size, bins, window, shot_noise, products=2 * len(arrays) - 1)

    empty()
    return collect(
        arrays, empty, normalise=normalise, memory=memory, scratch=scratch, workers=workers
    )


class Collector(Protocol):
    """What is kept of the modes: see ModeSums."""

    def add(self, at: tuple[slice, slice, slice], modes: Sequence[npt.NDArray[Any]]) -> None:
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
    """Transform the arrays and show every mode once to collectors made by `empty`, merged."""
    shape = tuple(int(n) for n in arrays[0].shape)
    for other in arrays[1:]:
        if tuple(other.shape) != shape:
            raise BadInput(f"fields have shapes {shape} and {other.shape}: they must be alike")
    layout = Layout.choose(arrays, memory, workers)
    folder = Path(tempfile.gettempdir() if scratch is None else scratch)
    _check_disk(folder, layout.scratch_bytes)
    work = Path(tempfile.mkdtemp(prefix="bigbox-spectra-", dir=folder))
    try:
        halves = [_planes(a, i, layout, work, normalise) for i, a in enumerate(arrays)]
        return _pencils(halves, layout, empty)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class Layout:
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
    def choose(cls, arrays: Sequence[Any], memory: int, workers: int) -> Layout:
        """The largest blocks that fit; raises BadInput with the least memory that would do."""
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
        chunk = _first_chunk(arrays[0])
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
        """Disk that the half-transformed fields take."""
        x, y, z = self.shape
        return 8 * self.fields * x * y * (z // 2 + 1)


def _first_chunk(array: Any) -> int:
    """Planes of x in a chunk of the array; 1 where it has no chunks."""
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return 1
    return int(chunks[0][0] if isinstance(chunks[0], tuple) else chunks[0])


@dataclass(frozen=True)
class _Half:
    """A field transformed over y and z, without its planes' means; and those, over the mean."""

    modes: zarr.Array[Any]
    means: npt.NDArray[np.float64]
    factor: float


def _planes(array: Any, number: int, layout: Layout, work: Path, normalise: bool) -> _Half:
    """Pass 1 for one field."""
    x, y, z = layout.shape
    modes = zarr.create_array(
        work / f"{number}.zarr",
        shape=(x, y, z // 2 + 1),
        chunks=(layout.planes, layout.pencil, z // 2 + 1),
        dtype="complex64",
        compressors=None,
        fill_value=0,
    )

    def one(first: int) -> tuple[npt.NDArray[np.float64], float, float]:
        last = min(first + layout.slab, x)
        slab = np.asarray(array[first:last], np.float32)
        means = slab.mean(axis=(1, 2), dtype=np.float64)
        least, most = float(slab.min()), float(slab.max())
        if not np.isfinite(means).all():
            bad = np.argwhere(~np.isfinite(slab))[0] + (first, 0, 0)
            raise BadInput(
                f"field {number + 1}: voxel {tuple(int(i) for i in bad)} is not finite;"
                " paint or repair it first"
            )
        for low in range(first, last, layout.planes):
            high = min(low + layout.planes, last)
            rows = slice(low - first, high - first)
            part = slab[rows] - means[rows, None, None].astype(np.float32)
            half = scipy.fft.rfft2(part, axes=(1, 2), overwrite_x=True)
            # Exact instead: the rounded means are not what was to be taken away.
            half[:, 0, 0] = 0
            modes[low:high] = half
        return means, least, most

    found = _run([dask.delayed(one)(i) for i in range(0, x, layout.slab)], layout.workers)
    means = np.concatenate([m for m, _, _ in found])
    least, most = min(low for _, low, _ in found), max(high for _, _, high in found)
    if least == most:
        raise BadInput(f"field {number + 1}: is constant ({least:g}): it has no spectrum")
    mean = mean_of(float(means.mean()), normalise, f"field {number + 1}")
    return _Half(modes, means - means.mean(), 1.0 / mean if normalise else 1.0)


def _pencils(halves: Sequence[_Half], layout: Layout, empty: Callable[[], Kept]) -> Kept:
    """Pass 2: transform along x and bin."""
    _, y, z = layout.shape

    def one(first: int) -> Kept:
        last = min(first + layout.pencil, y)
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
    for sums in _run([dask.delayed(one)(j) for j in range(0, y, layout.pencil)], layout.workers):
        total.merge(sums)
    return total


def _run(tasks: list[Any], workers: int) -> tuple[Any, ...]:
    if workers == 1:
        return dask.compute(*tasks, scheduler="synchronous")
    return dask.compute(*tasks, scheduler="threads", num_workers=workers)


def _check_disk(folder: Path, need: int) -> None:
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder for the scratch; make it or choose another")
    free = shutil.disk_usage(folder).free
    if need > free:
        raise BadInput(
            f"{folder}: the scratch needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free;"
            " choose another folder with --scratch or make room"
        )
