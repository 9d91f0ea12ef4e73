"""Whether what was ingested is still what was written: every chunk of it, read once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bigbox.blockwise import Region, map_blocks, regions
from bigbox.errors import of_system
from bigbox.store.box import Box


def damaged_inputs(box: Box) -> list[str]:
    """Return one line for each shard of the inputs that is damaged or missing: array and chunks."""
    return [line for line in map_blocks(lambda given: _check(*given), _shards(box)) if line]


def _shards(box: Box) -> Iterator[tuple[str, Any, Region]]:
    for name in ("dm", "halo", "tb"):
        # What bigbox paint has made has a ledger.
        if box.has(name) and "painting" not in (array := box.require(name)).attrs:
            for shard in regions(array.shape, array.shards or array.chunks, 0):
                yield name, array, shard


def _check(name: str, array: Any, shard: Region) -> str:
    """Empty when every chunk of a shard can be read and is finite."""
    if _fault(array, shard) is None:
        return ""
    # Which of its chunks: the checksum is per chunk.
    chunks = [
        tuple(slice(s.start + c.start, s.start + c.stop) for s, c in zip(shard, chunk, strict=True))
        for chunk in regions([s.stop - s.start for s in shard], array.chunks, 0)
    ]
    faults = {_index(at, array.chunks): why for at in chunks if (why := _fault(array, at))}
    bad = ", ".join(faults) or "unknown"
    which = f"all {len(chunks)}" if len(faults) == len(chunks) else bad
    where = _index(shard, array.shards or array.chunks)
    return f"{name}: shard {where}, chunks {which}: {''.join([*faults.values()][-1:])}"


def _index(region: Region, edges: tuple[int, ...]) -> str:
    return str(tuple(cut.start // edge for cut, edge in zip(region, edges, strict=True)))


def _fault(array: Any, region: Region) -> str | None:
    try:
        values = array[region]
    except Exception as error:
        if (fault := of_system(error)) is not None:
            raise fault from error
        return " ".join(str(error).split())
    # What has no bytes on disk reads as NaN; no input has one otherwise.
    return None if np.isfinite(values).all() else "damaged or missing: values are not finite"
