"""Say what work there is, for the engine and the simulator alike: one order for each kind of it.

An *order* belongs to one rank and one kind of work. Its *units* (windows, tiles, shards, or
whatever a later kind has) are handed out in batches, and make *chunks* of a product final. Orders
are pure: they are fed with events, and asked for the next batch::

      next_batch() --> units --> (load, compute, store) --> done(units) --> Outcome
                                                              chunks of its product that are final,
                                                              mail for the same order of other ranks
      final(product, chunks)   <-- chunks of any product, by any rank
      receive(what)            <-- mail
      readers(product, chunks) --> the other ranks that must be told of them

The engine computes between `next_batch` and `done`, the simulator lets time pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Grid, Ints, distinct_pairs, in_chunks
from bigbox.scheduler.meeting import Gate, Meeting
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.tiling import Tiling

Ranks = NDArray[np.int32]


@dataclass(frozen=True)
class Mail:
    """Something for the order of the same kind on another rank."""

    to: int
    what: Any


@dataclass(frozen=True)
class Outcome:
    """What came of units: chunks of the order's product that are final, and mail."""

    final: Ints
    mail: Sequence[Mail] = field(default_factory=tuple)


class Order(ABC):
    """Which units of one kind of work one rank does, and when."""

    product: str

    @property
    @abstractmethod
    def remaining(self) -> int:
        """Return how much this rank still has to do."""

    @abstractmethod
    def next_batch(self, idle: bool) -> Ints:
        """Hand out units, int64; with `idle` fewer than a batch if there are no more."""

    @abstractmethod
    def done(self, units: Ints) -> Outcome:
        """Note that units that were handed out are done."""

    def receive(self, what: Any) -> Outcome:
        """Take mail of another rank."""
        raise ValueError(f"{self.product} takes no mail, {what!r} came")

    def final(self, product: str, chunks: Ints) -> None:  # noqa: B027 (most wait for nothing)
        """Note that chunks of a product are final, made by any rank."""

    def readers(self, product: str, chunks: Ints) -> tuple[Ints, Ranks]:
        """Return rows of `chunks` and other ranks that wait for them, no pair twice."""
        return np.empty(0, np.int64), np.empty(0, np.int32)


class _Source(Protocol):
    """An order, or the engine's task around one."""

    def next_batch(self, idle: bool) -> Ints: ...


SourceT = TypeVar("SourceT", bound=_Source)


def next_work(orders: Sequence[SourceT], idle: bool) -> tuple[SourceT, Ints] | None:
    """Return the next batch of the first order that has one.

    Those that wait for nothing come first. All ranks are then busy until theirs are done. Tiles
    first would leave ranks waiting for windows that others come to late: 18 % of the time on 64
    ranks, against 1 %.
    """
    for order in orders:
        if len(units := order.next_batch(idle)):
            return order, units
    return None


def other_ranks(table: Ints, rank_of: Callable[[Ints], Ranks], rank: int) -> tuple[Ints, Ranks]:
    """Return (row, rank) for the ranks but `rank` of the items in each row, no pair twice.

    table: (rows, columns) item numbers, -1 for none.
    """
    rows, column = np.nonzero(table >= 0)
    ranks = rank_of(table[rows, column])
    other = ranks != rank
    return distinct_pairs(rows[other], ranks[other])


class GatedOrder(Order):
    """An order whose tiles also wait for chunks of another product, where `gate` is given.

    gate, reads : which tiles may be worked on, as chunks of the product `reads` become final.
    """

    def __init__(self, assignment: Assignment, rank: int, gate: Gate | None, reads: str) -> None:
        self.assignment, self.rank, self.gate, self.reads = assignment, rank, gate, reads

    @abstractmethod
    def opened(self, tiles: Ints) -> None:
        """Note tiles whose input is final; those of other ranks, or named again, do nothing."""

    def final(self, product: str, chunks: Ints) -> None:
        """Open tiles whose input is final."""
        if product == self.reads and self.gate is not None:
            self.opened(self.gate.open(chunks))

    def readers(self, product: str, chunks: Ints) -> tuple[Ints, Ranks]:
        """Return the ranks with tiles above these blocks."""
        if product == self.reads and self.gate is not None:
            over = self.gate.meeting.inverse.of(chunks)
            return other_ranks(over, self.assignment.rank_of, self.rank)
        return super().readers(product, chunks)


