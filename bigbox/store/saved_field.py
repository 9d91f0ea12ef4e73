"""Keep what ranks have of the noisy field on the disk: for want of memory, and for the next run.

It stands in ledger/field/, see `bigbox.store.slots`: the key is a tile, the tag says how many steps
it has taken. Tiles that touch differ by a step at most, so a save is of use only whole: of all
ranks of a run, and each at a moment that fits the others' (`bigbox.engine.joint` sees to that).
Saves are numbered. An index has the save's number, and the two newest stand beside each other,
because the newest may not be whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.store.durable import Disk
from bigbox.store.ledger import Ledger
from bigbox.store.slots import (
    Array,
    Held,
    SlotFile,
    Tag,
    line_type,
    read_index,
)
from bigbox.store.writer import RunWriter

FIELD = "field"
LEVEL_BITS = 64
# Number of the save at a stop: newer than all others of its run.
STOP = 1 << 40
# Keys of tiles of other ranks, of which a rank has a part only: of no use to the next run.
OTHERS = 1 << 40


def level_tag(level: int) -> Tag:
    """Return the steps that a tile has taken as the tag of its arrays."""
    return np.array([level], "<u8").view(np.uint8)


def level_of(tag: Tag) -> int:
    """Return the steps in a tag."""
    return int(np.ascontiguousarray(tag).view("<u8")[0])


def whole_save(ledger: Ledger) -> tuple[str, ...]:
    """Return the indices of the newest save that all ranks of its run have; none: ()."""
    directory, base = ledger.path / FIELD, ledger.base()
    found: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
    for path in sorted(directory.glob("*.idx")):
        match = re.fullmatch(r"e(\d+)-r(\d+)\.\w+\.idx", path.name)
        if match and int(match[1]) >= base and (index := read_index(path, LEVEL_BITS)) is not None:
            found[int(match[1]), index[0]][int(match[2])] = path.name
    for (epoch, _), names in sorted(found.items(), reverse=True):
        if len(names) == ledger.epoch(epoch)["n_ranks"]:
            return tuple(names.values())
    return ()


class SavedField:
    """What the next run may go on from: steps of tiles, and where their arrays are."""

    def __init__(self, ledger: Ledger, names: Sequence[str]) -> None:
        self.files: list[Path] = []
        parts, numbers = [], []
        for name in names:
            index = read_index(ledger.path / FIELD / name, LEVEL_BITS)
            if index is None:
                raise FileNotFoundError(name)
            lines = index[1][index[1]["key"] < OTHERS]
            parts.append(lines)
            numbers.append(np.full(len(lines), len(self.files), np.int32))
            self.files.append(ledger.path / FIELD / name.split(".", 1)[0])
        self.lines = np.concatenate([np.empty(0, line_type(LEVEL_BITS)), *parts])
        self.file = np.concatenate([np.empty(0, np.int32), *numbers])

    def levels(self, tiles: int) -> npt.NDArray[np.int16]:
        """Return the steps that each of so many tiles has taken, int16."""
        found = np.zeros(tiles, np.int16)
        level = np.ascontiguousarray(self.lines["tag"]).view("<u8")[:, 0]
        found[self.lines["key"].astype(np.int64)] = level
        return found


class FieldFile(SlotFile):
    """What a rank has on the disk of the noisy field, and of a save that it goes on from."""

    noun = "latents of tiles"
    again = "paints them again"

    def __init__(
        self, run: RunWriter[Any], disk: Disk, shape: tuple[int, ...], before: SavedField | None
    ) -> None:
        super().__init__(run, disk, run.ledger.path / FIELD, shape, "<f4", LEVEL_BITS)
        self._before = before
        keys = before.lines["key"].tolist() if before is not None else []
        self._rows = {key: row for row, key in enumerate(keys)}

    def put(self, key: int, tag: Tag, values: Array) -> None:
        """Take an array that is to leave the memory. What was read and not changed stands there."""
        if self._has(key, tag):
            self._aside.add(key)
        else:
            super().put(key, tag, values)

    def _take(self, key: int) -> tuple[Tag, Array] | None:
        row = self._rows.pop(key, None) if key not in self._here else None
        if row is None or self._before is None:
            return super()._take(key)
        line, place = self._before.lines[row], self._before.files[self._before.file[row]]
        return line["tag"].copy(), self._earlier(place, line)

    def save_as(self, number: int, held: Sequence[Held]) -> None:
        """Make a save durable."""
        ending = ".stop.idx" if number == STOP else f".{number % 2}.idx"
        self.save(held, ending, number)
