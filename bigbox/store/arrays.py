"""zarr.json of the arrays that a painting makes: latents/painted, latents/steps and tb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigbox.scheduler.bricks import Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import AXES, KNOWN
from bigbox.store.metadata import array_metadata


def painted_metadata(bricks: Bricks) -> bytes:
    """zarr.json of latents/painted: the painted tiles, one chunk a tile, one shard a brick."""
    t = (bricks.tiling.tile,) * 3
    return array_metadata(
        (*bricks.tiling.counts, *t),
        (1, 1, 1, *t),
        shard=(bricks.edge,) * 3 + t,
        names=_tile_names(),
        attributes={"units": "mK", "long_name": "painted tiles, overlaps included"},
        separator=".",
    )


def steps_metadata(tiling: Tiling, n_steps: int) -> bytes:
    """zarr.json of latents/steps: per-step latents, one file a tile, removed when not needed."""
    t = (tiling.tile,) * 3
    i, j, k, x, y, z = _tile_names()
    return array_metadata(
        (*tiling.counts, n_steps, *t),
        (1, 1, 1, n_steps, *t),
        names=(i, j, k, "step", x, y, z),
        attributes={"units": "1", "long_name": "latents of the tiles that are still needed"},
        separator=".",
    )


def tb_metadata(
    shape: tuple[int, ...], edges: Mapping[str, int], about: Mapping[str, Any]
) -> bytes:
    """zarr.json of tb, NaN where not painted yet."""
    units, long_name = KNOWN["tb"]
    return array_metadata(
        shape,
        (edges["chunk"],) * 3,
        shard=(edges["shard"],) * 3,
        names=AXES,
        attributes={"units": units, "long_name": long_name, **about},
        separator=".",
    )


def _tile_names() -> tuple[str, ...]:
    return ("tile_x", "tile_y", "tile_z", "in_x", "in_y", "in_z")