class TileOrder(GatedOrder):
    """Tiles in the order of the policy, each once its neighbours and its input are final.

    Parameters
    ----------
    policy : the order of this rank's tiles; gated where `gate` is given.
    batch : tiles that are painted at once.
    product : the name of what tiles make final.
    gate, reads : which tiles may be painted, as chunks of the product `reads` become final.
    """

    def __init__(
        self,
        policy: Policy,
        batch: int,
        product: str = "painted",
        gate: Gate | None = None,
        reads: str = "",
    ) -> None:
        super().__init__(policy.assignment, policy.rank, gate, reads)
        self.policy, self.batch, self.product = policy, batch, product
        if gate is not None:
            for part in in_chunks(self.assignment.tiles_of(self.rank)):
                policy.opened(part[gate.is_open(part)])

    @property
    def remaining(self) -> int:
        """Return the tiles of this rank that are not painted."""
        return self.policy.remaining

    def next_batch(self, idle: bool) -> Ints:
        """Return the ready tiles of the highest priority; a batch that is not full if `idle`.

        A batch that is not full would waste a device that has others to work on. The tiles under
        way may soon make it full.
        """
        return self.policy.next_batch(self.batch, partial=idle)

    def done(self, units: Ints) -> Outcome:
        """Note that tiles of this rank are painted."""
        self.policy.done(units)
        return Outcome(units)

    def final(self, product: str, chunks: Ints) -> None:
        """Open tiles whose input is final, and those that wait for tiles of other ranks."""
        if product == self.product:
            others = chunks[self.assignment.rank_of(chunks) != self.rank]
            if len(others):
                self.policy.arrived(others)
        super().final(product, chunks)

    def opened(self, tiles: Ints) -> None:
        """Note tiles whose input is final."""
        self.policy.opened(tiles)

    def readers(self, product: str, chunks: Ints) -> tuple[Ints, Ranks]:
        """Return the ranks with tiles that overlap these, or lie above these blocks."""
        if product == self.product:
            return self.policy.readers(chunks)
        return super().readers(product, chunks)


class MapOrder(Order):
    """Units that are each made of chunks of one product, once all of these are final.

    Shards of tb are made of tiles so, and so is whatever else is made of a region of a product.

    Parameters
    ----------
    product, reads : names of what is made, and of what it is made of.
    meeting : of the chunks that are read with the units.
    assignment : of tiles. The rank that paints the tile at its middle makes a unit.
    done : bool (units,), those that earlier runs have made.
    part : bool (chunks,), where only some are made: a unit with any of them is then made of these.
    """

    def __init__(
        self,
        product: str,
        reads: str,
        meeting: Meeting,
        assignment: Assignment,
        rank: int,
        done: NDArray[np.bool_],
        part: NDArray[np.bool_] | None = None,
    ) -> None:
        self.product, self.reads, self.meeting, self.rank = product, reads, meeting, rank
        self.rank_of = assignment.rank_of_middle(meeting.b)
        self._part = part
        self._missing = np.zeros(len(done), np.int64)
        if part is None:
            own = np.flatnonzero((self.rank_of == rank) & ~done)
            self._missing[own] = meeting.inverse.degree(own)
        else:
            for chunks in in_chunks(np.flatnonzero(part)):
                units = meeting.of(chunks)
                np.add.at(self._missing, units[units >= 0], 1)
            self._missing[(self.rank_of != rank) | done] = 0
            own = np.flatnonzero(self._missing)
        self._ready: list[int] = []
        self._remaining = len(own)

    @property
    def remaining(self) -> int:
        """Return the units of this rank that are not made."""
        return self._remaining

    def next_batch(self, idle: bool) -> Ints:
        """Return a unit whose chunks are all final: int64 (<= 1,)."""
        batch, self._ready = self._ready[:1], self._ready[1:]
        return np.array(batch, np.int64)

    def done(self, units: Ints) -> Outcome:
        """Note that units are made."""
        self._remaining -= len(units)
        return Outcome(units)

    def final(self, product: str, chunks: Ints) -> None:
        """Count chunks that are final; each is named once."""
        if product != self.reads:
            return
        if self._part is not None:
            chunks = chunks[self._part[chunks]]
        units = self.meeting.of(chunks)
        units = units[units >= 0]
        hit, times = np.unique(units[self._missing[units] > 0], return_counts=True)
        self._missing[hit] -= times
        self._ready += hit[self._missing[hit] == 0].tolist()

    def readers(self, product: str, chunks: Ints) -> tuple[Ints, Ranks]:
        """Return the ranks that make a unit of these chunks."""
        if product != self.reads:
            return super().readers(product, chunks)
        return other_ranks(self.meeting.of(chunks), self.rank_of.__getitem__, self.rank)


def tile_gate(
    assignment: Assignment, rank: int, margin: int, blocks: Grid, final: NDArray[np.bool_]
) -> Gate:
    """Return which tiles of a rank may be painted: `margin` voxels round them must be final."""
    meeting = _blocks_of_tiles(assignment.tiling, margin, blocks)
    return Gate(meeting, assignment.tiles_of(rank), lambda parts: final[parts])


@lru_cache(maxsize=2)
def _blocks_of_tiles(tiling: Tiling, margin: int, blocks: Grid) -> Meeting:
    """Blocks that lie under each tile, made once for all ranks of a simulation."""
    return Meeting(tiling.grown(margin), blocks)
