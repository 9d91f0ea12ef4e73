"""Whether what was ingested is still what was written: every chunk of it, read once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bigbox.blockwise import map_blocks
from bigbox.store.box import Box

Index = tuple[int, ...]


def damaged_inputs(box: Box) -> list[str]:
    """Return one line for each shard of the inputs that is damaged or missing: array and chunks."""
    return [line for line in map_blocks(lambda given: _check(*given), _shards(box)) if line]


def _shards(box: Box) -> Iterator[tuple[Any, str, Index]]:
    for name in ("dm", "halo", "tb"):
        if box.has(name):
            array = box.require(name)
            if "painting" in array.attrs:  # of bigbox paint, which has a ledger of it
                continue
            for index in np.ndindex(*_counts(array.shape, array.shards or array.chunks)):
                yield array, name, index


def _check(array: Any, name: str, index: Index) -> str:
    """Empty when every chunk under one shard can be read and is finite."""
    edges = array.shards or array.chunks
    if _fault(array, index, edges) is None:
        return ""
    # Which of its chunks: the checksum is per chunk.
    inner = _counts(edges, array.chunks)
    chunks = [
        tuple(i * n + o for i, n, o in zip(index, inner, offset, strict=True))
        for offset in np.ndindex(*inner)
    ]
    held = _counts(array.shape, array.chunks)
    chunks = [at for at in chunks if all(i < n for i, n in zip(at, held, strict=True))]
    faults = {at: fault for at in chunks if (fault := _fault(array, at, array.chunks))}
    bad = ", ".join(map(str, faults)) or "unknown"
    which = f"all {len(chunks)}" if len(faults) == len(chunks) else bad
    return f"{name}: shard {index}, chunks {which}: {''.join([*faults.values()][-1:])}"


def _counts(shape: Index, edges: Index) -> Index:
    return tuple(-(-n // e) for n, e in zip(shape, edges, strict=True))


def _fault(array: Any, index: Index, edges: Index) -> str | None:
    try:
        values = array[tuple(slice(i * e, (i + 1) * e) for i, e in zip(index, edges, strict=True))]
    except Exception as error:
        return " ".join(str(error).split())
    # What has no bytes on disk reads as NaN; no input has one otherwise.
    return None if np.isfinite(values).all() else "damaged or missing: values are not finite"
