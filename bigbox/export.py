"""Ways out of the store: numpy, HDF5 and OME-Zarr files, written block by block on dask.

    tb  (X, Y, Z)  ──►  box_tb.npy        one array, C order, for numpy.load(..., mmap_mode="r")
                   ──►  box.hdf5          the arrays, and a Header with BoxSize for Pylians
                   ──►  box_tb.ome.zarr   (X, Y, Z), (X/2, Y/2, Z/2), ...: napari, neuroglancer

A file is written beside its place and renamed: it is there whole, or not at all. The blocks in work
take at most the memory that the caller states.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bigbox
from bigbox.errors import BadInput
from bigbox.store.box import AXES, Box
from bigbox.store.dataset import require_whole

Region = tuple[slice, ...]

MEMORY = 1 << 30
"""Bytes that the blocks in work may take together, beside the libraries (about 0.2 GB)."""

FORMATS = ("npy", "hdf5", "ome-zarr")
OME_VERSIONS = ("0.5", "0.4")
COPIES = 4  # of a block in work: as read, as decoded, as encoded, and the codec's own


@dataclass(frozen=True)
class Exported:
    """One file (or OME-Zarr folder) that was written, the arrays in it, and its size in bytes."""

    path: Path
    arrays: tuple[str, ...]
    bytes: int


def export(
    box: Box,
    to: str,
    arrays: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    partial: bool = False,
    ome_version: str = "0.5",
    memory: int = MEMORY,
) -> list[Exported]:
    """Write arrays of a box in another format; returns what was written.

    to           "npy", "hdf5" or "ome-zarr"
    arrays       names of arrays; tb where the box has one, else dm, if None
    out          the file; by default beside the box: BOX_NAME.npy, BOX.hdf5, BOX_NAME.ome.zarr
    partial      also a tb that is not painted to its end: NaN where it is not
    ome_version  "0.5" (zarr v3, sharded) or "0.4" (zarr v2, for older readers)
    memory       bytes that the blocks in work may take together; at least one is in work

    Raises BadInput, with nothing left behind, for an array that is not there or not whole, a place
    that is taken or cannot be written, and a disk that is too small.
    """
    if to not in FORMATS:
        raise BadInput(f"--to {to}: not one of {', '.join(FORMATS)}")
    if ome_version not in OME_VERSIONS:
        raise BadInput(f"OME-Zarr {ome_version}: not one of {', '.join(OME_VERSIONS)}")
    names = list(dict.fromkeys(arrays or (["tb"] if box.has("tb") else ["dm"])))
    found = {name: box.require(name) if partial else require_whole(box, name) for name in names}
    groups = [names] if to == "hdf5" else [[name] for name in names]
    if out is not None and len(groups) > 1:
        raise BadInput(
            f"{out}: {to} takes one array a file and {len(groups)} were asked for"
            f" ({' '.join(names)}); leave --out away, or export one at a time"
        )
    places = [_place(box, group, to, out) for group in groups]
    _check_room(found, groups, places, to)
    done = []
    for group, place in zip(groups, places, strict=True):
        work = place.parent / f".{place.name}.partial-{os.getpid()}"
        chosen = {name: found[name] for name in group}
        try:
            if to == "npy":
                _write_npy(work, chosen[group[0]], memory)
            elif to == "hdf5":
                _write_hdf5(work, box, chosen, memory)
            else:
                _write_ome(work, box, group[0], chosen[group[0]], ome_version, memory)
            _refuse_taken(place)
            os.rename(work, place)
        except OSError as error:
            raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from None
        finally:
            if work.is_dir():
                shutil.rmtree(work, ignore_errors=True)
            else:
                work.unlink(missing_ok=True)
        done.append(Exported(place, tuple(group), _size(place)))
    return done


def _place(box: Box, names: Sequence[str], to: str, out: str | Path | None) -> Path:
    if out is None:
        stem = box.path.resolve().with_name(box.stem)
        ends = {"npy": f"_{names[0]}.npy", "hdf5": ".hdf5", "ome-zarr": f"_{names[0]}.ome.zarr"}
        place = stem.with_name(stem.name + ends[to])
    else:
        place = Path(os.path.abspath(out))
    _refuse_taken(place)
    if not place.parent.is_dir():
        raise BadInput(f"{place}: there is no folder {place.parent}; make it first")
    if not os.access(place.parent, os.W_OK):
        raise BadInput(f"{place}: the folder {place.parent} is read-only; choose another: --out")
    return place


def _refuse_taken(place: Path) -> None:
    if os.path.lexists(place):
        raise BadInput(f"{place}: exists already; remove it, or choose another name: --out")


def _check_room(
    found: dict[str, Any], groups: list[list[str]], places: list[Path], to: str
) -> None:
    # The levels of a pyramid add 1/8 + 1/64 + ...
    growth = 8 / 7 if to == "ome-zarr" else 1.0
    need = growth * sum(4 * math.prod(found[name].shape) for group in groups for name in group)
    folder = places[0].parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise BadInput(
            f"{places[0]}: needs {need / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free:"
            " choose another folder with --out, or make room"
        )


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def regions(shape: Sequence[int], unit: Sequence[int], voxels: int) -> Iterator[Region]:
    """Regions that cover an array, whole units of at most `voxels` values (at least one unit).

    They are made longer on the last axis first, so that they are contiguous in C order:

        unit   [][][]      region   [========]
    """
    edges = list(unit)
    for axis in reversed(range(len(shape))):
        others = math.prod(e for a, e in enumerate(edges) if a != axis)
        units = max(1, voxels // (others * unit[axis]))
        edges[axis] = min(shape[axis], units * unit[axis])
        if edges[axis] < shape[axis]:
            break
    axes = (
        [slice(i, min(i + edge, n)) for i in range(0, n, edge)]
        for n, edge in zip(shape, edges, strict=True)
    )
    yield from itertools.product(*axes)


def _in_parallel(
    work: Callable[[Region], None], parts: list[Region], largest: int, memory: int
) -> None:
    """Run `work` over the regions on dask, as many at once as the memory allows."""
    import dask

    each = COPIES * 4 * largest
    workers = max(1, min(len(os.sched_getaffinity(0)), memory // each))
    dask.compute(*[dask.delayed(work)(part) for part in parts], num_workers=workers)


def _read(array: Any, part: Region) -> NDArray[np.float32]:
    try:
        return np.ascontiguousarray(array[part], "<f4")
    except ValueError as error:
        voxel = tuple(s.start for s in part)
        raise BadInput(
            f"{array.store_path.store.root}: damaged in the block from voxel {voxel} on ({error});"
            " bigbox verify BOX names the chunk"
        ) from error


def _blocks(array: Any, memory: int) -> tuple[list[Region], int]:
    """Regions of an array for two workers, and the values of the largest."""
    unit = (1,) * (array.ndim - 3) + tuple(array.chunks[-3:])
    parts = list(regions(array.shape, unit, memory // (2 * COPIES * 4)))
    return parts, max(math.prod(s.stop - s.start for s in part) for part in parts)


def _write_npy(work: Path, array: Any, memory: int) -> None:
    parts, largest = _blocks(array, memory)
    with open(work, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(array.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + 4 * math.prod(array.shape))
        file.flush()

        def copy(part: Region) -> None:
            block = _read(array, part)
            for first, rows in contiguous(block, part, array.shape):
                _write_at(file.fileno(), rows, start + 4 * first)

        _in_parallel(copy, parts, largest, memory)
        os.fsync(file.fileno())


def contiguous(
    block: NDArray[np.float32], part: Region, shape: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The runs of a block that are contiguous in the whole array: (index of the first, values)."""
    # Axes behind `cut` are whole, so that all of them, and a stretch of axis `cut`, are one run.
    cut = len(shape) - 1
    while cut and block.shape[cut] == shape[cut]:
        cut -= 1
    begin = [s.start for s in part]
    for lead in np.ndindex(block.shape[:cut]):
        at = [b + i for b, i in zip(begin, lead, strict=False)] + begin[cut:]
        yield int(np.ravel_multi_index(at, tuple(shape))), block[lead]


