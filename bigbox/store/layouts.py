"""Say what the runs of a ledger make: tiles and tb of a realization, or the haloes of a box.

    ledger/           of a realization    latents/painted, then tb and other fields of the box
    halogen/ledger/   of the box          halo

The haloes have a ledger, a lease and runs of their own, so that once painted they serve any number
of paintings of tb without being touched. A layout is what run.json says beside the identity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from bigbox.scheduler.bricks import Bricks, default_shard
from bigbox.scheduler.grid import Grid, Ints
from bigbox.scheduler.meeting import Meeting
from bigbox.scheduler.stages import predecessors
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.windows import Windows
from bigbox.store.box import Box
from bigbox.store.fields import HALO, PAINTED, STEPS, TB, Field, known_field
from bigbox.store.ledger import Ledger
from bigbox.store.metadata import array_metadata, group_metadata
from bigbox.store.product import Appended, Sharded

# The group of the haloes' ledger.
HALOGEN = "halogen"
# Voxels of a block on each axis: half a window, so that few are open, and the haloes under a tile
# are few bytes.
BLOCK = 32

Products = tuple[Appended, *tuple[Sharded, ...]]


class Layout(ABC):
    """What the runs of one ledger make, and how that is spoken of."""

    kind: ClassVar[str]  # of a run, in the ledger
    noun: ClassVar[str]  # what is painted, in a message
    way_out: ClassVar[str]  # the option that gives it up
    usual: ClassVar[tuple[str, ...]]  # the arrays in the group that a run makes at least
    kept: ClassVar[bool]  # a run that goes on keeps the layout that it finds, whatever is asked
    grid: int  # voxels of dm on an axis for one that is painted

    @staticmethod
    @abstractmethod
    def place(box: Box) -> Path:
        """Return the group that the products stand in."""

    @staticmethod
    @abstractmethod
    def ledger(box: Box) -> Ledger:
        """Return the ledger, which may be empty."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Return the layout as JSON, for run.json."""

    @classmethod
    @abstractmethod
    def from_run(cls, run: Mapping[str, Any]) -> Self:
        """Return the layout in run.json."""

    @abstractmethod
    def products(self, place: Path) -> Products:
        """Return the products in the group `place`, by the numbers of their records."""

    def arrays(self) -> tuple[str, ...]:
        """Return the names in the group that a run makes, and may put aside."""
        return self.usual

    @abstractmethod
    def files(self, tmp: Path, about: Mapping[str, Any]) -> dict[Path, bytes]:
        """Return zarr.json by directory, parents first, of the empty arrays made in `tmp`."""

    def taken_back(self, place: Path, chunks: Mapping[str, Ints]) -> dict[str, Ints]:
        """Return all chunks, by product, that go with these when they are taken back."""
        return {name: np.unique(some) for name, some in chunks.items()}


