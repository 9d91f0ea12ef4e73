"""Write arrays of a box as numpy, HDF5 or OME-Zarr files, block by block on dask.

    tb  (X, Y, Z)  ──►  box_tb.npy        one array, C order, for numpy.load(..., mmap_mode="r")
                   ──►  box.hdf5          the arrays, and a Header with BoxSize for Pylians
                   ──►  box_tb.fits       one array, for ds9 and astropy
                   ──►  box_tb.ome.zarr   (X, Y, Z), (X/2, Y/2, Z/2), ...: napari, neuroglancer

A file is written beside its place and renamed: it is there whole, or not at all. The blocks in work
take at most the memory that the caller states. A format is one file here and one row of `FORMATS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.export.fits import write_fits
from bigbox.export.hdf5 import write_hdf5
from bigbox.export.npy import write_npy
from bigbox.export.ome import OME_VERSIONS, write_ome
from bigbox.export.rescaled import rescaled
from bigbox.ingest.workfolder import check_room, making, new_place
from bigbox.store.absent import require_there
from bigbox.store.box import Box
from bigbox.store.dataset import Finite, require_whole

MEMORY = 1 << 30
"""Bytes that the blocks in work may take together, beside the libraries (about 0.2 GB)."""


@dataclass(frozen=True)
class Format:
    """One way out: what stands after the box's name, arrays a file, its size over the arrays'."""

    write: Callable[..., None]  # (work, box, arrays by name, memory[, ome_version])
    end: str
    many: bool = False
    growth: float = 1.0


FORMATS = {
    "npy": Format(write_npy, "_{}.npy"),
    "hdf5": Format(write_hdf5, ".hdf5", many=True),
    "fits": Format(write_fits, "_{}.fits"),
    # The levels of a pyramid add 1/8 + 1/64 + ...
    "ome-zarr": Format(write_ome, "_{}.ome.zarr", growth=8 / 7),
}


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
    grid: str = "dm",
    ome_version: str = "0.5",
    omega_hi: float | None = None,
    memory: int = MEMORY,
) -> list[Exported]:
    """Write arrays of a box in another format; return what was written.

    Parameters
    ----------
    to : "npy", "hdf5", "fits" or "ome-zarr".
    arrays : Names of arrays; if None, tb where the box has one, else what it was made of.
    out : The file; by default beside the box: BOX_NAME.npy, BOX.hdf5, BOX_NAME.ome.zarr.
    partial : Also a tb that is not painted to its end: NaN where it is not.
    grid : "dm", interpolated where an array is on a painting grid, or "painted", as it is stored.
    omega_hi : Rescale tb to the mean T_b of this Ω_HI; its attributes say so.
    ome_version : "0.5" (zarr v3, sharded) or "0.4" (zarr v2, for older readers).

    Raises
    ------
    BadInput
        For an array that is not whole, a place that cannot be written, a disk that is too small.
        Nothing is left behind.
    """
    if to not in FORMATS:
        raise BadInput(f"--to {to}: not one of {', '.join(FORMATS)}")
    if ome_version not in OME_VERSIONS:
        raise BadInput(f"OME-Zarr {ome_version}: not one of {', '.join(OME_VERSIONS)}")
    names = list(dict.fromkeys(arrays or (["tb"] if box.has("tb") else [box.require_input()])))
    whole = box.view if partial else partial_of(require_whole, box)
    found: dict[str, Any] = {name: whole(name, grid) for name in names}
    for name in names:
        if not (partial and "painting" in box.array(name).attrs):
            require_there(box, name)
    if not partial:
        found = {name: Finite(array, box.place_of(name)) for name, array in found.items()}
    if omega_hi is not None:
        found = {
            name: rescaled(box, array, omega_hi, memory) if name == "tb" else array
            for name, array in found.items()
        }
        if "tb" not in found:
            raise BadInput(f"--omega-hi is of tb, and {', '.join(names)} is exported; leave it")
    groups = [names] if FORMATS[to].many else [[name] for name in names]
    if out is not None and len(groups) > 1:
        raise BadInput(
            f"{out}: {to} takes one array a file and {len(groups)} were asked for"
            f" ({' '.join(names)}); leave --out away, or export one at a time"
        )
    places = [new_place(_place(box, group[0], to, out)) for group in groups]
    size = sum(4 * math.prod(array.shape) for array in found.values())
    check_room(places[0], "the files need", FORMATS[to].growth * size)
    version = {"ome_version": ome_version} if to == "ome-zarr" else {}
    done = []
    for group, place in zip(groups, places, strict=True):
        with making(place) as work:
            FORMATS[to].write(work, box, {name: found[name] for name in group}, memory, **version)
        files = place.rglob("*") if place.is_dir() else [place]
        size = sum(file.stat().st_size for file in files if file.is_file())
        done.append(Exported(place, tuple(group), size))
    return done


def _place(box: Box, name: str, to: str, out: str | Path | None) -> Path:
    beside = box.path.resolve().with_name(box.stem + FORMATS[to].end.format(name))
    return beside if out is None else Path(out)
