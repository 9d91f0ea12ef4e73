"""Write an array as an OME-Zarr image pyramid of means over 2³, 4³, ... voxels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

import bigbox
from bigbox.blockwise import Region, map_regions, read_block, regions
from bigbox.store.box import Box
from bigbox.store.fields import AXES

OME_VERSIONS = ("0.5", "0.4")


def write_ome(
    work: Path, box: Box, arrays: Mapping[str, Any], memory: int, ome_version: str
) -> None:
    """Write the only array of `arrays` and its levels, down to 64 voxels a side."""
    ((name, array),) = arrays.items()
    channels, sharded = array.ndim == 4, ome_version == "0.5"
    lead = (1,) * (array.ndim - 3)
    group = zarr.create_group(work, zarr_format=3 if sharded else 2)
    levels: list[Any] = []
    shape = tuple(array.shape)
    while True:
        edge = 64 if max(shape[-3:]) >= 64 else 32
        shard = lead + tuple(min(4 * edge, -(-n // edge) * edge) for n in shape[-3:])
        level = group.create_array(
            str(len(levels)),
            shape=shape,
            chunks=lead + (edge,) * 3,
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
    metadata = _metadata(box, name, levels, ome_version, box.step_of(array))
    if sharded:
        metadata = {"ome": {"version": ome_version, **metadata}}
    group.attrs.update({**metadata, "bigbox": _about(box, name, array)})


def _fill_level(source: Any, level: Any, shard: tuple[int, ...], halve: bool, memory: int) -> None:
    """Write one level; the voxels of a level below the finest are means over 2³ of `source`.

    A last odd plane of the finer level is left out, as all readers expect: n -> n // 2.
    """

    def fill(part: Region) -> None:
        if not halve:
            level[part] = read_block(source, part, source.store_path.store.root)
            return
        # Chunk by chunk: the finer voxels under a whole shard are eight times its size.
        out = np.empty([s.stop - s.start for s in part], np.float32)
        for piece in regions(out.shape, level.chunks, 0):
            at = tuple(
                slice(p.start + c.start, p.start + c.stop) for p, c in zip(part, piece, strict=True)
            )
            finer = at[:-3] + tuple(slice(2 * s.start, 2 * s.stop) for s in at[-3:])
            out[piece] = mean_of_eight(read_block(source, finer, source.store_path.store.root))
        level[part] = out

    for _ in map_regions(fill, list(regions(level.shape, shard, 0)), memory):
        pass


def mean_of_eight(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means over 2 x 2 x 2 voxels of (..., 2a, 2b, 2c), float32 (..., a, b, c)."""
    for axis in (-1, -2, -3):
        lines = np.moveaxis(block, axis, 0)
        block = np.moveaxis((lines[::2] + lines[1::2]) * np.float32(0.5), 0, axis)
    return block


def _metadata(box: Box, name: str, levels: list[Any], version: str, step: int) -> dict[str, Any]:
    lead = levels[0].ndim - 3
    axes = [{"name": "c", "type": "channel"}] * lead
    # No unit: the format knows parsec but nothing with 1/h, and readers refuse unknown units.
    axes += [{"name": axis, "type": "space"} for axis in AXES]
    datasets = []
    for number in range(len(levels)):
        scale = box.voxel * step * 2**number
        # Voxel centres, in Mpc/h, as in the store: the first one is half a voxel of dm from the
        # corner, and the mean over some voxels is in their middle.
        first = (scale - box.voxel * (step - 1)) / 2
        transforms = [
            {"type": "scale", "scale": [1.0] * lead + [scale] * 3},
            {"type": "translation", "translation": [0.0] * lead + [first] * 3},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    image: dict[str, Any] = {
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "means over 2 x 2 x 2 voxels", "method": "bigbox.export"},
    }
    if version == "0.4":
        image["version"] = version
    return {"multiscales": [image], "omero": _omero(name, levels[-1], bool(lead), version)}


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
    return {
        "array": name,
        "units": array.attrs.get("units", ""),
        "long_name": array.attrs.get("long_name", ""),
        **({"rescaled": array.attrs["rescaled"]} if "rescaled" in array.attrs else {}),
        "length_units": "comoving Mpc/h",
        "box_size": list(box.box_size),
        "redshift": box.redshift,
        "cosmology": box.attributes["cosmology"],
        "bigbox": bigbox.__version__,
    }
