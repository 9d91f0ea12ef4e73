"""Define the ledger's records: 40 bytes each, a checksum in each, appended and synced."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from threading import Lock

import google_crc32c
import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.store.durable import Disk, File

# Kinds of record beside those of `made` and `revoked`. BEGUN says that a tile, or as many windows
# as its `end`, are being painted. It is not synced and decides nothing, but tells how much a killed
# run lost.
COMPLETE, BEGUN = 5, 6


def made(number: int) -> int:
    """Return the kind of record that says: this chunk of product `number` is done."""
    return 1 + number if number < 2 else 3 + 2 * number


def revoked(number: int) -> int:
    """Return the kind of record that takes a chunk of product `number` back."""
    return 3 + number if number < 2 else 4 + 2 * number


# time is that of the clock in seconds, by its lowest 24 bits: what a copy of the files keeps.
# offset, end and crc are those of the chunk in its shard: where it begins, the committed end of
# the shard after it, and crc32c of its values. Of a shard that is written whole: 0, its bytes,
# crc32c of its chunks' crcs.
RECORD = np.dtype(
    [
        ("kind", "u1"),
        ("time", "u1", 3),
        ("epoch", "<u4"),
        ("index", "<u8"),
        ("offset", "<u8"),
        ("end", "<u8"),
        ("crc", "<u4"),
        ("check", "<u4"),
    ]
)
TIMES = 1 << 24  # seconds, 194 days, after which a record's time begins anew
CHECKED_BYTES = RECORD.itemsize - 4

Records = npt.NDArray[np.void]
# Records whose checks are computed at a time, so that they stay in the processor's cache.
_CHECK_BLOCK = 1 << 13


@cache
def _tables() -> tuple[int, npt.NDArray[np.uint32]]:
    """crc32c is linear: crc(record) = crc(zeros) xor a table entry for each byte."""
    zero = int(google_crc32c.value(bytes(CHECKED_BYTES)))
    tables = np.empty((CHECKED_BYTES, 256), np.uint32)
    for place in range(CHECKED_BYTES):
        for value in range(256):
            message = bytearray(CHECKED_BYTES)
            message[place] = value
            tables[place, value] = int(google_crc32c.value(bytes(message))) ^ zero
    return zero, tables


def checks(records: Records) -> npt.NDArray[np.uint32]:
    """crc32c of everything before `check`, for many records at once."""
    zero, tables = _tables()
    raw = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), RECORD.itemsize)
    out = np.full(len(records), zero, np.uint32)
    for low in range(0, len(records), _CHECK_BLOCK):
        part = np.ascontiguousarray(raw[low : low + _CHECK_BLOCK, :CHECKED_BYTES].T)
        for place in range(CHECKED_BYTES):
            if part[place].any():
                out[low : low + _CHECK_BLOCK] ^= tables[place][part[place]]
    return out


def make_records(
    kind: int,
    epoch: int,
    index: npt.ArrayLike,
    offset: npt.ArrayLike = 0,
    end: npt.ArrayLike = 0,
    crc: npt.ArrayLike = 0,
) -> Records:
    """Return records of one kind, one for each `index`."""
    places = np.atleast_1d(np.asarray(index))
    records = np.zeros(len(places), RECORD)
    records["kind"], records["epoch"], records["index"] = kind, epoch, places
    records["time"] = list((int(time.time()) % TIMES).to_bytes(3, "little"))
    records["offset"], records["end"], records["crc"] = offset, end, crc
    if len(records) < 64:  # below this the table's passes cost more than the plain way
        raw = records.tobytes()
        size = RECORD.itemsize
        records["check"] = [
            google_crc32c.value(raw[i : i + CHECKED_BYTES]) for i in range(0, len(raw), size)
        ]
    else:
        records["check"] = checks(records)
    return records


def seconds_after(start: float, records: Records) -> npt.NDArray[np.int64]:
    """Return the seconds from a time of the clock to that of each record: up to 97 days.

    0 for a record before it, as of a clock that was set back, and for one that tells no time.
    """
    low, middle, high = records["time"].astype(np.int64).T
    told = low + (middle << 8) + (high << 16)
    seconds = (told - int(start) + TIMES // 2) % TIMES - TIMES // 2
    return np.where(told > 0, np.maximum(seconds, 0), 0)


class RecordWriter:
    """Appends the records of one rank in one run; thread safe.

    Appends that sync wait for each other, so that a failed one cuts off no record of another that
    has returned.  One that does not sync waits for no disk: the painter's thread makes it.
    """

    def __init__(self, disk: Disk, directory: Path, epoch: int, rank: int) -> None:
        self._disk = disk
        self._directory = directory
        self.path = directory / f"e{epoch:05d}-r{rank:05d}.bin"
        self._syncing = Lock()
        self._lock = Lock()
        self._file: File | None = None
        self._size = 0
        self._named = False
        self._closed = False

    def append(self, records: Records, sync: bool = True) -> None:
        """Write and sync: durable when it returns; on failure the file is cut back to what stood.

        Without `sync` the records are as durable as the next append makes them.
        """
        if not sync:
            self._write(records)
            return
        with self._syncing:
            file, start = self._write(records)
            try:
                self._disk.fsync(file)
                if not self._named:
                    self._disk.fsync_dir(self._directory)
                    self._named = True
            except OSError:
                with self._lock:
                    self._cut(file, start)
                raise

    def _write(self, records: Records) -> tuple[File, int]:
        with self._lock:
            if self._closed:
                raise BigboxError(f"{self.path}: closed, no record can be added")
            if self._file is None:
                # Never opened twice: each start of a run has a number of its own.
                self._file = self._disk.open(self.path, exclusive=True)
            start = self._size
            try:
                written = self._disk.write_at(self._file, start, [records.view(np.uint8)])
            except OSError:
                self._cut(self._file, start)
                raise
            self._size += written
            return self._file, start

    def _cut(self, file: File, size: int) -> None:
        self._disk.truncate(file, size)
        self._size = size

    def close(self) -> None:
        """Close the record file."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._disk.close(self._file)
