"""Say more of an array that is there: attributes, written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.store.durable import Disk, explained
from bigbox.store.metadata import read_json


def add_attributes(disk: Disk, array: Path, attributes: Mapping[str, Any]) -> None:
    """Write attributes into an array's zarr.json, beside those that it has. Raises BadInput."""
    path = array / "zarr.json"
    meta = read_json(path)
    if meta is None:
        raise BadInput(f"{array}: is no array; paint it again")
    meta["attributes"] = {**meta.get("attributes", {}), **attributes}
    with explained(path):
        disk.write_atomic(path, json.dumps(meta, indent=2).encode())
