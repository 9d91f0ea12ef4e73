"""Open what is compared: a box's array, a truth, other realizations; refuse it in one line.

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

from bigbox.blockwise import Region, map_regions, read_block, regions
from bigbox.errors import BadInput
from bigbox.ingestion.sources import open_source
from bigbox.store.box import Box
from bigbox.store.dataset import require_whole
from bigbox.store.interpolated import Interpolated
from bigbox.store.layouts import PaintLayout
from bigbox.store.metadata import is_box
from bigbox.store.recorded import Recorded, painting_of

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
    painted: Recorded[PaintLayout] | None = None

    @property
    def voxel(self) -> float:
        """Return the side of a voxel, Mpc/h."""
        return self.box_size[0] / self.shape[0]

    @property
    def grid(self) -> int:
        """Return how many voxels of dm on an axis have one that was painted."""
        return 1 if self.painted is None else self.painted.layout.grid


class LazyArray:
    """An array (X, Y, Z), float32, of which a region is made when it is read."""

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(
        self, shape: Sequence[int], chunks: Sequence[int], read: Callable[[Region], Any]
    ) -> None:
        self.shape, self.chunks, self._read = tuple(shape), tuple(chunks), read

    def __getitem__(self, cut: Any) -> NDArray[np.float32]:
        cuts = (cut if isinstance(cut, tuple) else (cut,)) + (slice(None),) * 3
        region = tuple(slice(*s.indices(n)[:2]) for s, n in zip(cuts[:3], self.shape, strict=True))
        return np.asarray(self._read(region), np.float32)


def open_field(path: str | Path, name: str = "tb") -> Field:
    """Open an array of a box; raise BadInput where it is not there, or not painted to its end."""
    box = Box.open(path)
    if name == "tb" and not box.has("tb"):
        raise BadInput(f"{path}: is not painted yet; paint it first: bigbox paint {path}")
    array = require_whole(box, name) if box.has(name) else box.array(name)
    if array.ndim != 3:
        raise BadInput(f"{path}/{name}: has {array.ndim} dimensions; one field (X, Y, Z) is needed")
    unit = str(array.attrs.get("units", ""))
    found = painting_of(box) if name == "tb" else None
    return Field(f"{path}/{name}", array, unit, box.shape, box.box_size, box, found)


def open_truth(text: str, name: str, like: Field) -> Field:
    """Open a truth: a box, or an array (.npy, HDF5, zarr) in the unit and on the grid of `like`.

    Raise BadInput where its shape, or the box size where it has one, is another.
    """
    if is_box(Path(text)):
        truth = open_field(text, name)
    else:
        source = open_source(text)
        edges = [min(n, EDGE) for n in source.shape]
        array = LazyArray(source.shape, edges, lambda r: source.read((r[0], r[1], r[2])))
        x, y, z = np.broadcast_to(source.attributes.get("box_size", like.box_size), 3).tolist()
        truth = Field(str(source), array, like.unit, source.shape, (x, y, z))
    require_alike(truth, like)
    return truth


def open_realizations(paths: Sequence[str | Path], name: str, like: Field) -> list[Field]:
    """Open other paintings of the same matter; raise BadInput for another box, or for `like`."""
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


def survey(field: Field, memory: int, *, constant: bool = False) -> tuple[float, float]:
    """Return the least and largest value of a field; read it once, in blocks on dask.

    Raise BadInput, naming the field, where a voxel is not finite or, unless `constant`, all are the
    same.
    """

    def look(region: Region) -> tuple[float, float, int, int]:
        values = read_block(field.array, region, field.name)
        least, most = float(values.min()), float(values.max())
        if math.isfinite(least) and math.isfinite(most):
            return least, most, 0, -1
        bad = ~np.isfinite(values)
        local = np.unravel_index(int(bad.argmax()), values.shape)
        at = tuple(int(i) + s.start for i, s in zip(local, region, strict=True))
        return least, most, int(bad.sum()), int(np.ravel_multi_index(at, field.shape))

    found = list(map_regions(look, blocks(field), memory))
    count = sum(f[2] for f in found)
    if count:
        first = min(f[3] for f in found if f[2])
        where = tuple(int(i) for i in np.unravel_index(first, field.shape))
        raise BadInput(
            f"{field.name}: {count:,} voxels are not finite, the first at {where}; paint the box to"
            " its end, or repair the array"
        )
    least, most = min(f[0] for f in found), max(f[1] for f in found)
    if least == most and not constant:
        raise BadInput(
            f"{field.name}: is {least:g} in every voxel; a constant field has neither spectrum nor"
            " seams: paint it again"
        )
    return least, most


def at_tiles(field: Field, step: int) -> Field:
    """Return a field on the painting grid, where tiles meet: as stored, or every so many voxels.

    step: voxels of dm on an axis for one of the grid.
    """
    array = field.array
    if step == 1:
        return field
    x, y, z = (n // step for n in field.shape)
    if isinstance(array, Interpolated) and array.step == step:
        return replace(field, array=array.stored, shape=(x, y, z))
    every = (slice(None, None, step),) * 3

    def sample(region: Region) -> Any:
        return np.asarray(array[tuple(slice(step * s.start, step * s.stop) for s in region)])[every]

    edges = [max(1, edge // step) for edge in _edges(field)]
    return replace(field, array=LazyArray((x, y, z), edges, sample), shape=(x, y, z))


def residual(field: Field, other: Field) -> Field:
    """Return field - other, computed where it is read."""

    def subtract(region: Region) -> Any:
        a, b = (np.asarray(one.array[region], np.float32) for one in (field, other))
        return np.subtract(a, b)

    array = LazyArray(field.shape, _edges(field), subtract)
    return replace(field, name=f"{field.name} - {other.name}", array=array, box=None, painted=None)


def compressed(field: Field) -> Field:
    """Return arcsinh((field - median) / scatter), computed where it is read; without unit.

    Median and scatter (median absolute deviation) are those of a few of the field's voxels: their
    own error changes the function a little, but nothing that is the same everywhere.
    """
    taken = blocks(field)
    few = [taken[round(i)] for i in np.linspace(0, len(taken) - 1, min(len(taken), SAMPLES))]
    sample = np.concatenate(
        [read_block(field.array, region, field.name)[::3, ::3, ::3].ravel() for region in few]
    )
    middle = np.float32(np.median(sample))
    scatter = np.float32(np.median(np.abs(sample - middle)) or sample.std() or 1.0)

    def compress(region: Region) -> Any:
        return np.arcsinh((np.asarray(field.array[region], np.float32) - middle) / scatter)

    array = LazyArray(field.shape, _edges(field), compress)
    return replace(field, name=f"arcsinh of {field.name}", array=array, unit="")


def halo_channel(box: Box, channel: int) -> Field:
    """Return one mass bin of the halo densities of a box."""
    halo: Any = box.view("halo")
    array = LazyArray(box.shape, halo.chunks[1:], lambda region: halo[(channel, *region)])
    return Field(f"{box.path}/halo[{channel}]", array, "", box.shape, box.box_size)


def blocks(field: Field) -> list[Region]:
    """Return regions that cover a field: its shards, or blocks of 128³ of one without chunks."""
    return list(regions(field.shape, _edges(field), 0))


def _edges(field: Field) -> tuple[int, ...]:
    return tuple(getattr(field.array, "shards", None) or field.array.chunks)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
