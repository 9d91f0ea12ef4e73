"""Say what painting costs, for the simulator and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CostModel:
    """What painting costs.

    Parameters
    ----------
    seconds_per_tile : device time of a tile.
    batch : tiles the device paints at once.
    latency : seconds from the end of a batch to its overlaps being in hand on another rank.
    fixed_per_batch : seconds added to every batch.
    slow : factors on the time of single ranks, 2 for a device of half the speed.
    filled : whether a batch that is not full takes as long as a full one, as it does for a network
        whose batches are filled up to one size.
    seconds_per_window : device time of a window of haloes, where these are predicted.
    window_batch : windows the device predicts at once.

    Raises
    ------
    ValueError
        A negative time, no time at all, a batch below 1, or a factor not above 0.
    """

    seconds_per_tile: float
    batch: int
    latency: float = 0.0
    fixed_per_batch: float = 0.0
    slow: Mapping[int, float] = field(default_factory=dict)
    filled: bool = True
    seconds_per_window: float = 0.0
    window_batch: int = 4

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"a batch of {self.batch} tiles: at least 1 is needed")
        for name in ("seconds_per_tile", "latency", "fixed_per_batch", "seconds_per_window"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it cannot be negative")
        if self.seconds_per_tile + self.fixed_per_batch == 0:
            raise ValueError("painting a tile takes 0 seconds: give seconds_per_tile a value")
        for rank, factor in self.slow.items():
            if not factor > 0:
                raise ValueError(f"rank {rank} is slow by {factor}: the factor must be above 0")

    def seconds(self, tiles: int, rank: int) -> float:
        """Return the time of a batch with so many tiles in it, on one rank."""
        paid = self.batch if self.filled else tiles
        return (self.fixed_per_batch + self.seconds_per_tile * paid) * self.slow.get(rank, 1.0)

    def window_seconds(self, windows: int, rank: int) -> float:
        """Return the time of a batch of windows, on one rank."""
        return self.seconds_per_window * windows * self.slow.get(rank, 1.0)
