"""HDF5 files of simulation codes: opening them, their attributes, which files go together."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput

SUFFIXES = (".hdf5", ".h5")
# What h5py raises where a file is no HDF5 file, or what it looks up in one is damaged.
DAMAGED = (OSError, KeyError, RuntimeError, ValueError)


@contextmanager
def readable(name: object, path: Path | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise about a file into one line, a BadInput.

    path: the file, whose beginning tells what it is where it is not what its name says.
    """
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        if isinstance(error, KeyError) and ("Unable" not in why or "doesn't exist" in why):
            raise BadInput(f"{name}: there is no data set of this name in the file") from None
        raise BadInput(f"{name}: {_way_out(error, why, path)}") from None


_WAYS_OUT = (  # words of the HDF5 library, and what they mean
    (
        "unable to lock file",
        "is locked: another program has it open for writing, or its file system knows no locks; "
        "wait for that program, or set HDF5_USE_FILE_LOCKING=FALSE",
    ),
    (
        "already open for write",
        "was not closed by the program that wrote it; wait for its end, or, if it was killed, "
        "repair the file with: h5clear -s",
    ),
    (
        "can't open directory",
        "is compressed with a filter that is not installed; write it again with gzip, with "
        "h5repack -f GZIP=4, or set HDF5_PLUGIN_PATH",
    ),
    (
        "required filter",
        "is compressed with a filter that is not installed; write it again with gzip, with "
        "h5repack -f GZIP=4, or set HDF5_PLUGIN_PATH",
    ),
)
_KINDS = (  # how files begin that are often taken for HDF5 or numpy files
    (b"CDF", "a netCDF file of the classic format; convert it with: nccopy -k nc4 OLD NEW"),
    (b"\x1f\x8b", "compressed with gzip; unpack it with gunzip"),
    (b"PK", "a zip file; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it with bunzip2"),
    (b"(\xb5/\xfd", "compressed with zstd; unpack it with unzstd"),
    (b"<", "a page of the web or XML, perhaps of a failed download; fetch the file again"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file with: git lfs pull"),
    (b"\x93NUMPY", "a numpy file; let its name end in .npy"),
    (b"\x89HDF", "an HDF5 file; let its name end in .hdf5"),
)


_OWN = {".npy": b"\x93NUMPY", ".npz": b"PK", ".fits": b"SIMPLE"}  # how files so called begin


def _way_out(error: Exception, why: str, path: Path | None) -> str:
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return "may not be read by you (permission denied); change its rights (chmod)"
    for words, meaning in _WAYS_OUT:
        if words in why:
            return f"{meaning} ({why})"
    start = beginning(path, 64)
    own = _OWN.get(path.suffix if path else "", b"\x89HDF")
    for begins, kind in () if start.startswith(own) else _KINDS:
        if start.startswith(begins):
            return f"is {kind}"
    return f"cannot be read ({why}); is the file truncated or damaged? copy it again"


def beginning(path: Path | None, count: int) -> bytes:
    """Return the first bytes of a file, none where it cannot be read."""
    try:
        with open(path or "", "rb") as file:
            return file.read(count)
    except OSError:
        return b""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file with the filters of hdf5plugin. Whatever is wrong with it is one line."""
    import h5py
    import hdf5plugin  # noqa: F401  importing it registers the filters of compressed CAMELS files

    if not path.exists():
        raise BadInput(f"{path}: no such file")
    with readable(path, path), h5py.File(path, "r") as file:
        yield file


def member(file: Any, name: str) -> Any:
    """Return a group or data set of a file, None where it has none.

    Raises BadInput for a link whose target is not there.
    """
    import h5py

    found = file.get(name)
    parts = name.strip("/").split("/")
    for i in range(len(parts)) if found is None else ():
        some = "/".join(parts[: i + 1])
        if file.get(some) is not None:
            continue
        link = file.get(some, getlink=True)
        if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
            to = getattr(link, "filename", "")
            target = f"{Path(file.file.filename).parent / to}:{link.path}" if to else link.path
            raise BadInput(
                f"{file.file.filename}: {name} is a link to {target}, which is not there; copy all "
                "files of it"
            )
        break
    return found


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
        except DAMAGED:
            continue
    return ""


def of_a_code(path: Path) -> bool:
    """Return whether a file, or one in a folder, is a snapshot or a catalogue of groups."""
    import h5py

    for part in files_in(path):
        try:
            with h5py.File(part, "r") as file:
                counted = any(name.endswith("_ThisFile") for name in attributes(file, "Header"))
                if counted or any(re.match("PartType|Groups?$|Subhalo$", name) for name in file):
                    return True
        except DAMAGED:
            continue
    return False


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
    return _named(path.iterdir()) or _named(path.glob("*/*"))


def _named(paths: Iterable[Path]) -> list[Path]:
    """Return the files called so; hidden ones (a Mac leaves ._NAME) are none of the simulation."""
    return sorted(p for p in paths if p.suffix in SUFFIXES and not p.name.startswith("."))


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
    runs: dict[str, list[Path]] = {}
    for path in files:
        runs.setdefault(_run_of(path), []).append(path)
    # SWIFT leaves a file that looks through to the parts beside them.
    virtual = [run for run, (first, *_) in runs.items() if f"{run}." in runs and _is_virtual(first)]
    runs = {run: paths for run, paths in runs.items() if run not in virtual}
    if len(runs) > 1:
        several = ", ".join(sorted(Path(run).name.rstrip(".") for run in runs))
        raise BadInput(f"{given[0]}: holds {len(runs)} {what}s ({several}); name the file of one")
    ((run, files),) = runs.items()
    if not run.endswith("."):
        return (files[0],)
    return _all_parts(files)


def _run_of(path: Path) -> str:
    """Return what the files of one snapshot have in common: folder, name and, of a part, a dot."""
    match = _match(path)
    with opened(path) as file:
        header = attributes(file, "Header")
    pairs = [(n, f"{n.removesuffix('_ThisFile')}_Total") for n in header if n.endswith("_ThisFile")]
    all_here = all(np.array_equal(header[a], header[b]) for a, b in pairs if b in header)
    count = _file_count(header)
    # A part that says so has a number; a file that has all is whole, whatever its header says.
    if count == 1 or (all_here and (count == 0 or match is None)):
        return str(path.with_name(path.stem))
    return str(path.with_name(match[1] if match else f"{path.stem}."))


def _file_count(header: Mapping[str, Any]) -> int:
    """Return the files that a header says there are, 0 where it does not say."""
    return int(scalar(header.get("NumFilesPerSnapshot", header.get("NumFiles", 0))))


def _is_virtual(path: Path) -> bool:
    with opened(path) as file:
        return scalar(attributes(file, "Header").get("Virtual", 0)) == 1


def _all_parts(files: list[Path]) -> tuple[Path, ...]:
    """Return all parts of what some of its parts name. Raises BadInput where one is missing."""
    files.sort(key=lambda p: (int(m[2]) if (m := _match(p)) else -1, p.name))
    path = files[0]
    with opened(path) as file:
        count = _file_count(attributes(file, "Header"))
    if count in (0, len(files)):
        return tuple(files)
    # name.3.hdf5 belongs to name.0.hdf5 .. name.(count-1).hdf5.
    if (match := _match(path)) is None:
        raise BadInput(
            f"{path}: is one of {count} files, but its name has no number (name.0.hdf5); "
            "name all of them"
        )
    digits = len(match[2])
    family = tuple(path.with_name(f"{match[1]}{i:0{digits}}{match[3]}") for i in range(count))
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
