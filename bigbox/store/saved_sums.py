"""Keep sums of blocks that are not final on the disk: for want of memory, and for the next run.

    halogen/ledger/sums/
      e00003-r00001.dat    slots of one size: the sums of a block, int64
      e00003-r00001.idx    which slot holds the sums of which block over which windows, one crc32c

A line of an index is a statement that stays true: these are the sums of this block over these
windows.  So a run may use what any earlier one has left, whoever its ranks were, as long as it adds
no window twice: of statements about one block it takes such as have no window in common.

A slot that the index on the disk names is not written again before another index has taken its
place, and an index is written after the data.  What is lost is only time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import StoppedEarly
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.window_order import Bool
from bigbox.store.durable import Disk, File
from bigbox.store.ledger import Ledger
from bigbox.store.shards import crc32c, pread_all
from bigbox.store.writer import RunWriter

_HEAD = np.dtype([("bits", "<u8"), ("lines", "<u8")])


def _line(bits: int) -> np.dtype[np.void]:
    """One line of an index; `windows` are packed bits, by `Windows.meeting.places`."""
    return np.dtype(
        [("block", "<u8"), ("slot", "<u8"), ("crc", "<u4"), ("windows", "u1", (-(-bits // 8),))]
    )


@dataclass
class SavedSums:
    """Lines of indices, and the file of each."""

    bits: int
    files: list[Path]  # without their ending
    file: npt.NDArray[np.int32]
    lines: npt.NDArray[np.void]

    @classmethod
    def nothing(cls, bits: int) -> SavedSums:
        """Return that nothing is saved."""
        return cls(bits, [], np.empty(0, np.int32), np.empty(0, _line(bits)))

    def included(self) -> tuple[Ints, Bool]:
        """Return the blocks, ascending, and the windows in their sums, bool (blocks, bits)."""
        blocks, first = np.unique(self.lines["block"].astype(np.int64), return_index=True)
        if not len(blocks):
            return blocks, np.zeros((0, self.bits), bool)
        masks = np.bitwise_or.reduceat(self.lines["windows"], first, axis=0)
        return blocks, np.unpackbits(masks, axis=1, count=self.bits).astype(bool)

    def only(self, rows: Bool | Ints) -> SavedSums:
        """Return some of the lines."""
        return SavedSums(self.bits, self.files, self.file[rows], self.lines[rows])


def saved_sums(ledger: Ledger, bits: int, final: Bool) -> SavedSums:
    """Return what a run may go on from, the same for every rank that asks.

    Of each block that is not final, sums that have no window in common, those over the most windows
    first.
    """
    base = ledger.base()
    files: list[Path] = []
    parts, numbers = [], []
    names = sorted(p.name for p in ledger.sums_path.glob("*.idx"))
    for name in names:
        match = re.fullmatch(r"e(\d+)-r(\d+)\.idx", name)
        lines = _read(ledger.sums_path / name, bits) if match else None
        if match is None or lines is None or int(match[1]) < base:
            continue
        parts.append(lines[lines["block"] < len(final)])
        numbers.append(np.full(len(parts[-1]), len(files), np.int32))
        files.append(ledger.sums_path / name.removesuffix(".idx"))
    if not parts:
        return SavedSums.nothing(bits)
    found = SavedSums(bits, files, np.concatenate(numbers), np.concatenate(parts))
    found = found.only(~final[found.lines["block"].astype(np.int64)])
    count = np.bitwise_count(found.lines["windows"]).sum(axis=1, dtype=np.int64)
    # Newer ones first among equals, by name: e00003-r00001.
    found = found.only(np.lexsort((-found.file, -count, found.lines["block"])))
    return found.only(_disjoint(found.lines["block"], found.lines["windows"]))


def _disjoint(block: npt.NDArray[np.uint64], windows: npt.NDArray[np.uint8]) -> Bool:
    """Lines, sorted by block, that have no window in common with an earlier one that is taken."""
    taken = np.ones(len(block), bool)
    taken[1:] = block[1:] != block[:-1]
    united = windows.copy()
    first = np.maximum.accumulate(np.where(taken, np.arange(len(block)), 0))
    for row in np.flatnonzero(~taken).tolist():
        if not (united[first[row]] & windows[row]).any():
            united[first[row]] |= windows[row]
            taken[row] = True
    return taken


def _read(path: Path, bits: int) -> npt.NDArray[np.void] | None:
    """Return the lines of an index; None where it is damaged, or of other windows."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < _HEAD.itemsize + 4 or crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        return None
    head = np.frombuffer(raw, _HEAD, 1)[0]
    line = _line(bits)
    if int(head["bits"]) != bits or len(raw) != _HEAD.itemsize + head["lines"] * line.itemsize + 4:
        return None
    return np.frombuffer(raw, line, int(head["lines"]), _HEAD.itemsize)


def remove_unused(disk: Disk, ledger: Ledger, used: SavedSums, temporary: Iterator[Path]) -> None:
    """Remove what nobody goes on from; for the first rank, before the others begin."""
    names = {used.files[i].name for i in np.unique(used.file).tolist()}
    for path in sorted(ledger.sums_path.glob("e*-r*.*")):
        if path.name.rsplit(".", 1)[0] not in names:
            # By way of the run's own directory: a run that was overtaken removes nothing.
            dead = next(temporary)
            with suppress(FileNotFoundError):
                disk.replace(path, dead)
            disk.unlink(dead)