def _write_at(file: int, values: NDArray[np.float32], at: int) -> None:
    left = values.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written


def _write_hdf5(work: Path, box: Box, arrays: dict[str, Any], memory: int) -> None:
    import h5py

    lock = Lock()  # the HDF5 library works for one thread at a time
    with h5py.File(work, "w") as file:
        header = file.create_group("Header").attrs
        cubic = len(set(box.shape)) == 1
        # What Pylians takes as BoxSize is one number; a box of unequal sides has three.
        header["BoxSize"] = box.box_size[0] if cubic else np.array(box.box_size)
        header["BoxSizeUnits"] = "Mpc/h"
        header["VoxelSize"] = box.voxel
        header["Redshift"] = box.redshift
        header["Time"] = 1.0 / (1.0 + box.redshift)
        header["Origin"] = f"bigbox {bigbox.__version__}, {box.path.name}"
        for key, value in box.attributes["cosmology"].items():
            header[key] = value
        for axis, name in enumerate(AXES):
            centres = (np.arange(box.shape[axis]) + 0.5) * box.voxel
            scale = file.create_dataset(name, data=centres)
            scale.attrs["units"] = "Mpc/h"
            scale.make_scale(name)
        for name, array in arrays.items():
            edges = (1,) * (array.ndim - 3) + tuple(array.chunks[-3:])
            chunk = tuple(min(e, n) for e, n in zip(edges, array.shape, strict=True))
            data = file.create_dataset(
                name, array.shape, "<f4", chunks=chunk, fletcher32=True, fillvalue=np.nan
            )
            for key in ("units", "long_name", "edges", "channel_edges"):
                if key in array.attrs:
                    data.attrs[key] = array.attrs[key]
            for axis, dim in enumerate(AXES):
                at = array.ndim - 3 + axis
                data.dims[at].label = dim
                data.dims[at].attach_scale(file[dim])

            def copy(part: Region, array: Any = array, data: Any = data) -> None:
                block = _read(array, part)
                with lock:
                    data[part] = block

            parts, largest = _blocks(array, memory)
            _in_parallel(copy, parts, largest, memory)


