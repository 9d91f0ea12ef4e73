"""Keep arrays of one size on the disk by number: for want of memory, and for the next run.

    e00003-r00001.dat    slots of one size, of rank 1 in run 3
    e00003-r00001.idx    which slot holds what: key, slot, crc32c, tag; one crc32c over all

A tag says in which state the array of a key is. A slot that an index on the disk names is not
written again before another index has taken its place, and an index is written after the data.
What is lost is only time. There may be several indices, with endings of their own.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import StoppedEarly
from bigbox.store.durable import Disk, File
from bigbox.store.shards import crc32c, pread_all
from bigbox.store.writer import RunWriter

Tag = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Held = tuple[int, Tag, Array]

_HEAD = np.dtype([("bits", "<u8"), ("lines", "<u8"), ("number", "<u8")])


def line_type(bits: int) -> np.dtype[np.void]:
    """Return one line of an index, with a tag of so many bits."""
    return np.dtype(
        [("key", "<u8"), ("slot", "<u8"), ("crc", "<u4"), ("tag", "u1", (-(-bits // 8),))]
    )


def read_index(path: Path, bits: int) -> tuple[int, npt.NDArray[np.void]] | None:
    """Return an index' number and its lines; None where it is damaged, or of other tags."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < _HEAD.itemsize + 4 or crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        return None
    head = np.frombuffer(raw, _HEAD, 1)[0]
    line = line_type(bits)
    if int(head["bits"]) != bits or len(raw) != _HEAD.itemsize + head["lines"] * line.itemsize + 4:
        return None
    return int(head["number"]), np.frombuffer(raw, line, int(head["lines"]), _HEAD.itemsize)


def slot_name(epoch: int, rank: int) -> str:
    """Return the name of a rank's files, without their ending."""
    return f"e{epoch:05d}-r{rank:05d}"


def remove_others(disk: Disk, directory: Path, used: Container[str], tmp: Path) -> None:
    """Remove files whose name, without its ending, is not `used`; before other ranks begin.

    tmp: the run's own directory.
    """
    for number, path in enumerate(sorted(directory.glob("e*-r*.*"))):
        ours = re.fullmatch(r"e\d+-r\d+(\.\w+)?\.(dat|idx)", path.name)
        if ours and path.name.split(".", 1)[0] not in used:
            # By way of the run's own directory: a run that was overtaken removes nothing.
            dead = tmp / f"start-{number}-dead"
            with suppress(FileNotFoundError):
                disk.replace(path, dead)
            disk.unlink(dead)


