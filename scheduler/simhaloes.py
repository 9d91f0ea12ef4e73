"""Haloes in the simulator: the engine's windows, gates and orders, with counts in place of sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.tiling import Ints
from bigbox.scheduler.windoworder import WindowOrder, shard_ranks
from bigbox.scheduler.windows import Gate, Windows

# Voxels along a shard of blocks.
SHARD = 128


class SimulatedHaloes:
    """What all ranks have added, and the tiles that it sets free.

    opened: called with a rank and the tiles, of any rank, that may be painted from here on;
    send: called with a rank, and with what is to be done there when the message arrives.
    """

    def __init__(
        self,
        windows: Windows,
        assignment: Assignment,
        opened: Callable[[int, Ints], None],
        send: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self.windows = windows
        self._opened, self._send = opened, send
        blocks = windows.blocks
        edge = max(1, SHARD // windows.block)
        bricks, owner = shard_ranks(windows, edge, assignment)
        self._owner = owner[bricks.of_tile(np.arange(blocks.size))]
        self._missing = windows.touching(np.arange(blocks.size))
        self._gate = Gate(assignment.bricks.tiling, windows, 0, np.zeros(blocks.size, bool))
        ranks = range(assignment.n_ranks)
        self._orders = [WindowOrder(windows, assignment, r) for r in ranks]
        # Of every rank: windows left for the blocks of others, and blocks with sums.
        self._left: list[dict[int, int]] = []
        self._added: list[dict[int, int]] = [defaultdict(int) for _ in ranks]
        self._open = [0] * assignment.n_ranks
        self.most_open = 0
        for rank, order in enumerate(self._orders):
            touched, counts = order.contributions()
            other = self._owner[touched] != rank
            pairs = zip(touched[other].tolist(), counts[other].tolist(), strict=True)
            self._left.append(dict(pairs))

    def next_batch(self, rank: int, k: int) -> Ints:
        """The next windows of a rank."""
        return self._orders[rank].next_batch(k)

    def predicted(self, rank: int, batch: Ints) -> None:
        """A rank has predicted these windows."""
        below = self.windows.blocks_of(batch)
        blocks, times = np.unique(below[below >= 0], return_counts=True)
        final: list[int] = []
        for block, count in zip(blocks.tolist(), times.tolist(), strict=True):
            owner = int(self._owner[block])
            if not self._added[rank][block]:
                self._open[rank] += 1
                self.most_open = max(self.most_open, self._open[rank])
            self._added[rank][block] += count
            if owner == rank:
                self._missing[block] -= count
                final += [] if self._missing[block] else [block]
                continue
            self._left[rank][block] -= count
            if not self._left[rank][block]:
                self._open[rank] -= 1
                total = self._added[rank].pop(block)
                self._send(owner, partial(self._sums, owner, block, total))
        self._final(rank, final)

    def _sums(self, owner: int, block: int, count: int) -> None:
        if not self._added[owner][block]:
            self._open[owner] += 1
            self.most_open = max(self.most_open, self._open[owner])
        self._added[owner][block] += count
        self._missing[block] -= count
        if not self._missing[block]:
            self._final(owner, [block])

    def _final(self, rank: int, blocks: list[int]) -> None:
        for block in blocks:
            del self._added[rank][block]
        self._open[rank] -= len(blocks)
        if blocks and len(tiles := self._gate.close_blocks(blocks)):
            self._opened(rank, tiles)
