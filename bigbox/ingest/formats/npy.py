"""Density grids in .npy files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput


class _Mapped:
    """The array of a file, of which only what is asked for is in memory."""

    def __init__(self, path: Path) -> None:
        self._map = partial(np.load, path, mmap_mode="r", allow_pickle=False)
        array = self._map()
        self.shape, self.dtype, self._strides = array.shape, array.dtype, array.strides

    def __getitem__(self, region: tuple[Any, ...]) -> NDArray[Any]:
        # Plane by plane along the slowest axis, each from a mapping of its own: the pages of a
        # mapping count as memory of this process until it is closed.
        *index, x, y, z = region
        out = np.empty([cut.stop - cut.start for cut in (x, y, z)], self.dtype)
        slow = int(np.argmax(self._strides[-3:]))
        for i, plane in enumerate(np.moveaxis(out, slow, 0)):
            cuts = [x, y, z]
            cuts[slow] = cuts[slow].start + i
            plane[...] = self._map()[(*index, *cuts)]
        return out


@contextmanager
def opened(path: Path, dataset: str) -> Iterator[_Mapped]:
    """Open the array of a .npy file."""
    if dataset:
        raise BadInput(
            f"{path}:/{dataset}: a .npy file holds one array only; leave out ':{dataset}'"
        )
    yield _Mapped(path)
