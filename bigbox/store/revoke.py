"""Taking finished work back: which tiles and shards must be made again when some are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.stages import predecessors
from bigbox.scheduler.tiling import Tiling
from bigbox.store.ledger import REVOKE_SHARD, REVOKE_TILE, Records, make_records
from bigbox.store.tbshards import TbShards

Ints = npt.NDArray[np.int64]


def steps_path(box_path: Path, tiling: Tiling, tile: int) -> Path:
    """The file of latents/steps that holds a tile's per-step latents."""
    x, y, z = tiling.coords(tile).tolist()
    return box_path / "latents" / "steps" / f"c.{x}.{y}.{z}.0.0.0.0"


def with_needed(box_path: Path, tiling: Tiling, n_steps: int, tiles: npt.ArrayLike) -> Ints:
    """The tiles, and every earlier one that must be painted again for their sake.

    Only in the stored-latents mode: a tile is painted from the per-step latents of the tiles that
    it waits for, and these are dropped once no unpainted tile needs them.
    """
    taken = np.unique(np.asarray(tiles, np.int64))
    front = taken
    while n_steps and len(front):
        before = np.unique(predecessors(tiling, front))
        lost = [
            t for t in before.tolist() if t >= 0 and not steps_path(box_path, tiling, t).exists()
        ]
        front = np.setdiff1d(np.array(lost, np.int64), taken)
        taken = np.union1d(taken, front)
    return taken


def revocation(epoch: int, tb: TbShards, tiles: Ints, shards: npt.ArrayLike = ()) -> Records:
    """The records that take back tiles, the shards of tb they go into, and more shards."""
    touched = tb.of_tiles(tiles).ravel() if len(tiles) else tiles
    every = np.unique(np.concatenate([touched, np.asarray(shards, np.int64)]))
    return np.concatenate(
        [
            make_records(REVOKE_TILE, epoch, tiles),
            make_records(REVOKE_SHARD, epoch, every[every >= 0]),
        ]
    )
