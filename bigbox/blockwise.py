"""Map a function over blocks on dask, in memory that does not grow with their number.

items    0 1 2 3 | 4 5 6 7 | 8 9 ...     a few for each thread are given to dask at a time,
threads  a b a b | ...                   at most `workers` are worked on at once
results  0 1 2 3   4 5 6 7   8 9 ...     in the order of the items
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput, of_system

Result = TypeVar("Result")
Region = tuple[slice, ...]

COPIES = 4  # of a block in work: as read, as decoded, as encoded, and the codec's own
PER_WORKER = 16  # tasks given to dask for each thread: few enough to hold, enough to keep it busy


def map_blocks(
    function: Callable[[Any], Result], items: Iterable[Any], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield function(item) of every item, in order, from dask's threads.

    Where a `dask.distributed` client is current, its workers take the place of the threads: then
    the function and the items must be such as can be pickled. A dask collection among the items is
    computed first. Items are taken as they are needed.

    workers: threads, by default the cores that this process may use. With one, no thread is
    started. Raises the first exception that the function raises: no further items are begun, and
    no thread of this process is still at work.
    """
    import dask

    threads = workers or len(os.sched_getaffinity(0))
    task = dask.delayed(function, pure=False)
    todo = iter(items)
    with ExitStack() as stack:
        scheduler = _scheduler(threads, stack)
        while batch := list(itertools.islice(todo, PER_WORKER * threads)):
            yield from dask.compute(*map(task, batch), **scheduler)


def workers(each: int, memory: int) -> int:
    """Return how many blocks of so many bytes are in work at once: one for a core, as fit."""
    return max(1, min(len(os.sched_getaffinity(0)), memory // each))


def map_regions(
    function: Callable[[Region], Result], parts: Sequence[Region], memory: int
) -> Iterator[Result]:
    """Do the same with regions of an array in float32, each held COPIES times while in work."""
    each = 4 * COPIES * max(map(size, parts))
    return map_blocks(function, parts, workers=workers(each, memory))


def _scheduler(threads: int, stack: ExitStack) -> dict[str, Any]:
    if "distributed" in sys.modules:
        from distributed import get_client

        try:
            return {"scheduler": get_client()}
        except ValueError:  # no client is current
            pass
    if threads == 1:
        return {"scheduler": "synchronous"}
    # A pool of our own: leaving it waits for what is still being worked on after an error.
    return {"scheduler": "threads", "pool": stack.enter_context(ThreadPoolExecutor(threads))}


def regions(shape: Sequence[int], unit: Sequence[int], voxels: int) -> Iterator[Region]:
    """Cut an array into regions of whole units, at most `voxels` values each (at least one unit).

    They are made longer on the last axis first, so that they are contiguous in C order:

        unit   [][][]      region   [========]
    """
    edges = list(unit)
    for axis in reversed(range(len(shape))):
        others = math.prod(e for a, e in enumerate(edges) if a != axis)
        units = max(1, voxels // (others * unit[axis]))
        edges[axis] = min(shape[axis], units * unit[axis])
        if edges[axis] < shape[axis]:
            break
    axes = (
        [slice(i, min(i + edge, n)) for i in range(0, n, edge)]
        for n, edge in zip(shape, edges, strict=True)
    )
    yield from itertools.product(*axes)


def read_block(array: Any, region: Region, name: object) -> NDArray[np.float32]:
    """Read a region, little-endian float32; raise BadInput, naming the array, if it is damaged."""
    try:
        return np.ascontiguousarray(array[region], "<f4")
    except BadInput:
        raise
    except (ValueError, OSError) as error:
        if (fault := of_system(error)) is not None:
            raise fault from error
        raise BadInput(
            f"{name}: is damaged in the block from voxel {tuple(s.start for s in region)} on"
            f" ({' '.join(str(error).split())}); find the chunk with: bigbox verify"
        ) from error


def size(region: Region) -> int:
    """Count the values of a region."""
    return math.prod(s.stop - s.start for s in region)
