"""Paint all tiles together: one denoising step of a tile is a unit of work.

::

    order ─next nodes─► load ──────────► advance ────► store ───────────► stored
    (tile, step)        the field under  the device    z, x0 of the core  whoever waits for it:
                        the tile                       last step: T_b     tiles here, and ranks,
                                                       to the store       who get what they touch

What a node makes is a function of the box and the seed alone, so it may be used before, or without,
being durable. Only T_b of finished tiles is recorded.

Ranks save what they have of the field now and then, and at a stop, at moments that fit together:
each saves before it takes in anything that another rank has sent after its own save (Chandy and
Lamport 1985). A run that was killed is gone on from the last save that all ranks have made. Without
one, unfinished tiles begin anew, with as many steps of their finished neighbours as they need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bigbox.engine.kept import KeptInputs
from bigbox.engine.latents import ARRAYS, Latents
from bigbox.engine.memory import WithinMemory
from bigbox.engine.progress import Goal
from bigbox.engine.task import Task, check_finite, read_inputs
from bigbox.engine.transport import Parcel
from bigbox.painters.base import StepBatch, StepPainter, empty_array
from bigbox.scheduler.grid import Ints, Slices, triple
from bigbox.scheduler.orders import Mail, Outcome
from bigbox.scheduler.steps import StepOrder
from bigbox.scheduler.together import Counts, together_of
from bigbox.store.fields import HALO, PAINTED
from bigbox.store.saved_field import STOP, SavedField
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.engine.job import Job

_NONE = np.empty(0, np.int64)


class News(IntEnum):
    """What mail between ranks says; it stands before the numbers of nodes, or of a save."""

    NODES = 0  # these are done, and here is their field
    SAVE = 1  # save now, unless that has been done
    SAVED = 2  # to rank 0


class JointTask(Task):
    """One rank's nodes."""

    def __init__(self, job: Job) -> None:
        self.tiling, self.painting = job.tiling, job.painting
        self.painter = cast(StepPainter, job.spec.painter)
        together = together_of(job.tiling)
        self._cores, self._steps = together.cores, self.painter.steps
        wanted = ~self.painting.was_done(PAINTED.name)
        if job.wanted is not None:
            wanted &= job.wanted
        saved = SavedField(self.painting.ledger, self.painting.saved)
        begun = saved.levels(job.tiling.size) if self.painting.saved else None
        goals = together.goals(wanted, self._steps, begun)
        if goals is None:  # tiles were taken back that a save took for granted
            begun, goals = None, together.goals(wanted, self._steps)
        assert goals is not None
        self.order: StepOrder = StepOrder(
            together,
            job.assignment,
            job.rank,
            self._steps,
            job.spec.batch,
            goals,
            begun,
            product=PAINTED.name,
            gate=job.gate(),
            reads=HALO.name,
        )
        super().__init__(self.order, self._goal(goals, begun))
        self._reader = job.reader(self.painter.input) if self.painter.input else None
        shape = (ARRAYS, *(job.tiling.kept,) * 3)
        aside = self.painting.field_file(shape, saved if begun is not None else None)
        rank_of = job.assignment.rank_of
        self._latents = Latents(
            together,
            lambda tile: int(rank_of(tile)) == job.rank,
            aside,
            job.limits.latent_bytes,
            self.order.size,
        )
        self._empty = getattr(self.painter, "empty", empty_array)
        self._within = WithinMemory(f"{self.painter.name} painter, tiles")
        keep = getattr(self.painter, "keep", None)  # few painters keep inputs
        most = min(self.order.size, int(job.assignment.counts()[job.rank]))
        self._kept = KeptInputs(keep(most) if keep is not None else ())
        self._rank, self._n_ranks = job.rank, job.assignment.n_ranks
        self.stopped = self._saving = False
        self._between_saves, self._saved = job.limits.seconds_between_saves, time.monotonic()
        self._save, self._answers = 0, self._n_ranks - 1  # the last save, and ranks that have it
        # Per axis and index: a tile's core as a slice of the tile.
        low = (job.tiling.margins(axis)[:, 0] for axis in range(3))
        self._core_parts = triple(
            [slice(*ends) for ends in zip(a.tolist(), (a + owned.length).tolist(), strict=True)]
            for a, owned in zip(low, job.tiling.owned_grid.axes, strict=True)
        )
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
        origin, empty = self.tiling.origin(tiles), self._empty
        z, previous = empty((2, len(units), *(self.tiling.tile,) * 3))
        previous[:] = 0.0
        z[level == 0] = 0.0
        for tile, done, under, x0 in zip(tiles.tolist(), level.tolist(), z, previous, strict=True):
            if done:
                self._latents.read(tile, done, under, x0[self._core(tile)])
        place, given = self._kept.places(tiles)
        inputs = read_inputs(self._reader, self.painter, self.tiling, origin[given], empty)
        step = self._steps - level
        return StepBatch(tiles, origin, inputs, z, previous, step, place, given)

    def compute(self, units: Ints, loaded: StepBatch) -> Float:
        """Return z and x0 of the tiles, the last z is T_b in mK: float32 (B, 2, t, t, t)."""
        self.painting.note_begun(loaded.tiles[loaded.step == self._steps])
        made = self._within(self.painter.advance, loaded)
        return check_finite(self.painter.name, self.tiling, loaded.tiles, made)

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
        if isinstance(found, Outcome):  # of a chore
            self._saving = False
            return found
        if not len(units):
            return self.order.receive(found)
        outcome = self.order.done(units)
        unused = self.order.unused().tolist()
        self._latents.forget(unused)
        self._kept.forget(unused)
        return Outcome(outcome.final, [self._news(m, found) for m in outcome.mail])

    def due(self, stopping: bool, busy: bool) -> Callable[[], Outcome] | None:
        """Tell other ranks what is begun, at first; save now and then, and at a stop."""
        if self.order.greetings:
            greetings, self.order.greetings = self.order.greetings, []
            return lambda: Outcome(_NONE, [self._news(mail, {}) for mail in greetings])
        if stopping:
            if self.stopped or busy:
                return None
            self.stopped = True
            return partial(self._save_field, STOP)
        now = time.monotonic()
        if self._rank or self._saving or self._answers < self._n_ranks - 1:
            return None
        if now - self._saved < self._between_saves or not self.order.remaining:
            return None
        self._saved, self._answers, self._saving = now, 0, True
        return partial(self._save_field, self._save + 1)

    def _save_field(self, number: int) -> Outcome:
        """Save, and have the ranks save whose news this one takes in; in the task's own thread."""
        if number <= self._save or (number != STOP and not self.order.remaining):
            return Outcome(_NONE)  # one that has done all sends nothing any more
        self._save = number
        self._latents.save(number)
        if number == STOP:
            return Outcome(_NONE)
        others = range(1, self._n_ranks) if self._rank == 0 else self.order.neighbours
        news = [Mail(rank, (np.array([News.SAVE, number]), Parcel())) for rank in others]
        if self._rank:
            news.append(Mail(0, (np.array([News.SAVED, number]), Parcel())))
        return Outcome(_NONE, news)

    def receive(self, chunks: Ints, parcel: Parcel) -> Ints | Outcome:
        """Take the field of another rank's tiles, as far as tiles of this one touch it; or save."""
        news, chunks = int(chunks[0]), chunks[1:]
        if news == News.SAVE:
            return self._save_field(int(chunks[0]))
        if news == News.SAVED:
            self._answers += 1
            return Outcome(_NONE)
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
        (x, y, z), (i, j, k) = self._core_parts, self.tiling.at(tile)
        return x[i], y[j], z[k]

    def _goal(self, goals: Counts, begun: Counts | None) -> Goal:
        done = 0 if begun is None else int(np.minimum(begun, goals).sum(dtype=np.int64))
        return Goal("step", int(goals.sum(dtype=np.int64)), done, main=True)

    def _news(self, mail: Mail, made: dict[int, Float]) -> Mail:
        """Return the news of nodes, with the cuboid of each core that the tiles of a rank touch.

        made: z of the cores, where it need not be looked up.
        """
        rank, nodes = mail.to, mail.what
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
            z = made[node] if node in made else self._latents.field(tile, level + 1)
            values.append(np.ascontiguousarray(z[part]).reshape(-1))
        parcel = Parcel(np.array(numbers, np.int64).reshape(-1), np.concatenate(values))
        return Mail(rank, (np.concatenate([[News.NODES], nodes]), parcel))
