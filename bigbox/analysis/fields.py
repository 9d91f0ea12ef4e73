"""What is compared: a box's array, a truth, other realizations; opened, and refused in one line.

Nothing but metadata is read here, except by `survey`, which reads every voxel once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.sources import GridSource, open_source
from bigbox.store.box import Box
from bigbox.store.dataset import Painted, painted
from bigbox.store.metadata import read_json

# Relative difference of two box sizes that are still the same.
SAME_SIZE = 1e-4
# Voxels of an edge of the blocks in which a file that has no chunks is read.
EDGE = 128
SAMPLES = 16  # blocks that the scale of a field is taken from


@dataclass(frozen=True)
class Field:
    """One field over the box. array: anything that dask can cut, (X, Y, Z); lengths in Mpc/h.

    box is None for a truth that is a bare array.
    """

    name: str
    array: Any
    unit: str
    shape: tuple[int, int, int]
    box_size: tuple[float, float, float]
    box: Box | None = None
    painted: Painted | None = None

    @property
    def voxel(self) -> float:
        """Side of a voxel, Mpc/h."""
        return self.box_size[0] / self.shape[0]


def open_field(path: str | Path, name: str = "tb") -> Field:
    """An array of a box; raises BadInput where it is not there, or not painted to its end."""
    box = Box.open(path)
    about = painted(box)
    if name == "tb" and not box.has("tb"):
        raise BadInput(f"{path}: is not painted yet; paint it first: bigbox paint {path}")
    array = box.require(name) if box.has(name) else box.array(name)
    if array.ndim != 3:
        raise BadInput(f"{path}/{name}: has {array.ndim} dimensions; one field (X, Y, Z) is needed")
    if name == "tb" and about is not None and not about.whole:
        raise BadInput(
            f"{path}: is not painted to its end ({about.tiles_done:,} of {about.tiling.size:,}"
            f" tiles); run the same command again: bigbox paint {path}"
        )
    return Field(
        name=f"{path}/{name}",
        array=array,
        unit=str(array.attrs.get("units", "")),
        shape=box.shape,
        box_size=box.box_size,
        box=box,
        painted=about if name == "tb" else None,
    )


def open_truth(text: str, name: str, like: Field) -> Field:
    """The truth: a box, or an array (.npy, HDF5, zarr) in the unit and on the grid of `like`.

    Raises BadInput where its shape, or the box size where it tells one, is another.
    """
    if (read_json(Path(text) / "zarr.json") or {}).get("attributes", {}).get("format") == "bigbox":
        truth = open_field(text, name)
    else:
        source = open_source(text)
        told = source.attributes.get("box_size")
        sides = like.box_size if told is None else tuple(np.broadcast_to(told, 3).tolist())
        truth = Field(
            name=str(source),
            array=_Source(source),
            unit=like.unit,
            shape=source.shape,
            box_size=(sides[0], sides[1], sides[2]),
        )
    require_alike(truth, like)
    return truth


def open_realizations(paths: Sequence[str | Path], name: str, like: Field) -> list[Field]:
    """Other paintings of the same matter; raises BadInput where one is another box or `like`."""
    seen = {} if like.box is None else {os.path.realpath(like.box.place): like.name}
    fields = []
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise BadInput(f"{path}: is {seen[real]} itself; give other realizations of it")
        seen[real] = str(path)
        field = open_field(path, name)
        require_alike(field, like)
        fields.append(field)
    return fields


def require_alike(field: Field, like: Field) -> None:
    """Raise BadInput where two fields are not on the same grid."""
    if field.shape != like.shape:
        raise BadInput(
            f"{field.name}: has {_times(field.shape)} voxels, {like.name} has {_times(like.shape)};"
            " they must be alike"
        )
    pairs = zip(field.box_size, like.box_size, strict=True)
    if any(abs(a - b) > SAME_SIZE * b for a, b in pairs):
        raise BadInput(
            f"{field.name}: is {_times(field.box_size)} Mpc/h, {like.name} is"
            f" {_times(like.box_size)} Mpc/h; they must be alike"
        )


def survey(field: Field, memory: int) -> tuple[float, float]:
    """Least and largest value of a field; reads it once, in blocks on dask.

    Raises BadInput, naming the field, where a voxel is not finite or all are the same.
    """
    least, most = extent(field, memory)
    if least == most:
        raise BadInput(
            f"{field.name}: is {least:g} in every voxel; a constant field has neither spectrum nor"
            " seams: paint it again"
        )
    return least, most


def extent(field: Field, memory: int) -> tuple[float, float]:
    """As `survey`, but a constant field is no error."""
    import dask

    def look(region: tuple[slice, ...]) -> tuple[float, float, int, int]:
        values = read(field, region)
        least, most = float(values.min()), float(values.max())
        if math.isfinite(least) and math.isfinite(most):
            return least, most, 0, -1
        bad = ~np.isfinite(values)
        local = np.unravel_index(int(bad.argmax()), values.shape)
        at = tuple(int(i) + s.start for i, s in zip(local, region, strict=True))
        return least, most, int(bad.sum()), int(np.ravel_multi_index(at, field.shape))

    work = [dask.delayed(look)(region) for region in blocks(field)]
    found = dask.compute(*work, num_workers=threads(field, memory, 4))
    count = sum(f[2] for f in found)
    if count:
        first = min(f[3] for f in found if f[2])
        where = tuple(int(i) for i in np.unravel_index(first, field.shape))
        raise BadInput(
            f"{field.name}: {count:,} voxels are not finite, the first at {where}; paint the box to"
            " its end, or repair the array"
        )
    return min(f[0] for f in found), max(f[1] for f in found)


def threads(field: Field, memory: int, copies: int) -> int:
    """Blocks in work at once, each held `copies` times as float32."""
    largest = max(math.prod(s.stop - s.start for s in region) for region in blocks(field))
    return max(1, min(len(os.sched_getaffinity(0)), memory // (4 * copies * largest)))


def residual(field: Field, other: Field) -> Field:
    """field - other, computed where it is read."""
    name = f"{field.name} - {other.name}"
    array = _Computed((field.array, other.array), np.subtract)
    return replace(field, name=name, array=array, box=None, painted=None)


def compressed(field: Field) -> Field:
    """arcsinh((field - median) / scatter), computed where it is read; without unit.

    Median and scatter (median absolute deviation) are those of a few of the field's voxels: their
    own error changes the function a little, but nothing that is the same everywhere.
    """
    taken = blocks(field)
    few = [taken[round(i)] for i in np.linspace(0, len(taken) - 1, min(len(taken), SAMPLES))]
    sample = np.concatenate([read(field, region)[::3, ::3, ::3].ravel() for region in few])
    middle = np.float32(np.median(sample))
    scatter = np.float32(np.median(np.abs(sample - middle)) or sample.std() or 1.0)

    def compress(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.arcsinh((values - middle) / scatter)

    array = _Computed((field.array,), compress)
    return replace(field, name=f"arcsinh of {field.name}", array=array, unit="")


def blocks(field: Field) -> list[tuple[slice, ...]]:
    """Regions that cover a field: its shards, or blocks of 128³ of an array without chunks."""
    from bigbox.export import regions

    edges = getattr(field.array, "shards", None) or field.array.chunks
    return list(regions(field.shape, edges, 0))


def read(field: Field, region: tuple[slice, ...]) -> NDArray[np.float32]:
    """One region, float32; raises BadInput naming the field where a chunk is damaged."""
    try:
        return np.ascontiguousarray(field.array[region], np.float32)
    except (ValueError, OSError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{field.name}: is damaged in the block from voxel {tuple(s.start for s in region)} on"
            f" ({' '.join(str(error).split())}); find the chunk with: bigbox verify"
        ) from error


class _Computed:
    """A function of arrays, voxel by voxel, as an array that dask and the diagnostics can cut."""

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, arrays: tuple[Any, ...], function: Callable[..., Any]):
        self._arrays, self._function = arrays, function
        self.shape, self.chunks = arrays[0].shape, arrays[0].chunks
        self.shards = getattr(arrays[0], "shards", None)

    def __getitem__(self, cut: Any) -> NDArray[np.float32]:
        parts = (np.asarray(array[cut], np.float32) for array in self._arrays)
        return np.asarray(self._function(*parts), np.float32)


class _Source:
    """A file of one array, as an array that dask and the diagnostics can cut."""

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, source: GridSource):
        self._source = source
        self.shape = source.shape
        self.chunks = tuple(min(n, EDGE) for n in source.shape)

    def __getitem__(self, cut: Any) -> NDArray[np.float32]:
        cuts = (cut if isinstance(cut, tuple) else (cut,)) + (slice(None),) * 3
        region = tuple(slice(*s.indices(n)[:2]) for s, n in zip(cuts[:3], self.shape, strict=True))
        return np.asarray(self._source.read((region[0], region[1], region[2])), np.float32)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
