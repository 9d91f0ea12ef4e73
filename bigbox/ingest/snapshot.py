"""Particle snapshots: which files, what their headers say, and particles chunk by chunk.

GADGET and AREPO HDF5 as CAMELS, IllustrisTNG and GADGET-4 write it (units per h), and SWIFT
(h-free units, converted): see `bigbox.ingest.headers` for what is read from where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest import headers
from bigbox.ingest.hdf5 import SUFFIXES, attributes, candidates, opened, stem, together

CHUNK = 1 << 19
"""Particles read at once."""

GAS, DARK = 0, 1

OUTSIDE = 1e-5
"""Share of the box by which a position may lie outside of it: single precision, not an error."""


@dataclass(frozen=True)
class Chunk:
    """Particles start .. stop of one type in one file."""

    file: int
    kind: int
    start: int
    stop: int


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on disk; nothing of it is in memory."""

    files: tuple[Path, ...]
    header: headers.Header
    counts: tuple[tuple[int, ...], ...]  # particles of each type in each file

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"

    def total(self, kind: int) -> int:
        """Particles of a type in all files."""
        return sum(count[kind] for count in self.counts)

    def chunks(self, kind: int, size: int = CHUNK) -> Iterator[Chunk]:
        """The particles of a type, in bounded pieces."""
        for i, count in enumerate(self.counts):
            for start in range(0, count[kind], size):
                yield Chunk(i, kind, start, min(start + size, count[kind]))

    def read(self, chunk: Chunk, names: Sequence[str]) -> dict[str, NDArray]:
        """Data sets of some particles as they are in the file (see `headers.Header.names`)."""
        path = self.files[chunk.file]
        group = f"PartType{chunk.kind}"
        found = {}
        with opened(path) as file:
            for name in names:
                data = file[group].get(self.header.name(name))
                if data is None:
                    raise BadInput(f"{path}: {group} has no {self.header.name(name)}")
                if len(data) != self.counts[chunk.file][chunk.kind]:
                    raise BadInput(
                        f"{path}: {group}/{self.header.name(name)} has {len(data)} particles, the "
                        f"header says {self.counts[chunk.file][chunk.kind]}; the file is damaged"
                    )
                found[name] = data[chunk.start : chunk.stop]
        return found

    def place(self, chunk: Chunk, coordinates: NDArray, voxels: int) -> NDArray[np.float64]:
        """Coordinates in voxels from the corner, float64 (M, 3); BadInput outside of the box."""
        return placed(
            coordinates,
            self.header.box,
            voxels,
            f"{self.files[chunk.file]}: PartType{chunk.kind}: particle",
            chunk.start,
        )

    def mass(self, chunk: Chunk, masses: NDArray | None) -> NDArray[np.float32] | None:
        """Masses in the code's unit, float32; None where the mass table gives one for all."""
        if masses is None:
            return None
        bad = ~(np.isfinite(masses) & (masses >= 0))
        if bad.any():
            i = int(np.argmax(bad))
            raise BadInput(
                f"{self.files[chunk.file]}: PartType{chunk.kind}: particle {chunk.start + i} has "
                f"mass {masses[i]:g}, which is no mass; the file is damaged"
            )
        return masses.astype(np.float32)


def placed(
    coordinates: NDArray, side: float, voxels: int, who: str, first: int
) -> NDArray[np.float64]:
    """Positions in the code's unit as voxels from the corner; BadInput for one outside the box."""
    x = coordinates.astype(np.float64)
    x *= 1.0 / side
    # Written so that NaN fails it too.
    inside = (x >= -OUTSIDE) & (x <= 1.0 + OUTSIDE)
    if not inside.all():
        i = int(np.argmin(inside.all(axis=1)))
        where = ", ".join(f"{v:g}" for v in coordinates[i].tolist())
        raise BadInput(
            f"{who} {first + i} is at ({where}), outside of the box of 0 .. {side:g}; is the file "
            "damaged, or the box size of another run?"
        )
    x *= voxels
    return x


def open_snapshot(given: Sequence[Path]) -> Snapshot:
    """The snapshot that a folder, any one of its files, or all of its files name.

    Raises BadInput where there is none, several, a file is missing, or the files disagree.
    """
    files = [p for p in candidates(given) if p in given or is_snapshot(p)]
    if not files:
        raise BadInput(
            f"{given[0]}: no snapshot (an HDF5 file with a Header and PartType groups) is there"
        )
    for path in files:
        _check_kind(path)
    names = sorted({stem(p) for p in files})
    if len(names) > 1:
        raise BadInput(
            f"{given[0]}: holds {len(names)} snapshots ({', '.join(Path(n).name for n in names)}); "
            "name the file of one"
        )
    first = files[0]
    with opened(first) as file:
        count = headers.files_of(first, attributes(file, "Header"))
    return _checked(together(files, count))


def is_snapshot(path: Path) -> bool:
    """Whether a file is HDF5 with particles or the header of a simulation code, or damaged so."""
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    with opened(path) as file:
        return any(name.startswith("PartType") for name in file) or (
            "Header" in file and "NumPart_ThisFile" in file["Header"].attrs
        )


def _check_kind(path: Path) -> None:
    """BadInput for a file that is no snapshot, saying what it is instead."""
    with opened(path) as file:
        if "Header" not in file:
            raise BadInput(f"{path}: has no group Header, so that it is no snapshot")
        if "NumPart_ThisFile" not in file["Header"].attrs:
            what = "a halo catalogue (give it with --halos)" if _groups(file) else "another file"
            raise BadInput(f"{path}: its Header counts no particles: not a snapshot but {what}")


def _groups(file: Any) -> bool:
    return any(name in file for name in ("Group", "Groups", "Subhalo"))


def _checked(paths: tuple[Path, ...]) -> Snapshot:
    """The snapshot of these files, whose headers agree and whose counts add up."""
    first: headers.Header | None = None
    counts: list[tuple[int, ...]] = []
    for path in paths:
        with opened(path) as file:
            header = headers.read(path, file)
            counts.append(headers.counts_of(path, file))
        if first is None:
            first = header
        elif (wrong := first.difference(header)) is not None:
            raise BadInput(f"{path}: {wrong} than in {paths[0].name}: not of the same snapshot")
    assert first is not None
    found = Snapshot(paths, first, tuple(counts))
    for kind, total in enumerate(first.totals):
        if found.total(kind) != total:
            raise BadInput(
                f"{paths[0]}: its header says {total} particles of type {kind} in all, its "
                f"{len(paths)} files hold {found.total(kind)}; a file is missing or of another run"
            )
    return found


def dark_matter(snapshot: Snapshot) -> None:
    """BadInput unless the snapshot has dark matter of one resolution (type 1)."""
    held = [k for k in range(len(snapshot.header.totals)) if snapshot.total(k)]
    if not snapshot.total(DARK):
        raise BadInput(
            f"{snapshot}: has no dark matter (PartType1), only type "
            f"{', '.join(map(str, held)) or 'none'}; give the snapshot of an N-body run"
        )
    for kind in (2, 3):
        if snapshot.total(kind) and _has_coordinates(snapshot, kind):
            raise BadInput(
                f"{snapshot}: has {snapshot.total(kind)} particles of type {kind} (low resolution "
                "of a zoom run): bigbox needs a box of one resolution"
            )


def _has_coordinates(snapshot: Snapshot, kind: int) -> bool:
    """Whether a type has places; the tracers of IllustrisTNG (type 3) have none."""
    with opened(snapshot.files[0]) as file:
        group: Any = file.get(f"PartType{kind}", {})
        return "Coordinates" in group
