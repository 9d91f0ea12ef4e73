"""What is stored where: one zarr v3 group per box, its arrays, units and coordinates.

    gpc_box.zarr/     attributes: box_size (Mpc/h), redshift, cosmology, voxel_size, provenance
      x  y  z         voxel centres, Mpc/h
      x2 y2 z2        those of a painting grid, of every second voxel of dm on each axis
      dm              (X, Y, Z)     float32  1 + delta, mean 1
      halo            (4, X, Y, Z)  float32  (M_sun/h) / (Mpc/h)^3; may be on a painting grid
      latents/        painted (nx, ny, nz, t, t, t) and steps (nx, ny, nz, T, t, t, t), tile-major
      tb              (X, Y, Z)     float32  mK, NaN where not painted yet; on a painting grid too
      ledger/         who has done what: see `bigbox.store.ledger`
      halogen/        the ledger of halo, where bigbox painted it: see `bigbox.store.haloes`
      realizations/   0001/, 0002/, ...: a group with tb, latents and ledger for each realization
                      after the first; its path opens as a box whose dm and halo are those above

`xarray.open_zarr(path)` opens it as a labelled data set; see `bigbox.store.consolidated`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from bigbox.errors import BadInput
from bigbox.names import GRIDS
from bigbox.physics.cosmology import PARAMETERS
from bigbox.scheduler.grid import triple
from bigbox.store.consolidated import consolidate, take_away
from bigbox.store.durable import DISK, Disk, explained, own_name
from bigbox.store.fields import AXES, DM, HALO, field_of, is_axis, is_of_realization
from bigbox.store.geometry import check_cubic, check_redshift, open_array, sides_of, three_sizes
from bigbox.store.interpolated import Interpolated
from bigbox.store.metadata import (
    FORMAT_VERSION,
    array_metadata,
    group_attributes,
    group_metadata,
    read_json,
    understood,
)
from bigbox.store.painting_grid import PaintingGrid, write_coordinate

REALIZATIONS = "realizations"


class Box:
    """A box on disk: its geometry and its arrays.  Use `Box.create` or `Box.open`.

    path: the box; place: the group of its `realization`, where tb, latents and ledger stand: the
    box itself for realization 0.
    """

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        mode: Literal["r", "r+"],
        realization: int = 0,
    ) -> None:
        self.path = path
        self.realization = realization
        self.place = realization_path(path, realization)
        self.mode = mode
        self.attributes = dict(attributes)
        self.shape: tuple[int, int, int] = triple(map(int, attributes["shape"]))
        self.box_size: tuple[float, float, float] = triple(map(float, attributes["box_size"]))
        self.redshift = float(attributes["redshift"])

    @classmethod
    def create(
        cls,
        path: str | Path,
        shape: Sequence[int],
        box_size: float | Sequence[float],
        redshift: float,
        cosmology: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        *,
        disk: Disk = DISK,
    ) -> Box:
        """Make a new, empty box.

        shape: voxels per axis; box_size: Mpc/h, one number for the x axis of cubic voxels or one
        per axis; cosmology and provenance: JSON.  Raises BadInput where something exists at `path`
        or the geometry cannot be one of cubic voxels.
        """
        path = Path(path)
        voxels = three_sizes(path, shape)
        size = sides_of(voxels, box_size)
        check_cubic(path, voxels, size)
        check_redshift(path, redshift)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BadInput(f"{path}: exists already; remove it or choose another name")
        attributes = {
            "format": "bigbox",
            "format_version": FORMAT_VERSION,
            "shape": list(voxels),
            "box_size": list(size),
            "box_size_units": "Mpc/h",
            "voxel_size": size[0] / voxels[0],
            "redshift": float(redshift),
            "cosmology": dict(cosmology or {}),
            "provenance": dict(provenance or {}),
        }
        with explained(path):
            for place in (*reversed(path.parents), path):
                if not place.exists():
                    disk.mkdir(place)
            box = cls(path, attributes, "r+")
            for axis, name in enumerate(AXES):
                write_coordinate(disk, path / name, name, box.centres(axis))
            # Last: a box that was not made to its end is no box.
            disk.write_atomic(path / "zarr.json", group_metadata(attributes))
        return box

    @classmethod
    def open(cls, path: str | Path, mode: Literal["r", "r+"] = "r", realization: int = 0) -> Box:
        """Open an existing box, or one of its realizations by the path of its group.

        realization: one that need not be there yet, for who is going to paint it.
        Raises BadInput where there is no box or it is not bigbox's.
        """
        path = Path(path)
        named = _realization_named(path)
        if named is not None:
            if realization not in (0, named[1]):
                raise BadInput(
                    f"{path}: is realization {named[1]}, {realization} was asked for; name the box"
                    f" itself: {named[0]}"
                )
            if not path.exists():
                raise BadInput(
                    f"{named[0]}: has no realization {named[1]}; paint it with: bigbox paint"
                    f" {named[0]} --realization {named[1]}"
                )
            path, realization = named
        if not path.exists():
            raise BadInput(f"{path}: no such store; make one with: bigbox ingest SOURCE {path}")
        attributes = group_attributes(path)
        if attributes.get("format") != "bigbox":
            raise BadInput(
                f"{path}: not a bigbox store (no zarr v3 group with format 'bigbox');"
                " make one with: bigbox ingest SOURCE BOX"
            )
        version = attributes.get("format_version")
        if version != FORMAT_VERSION:
            raise BadInput(
                f"{path}: format version {version}, this bigbox reads {FORMAT_VERSION};"
                " use the bigbox that made it, or ingest again"
            )
        if mode == "r+" and not os.access(path, os.W_OK):
            raise BadInput(f"{path}: read-only; make the store writable or work on a copy")
        with understood(path / "zarr.json"):
            box = cls(path, attributes, mode, realization)
            three_sizes(path, box.shape)
            sides_of(box.shape, box.box_size)
            check_redshift(path, box.redshift)
            for name, value in dict(attributes.setdefault("cosmology", {})).items():
                if name in PARAMETERS and value is not None and not math.isfinite(value):
                    raise ValueError(f"{name} of its cosmology is {value}")
        check_cubic(path, box.shape, box.box_size)
        return box

    @property
    def stem(self) -> str:
        """The box's name without .zarr, and the realization, for files beside it."""
        stem = self.path.resolve().name.removesuffix(".zarr")
        return f"{stem}_r{self.realization:04d}" if self.realization else stem

    def place_of(self, name: str) -> Path:
        """Where an array of the box stands, or would."""
        own = is_of_realization(name.split("/")[0])
        return (self.place if own else self.path) / name

    def realizations(self) -> list[int]:
        """Return the realizations after the first that have been begun, ascending."""
        found = (_realization_named(p) for p in (self.path / REALIZATIONS).glob("*"))
        return sorted(named[1] for named in found if named is not None)

    @property
    def voxel(self) -> float:
        """Side of a voxel, Mpc/h."""
        return self.box_size[0] / self.shape[0]

    def centres(self, axis: int, step: int = 1) -> np.ndarray:
        """Return the centres of every `step`-th voxel on one axis, Mpc/h, float64."""
        count, length = self.shape[axis], self.box_size[axis]
        return ((np.arange(count) + 0.5) * (length / count))[::step]

    def on_grid(self, step: int) -> PaintingGrid:
        """Return every `step`-th voxel of the box. Raises BadInput where an axis has a rest."""
        return PaintingGrid.of(self.shape, self.voxel, step)

    def grid_of(self, name: str) -> PaintingGrid:
        """Return the grid that an array is on, known by its shape. Raises BadInput."""
        array = self.array(name)
        shape = tuple(int(n) for n in array.shape[-3:])
        step = max(1, round(self.shape[0] / shape[0])) if len(shape) == 3 and shape[0] else 1
        if tuple(n * step for n in shape) != self.shape or (step > 1 and name == DM.name):
            raise BadInput(
                f"{self.path}/{name}: is {shape} voxels, the box is {self.shape}; ingest it again"
            )
        return self.on_grid(step)

    def step_of(self, array: Any) -> int:
        """Return how many voxels of dm on an axis have one of an array over the box."""
        return self.shape[0] // int(array.shape[-3])

    def steps_between(self, name: str, grid: int) -> int:
        """Return how many voxels of an array make one of a painting grid. Raises BadInput."""
        own = self.grid_of(name).step
        if grid % own:
            raise BadInput(
                f"{self.path}/{name}: has one voxel for {own} of dm on each axis, and the painting"
                f" grid has one for {grid}: what lies between is not there; paint with a model for"
                f" every {own} voxels, or ingest {name} again"
            )
        return grid // own

    def has(self, name: str) -> bool:
        """Whether the box has an array of this name ("dm", "latents/painted", ...)."""
        return (read_json(self.place_of(name) / "zarr.json") or {}).get("node_type") == "array"

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the zarr array, opened in the box's mode; raise BadInput where there is none."""
        if not self.has(name):
            raise BadInput(
                f"{self.path}: has no array '{name}' (it has: {', '.join(self.names()) or 'none'})"
            )
        return open_array(self.place_of(name), self.mode)

    def names(self) -> list[str]:
        """Names of the box's arrays, coordinates left out."""
        found = {
            p.parent.name for place in (self.path, self.place) for p in place.glob("*/zarr.json")
        }
        return sorted(n for n in found if not is_axis(n) and self.has(n))

    def require(self, name: str) -> zarr.Array[Any]:
        """As `array`, checked to span the box: (X, Y, Z), or (channels, X, Y, Z) for halo.

        Haloes and what is painted may be on a painting grid.
        """
        if not self.has(name):
            way = "bigbox ingest SOURCE BOX" if name == "dm" else f"the command that makes {name}"
            raise BadInput(f"{self.path}: has no '{name}'; add it with: {way}")
        array = self.array(name)
        rank = len(field_of(name).dims)
        if array.ndim != rank:
            raise BadInput(
                f"{self.path}/{name}: has {array.ndim} dimensions {array.shape},"
                f" must have {rank}; ingest it again"
            )
        self.grid_of(name)
        return array

    def view(self, name: str, grid: str = "dm") -> zarr.Array[Any] | Interpolated:
        """As `require`, on the grid of dm: interpolated where the array is on a painting grid.

        grid: "painted" gives the array as it is stored.
        """
        array = self.require(name)
        step = self.step_of(array)
        if grid not in GRIDS:
            raise BadInput(f"grid {grid!r}: is not one of {', '.join(GRIDS)}")
        return array if step == 1 or grid == "painted" else Interpolated(array, step)

    def require_input(self) -> str:
        """Return what the box was made of: "dm", or "halo" where haloes are all that it has.

        Raises BadInput where it has neither.
        """
        name = "dm" if self.has("dm") or not self.has("halo") else "halo"
        self.require(name)
        return name

    def consolidate(self, disk: Disk = DISK) -> None:
        """Have the groups of the box tell what is in them, once what was made is whole."""
        for group in dict.fromkeys((self.path, self.place)):
            consolidate(disk, group, REALIZATIONS)

    def take_away_consolidated(self, disk: Disk = DISK) -> None:
        """Take that away, before anything is changed."""
        for group in dict.fromkeys((self.path, self.place)):
            take_away(disk, group)

    def create_array(
        self,
        name: str,
        *,
        channels: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        grid: int = 1,
    ) -> zarr.Array[Any]:
        """Make an array over the box, (X, Y, Z) or (channels, X, Y, Z), NaN until written.

        grid: voxels of dm on an axis for one of the array.

        Sharded; write whole shards, one writer each (`array.shards`): two processes that write
        different chunks of one shard lose data.
        """
        place = self.path / name
        if place.exists():
            raise BadInput(f"{place}: exists already; remove it on purpose or keep it")
        on = self.on_grid(grid)
        chunk, shard = field_chunks(on.shape, channels)
        names = on.axes if channels is None else HALO.on_grid(grid).dims
        shape = on.shape if channels is None else (channels, *on.shape)
        meta = array_metadata(
            shape,
            chunk,
            shard=shard,
            names=names,
            attributes={**field_of(name).attributes(), **(attributes or {}), **on.attributes()},
        )
        take_away(DISK, self.path)
        make_axes(DISK, self, self.path, grid)
        with explained(place):
            DISK.make_dir(place)
            DISK.write_atomic(place / "zarr.json", meta)
        return open_array(place, "r+")


