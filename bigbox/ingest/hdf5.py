"""HDF5 files of simulation codes: opening them, their attributes, which files go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput

SUFFIXES = (".hdf5", ".h5")
_NUMBERED = re.compile(r"(.*\.)(\d+)(\.(?:hdf5|h5))$")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading, with the filters of hdf5plugin; whatever is wrong is one line."""
    import h5py
    import hdf5plugin  # noqa: F401  importing it registers the filters of compressed CAMELS files

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (BadInput, MemoryError):
        raise
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except Exception as error:
        why = " ".join(str(error).split())
        raise BadInput(
            f"{path}: cannot be read ({why}); is the file truncated or damaged? copy it again"
        ) from None


def has_header(path: Path) -> bool:
    """Whether an HDF5 file is one of a simulation code; False where it cannot be opened."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "Header" in file or any(name.startswith("PartType") for name in file)
    except OSError:
        return False


def attributes(file: Any, group: str) -> dict[str, Any]:
    """The attributes of a group, {} where there is none: numbers, arrays and str."""
    if group not in file:
        return {}
    found = dict(file[group].attrs)
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in found.items()}


def number(path: Path, known: dict[str, Any], name: str, group: str = "Header") -> float:
    """One number among attributes (an array of one counts); BadInput where it is missing."""
    if np.size(known.get(name, ())) == 0:
        raise BadInput(f"{path}: its {group} has no {name}; is this a snapshot of another code?")
    return scalar(known[name])


def scalar(value: Any) -> float:
    """A number, or the only one of an array."""
    return float(np.asarray(value).reshape(-1)[0])


def family(path: Path, count: int) -> tuple[Path, ...]:
    """All files that a snapshot or catalogue of ``count`` files has, from the name of any of them.

    name.3.hdf5 belongs to name.0.hdf5 .. name.(count-1).hdf5. Raises BadInput where one is missing.
    """
    if count == 1:
        return (path,)
    match = _NUMBERED.match(path.name)
    if match is None:
        raise BadInput(
            f"{path}: is one of {count} files, but its name has no number (name.0.hdf5); "
            "name all of them"
        )
    found = tuple(path.with_name(f"{match[1]}{i}{match[3]}") for i in range(count))
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise BadInput(
            f"{missing[0]}: no such file, but {path.name} says that it is one of {count} "
            f"({len(missing)} missing); copy all of them"
        )
    return found


def candidates(given: Sequence[Path]) -> list[Path]:
    """The HDF5 files that the arguments name: files as they are, folders with what lies in them."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            here = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
            below = sorted(p for p in path.glob("*/*") if p.suffix in SUFFIXES)
            files += here or below
            if not here and not below:
                raise BadInput(f"{path}: has no HDF5 file (.hdf5, .h5); name the files")
        elif path.is_file():
            files.append(path)
        else:
            raise BadInput(f"{path}: no such file or folder")
    return files


def together(files: Sequence[Path], count: int) -> tuple[Path, ...]:
    """The files of a snapshot or catalogue of ``count`` files in their order, some or all named."""
    named = sorted(set(files), key=_order)
    return tuple(named) if len(named) == count else family(named[0], count)


def _order(path: Path) -> tuple[int, str]:
    match = _NUMBERED.match(path.name)
    return (int(match[2]) if match else -1, path.name)


def stem(path: Path) -> str:
    """What the files of one snapshot or catalogue have in common: folder and name."""
    match = _NUMBERED.match(path.name)
    return str(path.with_name(match[1].rstrip(".") if match else path.stem))
