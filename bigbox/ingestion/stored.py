"""What a file holds of an array: what was never written, or is lost, reads as a fill value.

HDF5   virtual data set   parts of other files: each is there, holds its part, and no part lacks
       chunks             as many as the shape asks for
       one piece          it has a place in the file; of raw files beside, all bytes
zarr   see `bigbox.store.absent`
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.ingestion.hdf5 import member, opened
from bigbox.store.absent import absent_chunks

_DEPTH = 8  # virtual data sets of virtual data sets


def check_stored(array: Any, empty_chunks: bool | None = None) -> str:
    """Raise BadInput where a part of an HDF5 or zarr array is not there; other arrays pass.

    empty_chunks: whether chunks that are not there hold the fill value, as those of programs that
    leave out chunks of nothing but zeros; None: they never do. Returns how many those are, for
    people, "" for none.
    """
    import h5py
    import zarr

    if isinstance(array, h5py.Dataset):
        lacking = _of_hdf5(array, 0)
        name, fill = f"{array.file.filename}:{array.name}", array.fillvalue
    elif isinstance(array, zarr.Array):
        lacking = list(absent_chunks(array))
        name, fill = f"{Path(getattr(array.store, 'root', '')) / array.path}", array.fill_value
    else:
        return ""
    if not lacking:
        return ""
    count = f"{len(lacking)} of {_chunk_count(array)} chunks"
    if empty_chunks:
        return f"{name}: {count} are not in the file and are taken to be {fill}"
    option = ", or, if its program leaves out empty chunks, give --empty-chunks"
    raise BadInput(
        f"{name}: chunk {lacking[0]} is not in the file ({count} are not) and would read as "
        f"{fill}: lost, or never written; copy it again{'' if empty_chunks is None else option}"
    )


def _chunk_count(array: Any) -> int:
    return math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))


def _of_hdf5(data: Any, depth: int) -> list[tuple[int, ...]]:
    """Return the chunks that a data set lacks. Raises BadInput for anything else that it lacks."""
    name = f"{data.file.filename}:{data.name}"
    if not data.shape or 0 in data.shape:
        return []
    if depth > _DEPTH:
        raise BadInput(f"{name}: virtual data sets {depth} deep, which cannot be followed")
    if data.is_virtual:
        _check_virtual(data, name, depth)
        return []
    if data.external is not None:
        _check_raw_files(data, name)
        return []
    if data.chunks is None:
        if data.id.get_storage_size() < math.prod(data.shape) * data.dtype.itemsize:
            raise BadInput(
                f"{name}: its values were never written and would read as {data.fillvalue}; the "
                "program that made the file has not finished it"
            )
        return []
    if data.id.get_num_chunks() == _chunk_count(data):
        return []
    held: set[tuple[int, ...]] = set()

    def note(chunk: Any) -> None:
        held.add(tuple(o // c for o, c in zip(chunk.chunk_offset, data.chunks, strict=True)))

    data.id.chunk_iter(note)
    return [at for at in _every(data.shape, data.chunks) if at not in held]


def _check_virtual(data: Any, name: str, depth: int) -> None:
    """Raise BadInput where a source of a virtual data set is not there, or sources leave a gap."""
    folder, held = Path(data.file.filename).parent, 0
    for part in data.virtual_sources():
        if (
            "%b" in part.file_name
        ):  # blocks of a growing data set: its shape is that of what is there
            return
        held += part.vspace.get_select_npoints()
        if part.file_name == ".":
            _check_part(data.file, part, name, depth)
            continue
        prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(folder))
        places = [Path(prefix, part.file_name)] if prefix else []
        places += [folder / part.file_name, Path(part.file_name)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise BadInput(
                f"{places[-2]}: no such file, but {name} has a part of its values there; copy all "
                "files of it"
            )
        with opened(path) as file:
            _check_part(file, part, name, depth)
    if held < math.prod(data.shape):
        raise BadInput(
            f"{name}: its sources hold {held} of {math.prod(data.shape)} values, the others would "
            f"read as {data.fillvalue}; the virtual data set is not whole"
        )


def _check_part(file: Any, part: Any, name: str, depth: int) -> None:
    import h5py

    source = member(file, part.dset_name)
    if source is None:
        raise BadInput(f"{file.filename}: has no {part.dset_name}, where {name} has its values")
    points = part.vspace.get_select_npoints()
    if part.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        short = math.prod(source.shape) != points
    else:
        last = part.src_space.get_select_bounds()[1]
        short = any(at >= n for at, n in zip(last, source.shape, strict=True))
    if short:
        raise BadInput(
            f"{file.filename}: {part.dset_name} has shape {source.shape}, which is not what {name} "
            f"has of it ({points} values); the file is of another run, or cut"
        )
    if lacking := _of_hdf5(source, depth + 1):
        raise BadInput(
            f"{file.filename}:{part.dset_name}: chunk {lacking[0]} was never written, but {name} "
            "has values there"
        )


def _check_raw_files(data: Any, name: str) -> None:
    """Raise BadInput where raw files beside the HDF5 file are missing or shorter than said."""
    left = math.prod(data.shape) * data.dtype.itemsize
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
    folder = Path(data.file.filename).parent
    for given, offset, size in data.external:
        path = Path(prefix.replace("${ORIGIN}", str(folder)), given)
        need = min(size, left)
        if not path.is_file() or path.stat().st_size < offset + need:
            held = max(path.stat().st_size - offset, 0) if path.is_file() else 0
            raise BadInput(
                f"{path}: has {held} of {need} bytes that {name} has there; copy all files of it"
            )
        left -= need


def _every(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    counts = (range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))
    yield from itertools.product(*counts)