class SlotFile:
    """The arrays that one rank of one run has on the disk. One thread's.

    Parameters
    ----------
    run : the rank's hand on it.
    directory : where the files stand.
    shape, dtype : of each array.
    bits : of a tag.
    noun, again : what is kept, and what is done about it where it comes back damaged, in a message.
    """

    noun = "arrays"
    again = "makes them again"

    def __init__(
        self,
        run: RunWriter[Any],
        disk: Disk,
        directory: Path,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        bits: int,
    ) -> None:
        self._run, self._disk, self._temporary = run, disk, run.temporary
        self._place = directory / slot_name(run.epoch, run.rank)
        self._shape, self._type, self._bits = shape, np.dtype(dtype), bits
        self._bytes = self._type.itemsize * int(np.prod(shape))
        self._file: File | None = None
        self._slots = 0
        self._free: list[int] = []
        # Of a key: slot, crc32c and the tag's bytes (arrays, of so many keys, would lie between
        # those of batches and keep their memory from being used again); aside: not in memory.
        self._here: dict[int, tuple[int, int, bytes]] = {}
        self._aside: set[int] = set()
        self._named: dict[str, set[int]] = {}  # slots in the indices on the disk, by ending
        self._left: set[int] = set()  # of these, slots whose arrays have gone

    @property
    def bytes(self) -> int:
        """Size of the data file."""
        return self._slots * self._bytes

    def put(self, key: int, tag: Tag, values: Array) -> None:
        """Take an array that is to leave the memory."""
        with self._run.writing(values.nbytes):
            self._write(key, tag, values)
        self._aside.add(key)

    def _has(self, key: int, tag: Tag) -> bool:
        entry = self._here.get(key)
        return entry is not None and entry[2] == tag.tobytes()

    def take(self, key: int) -> tuple[Tag, Array] | None:
        """Return an array that is needed in memory, and its tag; None if there is none."""
        with self._run.writing(0):
            return self._take(key)

    def _take(self, key: int) -> tuple[Tag, Array] | None:
        if key not in self._aside:
            return None
        slot, crc, tag = self._here[key]
        assert self._file is not None
        self._aside.discard(key)
        values = self._checked(self._file.fd, self._place, slot, crc)
        return np.frombuffer(tag, np.uint8).copy(), values

    def forget(self, keys: Iterable[int]) -> None:
        """Let go of arrays that nobody needs any more."""
        for key in keys:
            self._aside.discard(key)
            entry = self._here.pop(key, None)
            if entry is not None:
                self._release(entry[0])

    def save(self, held: Sequence[Held], ending: str = ".idx", number: int = 0) -> None:
        """Make durable what is here and what is held in memory: (key, tag, array)."""
        with self._run.writing(sum(values.nbytes for _, _, values in held)):
            for key, tag, values in held:
                if not self._has(key, tag):
                    self._write(key, tag, values)
            self._write_index(ending, number)

    def _write_index(self, ending: str, number: int) -> None:
        if self._file is not None:
            self._disk.fsync(self._file)
        lines = np.zeros(len(self._here), line_type(self._bits))
        for row, (key, (slot, crc, tag)) in enumerate(sorted(self._here.items())):
            lines[row] = (key, slot, crc, np.frombuffer(tag, np.uint8))
        head = np.array([(self._bits, len(lines), number)], _HEAD)
        raw = head.tobytes() + lines.tobytes()
        raw += crc32c(raw).to_bytes(4, "little")
        self._disk.write_atomic(self._place.with_suffix(ending), raw, self._temporary("idx"))
        self._named[ending] = {slot for slot, _, _ in self._here.values()}
        named = set().union(*self._named.values())
        self._free += sorted(self._left - named)
        self._left &= named

    def close(self) -> None:
        """Let go of the file; what was saved stays for the next run."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None

    def _write(self, key: int, tag: Tag, values: Array) -> None:
        if self._file is None:
            # Made without a name, so that a run that was overtaken makes none.
            made = self._temporary("dat")
            self._file = self._disk.open(made, exclusive=True)
            self._disk.replace(made, self._place.with_suffix(".dat"))
            self._disk.fsync_dir(self._place.parent)
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        slot = self._free[-1]
        self._disk.write_at(self._file, slot * self._bytes, [np.ascontiguousarray(values)])
        self._free.pop()
        old = self._here.get(key)
        self._here[key] = slot, crc32c(np.ascontiguousarray(values)), tag.tobytes()
        if old is not None:
            self._release(old[0])

    def _release(self, slot: int) -> None:
        if any(slot in named for named in self._named.values()):
            self._left.add(slot)
        else:
            self._free.append(slot)

    def _earlier(self, place: Path, line: Any) -> Array:
        """Return the array that a line of an earlier run's index names."""
        with open(place.with_suffix(".dat"), "rb", buffering=0) as file:
            return self._checked(file.fileno(), place, int(line["slot"]), int(line["crc"]))

    def _checked(self, fd: int, place: Path, slot: int, crc: int) -> Array:
        raw = pread_all(fd, self._bytes, slot * self._bytes)
        if len(raw) == self._bytes and crc32c(raw) == crc:
            return np.frombuffer(raw, self._type).reshape(self._shape).copy()
        # Not to be gone on from again.
        dead = self._temporary("dead")
        with suppress(FileNotFoundError):
            for index in sorted(place.parent.glob(f"{place.name}.*idx")):
                self._disk.replace(index, dead)
                self._disk.unlink(dead)
        raise StoppedEarly(
            f"{place.with_suffix('.dat')}: {self.noun} came back damaged; they are given up, the"
            f" same command {self.again}"
        )
