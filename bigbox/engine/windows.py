"""Predict haloes in windows, average them over blocks, and store each block that is complete.

::

    order ─next windows─► load ─► predict ─► add to the sums of the blocks under each window
                          dm      the device   │
                                               ├─ a block of another rank, all my windows added:
                                               │        its sums go there, one message
                                               └─ a block of mine, all windows of all ranks added:
                                                        mean, cut, store, record

A window is predicted by one rank, whoever else needs what it says (in a run that nothing disturbs).
A block that an earlier run made final is left alone. Sums are saved now and then, and at a stop: a
restart goes on from them, and predicts again what was added since.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bigbox.engine.memory import WithinMemory
from bigbox.engine.progress import Goal
from bigbox.engine.sums import Sums
from bigbox.engine.task import Task
from bigbox.engine.transport import Parcel
from bigbox.errors import BadInput
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.orders import Mail, Outcome
from bigbox.scheduler.window_order import Bool, WindowOrder
from bigbox.store.cutouts import CutoutReader
from bigbox.store.fields import DM
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.engine.job import Job
    from bigbox.painters.base import HaloPainter
    from bigbox.store.haloes import HaloPainting


class WindowTask(Task):
    """One rank's windows, and the blocks that it writes."""

    def __init__(self, job: Job, painter: HaloPainter, painting: HaloPainting) -> None:
        self.painter, self.painting = painter, painting
        layout = painting.layout
        done, edge = painting.windows_done, layout.edge
        self.order: WindowOrder = WindowOrder(
            layout.windows, job.assignment, job.rank, edge, painter.batch, done
        )
        super().__init__(self.order, Goal("window", painting.windows_left))
        self._sums = Sums(
            self.order, painter.weights, painter.channels, painting.sums, job.limits.sum_bytes
        )
        # Neighbouring windows share as many chunks of dm the more of it there is under each.
        cache = job.limits.window_cache_bytes * layout.grid
        self._reader = CutoutReader(job.box.array(DM.name), (True, True, True), cache)
        self._grid = layout.grid
        self._within = WithinMemory(f"{painter.name} painter, windows")
        self._between_saves = job.limits.seconds_between_saves
        self._saved = time.monotonic()
        self._changed = False
        self._complete_before = self.order.complete_before.tolist()
        self.stopped = False

    def load(self, units: Ints) -> Float:
        """Return dm under the windows, float32 (B, n, n, n), n = grid window + 2 margin."""
        windows, margin = self.order.windows, self.painter.margin
        edge = self._grid * windows.window + 2 * margin
        corners = self._grid * windows.origin(units) - margin
        return np.stack([self._reader.read(c, (edge,) * 3) for c in corners.tolist()])

    def compute(self, units: Ints, loaded: Float) -> Float:
        """Return log10 rho_h in the windows, float32 (B, C, w, w, w)."""
        self.painting.note_begun(units[:1], len(units))
        logs = self._within(self.painter.predict, loaded)
        wanted = (len(units), self.painter.channels, *(self.order.windows.window,) * 3)
        if logs.shape != wanted or logs.dtype != np.float32:
            raise BadInput(
                f"{self.painter.name}: predicts {logs.dtype} {logs.shape}, not float32 {wanted}"
            )
        return logs

    def store(self, units: Ints, result: npt.NDArray[np.float32]) -> Outcome:
        """Add predictions to the sums; store the blocks that are complete."""
        self._changed = True
        complete: list[int] = []
        for window, logs in zip(units.tolist(), result, strict=True):
            complete += self._sums.add(window, logs)
        return self._settle(complete)

    def receive(self, chunks: Ints, parcel: Parcel) -> Outcome:
        """Add the sums of another rank to those of one block."""
        self._changed = True
        windows = _unpacked(parcel.numbers, self.order.windows.most_per_block)
        block, sums = int(chunks[0]), parcel.data.view(np.int64)
        return self._settle(self._sums.add_sums(block, windows, sums))

    def stored(self, units: Ints, found: Outcome) -> Outcome:
        """Return the blocks that are final, and the sums owed to other ranks."""
        self.order.blocks_left -= len(found.final)
        return found

    def due(self, stopping: bool, busy: bool) -> Callable[[], Outcome] | None:
        """Save the sums now and then, and at a stop once all is added to them."""
        if self._complete_before:
            # A run that was killed may have added all windows of a block, and not stored it.
            complete, self._complete_before = self._complete_before, []
            return lambda: self._settle(complete)
        if stopping:
            if self.stopped or busy:
                return None
            self.stopped = True
        elif time.monotonic() - self._saved < self._between_saves:
            return None
        self._saved = time.monotonic()
        if not self._changed:
            return None
        self._changed = False
        return self._save

    def _save(self) -> Outcome:
        self.painting.sums.save(self._sums.held())
        return Outcome(np.empty(0, np.int64))

    def _settle(self, complete: list[int]) -> Outcome:
        final: list[int] = []
        values, owed = [], []
        for block, rank in zip(complete, self.order.rank_of(complete).tolist(), strict=True):
            windows, sums = self._sums.take(block)
            if rank == self.order.rank:
                final.append(block)
                values.append(self._sums.density(block, sums))
            else:
                parcel = Parcel(_packed(windows), sums)
                owed.append(Mail(rank, (np.array([block], np.int64), parcel)))
        self.painting.append(final, values)
        self.painting.sums.forget(complete)
        return Outcome(np.array(final, np.int64), owed)


def _packed(windows: Bool) -> Ints:
    """Bits as int64 words, filled up with zeros."""
    return np.packbits(np.pad(windows, (0, -len(windows) % 64))).view(np.int64)


def _unpacked(words: Ints, bits: int) -> Bool:
    return np.unpackbits(words.view(np.uint8), count=bits).astype(bool)
