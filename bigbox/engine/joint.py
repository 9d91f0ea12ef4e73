"""Paint all tiles together: one denoising step of a tile is a unit of work.

::

    order ─next nodes─► load ──────────► advance ────► store ───────────► stored
    (tile, step)        the field under  the device    z, x0 of the core  whoever waits for it:
                        the tile                       last step: T_b     tiles here, and ranks,
                                                       to the store       who get what they touch

What a node makes is a function of the box and the seed alone, so it may be used before, or without,
being durable. Only T_b of finished tiles is recorded. What a killed run had not finished begins
anew, with as many steps of its finished neighbours as it needs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bigbox.engine.latents import ARRAYS, LEVEL_BITS, Latents
from bigbox.engine.progress import Goal
from bigbox.engine.task import Task, read_inputs
from bigbox.engine.transport import Parcel
from bigbox.painters.base import StepBatch, StepPainter
from bigbox.scheduler.grid import Ints, Slices, triple
from bigbox.scheduler.orders import Mail, Outcome, tile_gate
from bigbox.scheduler.steps import StepOrder, Together
from bigbox.scheduler.tiling import Tiling
from bigbox.store.fields import HALO, PAINTED
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.engine.job import Job


@lru_cache(maxsize=2)
def together_of(tiling: Tiling) -> Together:
    """Return which tiles share voxels, made once for all ranks in a process."""
    return Together(tiling)


class JointTask(Task):
    """One rank's nodes."""

    def __init__(self, job: Job) -> None:
        self.tiling, self.painting = job.tiling, job.painting
        self.painter = cast(StepPainter, job.spec.painter)
        together = together_of(job.tiling)
        self._cores, self._steps = together.cores, self.painter.steps
        gate = None
        if job.halo_painting is not None:
            blocks, final = job.halo_painting.layout.windows.blocks, job.halo_painting.was_done
            margin = self.painter.margin
            gate = tile_gate(job.assignment, job.rank, margin, blocks, final(HALO.name))
        goals = together.goals(~self.painting.was_done(PAINTED.name), self._steps)
        shape = (ARRAYS, *(job.tiling.kept,) * 3)
        share = int(np.count_nonzero(goals[job.assignment.tiles_of(job.rank)]))
        self.order: StepOrder = StepOrder(
            together,
            job.assignment,
            job.rank,
            self._steps,
            job.spec.batch,
            goals,
            product=PAINTED.name,
            gate=gate,
            reads=HALO.name,
            front=share * 4 * int(np.prod(shape)) > job.limits.latent_bytes,
        )
        super().__init__(self.order, Goal("step", int(goals.sum(dtype=np.int64)), main=True))
        self._reader = job.reader(self.painter.input) if self.painter.input else None
        aside = self.painting.slots(shape, LEVEL_BITS)
        self._latents = Latents(together, aside, job.limits.latent_bytes)
        # Per axis, of a core and a tile that touches it: the voxels of the core under the tile.
        self._touched = [
            {
                (core, tile): (min(s.start for s in parts), max(s.stop for s in parts))
                for core, row in enumerate(axis.inverse.rows)
                for tile in {t for t, _, _ in row}
                if (parts := [s for t, s, _ in row if t == tile])
            }
            for axis in self._cores.axes
        ]

    def load(self, units: Ints) -> StepBatch:
        """Return inputs and the field under each tile of a batch."""
        tiles, level = self.order.split(units)
        origin = self.tiling.origin(tiles)
        z, previous = np.zeros((2, len(units), *(self.tiling.tile,) * 3), np.float32)
        for row, (tile, done) in enumerate(zip(tiles.tolist(), level.tolist(), strict=True)):
            if done:
                z[row] = self._latents.under(tile, done)
                previous[row][self._core(tile)] = self._latents.estimate(tile)
        inputs = read_inputs(self._reader, self.painter, self.tiling, origin)
        return StepBatch(tiles, origin, inputs, z, previous, self._steps - level)

    def compute(self, units: Ints, loaded: StepBatch) -> Float:
        """Return z and x0 of the tiles, the last z is T_b in mK: float32 (B, 2, t, t, t)."""
        self.painting.note_begun(loaded.tiles[loaded.step == self._steps])
        return self.painter.advance(loaded)

    def store(self, units: Ints, result: Float) -> dict[int, Float]:
        """Keep the field in the cores; store T_b of tiles that are finished, for good.

        Returns z of the core by node.
        """
        made, finished = {}, {}
        tiles, level = self.order.split(units)
        for node, tile, done, (z, x0) in zip(
            units.tolist(), tiles.tolist(), level.tolist(), result, strict=True
        ):
            core, inside = self._core(tile), self._latents.inside(tile)
            if done + 1 < self._steps:
                made[node] = z[core]
                self._latents.put(tile, done + 1, inside, z[core], x0[core])
            else:
                finished[tile] = np.full((1, *(self.tiling.kept,) * 3), np.nan, np.float32)
                finished[tile][(0, *inside)] = z[core]
        if finished:
            self.painting.commit_tiles(list(finished), np.stack(list(finished.values())))
        return made

    def stored(self, units: Ints, found: Any) -> Outcome:
        """Return finished tiles, and what other ranks wait for."""
        if not len(units):
            return self.order.receive(found)
        outcome = self.order.done(units)
        self._latents.forget(self.order.unused(units // self._steps).tolist())
        mail = [Mail(m.to, (m.what, self._parcel(m.to, m.what, found))) for m in outcome.mail]
        return Outcome(outcome.final, mail)

    def receive(self, chunks: Ints, parcel: Parcel) -> Ints:
        """Take the field of tiles of another rank, as far as tiles of this one touch it."""
        values, at = parcel.data.view(np.float32), 0
        tiles, level = self.order.split(chunks)
        numbers = parcel.numbers.reshape(-1, 3, 2).tolist()
        for tile, done, box in zip(tiles.tolist(), level.tolist(), numbers, strict=True):
            part = triple(slice(low, high) for low, high in box)
            shape = [high - low for low, high in box]
            count = int(np.prod(shape))
            self._latents.put(tile, done + 1, part, values[at : at + count].reshape(shape))
            at += count
        return chunks

    def _core(self, tile: int) -> Slices:
        """Return a tile's core as slices of the tile."""
        at = self.tiling.coords(tile).tolist()
        low = (int(self.tiling.margins(axis)[i, 0]) for axis, i in enumerate(at))
        return triple(
            slice(a, a + n) for a, n in zip(low, self.tiling.owned_grid.extent(tile), strict=True)
        )

    def _parcel(self, rank: int, nodes: Ints, made: dict[int, Float]) -> Parcel:
        """Return the cuboid of each core that the tiles of a rank touch."""
        numbers, values = [], []
        for node in nodes.tolist():
            tile, level = divmod(node, self._steps)
            at = self.tiling.coords(tile).tolist()
            readers = self.tiling.coords(self.order.waiting_on(rank, tile, level + 1))
            box = []
            for axis, i in enumerate(at):
                touched = self._touched[axis]
                ends = [touched[i, j] for j in readers[:, axis].tolist() if (i, j) in touched]
                low, high = zip(*ends, strict=True) if ends else ((0,), (0,))
                box.append((min(low), max(high)))
            numbers.append(box)
            part = tuple(slice(low, high) for low, high in box)
            values.append(np.ascontiguousarray(made[node][part]).reshape(-1))
        return Parcel(np.array(numbers, np.int64).reshape(-1), np.concatenate(values))
