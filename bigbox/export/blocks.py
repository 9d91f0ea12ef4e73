"""Go over an array of a box block by block, as many at once as the memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bigbox.blockwise import Region, map_blocks, regions, size, workers

COPIES = 4  # of a block in work: as read, as decoded, as encoded, and the codec's own


def chunk_edges(array: Any) -> tuple[int, ...]:
    """Return the edges of an array's chunks, one channel each, (..., X, Y, Z)."""
    x, y, z = array.chunks[-3:]
    return *(1,) * (array.ndim - 3), x, y, z


def for_each_block(array: Any, memory: int, work: Callable[[Region], None]) -> None:
    """Run `work` over regions of whole chunks of an array."""
    for_each(
        list(regions(array.shape, chunk_edges(array), memory // (2 * COPIES * 4))), memory, work
    )


def for_each(parts: Sequence[Region], memory: int, work: Callable[[Region], None]) -> None:
    """Run `work` over regions."""
    each = COPIES * 4 * max(map(size, parts))
    for _ in map_blocks(work, parts, workers=workers(each, memory)):
        pass
