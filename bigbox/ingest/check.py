"""Whether what was ingested is still what was written: every chunk of it, read once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from bigbox.store.box import Box


def damaged_inputs(box: Box) -> list[str]:
    """One line for each shard of the box's inputs that is damaged or missing: array and chunks."""
    import dask

    checks = []
    for name in ("dm", "halo", "tb"):
        if box.has(name):
            array = box.require(name)
            if "painting" in array.attrs:  # of bigbox paint, which has a ledger of it
                continue
            edges = array.shards or array.chunks
            counts = (range(-(-n // e)) for n, e in zip(array.shape, edges, strict=True))
            checks += [
                dask.delayed(_check)(array, name, index, edges)
                for index in itertools.product(*counts)
            ]
    return [line for line in dask.compute(*checks) if line]


def _check(array: Any, name: str, index: tuple[int, ...], edges: tuple[int, ...]) -> str:
    """Empty when every chunk under one shard can be read and is finite."""
    whole = tuple(slice(i * e, (i + 1) * e) for i, e in zip(index, edges, strict=True))
    if _fault(array, whole) is None:
        return ""
    # Which of its chunks: the checksum is per chunk.
    inner = (range(e // c) for e, c in zip(edges, array.chunks, strict=True))
    bad, why, many = [], "", 0
    for offset in itertools.product(*inner):
        chunk = [
            i * (e // c) + o for i, e, c, o in zip(index, edges, array.chunks, offset, strict=True)
        ]
        cut = tuple(slice(k * c, (k + 1) * c) for k, c in zip(chunk, array.chunks, strict=True))
        many += all(s.start < n for s, n in zip(cut, array.shape, strict=True))
        fault = _fault(array, cut)
        if fault is not None:
            bad.append(tuple(chunk))
            why = fault
    which = f"all {many}" if len(bad) == many else ", ".join(map(str, bad)) or "unknown"
    return f"{name}: shard {index}, chunks {which}: {why}"


def _fault(array: Any, cut: tuple[slice, ...]) -> str | None:
    try:
        values = array[cut]
    except Exception as error:
        return " ".join(str(error).split())
    # What has no bytes on disk reads as NaN; no input has one otherwise.
    return None if np.isfinite(values).all() else "damaged or missing: values are not finite"
