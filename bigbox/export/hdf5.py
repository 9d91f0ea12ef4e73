"""Write arrays into one HDF5 file, with the Header that Pylians reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import h5py
import numpy as np

import bigbox
from bigbox.blockwise import Region, read_block
from bigbox.export.blocks import chunk_edges, for_each_block
from bigbox.store.box import Box
from bigbox.store.fields import axes_of

# Of an array's attributes.
KEPT = (
    "units", "long_name", "rescaled", "edges", "channel_edges", "voxel_size", "interpolated",
)  # fmt: skip


def write_hdf5(work: Path, box: Box, arrays: Mapping[str, Any], memory: int) -> None:
    """Write the arrays, their axes in Mpc/h, and the Header."""
    lock = Lock()  # the HDF5 library works for one thread at a time
    with h5py.File(work, "w") as file:
        header = file.create_group("Header").attrs
        # What Pylians takes as BoxSize is one number; a box of unequal sides has three.
        cubic = len(set(box.shape)) == 1
        header["BoxSize"] = box.box_size[0] if cubic else np.array(box.box_size)
        header["BoxSizeUnits"] = "Mpc/h"
        header["VoxelSize"] = box.voxel
        header["Redshift"] = box.redshift
        header["Time"] = 1.0 / (1.0 + box.redshift)
        header["Origin"] = f"bigbox {bigbox.__version__}, {box.path.name}"
        for key, value in box.attributes["cosmology"].items():
            header[key] = value
        for step in {1, *(box.step_of(array) for array in arrays.values())}:
            for axis, name in enumerate(axes_of(step)):
                centres = ((np.arange(box.shape[axis]) + 0.5) * box.voxel)[::step]
                scale = file.create_dataset(name, data=centres)
                scale.attrs["units"] = "Mpc/h"
                scale.make_scale(name)
        for name, array in arrays.items():
            data = _empty(file, name, array, axes_of(box.step_of(array)))

            def copy(part: Region, array: Any = array, data: Any = data) -> None:
                block = read_block(array, part, array.store_path.store.root)
                with lock:
                    data[part] = block

            for_each_block(array, memory, copy)


def _empty(file: h5py.File, name: str, array: Any, axes: tuple[str, str, str]) -> h5py.Dataset:
    chunk = tuple(min(e, n) for e, n in zip(chunk_edges(array), array.shape, strict=True))
    data = file.create_dataset(
        name, array.shape, "<f4", chunks=chunk, fletcher32=True, fillvalue=np.nan
    )
    for key in (
        "units",
        "long_name",
        "rescaled",
        "edges",
        "channel_edges",
        "voxel_size",
        "interpolated",
    ):
        if key in array.attrs:
            data.attrs[key] = array.attrs[key]
    for at, dim in enumerate(axes, array.ndim - 3):
        data.dims[at].label = dim
        data.dims[at].attach_scale(file[dim])
    return data
