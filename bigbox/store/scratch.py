"""Memory's overflow: arrays of one shape put on the disk for a while, for one rank of one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.store.durable import Disk, File
from bigbox.store.shards import crc32c, pread_all

Ints = npt.NDArray[np.int64]


class Scratch:
    """int64 arrays of one shape by number, in a file without a name: it is gone with the process.

    Nothing of it is synced, and nothing is expected to outlive the run.
    """

    def __init__(self, disk: Disk, path: Path, shape: tuple[int, ...]) -> None:
        self._disk = disk
        self._path = path
        self._shape = shape
        self._bytes = 8 * int(np.prod(shape))
        self._file: File | None = None
        self._free: list[int] = []
        self._slots = 0
        self._places: dict[int, tuple[int, int]] = {}  # slot in the file, crc32c

    def __contains__(self, number: int) -> bool:
        return number in self._places

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._slots * self._bytes

    def put(self, number: int, values: Ints) -> None:
        """Take an array; one of the same number must not be here."""
        if self._file is None:
            self._file = self._disk.open(self._path, exclusive=True)
            self._disk.unlink(self._path)
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        slot = self._free[-1]
        self._disk.write_at(self._file, slot * self._bytes, [values])
        self._free.pop()
        self._places[number] = slot, crc32c(values)

    def take(self, number: int) -> Ints:
        """Give an array back; it is no longer here."""
        assert self._file is not None
        slot, crc = self._places.pop(number)
        raw = pread_all(self._file.fd, self._bytes, slot * self._bytes)
        self._free.append(slot)
        if len(raw) != self._bytes or crc32c(raw) != crc:
            raise BigboxError(f"{self._path}: scratch data came back damaged; check the disk")
        return np.frombuffer(raw, np.int64).reshape(self._shape).copy()

    def close(self) -> None:
        """Let go of the file, and of what is in it."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None
        self._places.clear()
