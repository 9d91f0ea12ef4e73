"""A box's array, shard by shard: which voxels, how many at once, and what was written.

Every shard has one writer and is written once and whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler.grid import Cover, Grid
from bigbox.store.box import field_chunks

MEMORY = 1 << 30
"""Bytes that the blocks in work may take together, beside the libraries (about 0.2 GB)."""


@dataclass(frozen=True)
class Sums:
    """Values of a block, or of all: their sum, extremes, how many are above one and how many 0."""

    total: float
    least: float
    largest: float
    above_one: int
    empty: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> Sums:
        """Take them from an array, the sum in float64."""
        total = float(values.sum(dtype=np.float64))
        above = int(np.count_nonzero(values > 1))
        empty = values.size - int(np.count_nonzero(values))
        return cls(total, float(values.min()), float(values.max()), above, empty)

    @classmethod
    def all(cls, parts: Sequence[Sums]) -> Sums:
        """Join those of all blocks; the sum does not depend on their order."""
        return cls(
            math.fsum(part.total for part in parts),
            min(part.least for part in parts),
            max(part.largest for part in parts),
            sum(part.above_one for part in parts),
            sum(part.empty for part in parts),
        )


def shard_grid(shape: tuple[int, ...], channels: int | None = None) -> Grid:
    """Cut a box into the shards of dm and tb, or of halo, which has channels."""
    edges = field_chunks(shape, channels)[1][-3:]
    x, y, z = (Cover.regular(n, edge) for n, edge in zip(shape, edges, strict=True))
    return Grid((x, y, z))
