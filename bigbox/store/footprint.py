"""Bytes and files that a painting takes on disk: arithmetic only, for a box of any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbox.scheduler.bricks import Bricks, default_shard
from bigbox.scheduler.tiling import Tiling
from bigbox.store.records import RECORD
from bigbox.store.shards import CRC_BYTES, index_bytes


@dataclass(frozen=True)
class Footprint:
    """What stands on disk when a painting is complete; bytes are upper bounds."""

    painted_bytes: int  # latents/painted, gaps left by older indices included
    painted_files: int
    steps_bytes: int  # latents/steps if no tile's were ever dropped
    tb_bytes: int
    tb_files: int
    ledger_bytes: int
    field_bytes: int  # of the noisy field where tiles go together, while it is painted
    brick_bytes: int  # one brick: each rank may need as much again while it resumes

    @property
    def bytes(self) -> int:
        """Everything together, per-step latents left out: they come and go."""
        return self.painted_bytes + self.tb_bytes + self.ledger_bytes

    @property
    def files(self) -> int:
        """Files together, per-step latents left out."""
        return self.painted_files + self.tb_files


def footprint(
    tiling: Tiling,
    edge: int,
    *,
    n_steps: int = 0,
    tb_edges: tuple[int, int] | None = None,
    batch: int = 1,
    field_bytes: int = 0,
) -> Footprint:
    """Return the size on disk of a painting in bricks of edge³ tiles.

    batch: tiles of a brick committed at a time, 1 is the worst: an index for every tile; tb_edges:
    (shard, inner chunk) of tb, voxels.
    """
    shard, chunk = tb_edges or default_shard(max(tiling.shape))
    bricks = Bricks(tiling, edge)
    tile_bytes = 4 * tiling.kept**3 + CRC_BYTES
    appends = int((-(-bricks.tile_counts() // batch)).sum())
    steps = 4 * n_steps * tiling.tile**3 + CRC_BYTES if n_steps else 0
    tb_files = int(np.prod([-(-n // shard) for n in tiling.shape], dtype=np.int64))
    tb_chunks = int(np.prod([-(-n // chunk) for n in tiling.shape], dtype=np.int64))
    return Footprint(
        painted_bytes=tiling.size * tile_bytes + appends * index_bytes(bricks.slots),
        painted_files=bricks.size,
        steps_bytes=tiling.size * steps,
        tb_bytes=tb_chunks * (4 * chunk**3 + CRC_BYTES)
        + tb_files * index_bytes((shard // chunk) ** 3),
        tb_files=tb_files,
        # A record when a tile is begun, another when it is done.
        ledger_bytes=(2 * tiling.size + tb_files) * RECORD.itemsize,
        field_bytes=field_bytes,
        brick_bytes=bricks.slots * tile_bytes
        + -(-bricks.slots // batch) * index_bytes(bricks.slots),
    )
