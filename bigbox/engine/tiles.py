"""Paint tiles: load inputs and known voxels, paint, store, and hand overlaps to other tiles.

A rank is told of a tile only when its record stands in the ledger, so whatever is built on it can
never outlive it. On the same rank a tile may be painted from one that is not durable yet.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bigbox.engine.memory import WithinMemory
from bigbox.engine.overlaps import Overlaps, Slab, packed
from bigbox.engine.progress import Goal
from bigbox.engine.task import Task, check_finite, read_inputs
from bigbox.engine.transport import Parcel
from bigbox.errors import BigboxError
from bigbox.painters.base import TileBatch
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.orders import Outcome, Ranks, TileOrder, other_ranks
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.stages import predecessors, successors
from bigbox.store.fields import HALO, PAINTED
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.engine.job import Job


class StepLatents:
    """Per-step latents that no tile needs any more (the `latents` method) are dropped at once.

    A tile's latents are needed until every tile that waits for it is durable.
    """

    def __init__(self, job: Job) -> None:
        self._painting, self._assignment, self._rank = job.painting, job.assignment, job.rank
        self._tiling = job.tiling
        self._done = self._painting.was_done(PAINTED.name)

    def durable(self, tiles: Ints) -> None:
        """Drop what these tiles, of any rank, set free on this rank."""
        self._done[tiles] = True
        before = predecessors(self._tiling, tiles)
        perhaps = np.unique(np.concatenate([tiles, before[before >= 0]]))
        perhaps = perhaps[self._done[perhaps] & (self._assignment.rank_of(perhaps) == self._rank)]
        if len(perhaps):
            waiting = successors(self._tiling, perhaps)
            free = np.all((waiting < 0) | self._done[np.maximum(waiting, 0)], axis=1)
            self._painting.drop_steps(perhaps[free])


class PaintOrder(TileOrder):
    """Tiles in the policy's order; with step latents the ranks before a tile are told of it too.

    They drop the latents of the tiles that it waited for.
    """

    with_steps = False

    def readers(self, product: str, chunks: Ints) -> tuple[Ints, Ranks]:
        """Return rows of `chunks` and the other ranks that wait for them."""
        rows, ranks = super().readers(product, chunks)
        if not self.with_steps or product != self.product:
            return rows, ranks
        before = predecessors(self.assignment.tiling, chunks)
        more_rows, more_ranks = other_ranks(before, self.assignment.rank_of, self.rank)
        return np.concatenate([rows, more_rows]), np.concatenate([ranks, more_ranks])


class TileTask(Task):
    """One rank's tiles."""

    def __init__(self, job: Job) -> None:
        self.tiling, self.painter, self.painting = job.tiling, job.spec.painter, job.painting
        self._rank_of, self._rank = job.assignment.rank_of, job.rank
        gate = job.gate()
        policy = Policy(job.assignment, job.rank, job.spec.colouring, gated=gate is not None)
        for tiles in self.painting.done_before(PAINTED.name):
            policy.restore(tiles)
        if job.wanted is not None:
            policy.leave_out(np.flatnonzero(~job.wanted))
        order = PaintOrder(policy, job.spec.batch, PAINTED.name, gate, HALO.name)
        order.with_steps = self.painter.fields > 1
        super().__init__(order, Goal("tile", job.total, job.already, main=True))
        self._steps = StepLatents(job) if order.with_steps else None
        self._reader = job.reader(self.painter.input) if self.painter.input else None
        self._overlaps = Overlaps(
            self.tiling, self.painter.fields, job.limits.overlap_bytes, self.painting.read_fields
        )
        self._owed: dict[int, list[tuple[int, Slab]]] = defaultdict(list)  # of tiles, to ranks
        self._within = WithinMemory(f"{self.painter.name} painter, tiles")
        self._error: BigboxError | None = None

    def load(self, units: Ints) -> TileBatch:
        """Return inputs and known voxels of a batch. Inputs reach `margin` beyond the tile."""
        origin = self.tiling.origin(units)
        inputs = read_inputs(self._reader, self.painter, self.tiling, origin)
        known, width = self._overlaps.known(units)
        return TileBatch(tiles=units, origin=origin, inputs=inputs, known=known, width=width)

    def compute(self, units: Ints, loaded: TileBatch) -> Float:
        """Return all fields of the tiles, float32 (B, F, t, t, t)."""
        self.painting.note_begun(units)
        made = self._within(self.painter.paint, loaded)
        return check_finite(self.painter.name, self.tiling, units, made)

    def computed(self, units: Ints, result: Float) -> None:
        """Keep the slabs for tiles of this rank, and those owed to others until this is durable."""
        mine = []
        waiting, slabs = self._overlaps.cut(units, result)
        for rank, slab in zip(self._rank_of(waiting).tolist(), slabs, strict=True):
            if rank == self._rank:
                mine.append(slab)
            else:
                self._owed[slab.tile].append((rank, slab))
        self._overlaps.keep(mine, durable=False)
        self.order.done(units)

    def store(self, units: Ints, result: Float) -> None:
        """Make a batch durable, unless an earlier one failed.

        What waits for a tile must never be recorded before it.
        """
        if self._error is not None:
            raise self._error
        try:
            self.painting.commit_tiles(units, result)
        except BigboxError as error:
            self._error = error
            raise

    def stored(self, units: Ints, found: None) -> Outcome:
        """Return the tiles: they are durable."""
        self._overlaps.now_durable(units)
        return Outcome(units)

    def parcel(self, rank: int, chunks: Ints) -> Parcel:
        """Return the slabs of these tiles that another rank waits for."""
        owed = [pair for tile in chunks.tolist() for pair in self._owed.get(tile, ())]
        return packed([slab for to, slab in owed if to == rank])

    def unpack(self, parcel: Parcel) -> None:
        """Keep the slabs of tiles of another rank."""
        self._overlaps.keep(self._overlaps.unpacked(parcel), durable=True)

    def final(self, product: str, chunks: Ints) -> None:
        """Take note of durable tiles, and of haloes that are final."""
        super().final(product, chunks)
        if product == self.product:
            for tile in chunks.tolist():
                self._owed.pop(tile, None)
            if self._steps:
                self._steps.durable(chunks)
