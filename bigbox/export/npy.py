"""Write an array as a numpy file, C order, little-endian float32."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.blockwise import Region, read_block
from bigbox.export.blocks import for_each_block
from bigbox.store.box import Box


def write_npy(work: Path, box: Box, arrays: Mapping[str, Any], memory: int) -> None:
    """Write the only array of `arrays`."""
    (array,) = arrays.values()
    with open(work, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(array.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + 4 * math.prod(array.shape))
        file.flush()

        def copy(part: Region) -> None:
            block = read_block(array, part, array.store_path.store.root)
            for first, rows in contiguous(block, part, array.shape):
                write_at(file.fileno(), rows, start + 4 * first)

        for_each_block(array, memory, copy)
        os.fsync(file.fileno())


def contiguous(
    block: NDArray[np.float32], part: Region, shape: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the runs of a block that are contiguous in the whole array: (first index, values)."""
    # Axes behind `cut` are whole, so that all of them, and a stretch of axis `cut`, are one run.
    cut = len(shape) - 1
    while cut and block.shape[cut] == shape[cut]:
        cut -= 1
    begin = [s.start for s in part]
    for lead in np.ndindex(block.shape[:cut]):
        at = [b + i for b, i in zip(begin, lead, strict=False)] + begin[cut:]
        yield int(np.ravel_multi_index(at, tuple(shape))), block[lead]


def write_at(file: int, values: NDArray[Any], at: int) -> None:
    """Write values at a place of a file, in bytes, all of them."""
    left = values.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
