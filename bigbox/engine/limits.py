"""Bound what one rank keeps in hand; `bigbox plan` adds these up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one rank, bytes and counts."""

    overlap_bytes: int = 32 << 20  # slabs of painted tiles that the store holds too
    # The noisy field of tiles that are painted together. Beyond it the field goes to the disk, and
    # a front sweeps through the rank's tiles, so that little of it is alive at once.
    latent_bytes: int = 512 << 20
    # Chunks of the tiles' input: 125 blocks of 64^3 hold the inputs of a brick of 8^3 tiles.
    block_cache_bytes: int = 128 << 20
    window_cache_bytes: int = 64 << 20  # chunks of dm for windows: neighbours share nearly all
    # 256 blocks of 32^3 and 4 channels. Beyond it sums go to the disk.
    sum_bytes: int = 256 << 20
    seconds_between_saves: float = 120.0  # of the sums: what a rank that is killed may lose


def limits_of(latent_gb: float | None) -> Limits:
    """Return the limits, with so many GB for the noisy field; None: the default."""
    return Limits() if latent_gb is None else Limits(latent_bytes=int(latent_gb * 1e9))
