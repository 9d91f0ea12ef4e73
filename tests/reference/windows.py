"""Windows and blocks, voxel by voxel."""

from __future__ import annotations

import numpy as np

from bigbox.scheduler.windows import Windows


def voxels(windows: Windows, window: int) -> np.ndarray:
    """bool[shape]: the voxels under a window."""
    mask = np.zeros(windows.shape, bool)
    origin = windows.origin([window])[0]
    at = [(o + np.arange(windows.window)) % n for o, n in zip(origin, windows.shape, strict=True)]
    mask[np.ix_(*at)] = True
    return mask


def block_map(windows: Windows) -> np.ndarray:
    """int64[shape]: the block of each voxel."""
    x, y, z = np.indices(windows.shape) // windows.block
    return windows.blocks.index(np.stack([x, y, z], -1))
