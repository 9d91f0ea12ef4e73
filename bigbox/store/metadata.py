"""zarr.json of the box's groups and arrays: the one place that spells out the format.

Every array is zarr v3, float32 little-endian (coordinates float64), crc32c on every chunk, and
where it is sharded the index stands at the end of the shard with its own crc32c.
"""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c

from bigbox.errors import BadInput

FORMAT_VERSION = 1
# Bytes of a JSON file: those of a box are a few thousand, and a few for each rank of its runs.
LARGEST = 256 << 20
_SEAL = "crc32c"

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
# NaN as xarray writes it for zarr v3: base64 of a little-endian double.
_FILL = base64.standard_b64encode(struct.pack("<d", math.nan)).decode()


def group_metadata(attributes: Mapping[str, Any] | None = None) -> bytes:
    """zarr.json of a group."""
    return _encode({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})})


def array_metadata(
    shape: Sequence[int],
    chunk: Sequence[int],
    *,
    shard: Sequence[int] | None = None,
    names: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    separator: str = "/",
) -> bytes:
    """zarr.json of an array; `shard` None stores each chunk as a file of its own.

    `separator` "." keeps all files of an array in one directory: one directory fsync makes a new
    file durable, whatever its index.
    """
    inner: list[dict[str, Any]] = [_BYTES, _CRC]
    codecs = inner
    if shard is not None:
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(chunk),
                    "codecs": inner,
                    "index_codecs": [_BYTES, _CRC],
                    "index_location": "end",
                },
            }
        ]
    return _encode(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(chunk if shard is None else shard)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
            "fill_value": "NaN",
            "codecs": codecs,
            "attributes": {"_FillValue": _FILL, **(attributes or {})},
            "dimension_names": list(names),
            "storage_transformers": [],
        }
    )


def read_json(path: Path, way_out: str = "restore it from a copy") -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is no such file.

    Raises BadInput, with the way out, where it is damaged: what is damaged is never taken for none.
    """
    try:
        value = json.loads(_whole_file(path))
        if isinstance(value, dict):
            return value
        why = "holds no JSON object"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        why = "its JSON is nested too deeply"
    except ValueError as error:
        why = str(error)
    raise BadInput(f"{path}: damaged ({why}); {way_out}")


def group_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group; {} where there is none, or what it has is no attributes."""
    found = (read_json(path / "zarr.json") or {}).get("attributes")
    return found if isinstance(found, dict) else {}


def is_box(path: Path) -> bool:
    """Return whether a folder says that it is a box, of whatever version of the format."""
    return bool(group_attributes(path).get("format") == "bigbox")


@contextmanager
def understood(path: Path, way_out: str = "restore it from a copy") -> Iterator[None]:
    """Turn what goes wrong where metadata is made sense of into BadInput: it is damaged."""
    try:
        yield
    except BadInput:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BadInput(f"{path}: damaged ({why}); {way_out}") from error


def _whole_file(path: Path) -> bytes:
    """Return the bytes of a small file; raise ValueError for a folder, a device, a large one."""
    try:
        # Not to wait for whoever writes into a pipe.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("a link that leads to itself") from None
        raise
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no file")
        if about.st_size > LARGEST:
            raise ValueError(f"{about.st_size} bytes, {LARGEST} at most")
        with open(file, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(file)


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object with a checksum of all else in it."""
    return json.dumps({**value, _SEAL: _crc_of(value)}, indent=1).encode()


def read_sealed(path: Path, way_out: str) -> dict[str, Any] | None:
    """Return what `sealed_json` has written, without its checksum; None where there is no file.

    Files of earlier versions have no checksum. Raises BadInput where the file is damaged.
    """
    value = read_json(path, way_out)
    if value is not None and _SEAL in value and value.pop(_SEAL) != _crc_of(value):
        raise BadInput(f"{path}: damaged (its checksum is wrong); {way_out}")
    return value


def _crc_of(value: Mapping[str, Any]) -> str:
    """Return crc32c of JSON whatever its spaces, as hexadecimal digits."""
    plain = json.dumps(json.loads(json.dumps(value)), sort_keys=True, separators=(",", ":"))
    return f"{int(google_crc32c.value(plain.encode())):08x}"


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()