def _write_ome(work: Path, box: Box, name: str, array: Any, version: str, memory: int) -> None:
    """The array and its means over 2³, 4³, ... voxels, down to 64 voxels a side."""
    import zarr

    channels = array.ndim == 4
    sharded = version == "0.5"
    lead = (1,) * (array.ndim - 3)
    group = zarr.create_group(work, zarr_format=3 if sharded else 2)
    levels: list[Any] = []
    shape = tuple(array.shape)
    while True:
        edge = 64 if max(shape[-3:]) >= 64 else 32
        chunk = lead + (edge,) * 3
        shard = lead + tuple(min(4 * edge, -(-n // edge) * edge) for n in shape[-3:])
        level = group.create_array(
            str(len(levels)),
            shape=shape,
            chunks=chunk,
            shards=shard if sharded else None,
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=(("c",) if channels else ()) + AXES if sharded else None,
            chunk_key_encoding={"name": "default" if sharded else "v2", "separator": "/"},
            config={"write_empty_chunks": True},
        )
        _fill_level(levels[-1] if levels else array, level, shard, bool(levels), memory)
        levels.append(level)
        if max(shape[-3:]) <= 64 or min(shape[-3:]) < 2:
            break
        shape = shape[:-3] + tuple(n // 2 for n in shape[-3:])
    metadata = _ome_metadata(box, name, array, levels, version)
    about = {"bigbox": _about(box, name, array)}
    if sharded:
        group.attrs.update({"ome": {"version": version, **metadata}, **about})
    else:
        group.attrs.update({**metadata, **about})


def _fill_level(source: Any, level: Any, shard: tuple[int, ...], halve: bool, memory: int) -> None:
    """Write one level; the voxels of a level below the finest are means over 2³ of `source`.

    A last odd plane of the finer level is left out, as all readers expect: n -> n // 2.
    """
    parts = list(regions(level.shape, shard, 0))

    def fill(part: Region) -> None:
        if not halve:
            level[part] = _read(source, part)
            return
        # Chunk by chunk: the finer voxels under a whole shard are eight times its size.
        out = np.empty([s.stop - s.start for s in part], np.float32)
        for piece in regions(out.shape, level.chunks, 0):
            at = tuple(
                slice(p.start + c.start, p.start + c.stop) for p, c in zip(part, piece, strict=True)
            )
            finer = at[:-3] + tuple(slice(2 * s.start, 2 * s.stop) for s in at[-3:])
            out[piece] = mean_of_eight(_read(source, finer))
        level[part] = out

    _in_parallel(fill, parts, math.prod(shard), memory)


def mean_of_eight(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2 x 2 voxels of (..., 2a, 2b, 2c), float32 (..., a, b, c)."""
    for axis in (-1, -2, -3):
        even = (slice(None),) * (block.ndim + axis) + (slice(0, None, 2),)
        odd = (slice(None),) * (block.ndim + axis) + (slice(1, None, 2),)
        block = (block[even] + block[odd]) * np.float32(0.5)
    return block


def _ome_metadata(
    box: Box, name: str, array: Any, levels: list[Any], version: str
) -> dict[str, Any]:
    channels = array.ndim == 4
    axes = [{"name": "c", "type": "channel"}] if channels else []
    # No unit: the format knows parsec but nothing with 1/h, and readers refuse unknown units.
    axes += [{"name": axis, "type": "space"} for axis in AXES]
    lead = [1.0] if channels else []
    datasets = []
    for number in range(len(levels)):
        scale = box.voxel * 2**number
        # Voxel centres, in Mpc/h, as in the store: the first one is half a voxel from the corner.
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": lead + [scale] * 3},
                    {
                        "type": "translation",
                        "translation": [0.0] * len(lead) + [scale / 2] * 3,
                    },
                ],
            }
        )
    image: dict[str, Any] = {
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "means over 2 x 2 x 2 voxels", "method": "bigbox.export"},
    }
    if version == "0.4":
        image["version"] = version
    return {"multiscales": [image], "omero": _omero(name, levels[-1], channels, version)}


def _omero(name: str, coarsest: Any, channels: bool, version: str) -> dict[str, Any]:
    """Contrast limits after the coarsest level, so that viewers open on a picture."""
    maps = np.asarray(coarsest[:])
    shown = []
    for number, values in enumerate(maps if channels else maps[None]):
        seen = values[np.isfinite(values)]
        low, high = (0.0, 1.0) if not seen.size else np.percentile(seen, (0.5, 99.5)).tolist()
        if not high > low:
            high = low + 1.0
        window = {"min": low, "start": low, "end": high, "max": high}
        label = f"{name} {number}" if channels else name
        shown.append({"label": label, "color": "FFFFFF", "active": True, "window": window})
    return {"name": name, "version": version, "channels": shown}


def _about(box: Box, name: str, array: Any) -> dict[str, Any]:
    about = {
        "array": name,
        "units": array.attrs.get("units", ""),
        "long_name": array.attrs.get("long_name", ""),
        "length_units": "comoving Mpc/h",
        "box_size": list(box.box_size),
        "redshift": box.redshift,
        "cosmology": box.attributes["cosmology"],
        "bigbox": bigbox.__version__,
    }
    return dict(json.loads(json.dumps(about)))
