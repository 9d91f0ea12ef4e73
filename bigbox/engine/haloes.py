"""HALOgen in the graph: one rank's windows, the sums over them, and the tiles that they set free.

    order ─next windows─► load ─► predict ─► add to the sums of the blocks under each window
                          dm      the device   │
                                               ├─ a block of another rank, all my windows added:
                                               │        its sums go there, one message
                                               └─ a block of mine, all windows of all ranks added:
                                                        mean, cut, store, record; then a notice to
                                                        the ranks whose tiles lie above it

A window is predicted by one rank, whoever else needs what it says (in a run that nothing disturbs).
A block that an earlier run made final is left alone. Sums are saved now and then, and at a stop: a
restart goes on from them, and predicts again what was added since.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigbox.engine.sums import Bool, Ints, Sums
from bigbox.engine.transport import Kind, Message
from bigbox.engine.workers import Workers
from bigbox.errors import BadInput
from bigbox.painters.base import HaloPainter
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.windoworder import WindowOrder
from bigbox.scheduler.windows import Gate
from bigbox.store.blocks import BlockReader
from bigbox.store.haloes import HaloPainting

# Batches of windows that may wait to be added before the device pauses: bounds the memory.
ADDS_WAITING = 2
# A rank that is killed loses what it has added to the sums in so many seconds.
SECONDS_BETWEEN_SAVES = 120.0


@dataclass
class Outcome:
    """What adding to the sums came to: windows added, blocks that are durable now, and sums owed
    to other ranks: (rank, block, which windows, sums)."""

    windows: int = 0
    final: list[int] = field(default_factory=list)
    owed: list[tuple[int, int, Bool, Ints]] = field(default_factory=list)


class Haloes:
    """One rank's part in the painting of haloes.

    `load`, `predict` and what `add` and `receive` submit run in threads of the workers, one at a
    time each; everything else is the engine's own thread's.
    """

    def __init__(
        self,
        painter: HaloPainter,
        painting: HaloPainting,
        assignment: Assignment,
        rank: int,
        gate: Gate,
        reader: BlockReader,
        workers: Workers,
        limit_bytes: int,
        seconds_between_saves: float = SECONDS_BETWEEN_SAVES,
    ) -> None:
        self.painter, self.painting = painter, painting
        self._assignment, self._rank = assignment, rank
        self._gate, self._reader, self._workers = gate, reader, workers
        windows = painting.layout.windows
        own = painting.own_blocks()
        # Of a block of this rank all windows are awaited, of another's this rank's own.
        touched, _ = WindowOrder(windows, assignment, rank).contributions()
        blocks = np.union1d(touched, own)
        done = painting.done_of(blocks)
        self._order = WindowOrder(windows, assignment, rank, done)
        self.total = self._order.total
        left = np.zeros(len(blocks), np.int64)
        touched, counts = self._order.contributions()
        left[np.searchsorted(blocks, touched)] = counts
        left[np.searchsorted(blocks, own)] = windows.touching(own) - done.count(own)
        left[painting.final[blocks]] = 0
        unfinished = own[~painting.final[own]]
        self.blocks_left = len(unfinished)
        self._sums = Sums(
            windows, painter.weights, painter.channels, (blocks, left), done, painting, limit_bytes
        )
        self._changed = self.saved_last = False
        self._between_saves = seconds_between_saves
        self._saved = time.monotonic()
        self._adding: deque[Future[Any]] = deque()
        # A run that was killed may have added all windows of a block, and not stored it.
        complete = unfinished[left[np.searchsorted(blocks, unfinished)] == 0].tolist()
        if complete:
            self._adding.append(workers.submit("haloes", self._settle, Outcome(), complete))

    @property
    def left(self) -> int:
        """Windows not yet handed out and own blocks not yet durable."""
        return self._order.remaining + self.blocks_left

    @property
    def busy(self) -> bool:
        """Whether something is being added."""
        return bool(self._adding)

    @property
    def behind(self) -> bool:
        """Whether the device should wait for what it has predicted to be added."""
        return len(self._adding) >= ADDS_WAITING

    def next_batch(self) -> Ints:
        """The windows to predict next, int64[<= batch]; empty when all are handed out."""
        return self._order.next_batch(self.painter.batch)

    def load(self, windows: Ints) -> np.ndarray:
        """dm under the windows, float32 (B, n, n, n), n = window + 2 margin."""
        layout, margin = self.painting.layout, self.painter.margin
        edge = layout.windows.window + 2 * margin
        corners = layout.windows.origin(windows) - margin
        return np.stack([self._reader.read(c, (edge,) * 3) for c in corners.tolist()])

    def predict(self, windows: Ints, dm: np.ndarray) -> np.ndarray:
        """log10 rho_h in the windows, float32 (B, C, w, w, w)."""
        self.painting.begin_windows(windows)
        logs = self.painter.predict(dm)
        edge = self.painting.layout.windows.window
        wanted = (len(windows), self.painter.channels, edge, edge, edge)
        if logs.shape != wanted or logs.dtype != np.float32:
            raise BadInput(
                f"{self.painter.name}: predicts {logs.dtype} {logs.shape}, not float32 {wanted}"
            )
        return logs

    def add(self, windows: Ints, logs: np.ndarray) -> None:
        """Has the predictions added to the sums."""
        self._adding.append(self._workers.submit("haloes", self._add, windows, logs))

    def receive(self, message: Message) -> None:
        """Has the sums of another rank added."""
        assert message.sums is not None
        job = self._workers.submit("haloes", self._add_sums, message.tiles, message.sums)
        self._adding.append(job)

    def save_when_due(self, stopping: bool, predicting: bool) -> None:
        """Has the sums made durable now and then, and at a stop once all is added to them."""
        if stopping:
            if self.saved_last or predicting or self.busy:
                return
            self.saved_last = True
        elif time.monotonic() - self._saved < self._between_saves:
            return
        self._saved = time.monotonic()
        if self._changed:
            self._changed = False
            self._adding.append(self._workers.submit("haloes", self._save))

    def added(self) -> Future[Any] | None:
        """The next job of these that has ended; its result is an Outcome."""
        if not self._adding or not self._adding[0].done():
            return None
        return self._adding.popleft()

    def messages(self, outcome: Outcome) -> list[tuple[int, Message]]:
        """What other ranks are to be told: sums, and blocks that lie under tiles of theirs."""
        found = []
        for rank, block, windows, sums in outcome.owed:
            tiles = np.concatenate([np.array([block], np.int64), _packed(windows)])
            found.append((rank, Message(Kind.SUMS, tiles, sums=sums)))
        concerned = defaultdict(list)
        blocks = np.array(outcome.final, np.int64)
        over = self._gate.tiles_over(blocks)
        ranks = np.where(over >= 0, self._assignment.rank_of(np.maximum(over, 0)), -1)
        for block, row in zip(blocks.tolist(), ranks.tolist(), strict=True):
            for rank in set(row) - {-1, self._rank}:
                concerned[rank].append(block)
        for rank in sorted(concerned):
            found.append((rank, Message(Kind.HALO, np.array(concerned[rank], np.int64))))
        return found

    def final(self, blocks: Ints) -> Ints:
        """These blocks, of any rank, are durable: the tiles that may be painted from here on."""
        return self._gate.close_blocks(blocks)

    # ---- in the workers' thread ------------------------------------------------------------

    def _add(self, windows: Ints, logs: np.ndarray) -> Outcome:
        self._changed = True
        complete: list[int] = []
        for window, values in zip(windows.tolist(), logs, strict=True):
            complete += self._sums.add(window, values)
        return self._settle(Outcome(len(windows)), complete)

    def _add_sums(self, tiles: Ints, sums: Ints) -> Outcome:
        self._changed = True
        windows = _unpacked(tiles[1:], int(np.prod(self.painting.layout.windows.ordinals)))
        return self._settle(Outcome(), self._sums.add_sums(int(tiles[0]), windows, sums))

    def _save(self) -> Outcome:
        self.painting.save_sums(self._sums.held())
        return Outcome()

    def _settle(self, outcome: Outcome, complete: list[int]) -> Outcome:
        ranks = self.painting.rank_of(np.array(complete, np.int64)).tolist()
        finished = []
        for block, rank in zip(complete, ranks, strict=True):
            windows, sums = self._sums.take(block)
            if rank == self._rank:
                outcome.final.append(block)
                finished.append(self._sums.density(block, sums))
            else:
                outcome.owed.append((rank, block, windows, sums))
        if finished:
            self.painting.commit_blocks(outcome.final, np.stack(finished))
        self.painting.forget_sums(complete)
        return outcome


def _packed(windows: Bool) -> Ints:
    """Bits as int64 words, filled up with zeros."""
    return np.packbits(np.pad(windows, (0, -len(windows) % 64))).view(np.int64)


def _unpacked(words: Ints, bits: int) -> Bool:
    return np.unpackbits(words.view(np.uint8), count=bits).astype(bool)
