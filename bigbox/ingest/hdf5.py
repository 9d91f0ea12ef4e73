"""HDF5 files of simulation codes: opening them, their attributes, which files go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput

SUFFIXES = (".hdf5", ".h5")


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Turn whatever the libraries raise about a damaged file into one line, a BadInput."""
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except KeyError:
        raise BadInput(f"{name}: there is no data set of this name in the file") from None
    except Exception as error:
        why = " ".join(str(error).split())
        raise BadInput(
            f"{name}: cannot be read ({why}); is the file truncated or damaged? copy it again"
        ) from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file with the filters of hdf5plugin. Whatever is wrong with it is one line."""
    import h5py
    import hdf5plugin  # noqa: F401  importing it registers the filters of compressed CAMELS files

    if not path.exists():
        raise BadInput(f"{path}: no such file")
    with readable(path), h5py.File(path, "r") as file:
        yield file


def code_of(path: Path) -> str:
    """Return whose file, or folder of files, it is: "SWIFT", "GADGET", "" where no header is.

    A file that cannot be opened counts as one without.
    """
    import h5py

    for part in files_in(path):
        try:
            with h5py.File(part, "r") as file:
                if "Header" in file or any(name.startswith("PartType") for name in file):
                    return "SWIFT" if is_swift(file) else "GADGET"
        except OSError:
            continue
    return ""


def is_swift(file: Any) -> bool:
    """Return whether SWIFT has written an open file."""
    code = attributes(file, "Header").get("Code", attributes(file, "Code").get("Code", ""))
    return "SWIFT" in str(code)


def attributes(file: Any, group: str) -> dict[str, Any]:
    """Return the attributes of a group, {} where there is none: numbers, arrays and str."""
    if group not in file:
        return {}
    found = dict(file[group].attrs)
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in found.items()}


def number(path: Path, known: Mapping[str, Any], name: str, group: str = "Header") -> float:
    """Return one number among attributes (an array of one counts). BadInput where it is missing."""
    if np.size(known.get(name, ())) == 0:
        raise BadInput(f"{path}: its {group} has no {name}; is this a snapshot of another code?")
    return scalar(known[name])


def scalar(value: Any) -> float:
    """Return a number, or the only one of an array."""
    return float(np.asarray(value).reshape(-1)[0])


def files_in(path: Path) -> list[Path]:
    """Return a file as it is, or the HDF5 files in a folder, else those one level below."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    here = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    return here or sorted(p for p in path.glob("*/*") if p.suffix in SUFFIXES)


def files_of_run(
    given: Sequence[Path], what: str, content: str, fault: Callable[[Path], str]
) -> tuple[Path, ...]:
    """Return all files of the one snapshot or catalogue that a folder, any or all files name.

    `fault` tells why a file is none, "" where it is one; others of a folder are left out. The
    refusals say what it should be, as "snapshot", and what content such a file has.
    """
    files: list[Path] = []
    for path in given:
        found = files_in(path)
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
        if not found:
            raise BadInput(f"{path}: has no HDF5 file (.hdf5, .h5); name the files")
        files += found
    faults = {path: fault(path) for path in files}
    for path in given:
        if faults.get(path):
            raise BadInput(f"{path}: {faults[path]}")
    files = [path for path, why in faults.items() if not why]
    if not files:
        raise BadInput(f"{given[0]}: no {what} (an HDF5 file with {content}) is there")
    # What the files of one have in common: folder and name.
    names = sorted({str(p.with_name(m[1][:-1] if (m := _match(p)) else p.stem)) for p in files})
    if len(names) > 1:
        raise BadInput(
            f"{given[0]}: holds {len(names)} {what}s ({', '.join(Path(n).name for n in names)}); "
            "name the file of one"
        )
    with opened(files[0]) as file:
        header = attributes(file, "Header")
    count = max(1, int(scalar(header.get("NumFilesPerSnapshot", header.get("NumFiles", 1)))))
    files.sort(key=lambda p: (int(m[2]) if (m := _match(p)) else -1, p.name))
    if count in (1, len(files)):
        return tuple(files[:count])
    # name.3.hdf5 belongs to name.0.hdf5 .. name.(count-1).hdf5.
    path = files[0]
    if (match := _match(path)) is None:
        raise BadInput(
            f"{path}: is one of {count} files, but its name has no number (name.0.hdf5); "
            "name all of them"
        )
    family = tuple(path.with_name(f"{match[1]}{i}{match[3]}") for i in range(count))
    missing = [p for p in family if not p.is_file()]
    if missing:
        raise BadInput(
            f"{missing[0]}: no such file, but {path.name} says that it is one of {count} "
            f"({len(missing)} missing); copy all of them"
        )
    return family


def names(files: Sequence[Path]) -> str:
    """Return files for a message: the first, and how many more."""
    return f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else f"{files[0]}"


def _match(path: Path) -> re.Match[str] | None:
    return re.match(r"(.*\.)(\d+)(\.(?:hdf5|h5))$", path.name)
