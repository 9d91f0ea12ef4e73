"""Measure power spectra out of core: the exact FFT in two passes over the box, in bounded memory.

    P(k) = V <|delta_k|^2>,   delta_k = FFT(field) / N_voxels,   V the volume of the box

in (Mpc/h)^3 times the field's unit squared, averaged over the modes of a bin of |k|, h/Mpc, without
the zero mode. A mode and its conjugate count as two, so `modes / 2` are independent. The field is
not changed by default; `normalise=True` takes T_b / <T_b> (Mishra, Trotta & Viel 2025 (LODI), eqs.
15-16).

    pass 1, slabs of x      read ──► FFT over y and z ──► scratch, chunks of (x, some y, all z)
    pass 2, pencils         scratch (all x, some y, all z) ──► FFT over x ──► bins of |k|

Nothing is approximated: the modes are those of one FFT of the whole box in float32. The scratch
takes 4 bytes for each voxel of each field and is removed afterwards. Both passes run on dask.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import scipy.fft
import zarr

from bigbox.analysis.spectra import modes
from bigbox.analysis.spectra.modes import Conventions, Float, ModeSums, Place, Shells, Spectrum
from bigbox.blockwise import map_blocks
from bigbox.errors import BadInput
from bigbox.ingestion.workfolder import check_room, scratch_folder

MEMORY = 1 << 30

# Bytes of temporary memory for each mode whose bin is looked up, see ModeSums.
_BINNING = 80 * modes.CHUNK_MODES


class Resources(TypedDict, total=False):
    """What a measurement out of core may use.

    memory: bytes that the blocks in work may take together, beside the libraries (0.2 GB).
    scratch: folder for the half-transformed box, 4 bytes a voxel; None: the system's.
    workers: threads, which share the memory; None: a core each, as far as the memory has room.
    """

    memory: int
    scratch: str | Path | None
    workers: int | None


class Options(Conventions, Resources):
    """Conventions and resources."""


class Binned(Options, total=False):
    """The same, and the edges of the bins, h/Mpc, ascending.

    None: bins of width 2 pi / L around its multiples, to Nyquist.
    """

    edges: npt.ArrayLike | None


def power(array: Any, box_size: float | Sequence[float], **options: Unpack[Binned]) -> Spectrum:
    """Return the spectrum of a periodic array (X, Y, Z) of zarr, dask, HDF5 or numpy.

    box_size: Mpc/h, one number for a box of cubic voxels (its x axis) or one per axis. options: see
    `Binned`, `Conventions` and `Resources`. Raise BadInput for arrays that cannot be used, too
    little memory, or too little disk.
    """
    return _spectra([array], box_size, **options)[0]


def pair(
    first: Any, second: Any, box_size: float | Sequence[float], **options: Unpack[Binned]
) -> modes.Pair:
    """Return the auto spectra of two arrays and their cross spectrum, in the same two passes."""
    return modes.Pair(*_spectra([first, second], box_size, **options))


def _spectra(
    arrays: Sequence[Any],
    box_size: float | Sequence[float],
    *,
    edges: npt.ArrayLike | None = None,
    **options: Unpack[Options],
) -> list[Spectrum]:
    shells = Shells(modes.default_edges(arrays[0].shape, box_size) if edges is None else edges)
    found, sums = mode_sums(arrays, box_size, shells, **options)
    units = modes.spectrum_unit(options.get("unit", ""), options.get("normalise", False))
    return found.spectra(sums, shells.edges, units)


@dataclass(frozen=True)
class Cylinder:
    """P in bins of the wavenumber along the line of sight (rows) and across it (columns).

    power: (parallel, transverse), (Mpc/h)^3 x unit^2, NaN where a bin has no mode; modes: their
    number, a mode and its conjugate counted as two; edges in h/Mpc; axis: the line of sight, 0-2.
    """

    axis: int
    power: Float
    modes: npt.NDArray[np.int64]
    parallel_edges: Float
    transverse_edges: Float
    units: str


def cylinder(
    array: Any,
    box_size: float | Sequence[float],
    *,
    axis: int = 2,
    bins: int = 24,
    **options: Unpack[Options],
) -> Cylinder:
    """Return the cylindrical spectrum of a periodic array (X, Y, Z), out of core.

    axis: the line of sight. bins: of equal width from 0 to Nyquist, on either axis.
    """
    if axis not in (0, 1, 2):
        raise BadInput(f"line of sight {axis}: must be axis 0, 1 or 2")
    sides = modes.box_sides(array.shape, box_size)
    # From just above the last mode, so that Nyquist itself is in.
    top = [np.pi * n / s * (1 + 1e-9) for n, s in zip(array.shape, sides, strict=True)]
    along = np.linspace(0, top.pop(axis), bins + 1)
    across = np.linspace(0, min(top), bins + 1)
    found, sums = mode_sums([array], box_size, modes.CylinderBins(along, across, axis), **options)
    number, (power,) = found.means(sums)
    return Cylinder(
        axis=axis,
        power=power.reshape(bins, bins),
        modes=number.reshape(bins, bins),
        parallel_edges=along,
        transverse_edges=across,
        units=modes.spectrum_unit(options.get("unit", ""), options.get("normalise", False)),
    )


def mode_sums(
    arrays: Sequence[Any],
    box_size: float | Sequence[float],
    bins: Shells | modes.CylinderBins,
    *,
    window: str | None = None,
    shot_noise: float = 0.0,
    normalise: bool = False,
    unit: str = "",
    **resources: Unpack[Resources],
) -> tuple[ModeSums, Float]:
    """Return the sums over all modes in any bins, for one array or two, and what explains them."""
    found = ModeSums(arrays[0].shape, box_size, bins, window, shot_noise)
    return found, collect(arrays, found.block, normalise=normalise, **resources)


def collect(
    arrays: Sequence[Any],
    keep: Callable[[Place, Sequence[npt.NDArray[Any]]], npt.NDArray[Any]],
    *,
    normalise: bool = False,
    memory: int = MEMORY,
    scratch: str | Path | None = None,
    workers: int | None = None,
) -> Any:
    """Transform the arrays, show every mode once to `keep`, and add up what it returns.

    keep: of a block, its place in the rfftn and the modes of each array there.
    """
    shape = tuple(int(n) for n in arrays[0].shape)
    for other in arrays[1:]:
        if tuple(other.shape) != shape:
            raise BadInput(f"fields have shapes {shape} and {other.shape}: they must be alike")
    sizes = BlockSizes.choose(arrays, memory, workers)
    x, y, z = shape
    folder = Path(tempfile.gettempdir() if scratch is None else scratch)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder for the scratch; make it or choose another")
    work = scratch_folder(folder, "bigbox-spectra")
    try:
        need = 8 * len(arrays) * x * y * (z // 2 + 1)
        check_room(work, "the scratch (--scratch) needs", need)
        halves = [_planes(a, i, sizes, work, normalise) for i, a in enumerate(arrays)]

        def pencil(first: int) -> npt.NDArray[Any]:
            """Pass 2: transform along x and bin."""
            last = min(first + sizes.pencil, y)
            blocks = []
            for half, means, factor in halves:
                block = np.asarray(half[:, first:last])
                if first == 0:
                    block[:, 0, 0] = means * (y * z)
                block = scipy.fft.fft(block, axis=0, overwrite_x=True)
                if factor != 1.0:
                    block *= np.float32(factor)
                blocks.append(block)
            return keep((slice(None), slice(first, last), slice(None)), blocks)

        return sum(map_blocks(pencil, range(0, y, sizes.pencil), workers=sizes.workers))
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of the blocks: planes read and transformed at a time, rows of y in a pencil block.

    memory(one worker) = max of: slab * Y * Z * 4 bytes + the planes being transformed;
                                 fields * X * pencil * (Z/2 + 1) * 16 bytes + the binning.
    """

    slab: int
    planes: int
    pencil: int
    workers: int

    @classmethod
    def choose(cls, arrays: Sequence[Any], memory: int, workers: int | None) -> BlockSizes:
        """Choose the largest blocks that fit; raise BadInput with the least memory needed."""
        x, y, z = (int(n) for n in arrays[0].shape)
        # A plane as float32, less its mean, transformed, and as the bytes that zarr writes.
        read, transform = 4 * y * z, 3 * 8 * y * (z // 2 + 1)
        row = 2 * 8 * len(arrays) * x * (z // 2 + 1)
        least = max(read + transform, row + _BINNING)
        workers = max(1, workers or min(len(os.sched_getaffinity(0)), memory // least))
        share = memory // workers
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
        return cls(slab, planes, pencil, workers)


def _planes(
    array: Any, number: int, sizes: BlockSizes, work: Path, normalise: bool
) -> tuple[zarr.Array[Any], Float, float]:
    """Pass 1 for one field: transform over y and z.

    Return the modes without the planes' means, these over the mean, and what to multiply both by.
    """
    x, y, z = array.shape
    half = zarr.create_array(
        work / f"{number}.zarr",
        shape=(x, y, z // 2 + 1),
        chunks=(sizes.planes, sizes.pencil, z // 2 + 1),
        dtype="complex64",
        compressors=None,
        fill_value=0,
    )

    def one(first: int) -> tuple[Float, float, float]:
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
            part = scipy.fft.rfft2(part, axes=(1, 2), overwrite_x=True)
            # Exact instead: the rounded means are not what was to be taken away.
            part[:, 0, 0] = 0
            half[low:high] = part
        return means, least, most

    found = list(map_blocks(one, range(0, x, sizes.slab), workers=sizes.workers))
    means = np.concatenate([m for m, _, _ in found])
    least, most = min(low for _, low, _ in found), max(high for _, _, high in found)
    if least == most:
        raise BadInput(f"field {number + 1}: is constant ({least:g}): it has no spectrum")
    mean = float(means.mean())
    factor = 1.0 / modes.divisor(mean, f"field {number + 1}") if normalise else 1.0
    return half, means - mean, factor
