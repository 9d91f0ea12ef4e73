"""The order of tiles on one rank, from sets of tiles and a sort at every batch."""

from __future__ import annotations

import numpy as np

from bigbox.scheduler import policy as policy_module
from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.policy import Policy
from tests.reference.tilings import level, longest_chains


def in_flight(policy: Policy) -> int:
    """Own tiles handed out and not yet done."""
    return policy._state.count(policy_module.IN_FLIGHT)


class SlowPolicy:
    """The same order, from sets of tiles and a sort at every batch."""

    def __init__(self, assignment: Assignment, rank: int, colouring: str) -> None:
        self.tiling = assignment.tiling
        tiles = np.arange(self.tiling.size)
        self.own = {int(t) for t in tiles[assignment.rank_of(tiles) == rank]}
        self.before = [
            {int(u) for u in row if u >= 0}
            for row in stages.predecessors(self.tiling, tiles, colouring)
        ]
        self.rank_of = assignment.rank_of(tiles)
        self.rank = rank
        self.in_hand: set[int] = set()
        self.handed: set[int] = set()
        levels = level(self.tiling, tiles)
        self.ancestors: list[set[int]] = [set()] * self.tiling.size
        for t in np.argsort(levels, kind="stable"):
            self.ancestors[t] = self.before[t].union(*(self.ancestors[u] for u in self.before[t]))
        address = assignment.address(tiles)
        place = address // assignment.bricks.slots
        if len(self.own) <= policy_module.ONE_BRICK:
            place[:] = 0
        behind = longest_chains(self.tiling)
        self.key = {}
        for t in self.own:
            urgency = self.urgency(t, colouring)
            self.key[t] = (-urgency, place[t], -behind[t], address[t])

    def urgency(self, tile: int, colouring: str) -> int:
        """2 if a starved rank waits for this tile, or for one that waits for it; 1 if any other."""
        found = {
            int(self.rank_of[u])
            for u in range(self.tiling.size)
            if tile in (self.before[u] if colouring == "paper" else self.ancestors[u])
        } - {self.rank}
        return 0 if not found else 2 if any(self.starved(r) for r in found) else 1

    def starved(self, rank: int) -> bool:
        own = np.flatnonzero(self.rank_of == rank)
        return 16 * int((level(self.tiling, own) == 0).sum()) < len(own)

    def ready(self) -> list[int]:
        free = [
            t
            for t in self.own
            if t not in self.handed and t not in self.in_hand and self.before[t] <= self.in_hand
        ]
        return sorted(free, key=lambda t: self.key[t])

    def next_batch(self, k: int, partial: bool) -> list[int]:
        ready = self.ready()
        batch = ready[:k] if partial or len(ready) >= k else []
        self.handed |= set(batch)
        return batch
