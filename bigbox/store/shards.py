"""zarr v3 shards written and read by hand: chunks of float32 with crc32c, index at the end.

A shard of the painted tiles only ever grows.  Every append carries a fresh index of all chunks, so
the file is whole after each of them, and an old index becomes a gap, which the format allows::

    | chunk | chunk | index | chunk | chunk | chunk | index |
    '------ append 1 -------'------------ append 2 ---------'
                            ^ committed end before          ^ committed end after

    chunk = little-endian float32, crc32c of them
    index = (offset u64, bytes u64) of every slot, crc32c of them

The committed end stands in the ledger.  What lies behind it, a torn tail of a run that was killed,
is cut off before anything is appended again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.store.durable import Disk, File

Index = npt.NDArray[np.uint64]
Float = npt.NDArray[np.float32]

# Both words of an index entry hold this where a slot has no chunk (zarr v3, sharding codec).
EMPTY = np.uint64(2**64 - 1)
CRC_BYTES = 4
# Pieces in which a committed prefix is copied to a new file.
COPY_BYTES = 4 << 20


class DamagedChunk(BigboxError):
    """Stored bytes of a chunk are missing, cut or flipped: which array, chunk and file, and why."""

    def __init__(self, array: str, noun: str, chunk: int, file: str, why: str) -> None:
        super().__init__(f"{array}: {noun} {chunk} is damaged in {file}: {why}")
        self.array = array
        self.chunk = chunk
        self.file = file
        self.why = why


def pread_all(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes of an open file from `offset` on; fewer only where the file ends before.

    One pread may return less than is there (a signal, a network file system).
    """
    raw = os.pread(fd, size, offset)
    if len(raw) in (0, size):
        return raw
    pieces, at = [raw], len(raw)
    while at < size and (raw := os.pread(fd, size - at, offset + at)):
        pieces.append(raw)
        at += len(raw)
    return b"".join(pieces)


def crc32c(data: Any) -> int:
    """crc32c of a contiguous buffer."""
    return int(google_crc32c.value(data))


def empty_index(slots: int) -> Index:
    """Return the index of a shard without chunks: (slots, 2)."""
    return np.full((slots, 2), EMPTY, np.uint64)


def index_bytes(slots: int) -> int:
    """Bytes of an index on disk."""
    return 16 * slots + CRC_BYTES


def encode_index(index: Index) -> bytes:
    """Return an index as it stands at the end of a shard."""
    raw = index.astype("<u8", copy=False).tobytes()
    return raw + crc32c(raw).to_bytes(CRC_BYTES, "little")


def decode_index(raw: bytes, slots: int) -> Index | None:
    """Return the index in `raw`; None where it is cut or its checksum is wrong."""
    if len(raw) != index_bytes(slots):
        return None
    if crc32c(raw[:-CRC_BYTES]) != int.from_bytes(raw[-CRC_BYTES:], "little"):
        return None
    return np.frombuffer(raw[:-CRC_BYTES], "<u8").reshape(slots, 2).astype(np.uint64)


def read_index(fd: int, end: int, slots: int) -> Index | None:
    """Return the index that ends at byte `end` of an open shard; None where none is whole."""
    size = index_bytes(slots)
    if end < size:
        return None
    return decode_index(pread_all(fd, size, end - size), slots)