def field_chunks(
    shape: Sequence[int], channels: int | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(inner chunk, shard) of dm or halo: 64³ in 256³, 32³ below 128 voxels; halo half of that.

    A shard is never larger than the box rounded up to whole chunks.
    """
    longest = max(shape)
    edge = 64 if longest >= 128 and channels is None else 32
    chunk = (edge,) * 3
    shard = tuple(min(4 * edge, -(-n // edge) * edge) for n in shape)
    if channels is None:
        return chunk, shard
    return (channels, *chunk), (channels, *shard)


def realization_path(path: str | Path, realization: int) -> Path:
    """Return the group of a realization: the box itself for 0, else realizations/0001 and so on."""
    path = Path(path)
    return path / REALIZATIONS / f"{realization:04d}" if realization else path


def _realization_named(path: Path) -> tuple[Path, int] | None:
    """Return the box and number that the path of a realization's group names; None for others."""
    path = path.absolute() if len(path.parts) < 3 else path
    match = re.fullmatch(r"\d{4,}", path.name)
    if match is None or path.parent.name != REALIZATIONS or not int(path.name):
        return None
    return path.parent.parent, int(path.name)


def make_group(disk: Disk, place: Path, *inside: Path) -> None:
    """Make a group, and directories inside it, where it is not yet; others may do so as well."""
    if (place / "zarr.json").exists():
        return
    with explained(place):
        for path in (place, *inside):
            disk.make_dir(path)
        # A group, so that zarr and xarray pass over it without a warning; last, so that all is
        # there.
        disk.write_atomic(place / "zarr.json", group_metadata(), own_name(place))


def make_realization(disk: Disk, box: Box) -> None:
    """Make the group of the box's realization where it is not there yet."""
    if not box.realization or (box.place / "zarr.json").exists():
        return
    make_group(disk, box.place.parent)
    with explained(box.place):
        disk.make_dir(box.place)
        for axis, name in enumerate(AXES):
            write_coordinate(disk, box.place / name, name, box.centres(axis))
        about = {
            **{k: box.attributes[k] for k in ("box_size", "box_size_units", "redshift")},
            "realization": box.realization,
        }
        disk.write_atomic(box.place / "zarr.json", group_metadata(about), own_name(box.place))


def make_axes(disk: Disk, box: Box, group: Path, grid: int) -> None:
    """Make the coordinates of a painting grid in a group of the box where they are not there yet.

    Others may do so as well. Those of dm's own grid are made with the group.
    """
    for axis, name in enumerate(box.on_grid(grid).axes):
        if not (group / name / "zarr.json").exists():
            with explained(group):
                write_coordinate(disk, group / name, name, box.centres(axis, grid))
