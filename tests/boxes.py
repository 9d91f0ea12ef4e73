"""Small boxes to paint, and where to put them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bigbox.store.box import Box


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder, in memory where there is one: tests are of the order, not of the device."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def new_box(folder: str | Path, shape: tuple[int, int, int], seed: int) -> tuple[Path, np.ndarray]:
    """Create a box of random matter; return its path and the matter, float32 of the shape."""
    path = Path(folder) / "box.zarr"
    box = Box.create(path, shape, box_size=[float(n) for n in shape], redshift=0.0)
    dm = np.random.default_rng(seed).lognormal(size=shape).astype(np.float32)
    box.create_array("dm")[...] = dm
    return path, dm
