"""Say what a ledger tells of its painting, and whose an array is: painted by bigbox, or given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

from bigbox.errors import BadInput
from bigbox.store.box import Box
from bigbox.store.fields import HALO
from bigbox.store.layouts import HaloLayout, LayoutT, PaintLayout, Products
from bigbox.store.ledger import Ledger, State
from bigbox.store.metadata import read_json, understood
from bigbox.store.product import ChunkReader


@dataclass(frozen=True)
class Recorded(Generic[LayoutT]):
    """What a ledger says of its painting; the records are read once, when asked."""

    place: Path  # the group that the products stand in
    ledger: Ledger
    run: dict[str, Any]  # run.json
    layout: LayoutT
    newest: int  # run when this was read

    @property
    def identity(self) -> dict[str, Any]:
        """Return what decides the painted bytes."""
        found: dict[str, Any] = self.run["identity"]
        return found

    @property
    def attributes(self) -> dict[str, Any]:
        """Return what the arrays say of themselves; the painter's part from run.json."""
        own: dict[str, Any] = self.run.get("attributes", {})
        return {**own, "painting": self.identity}

    @cached_property
    def products(self) -> Products:
        """The products, by the numbers of their records."""
        return self.layout.products(self.place)

    @cached_property
    def state(self) -> State:
        """What is done."""
        with understood(self.ledger.path, self.ledger.way_out):
            return self.ledger.state(self.products)

    def reader(self) -> ChunkReader:
        """Return a reader of the chunks of product 0, which no run is making now."""
        return ChunkReader(self.products[0], self.state.ends, self.ledger)

    @property
    def complete(self) -> bool:
        """Whether every chunk of every product is done."""
        return all(bool(done.all()) for done in self.state.done)


def recorded(box: Box, kind: type[LayoutT], *, giving_up: bool = False) -> Recorded[LayoutT] | None:
    """Return what a ledger says of its painting; None where nothing was painted.

    giving_up: None also where it is damaged, for who is about to throw the painting away. Raises
    BadInput where it is damaged, or lost.
    """
    ledger = kind.ledger(box)
    try:
        newest, run = ledger.newest(), ledger.run()
        if run is None:
            lost = next((n for n in kind.usual if is_painted(kind.place(box) / n)), None)
            if lost is not None and not ledger.path.exists():
                raise BadInput(
                    f"{ledger.path}: lost, with what it told of {kind.place(box) / lost};"
                    f" {ledger.way_out}"
                )
            return None
        with understood(ledger.path / "run.json", ledger.way_out):
            layout = kind.from_run(run)
            dict(**run["identity"]), dict(**run.get("attributes", {}))  # tables, both
            known: Any = layout
            parts = known.windows if kind is HaloLayout else known.tiling
            if tuple(n * layout.grid for n in parts.shape) != box.shape:
                raise ValueError(f"of {parts.shape} voxels, in a box of {box.shape}")
    except BadInput:
        if giving_up:
            return None
        raise
    return Recorded(kind.place(box), ledger, run, layout, newest)


def painting_of(box: Box, *, giving_up: bool = False) -> Recorded[PaintLayout] | None:
    """Return what the ledger says of tb; None where nothing was painted. See `recorded`."""
    return recorded(box, PaintLayout, giving_up=giving_up)


def haloes_of(box: Box, *, giving_up: bool = False) -> Recorded[HaloLayout] | None:
    """Return what the ledger says of the haloes; None where bigbox has painted none."""
    return recorded(box, HaloLayout, giving_up=giving_up)


def is_painted(place: Path) -> bool:
    """Return whether an array, at this place, was begun by bigbox paint: its own attributes say so.

    It says so before it has a name. So a kill cannot make it look like one that was ingested: of
    one that no ledger knows nothing is done, and it is made anew.
    """
    return "painting" in (read_json(place / "zarr.json") or {}).get("attributes", {})


def has_given_haloes(box: Box) -> bool:
    """Return whether a box has haloes that bigbox has not painted."""
    if haloes_of(box, giving_up=True) is not None:
        return False
    return box.has(HALO.name) and not is_painted(box.path / HALO.name)
