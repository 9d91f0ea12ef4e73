"""zarr.json of the box's groups and arrays: the one place that spells out the format.

Every array is zarr v3, float32 little-endian (coordinates float64), crc32c on every chunk, and
where it is sharded the index stands at the end of the shard with its own crc32c.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1

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


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, None where there is no such file or it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()
