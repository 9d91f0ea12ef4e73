"""How ranks speak: the interface, the messages, and the transport of a single rank.

A message is one block of bytes, so that no transport needs to pickle:

    int64 kind, n_tiles, n_slabs | int64 tiles[n_tiles] | int64 slabs[n_slabs, 3] | float32 data
    int64 SUMS, n, 0             | int64 block, windows[n - 1]                   | int64 sums

`tiles` are tiles whose record stands in the ledger, `slabs` names (tile, axis, side) of every
slab that travels with them, and `data` holds the slabs one after the other, each of the shape
that `overlaps.slab_shape` gives for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np


class Kind(IntEnum):
    """What a message says."""

    DONE = 0  # these tiles are durable; here are the slabs that you wait for
    STOP = 1  # finish what is in flight, then stop
    PROGRESS = 2  # `tiles` are three numbers: the sender, its tiles done, its windows done
    HALO = 3  # `tiles` are blocks of halo: they are durable
    SUMS = 4  # `tiles` are a block of yours and, as bits, the windows that are in its `sums`


@dataclass(frozen=True)
class Slab:
    """The part of a painted tile that a face neighbour shares: float32 (fields, ., ., .)."""

    tile: int
    axis: int
    side: int
    data: np.ndarray


@dataclass(frozen=True)
class Message:
    """One message between ranks, see the module's head for its layout."""

    kind: Kind
    tiles: np.ndarray
    slabs: Sequence[Slab] = field(default_factory=tuple)
    sums: np.ndarray | None = None  # int64, 1-D once it has travelled

    def encode(self) -> bytearray:
        """The message as one block of bytes."""
        head = np.array([self.kind, len(self.tiles), len(self.slabs)], dtype=np.int64)
        names = np.array([(s.tile, s.axis, s.side) for s in self.slabs], dtype=np.int64)
        parts = [head, np.asarray(self.tiles, dtype=np.int64), names]
        parts += [np.ascontiguousarray(s.data, dtype=np.float32) for s in self.slabs]
        if self.sums is not None:
            parts.append(np.ascontiguousarray(self.sums, dtype=np.int64))
        out = bytearray(sum(p.nbytes for p in parts))
        at = 0
        for part in parts:
            out[at : at + part.nbytes] = part.reshape(-1).view(np.uint8).data
            at += part.nbytes
        return out


class SlabShape(Protocol):
    """Gives the shape of the slab at (tile, axis, side)."""

    def __call__(self, tile: int, axis: int, side: int) -> tuple[int, ...]: ...


def decode(block: bytearray | bytes, slab_shape: SlabShape) -> Message:
    """The message in a block of bytes.

    Its slabs are copies: as views, the last slab in use would keep the whole block in memory. Its
    sums are a view, since there is nothing else in the block.
    """
    kind, n_tiles, n_slabs = np.frombuffer(block, np.int64, 3)
    tiles = np.frombuffer(block, np.int64, n_tiles, 24)
    names = np.frombuffer(block, np.int64, 3 * n_slabs, 24 + 8 * n_tiles).reshape(-1, 3)
    at = 24 + 8 * int(n_tiles) + 24 * int(n_slabs)
    slabs = []
    for tile, axis, side in names.tolist():
        shape = slab_shape(tile, axis, side)
        count = int(np.prod(shape))
        data = np.frombuffer(block, np.float32, count, at).reshape(shape)
        slabs.append(Slab(tile, axis, side, data.copy()))
        at += 4 * count
    sums = np.frombuffer(block, np.int64, offset=at) if kind == Kind.SUMS else None
    return Message(Kind(int(kind)), tiles, slabs, sums)


class Transport(Protocol):
    """What the engine asks of the way ranks speak. Only the engine's own thread calls it."""

    rank: int
    size: int

    def send(self, to: int, block: bytearray) -> None:
        """Starts sending; returns at once."""

    def poll(self) -> list[bytearray]:
        """What has arrived since the last call."""

    def sent(self) -> bool:
        """True when every block that was sent has been received."""

    def finished(self) -> bool:
        """Says that this rank needs nothing more; True once every rank has said so."""


class SingleRank:
    """The transport of a painting on one rank: nobody to speak to."""

    rank = 0
    size = 1

    def send(self, to: int, block: bytearray) -> None:
        raise ValueError(f"rank 0 of 1 cannot send to rank {to}")

    def poll(self) -> list[bytearray]:
        return []

    def sent(self) -> bool:
        return True

    def finished(self) -> bool:
        return True
