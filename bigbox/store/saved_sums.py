"""Keep sums of blocks that are not final on the disk: for want of memory, and for the next run.

They stand in halogen/ledger/sums/, see `bigbox.store.slots`: the key is a block, the tag says over
which windows the sums are.  A line of an index is a statement that stays true: these are the sums
of this block over these windows.  So a run may use what any earlier one has left, whoever its ranks
were, as long as it adds no window twice: of statements about one block it takes such as have no
window in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.grid import Ints
from bigbox.scheduler.window_order import Bool
from bigbox.store.durable import Disk
from bigbox.store.ledger import Ledger
from bigbox.store.slots import SlotFile, Tag, line_type, read_index
from bigbox.store.writer import RunWriter


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
        return cls(bits, [], np.empty(0, np.int32), np.empty(0, line_type(bits)))

    def included(self) -> tuple[Ints, Bool]:
        """Return the blocks, ascending, and the windows in their sums, bool (blocks, bits)."""
        blocks, first = np.unique(self.lines["key"].astype(np.int64), return_index=True)
        if not len(blocks):
            return blocks, np.zeros((0, self.bits), bool)
        masks = np.bitwise_or.reduceat(self.lines["tag"], first, axis=0)
        return blocks, np.unpackbits(masks, axis=1, count=self.bits).astype(bool)

    def only(self, rows: Bool | Ints) -> SavedSums:
        """Return some of the lines."""
        return SavedSums(self.bits, self.files, self.file[rows], self.lines[rows])


def sums_directory(ledger: Ledger) -> Path:
    """Where the sums of all runs stand."""
    return ledger.path / "sums"


def saved_sums(ledger: Ledger, bits: int, final: Bool) -> SavedSums:
    """Return what a run may go on from, the same for every rank that asks.

    Of each block that is not final, sums that have no window in common, those over the most windows
    first.
    """
    base = ledger.base()
    files: list[Path] = []
    parts, numbers = [], []
    names = sorted(p.name for p in sums_directory(ledger).glob("*.idx"))
    for name in names:
        match = re.fullmatch(r"e(\d+)-r(\d+)\.idx", name)
        index = read_index(sums_directory(ledger) / name, bits) if match else None
        if match is None or index is None or int(match[1]) < base:
            continue
        parts.append(index[1][index[1]["key"] < len(final)])
        numbers.append(np.full(len(parts[-1]), len(files), np.int32))
        files.append(sums_directory(ledger) / name.removesuffix(".idx"))
    if not parts:
        return SavedSums.nothing(bits)
    found = SavedSums(bits, files, np.concatenate(numbers), np.concatenate(parts))
    found = found.only(~final[found.lines["key"].astype(np.int64)])
    count = np.bitwise_count(found.lines["tag"]).sum(axis=1, dtype=np.int64)
    # Newer ones first among equals, by name: e00003-r00001.
    found = found.only(np.lexsort((-found.file, -count, found.lines["key"])))
    return found.only(_disjoint(found.lines["key"], found.lines["tag"]))


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


class SumsFile(SlotFile):
    """The sums that one rank of one run has on the disk, and those of earlier runs that it owns.

    run: the rank's hand on it; before: what earlier runs have left of this rank's blocks. Arrays
    are int64 (channels, b, b, b), tags the windows in them, by `Windows.meeting.places`.
    """

    noun = "sums of haloes"
    again = "predicts them again"

    def __init__(self, run: RunWriter[Any], disk: Disk, before: SavedSums) -> None:
        shape = run.products[0].shape
        super().__init__(run, disk, sums_directory(run.ledger), shape, np.int64, before.bits)
        self._before = before
        self._rows: dict[int, list[int]] = {}
        for row, block in enumerate(before.lines["key"].tolist()):
            self._rows.setdefault(block, []).append(row)

    def _take(self, key: int) -> tuple[Tag, Ints] | None:
        rows = self._rows.pop(key, None) if key not in self._aside else None
        if rows is None:
            return super()._take(key)
        lines = self._before.lines[rows]
        total = np.zeros(self._shape, np.int64)
        for line, file in zip(lines, self._before.file[rows].tolist(), strict=True):
            place = self._before.files[file]
            total += self._earlier(place, line)
        return np.bitwise_or.reduce(lines["tag"], axis=0), total

    def forget(self, keys: Iterable[int]) -> None:
        """Let go of blocks that are final, or whose sums another rank has."""
        keys = list(keys)
        for block in keys:
            self._rows.pop(block, None)
        super().forget(keys)