class SumsFile:
    """The sums that one rank of one run has on the disk, and those of earlier runs that it owns.

    run: the rank's hand on it; before: what earlier runs have left of this rank's blocks. One
    thread's.
    """

    def __init__(self, run: RunWriter[Any], disk: Disk, before: SavedSums) -> None:
        self._run, self._disk, self._temporary = run, disk, run.temporary
        self._place = run.ledger.sums_path / f"e{run.epoch:05d}-r{run.rank:05d}"
        self._shape = run.products[0].shape
        self._bytes = 8 * int(np.prod(self._shape))
        self._bits = before.bits
        self._before = before
        self._rows: dict[int, list[int]] = {}
        for row, block in enumerate(before.lines["block"].tolist()):
            self._rows.setdefault(block, []).append(row)
        self._file: File | None = None
        self._slots = 0
        self._free: list[int] = []
        # Of a block: slot, crc32c and windows of its sums; aside: only here, not in memory.
        self._here: dict[int, tuple[int, int, Bool]] = {}
        self._aside: set[int] = set()
        self._named: set[int] = set()  # slots in the index that stands on the disk
        self._left: set[int] = set()  # of these, slots that the next index will not name

    @property
    def bytes(self) -> int:
        """Size of the data file."""
        return self._slots * self._bytes

    def put(self, block: int, windows: Bool, sums: Ints) -> None:
        """Take sums that are to leave the memory: int64 (channels, b, b, b) of a block.

        windows: which are in them, by `Windows.meeting.places`.
        """
        with self._run.writing(sums.nbytes):
            self._write(block, windows, sums)
        self._aside.add(block)

    def take(self, block: int) -> tuple[Bool, Ints] | None:
        """Return sums that are needed in memory, and their windows; None if there are none yet."""
        with self._run.writing(0):
            if block in self._aside:
                slot, crc, windows = self._here[block]
                assert self._file is not None
                self._aside.discard(block)
                return windows.copy(), self._checked(self._file.fd, self._place, slot, crc)
            rows = self._rows.pop(block, None)
            if rows is None:
                return None
            total, union = np.zeros(self._shape, np.int64), np.zeros(self._bits, bool)
            for row in rows:
                line, place = self._before.lines[row], self._before.files[self._before.file[row]]
                slot, crc = int(line["slot"]), int(line["crc"])
                with open(place.with_suffix(".dat"), "rb", buffering=0) as file:
                    total += self._checked(file.fileno(), place, slot, crc)
                union |= np.unpackbits(line["windows"], count=self._bits).astype(bool)
            return union, total

    def forget(self, blocks: Iterable[int]) -> None:
        """Let go of blocks that are final, or whose sums another rank has."""
        for block in blocks:
            self._rows.pop(block, None)
            self._aside.discard(block)
            entry = self._here.pop(block, None)
            if entry is not None:
                self._release(entry[0])

    def save(self, held: Sequence[tuple[int, Bool, Ints]]) -> None:
        """Make durable what is here and what is held in memory: (block, windows, sums)."""
        with self._run.writing(sum(sums.nbytes for _, _, sums in held)):
            for block, windows, sums in held:
                entry = self._here.get(block)
                if entry is None or not np.array_equal(entry[2], windows):
                    self._write(block, windows, sums)
            if self._file is None:
                return
            self._disk.fsync(self._file)
            lines = np.zeros(len(self._here), _line(self._bits))
            for row, (block, (slot, crc, windows)) in enumerate(sorted(self._here.items())):
                lines[row] = (block, slot, crc, np.packbits(windows))
            head = np.array([(self._bits, len(lines))], _HEAD)
            raw = head.tobytes() + lines.tobytes()
            raw += crc32c(raw).to_bytes(4, "little")
            self._disk.write_atomic(self._place.with_suffix(".idx"), raw, self._temporary("idx"))
            self._named = {slot for slot, _, _ in self._here.values()}
            self._free += sorted(self._left)
            self._left.clear()

    def close(self) -> None:
        """Let go of the file; what was saved stays for the next run."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None

    def _write(self, block: int, windows: Bool, sums: Ints) -> None:
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
        self._disk.write_at(self._file, slot * self._bytes, [np.ascontiguousarray(sums)])
        self._free.pop()
        old = self._here.get(block)
        self._here[block] = slot, crc32c(np.ascontiguousarray(sums)), windows.copy()
        if old is not None:
            self._release(old[0])

    def _release(self, slot: int) -> None:
        if slot in self._named:
            self._left.add(slot)
        else:
            self._free.append(slot)

    def _checked(self, fd: int, place: Path, slot: int, crc: int) -> Ints:
        raw = pread_all(fd, self._bytes, slot * self._bytes)
        if len(raw) == self._bytes and crc32c(raw) == crc:
            return np.frombuffer(raw, np.int64).reshape(self._shape).copy()
        # Not to be gone on from again.
        dead = self._temporary("dead")
        with suppress(FileNotFoundError):
            self._disk.replace(place.with_suffix(".idx"), dead)
        self._disk.unlink(dead)
        raise StoppedEarly(
            f"{place.with_suffix('.dat')}: sums of haloes came back damaged; they are given up, the"
            " same command predicts them again"
        )