def decode_chunk(raw: bytes | memoryview) -> Float | None:
    """Return the float32 values (1-D, read-only) of a chunk; None if its checksum is wrong."""
    if len(raw) <= CRC_BYTES or len(raw) % 4:
        return None
    values = np.frombuffer(raw, "<f4", len(raw) // 4 - 1)
    if crc32c(values) != int.from_bytes(raw[-CRC_BYTES:], "little"):
        return None
    return values.astype(np.float32, copy=False)


def read_chunk(fd: int, offset: int, size: int) -> tuple[Float | None, str]:
    """Return the values of a chunk of an open file, as `decode_chunk`, or what is wrong with it."""
    raw = pread_all(fd, size, offset)
    if len(raw) < size:
        return None, f"file cut inside it, at byte {offset + len(raw)}"
    values = decode_chunk(raw)
    return values, "" if values is not None else f"checksum wrong at byte {offset}"


class AppendShard:
    """One shard open for appending; `end` and `index` are those of the last completed append."""

    def __init__(
        self, disk: Disk, file: File, path: Path, end: int, index: Index, *, published: bool
    ) -> None:
        self._disk = disk
        self._file = file
        self._path = path
        self._published = published
        self._before = (end, index)
        self.end = end
        self.index = index

    @classmethod
    def start(cls, disk: Disk, path: Path, temporary: Path, end: int, index: Index) -> AppendShard:
        """Begin a new file for this run: the committed prefix of the old one, `end` bytes of it.

        The new file has a name of its own until `publish`: a writer of an earlier run that is
        still alive holds only the old file, and what it appends there is lost with it.
        """
        disk.unlink(temporary)
        file = disk.open(temporary, exclusive=True)
        try:
            if end:
                _copy_prefix(disk, path, file, end)
                # The index is written again: the old one may be what was damaged.
                disk.write_at(file, end - index_bytes(len(index)), [encode_index(index)])
        except BaseException:
            disk.close(file)
            disk.unlink(temporary)
            raise
        return cls(disk, file, path, end, index, published=False)

    @classmethod
    def resume(cls, disk: Disk, path: Path, end: int, slots: int) -> AppendShard:
        """Open a file that this run has begun and closed since."""
        file = disk.open(path)
        index = read_index(file.fd, end, slots)
        if index is None:
            disk.close(file)
            raise BigboxError(f"{path}: index at byte {end} changed while this run was on")
        return cls(disk, file, path, end, index, published=True)

    def append(self, slots: Sequence[int], chunks: Sequence[Float]) -> tuple[list[int], list[int]]:
        """Write chunks and a fresh index behind the end; returns each chunk's offset and crc32c.

        Not durable before `sync`, and not readable under its name before `publish`.
        """
        self._before = (self.end, self.index)
        index = self.index.copy()
        buffers: list[Any] = []
        offsets, crcs = [], []
        at = self.end
        for slot, chunk in zip(slots, chunks, strict=True):
            values = np.ascontiguousarray(chunk, "<f4")
            crc = crc32c(values)
            buffers += [values, crc.to_bytes(CRC_BYTES, "little")]
            index[slot] = at, values.nbytes + CRC_BYTES
            offsets.append(at)
            crcs.append(crc)
            at += values.nbytes + CRC_BYTES
        tail = encode_index(index)
        buffers.append(tail)
        self._disk.write_at(self._file, self.end, buffers)
        self.end, self.index = at + len(tail), index
        return offsets, crcs

    def sync(self) -> None:
        """Make everything appended durable."""
        self._disk.fsync(self._file)

    def publish(self) -> bool:
        """Put a new file in the old one's place; True where the directory must be synced."""
        if self._published:
            return False
        self._disk.replace(self._file.path, self._path)
        self._file.path = os.fspath(self._path)
        self._published = True
        return True

    def undo(self) -> None:
        """Take back the last append after a failure, so that its space is free again."""
        self.end, self.index = self._before
        if self._published:
            self._disk.truncate(self._file, self.end)
        else:
            self._disk.unlink(self._file.path)

    def close(self) -> None:
        """Close the file; appends that were synced stay."""
        self._disk.close(self._file)


def _copy_prefix(disk: Disk, path: Path, target: File, end: int) -> None:
    """Copy the first `end` bytes; where the old file is shorter, zeros keep every offset unique."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = 0
        while at < end:
            piece = os.pread(source, min(COPY_BYTES, end - at), at)
            if not piece:
                break
            disk.write_at(target, at, [piece])
            at += len(piece)
    finally:
        os.close(source)


def write_shard(
    disk: Disk, file: File, values: Float, shard: Sequence[int], chunk: Sequence[int]
) -> tuple[int, int]:
    """Write a whole shard of a 3-D array at once: returns its bytes and the crc32c of its chunks.

    values: the part of the shard inside the box (X, Y, Z); chunks that reach beyond are filled up
    with NaN, chunks wholly beyond are left out.
    """
    counts = [s // c for s, c in zip(shard, chunk, strict=True)]
    index = empty_index(int(np.prod(counts)))
    crcs: list[int] = []
    at = 0
    for i in range(counts[0]):
        buffers: list[Any] = []
        begin = at
        for j, k in np.ndindex(counts[1], counts[2]):
            low = (i * chunk[0], j * chunk[1], k * chunk[2])
            part = values[tuple(slice(a, a + c) for a, c in zip(low, chunk, strict=True))]
            if not part.size:
                continue
            beyond = [(0, c - n) for c, n in zip(chunk, part.shape, strict=True)]
            if any(n for _, n in beyond):
                part = np.pad(part, beyond, constant_values=np.nan)
            part = np.ascontiguousarray(part, "<f4")
            crc = crc32c(part)
            buffers += [part, crc.to_bytes(CRC_BYTES, "little")]
            index[(i * counts[1] + j) * counts[2] + k] = at, part.nbytes + CRC_BYTES
            crcs.append(crc)
            at += part.nbytes + CRC_BYTES
        if buffers:
            disk.write_at(file, begin, buffers)
    tail = encode_index(index)
    disk.write_at(file, at, [tail])
    return at + len(tail), crc32c(np.array(crcs, "<u4"))


def check_shard(
    path: Path, slots: int, look: Callable[[int, Float], None] = lambda slot, values: None
) -> tuple[list[int], int, int, str]:
    """Read a whole shard of tb: (slots with bad chunks, file bytes, crc of chunk crcs, fault).

    `fault` is what is wrong with the file itself ("" if nothing): missing, or its index. look: is
    shown the values, 1-D, of every chunk that is good.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], 0, 0, "file missing"
    try:
        size = os.fstat(fd).st_size
        index = read_index(fd, size, slots)
        if index is None:
            return [], size, 0, "index cut or its checksum wrong"
        bad: list[int] = []
        crcs: list[int] = []
        for slot in np.flatnonzero(index[:, 0] != EMPTY).tolist():
            raw = pread_all(fd, int(index[slot, 1]), int(index[slot, 0]))
            values = decode_chunk(raw) if len(raw) == int(index[slot, 1]) else None
            if values is None:
                bad.append(slot)
            else:
                look(slot, values)
            crcs.append(int.from_bytes(raw[-CRC_BYTES:], "little"))
        return bad, size, crc32c(np.array(crcs, "<u4")), ""
    finally:
        os.close(fd)