@dataclass(frozen=True)
class PaintLayout(Layout):
    """Tiles in bricks of `edge`^3, and the fields of the box that are made of them."""

    bricks: Bricks[Tiling]
    n_steps: int = 0  # per-step latents kept for each tile
    edges: tuple[int, int] = (0, 0)  # (shard, inner chunk) of the fields, voxels
    fields: tuple[str, ...] = (TB.name,)
    grid: int = 1

    kind = "paint"
    noun = "is painted"
    way_out = "--discard"
    usual = ("latents", TB.name)
    kept = False

    def __post_init__(self) -> None:
        if not self.edges[0]:
            object.__setattr__(self, "edges", default_shard(max(self.tiling.shape)))

    @property
    def tiling(self) -> Tiling:
        """Return the tiles."""
        return self.bricks.grid

    @cached_property
    def shards(self) -> Grid:
        """The shards of the fields."""
        return Grid.regular(self.tiling.shape, self.edges[0])

    @cached_property
    def shards_of_tiles(self) -> Meeting:
        """The shards that the voxels owned by each tile go into, at most 8 where tiles are smaller.

        Pieces are voxels of the tile, and of the shard.
        """
        return Meeting(self.tiling.owned_grid, self.shards)

    @staticmethod
    def place(box: Box) -> Path:
        """Return the group of the realization."""
        return box.place

    @staticmethod
    def ledger(box: Box) -> Ledger:
        """Return the ledger of the realization."""
        return Ledger(box.place)

    def as_dict(self) -> dict[str, Any]:
        """Return the layout as JSON, for run.json."""
        return {
            "tiling": self.tiling.as_dict(),
            "edge": self.bricks.edge,
            "n_steps": self.n_steps,
            "tb": {"shard": self.edges[0], "chunk": self.edges[1]},
            "fields": list(self.fields),
            "grid": self.grid,
        }

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> Self:
        """Return the layout in run.json."""
        bricks = Bricks(Tiling.from_dict(run["tiling"]), int(run["edge"]))
        edges = int(run["tb"]["shard"]), int(run["tb"]["chunk"])
        fields, grid = tuple(run.get("fields", (TB.name,))), int(run.get("grid", 1))
        return cls(bricks, int(run["n_steps"]), edges, fields, grid)

    def products(self, place: Path) -> Products:
        """Return the products, by the numbers of their records."""
        t = (self.tiling.kept,) * 3
        tiles = Appended(PAINTED, place, "tile", "tiles", self.bricks, t, "c.{}.{}.{}.0.0.0")
        made = (
            Sharded(
                (known_field(name) or Field(name, "", "", realization=True)).on_grid(self.grid),
                place,
                f"{name} shard",
                f"shards of {name}",
                self.shards,
                self.edges,
            )
            for name in self.fields
        )
        return tiles, *made

    def arrays(self) -> tuple[str, ...]:
        """Return the names in the group that a run makes."""
        return "latents", *self.fields

    def files(self, tmp: Path, about: Mapping[str, Any]) -> dict[Path, bytes]:
        """Return zarr.json by directory, parents first."""
        t, counts, edge = (self.tiling.kept,) * 3, self.tiling.counts, (self.bricks.edge,) * 3
        found = {
            tmp / "latents": group_metadata(),
            tmp / PAINTED.name: array_metadata(
                (*counts, *t),
                (1, 1, 1, *t),
                shard=edge + t,
                names=PAINTED.dims,
                attributes=PAINTED.attributes(),
                separator=".",
            ),
        }
        for _, *made in [self.products(tmp)]:
            found |= {one.path: one.metadata(about) for one in made}
        if self.n_steps:
            found[tmp / STEPS.name] = array_metadata(
                (*counts, self.n_steps, *t),
                (1, 1, 1, self.n_steps, *t),
                names=STEPS.dims,
                attributes=STEPS.attributes(),
                separator=".",
            )
        return found

    def steps_file(self, place: Path, tile: int) -> Path:
        """Return the file of a tile's per-step latents."""
        x, y, z = self.tiling.coords(tile).tolist()
        return place / STEPS.name / f"c.{x}.{y}.{z}.0.0.0.0"

    def taken_back(self, place: Path, chunks: Mapping[str, Ints]) -> dict[str, Ints]:
        """Return all chunks, by product, that go with these when they are taken back.

        With a tile go the shards that it is in. Where per-step latents are stored, so does every
        earlier tile that must be painted again for its sake: a tile is painted from the latents of
        the tiles that it waits for, and these are dropped once no unpainted tile needs them.
        """
        tiles = np.unique(np.asarray(chunks.get(PAINTED.name, ()), np.int64))
        front = tiles
        while self.n_steps and len(front):
            before = np.unique(predecessors(self.tiling, front))
            lost = [t for t in before.tolist() if t >= 0 and not self.steps_file(place, t).exists()]
            front = np.setdiff1d(np.array(lost, np.int64), tiles)
            tiles = np.union1d(tiles, front)
        found = {PAINTED.name: tiles}
        for name in self.fields:
            touched = self.shards_of_tiles.touched(tiles)
            found[name] = np.union1d(touched, np.asarray(chunks.get(name, ()), np.int64))
        return found


@dataclass(frozen=True)
class HaloLayout(Layout):
    """The windows in which haloes are predicted, and their blocks in shards of `edge`^3."""

    windows: Windows
    edge: int
    channels: int
    grid: int = 1

    kind = "halo"
    noun = "haloes are painted"
    way_out = "--discard-halo"
    usual = (HALO.name,)
    kept = True

    @classmethod
    def new(
        cls, windows: Windows, channels: int, edge: int | None = None, grid: int = 1
    ) -> HaloLayout:
        """Return the layout of a new painting: shards of as many voxels as those of tb."""
        most = default_shard(max(windows.shape))[0]
        return cls(windows, edge or max(1, most // windows.block), channels, grid)

    @staticmethod
    def place(box: Box) -> Path:
        """Return the group of the box."""
        return box.path

    @staticmethod
    def ledger(box: Box) -> Ledger:
        """Return the ledger of the haloes, which all realizations share."""
        return Ledger(box.path / HALOGEN, HaloLayout.way_out, own_group=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the layout as JSON, for run.json."""
        return {
            "windows": {
                "shape": list(self.windows.shape),
                "window": self.windows.window,
                "stride": self.windows.stride,
            },
            "block": self.windows.block,
            "edge": self.edge,
            "channels": self.channels,
            "grid": self.grid,
        }

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> Self:
        """Return the layout in run.json."""
        x, y, z = run["windows"]["shape"]
        windows = Windows(
            (x, y, z), run["windows"]["window"], run["windows"]["stride"], run["block"]
        )
        return cls(windows, int(run["edge"]), int(run["channels"]), int(run.get("grid", 1)))

    def products(self, place: Path) -> Products:
        """Return the products in the group `place`: halo, NaN beyond the box's end."""
        shape = (self.channels, *(self.windows.block,) * 3)
        bricks = Bricks(self.windows.blocks, self.edge)
        halo, key = HALO.on_grid(self.grid), "c.0.{}.{}.{}"
        return (Appended(halo, place, "block", "blocks of haloes", bricks, shape, key),)

    def files(self, tmp: Path, about: Mapping[str, Any]) -> dict[Path, bytes]:
        """Return zarr.json of halo, one inner chunk a block."""
        block = self.windows.block
        data = array_metadata(
            (self.channels, *self.windows.shape),
            (self.channels, block, block, block),
            shard=(self.channels, *(self.edge * block,) * 3),
            names=HALO.on_grid(self.grid).dims,
            attributes={**HALO.attributes(), **about},
            separator=".",
        )
        return {tmp / HALO.name: data}


LayoutT = TypeVar("LayoutT", bound=Layout)
