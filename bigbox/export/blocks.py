"""Go over an array of a box block by block, as many at once as the memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bigbox.blockwise import COPIES, Region, map_regions, regions


def chunk_edges(array: Any) -> tuple[int, ...]:
    """Return the edges of an array's chunks, one channel each, (..., X, Y, Z)."""
    x, y, z = array.chunks[-3:]
    return *(1,) * (array.ndim - 3), x, y, z


def for_each_block(array: Any, memory: int, work: Callable[[Region], None]) -> None:
    """Run `work` over regions of whole chunks of an array."""
    parts = list(regions(array.shape, chunk_edges(array), memory // (2 * COPIES * 4)))
    for _ in map_regions(work, parts, memory):
        pass
