"""Say how ranks speak: the interface, the messages, and the transport of a single rank.

A message is one block of bytes, so that no transport needs to pickle::

    int64 kind, task, n_chunks, n_numbers | int64 chunks | int64 numbers | data

What `numbers` and `data` are is the matter of the task: of tiles, the names of the slabs that
travel with them and their voxels; of windows, which of them are in the sums of a block and these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.grid import Ints

_HEAD = 4 * 8


class Kind(IntEnum):
    """What a message says."""

    FINAL = 0  # these chunks are durable; here is what comes with them
    MAIL = 1  # for the same task on another rank
    STOP = 2  # finish what is in flight, then stop
    PROGRESS = 3  # `chunks` are the sender, its milliseconds at work, its units, task by task


def _nothing() -> Ints:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Parcel:
    """What a task sends along: whole numbers, and the bytes of an array."""

    numbers: Ints = field(default_factory=_nothing)
    data: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, np.uint8))


@dataclass(frozen=True)
class Message:
    """One message between ranks, see the module's head for its layout. task: its number."""

    kind: Kind
    task: int = 0
    chunks: Ints = field(default_factory=_nothing)
    parcel: Parcel = field(default_factory=Parcel)

    def encode(self) -> bytearray:
        """Return the message as one block of bytes."""
        numbers = np.asarray(self.parcel.numbers, np.int64).reshape(-1)
        chunks = np.asarray(self.chunks, np.int64)
        head = np.array([self.kind, self.task, len(chunks), len(numbers)], np.int64)
        parts = [head, chunks, numbers, np.ascontiguousarray(self.parcel.data).reshape(-1)]
        return bytearray().join(part.view(np.uint8).data for part in parts)

    @classmethod
    def decode(cls, block: bytearray | bytes) -> Message:
        """Return the message in a block of bytes; its data, uint8, is a view into the block."""
        kind, task, n_chunks, n_numbers = np.frombuffer(block, np.int64, 4).tolist()
        chunks = np.frombuffer(block, np.int64, n_chunks, _HEAD)
        numbers = np.frombuffer(block, np.int64, n_numbers, _HEAD + 8 * n_chunks)
        data = np.frombuffer(block, np.uint8, offset=_HEAD + 8 * (n_chunks + n_numbers))
        return cls(Kind(kind), task, chunks, Parcel(numbers, data))


class Transport:
    """How ranks speak; here a single one, with nobody to speak to. Only the engine's thread calls.

    Where there are others, a subclass does.
    """

    rank = 0
    size = 1

    def send(self, to: int, block: bytearray) -> None:
        """Start sending; return at once."""
        raise ValueError(f"rank 0 of 1 cannot send to rank {to}")

    def poll(self) -> list[bytearray]:
        """Return what has arrived since the last call."""
        return []

    def sent(self) -> bool:
        """Return whether every block that was sent has been received."""
        return True

    def finished(self) -> bool:
        """Say that this rank needs nothing more; return True once every rank has said so."""
        return True
