"""A table in a text file, a row a line, read in bounded pieces; lines that begin with # are none.

# what the program says of the run              head
#ID hostHalo Mvir Xc Yc Zc                      head: its names are the reader's business
1   0        2e12 10 20 30                      row 0        every STEP-th row's place in the
2   0        1e11 11 21 31                      row 1        file is remembered
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.hdf5 import readable

STEP = 1 << 12  # rows


@dataclass(frozen=True)
class TextTable:
    """A table on disk: its head, how many rows and columns, and where some rows begin."""

    path: Path
    head: tuple[str, ...]  # the lines before the first row, without their #
    rows: int
    columns: int
    delimiter: str | None  # None: spaces
    starts: tuple[int, ...]  # of rows 0, STEP, 2 STEP, ... in bytes

    @classmethod
    def open(cls, path: Path) -> TextTable:
        """Go over a file once. Raises BadInput where there is no row, or the last one is cut."""
        head: list[str] = []
        starts: list[int] = []
        rows, place, first, last = 0, 0, b"", b""
        with readable(path, path), open(path, "rb") as file:
            for line in file:
                if line.startswith(b"#") or not line.strip() or not (rows or _numeric(line)):
                    if not rows:
                        head.append(line.decode("utf-8", "replace").lstrip("#").strip())
                else:
                    if rows % STEP == 0:
                        starts.append(place)
                    first, last, rows = first or line, line, rows + 1
                place += len(line)
        if not rows:
            raise BadInput(f"{path}: has no row of numbers")
        comma = b"," if b"," in first else None
        columns, at_end = len(first.split(comma)), len(last.split(comma))
        if at_end < columns:
            raise BadInput(
                f"{path}: its last row has {at_end} of {columns} columns: the file is cut; copy it "
                "again"
            )
        return cls(path, tuple(head), rows, columns, "," if comma else None, tuple(starts))

    def names(self) -> list[str]:
        """Return the columns' names, of the first line of the head that has as many words."""
        for line in self.head:
            found = [name.strip() for name in line.split(self.delimiter)]
            if len(found) == self.columns:
                return found
        raise BadInput(
            f"{self.path}: has no line of names for its {self.columns} columns; give it one, "
            "before the first row"
        )

    def told(self) -> dict[str, float]:
        """Return the numbers that the head tells, by lower-case name: "a = 1; Box size: 25"."""
        found: dict[str, float] = {}
        for part in (part for line in self.head for part in line.split(";")):
            match = re.match(r"\s*([^=:]+?)\s*[=:]\s*([-+.\d][-+.\deE]*)(?:\s|$)", part)
            if match is not None:
                with suppress(ValueError):
                    found.setdefault(match[1].lower(), float(match[2]))
        return found

    def read(self, start: int, stop: int, columns: tuple[int, ...]) -> NDArray[np.float64]:
        """Read rows start .. stop of some columns, float64 (rows, columns)."""
        name = f"{self.path}: rows {start + 1} to {stop}"
        with readable(name), open(self.path, "rb") as file:
            file.seek(self.starts[start // STEP])
            rows = (line for line in file if line.strip() and not line.startswith(b"#"))
            some = islice(rows, start % STEP, start % STEP + stop - start)
            return np.loadtxt(some, delimiter=self.delimiter, usecols=columns, ndmin=2)


def _numeric(line: bytes) -> bool:
    """Return whether a line begins with a number; names of columns do not."""
    try:
        float(line.replace(b",", b" ").split()[0])
    except ValueError:
        return False
    return True
