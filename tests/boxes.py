"""Small boxes to paint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigbox.store.box import Box


def new_box(folder: str | Path, shape: tuple[int, int, int], seed: int) -> tuple[Path, np.ndarray]:
    """Create a box of random matter; return its path and the matter, float32 of the shape."""
    path = Path(folder) / "box.zarr"
    box = Box.create(path, shape, box_size=[float(n) for n in shape], redshift=0.0)
    dm = np.random.default_rng(seed).lognormal(size=shape).astype(np.float32)
    box.create_array("dm")[...] = dm
    return path, dm
