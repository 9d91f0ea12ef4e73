"""Bound what one rank keeps in hand; `bigbox plan` adds these up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one rank, bytes and counts.

    Parameters
    ----------
    overlap_bytes : slabs of painted tiles that the store holds too.
    block_cache_bytes : chunks of the tiles' input. 125 blocks of 64^3 hold the inputs of a brick of
        8^3 tiles.
    window_cache_bytes : chunks of dm for windows, of which neighbours share nearly all.
    sum_bytes : sums of blocks, 256 blocks of 32^3 and 4 channels. Beyond it sums go to the disk.
    seconds_between_saves : a rank that is killed loses what it has added to the sums since.
    """

    overlap_bytes: int = 32 << 20
    block_cache_bytes: int = 128 << 20
    window_cache_bytes: int = 64 << 20
    sum_bytes: int = 256 << 20
    seconds_between_saves: float = 120.0
