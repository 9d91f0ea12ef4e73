"""Halo catalogues: places and masses, chunk by chunk, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bigbox.ingestion.hdf5 import names
from bigbox.ingestion.headers import Header
from bigbox.ingestion.snapshot import Chunk, checked_masses, chunks, in_voxels

HaloType = Literal["group", "subhalo"]

CHUNK = 1 << 13  # haloes read at once; with 64 points for the HI of each, half a million points
OUTSIDE = 0.05
"""Share of the box by which a halo may lie outside of it: a centre of mass at the edge is no error.

The box is periodic: such haloes are wrapped into it."""

_FINGERPRINT = 4096  # haloes

Columns = tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_] | None]
"""Places (M, 3) and masses (M,) in the code's units, and which of the haloes count (None: all)."""


@dataclass(frozen=True)
class Catalogue:
    """A halo catalogue on disk. A format overrides `columns`."""

    files: tuple[Path, ...]
    header: Header
    kind: HaloType
    counts: tuple[int, ...]  # haloes in each file
    label: str  # of a field made of it: the haloes, their masses and centres
    uncounted: str = ""  # what the haloes are that do not count
    dropped: dict[int, int] = field(default_factory=dict, compare=False)  # by a chunk's first halo
    granted: str = field(default="", kw_only=True)  # what is taken for granted of the haloes

    def __str__(self) -> str:
        return names(self.files)

    def columns(self, chunk: Chunk) -> Columns:
        """Read places, masses, and which haloes count."""
        raise NotImplementedError

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """Yield the haloes in bounded pieces."""
        return chunks(self.counts, size)

    def read(self, chunk: Chunk, voxels: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Read places in voxels, float64 (M, 3), and masses in the code's unit, float32 (M,).

        A halo that does not count has no mass. Raises BadInput for a place far outside of the box
        or a mass that is none.
        """
        places, masses, counts = self.columns(chunk)
        if counts is not None:
            masses = np.where(counts, masses, 0)
            self.dropped[chunk.first] = int(np.count_nonzero(~counts))
        who = f"{self.files[chunk.file]}: halo"
        return (
            in_voxels(places, self.header.box, voxels, who, chunk.start, OUTSIDE),
            checked_masses(masses, who, chunk.start),
        )

    def said(self) -> tuple[str, ...]:
        """Return what is to be known of the haloes; once all are read, how many do not count."""
        many = sum(self.dropped.values())
        lines = [f"{many} of {sum(self.counts)} are {self.uncounted}"] if many else []
        return tuple(f"{self}: {line}" for line in (*lines, self.granted) if line)

    def fingerprint(self) -> int:
        """Return a number that tells catalogues apart: the checksum of the first haloes."""
        number = 0
        for chunk in self.chunks(_FINGERPRINT):
            left = _FINGERPRINT - chunk.first
            if left > 0:
                some = replace(chunk, stop=min(chunk.stop, chunk.start + left))
                place, mass = self.read(some, 1)
                number = google_crc32c.extend(number, np.column_stack((place, mass)).tobytes())
        return int(number)
