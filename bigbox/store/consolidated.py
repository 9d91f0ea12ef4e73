"""What zarr.json of a box's group tells of the arrays in it, so that a reader opens one file.

zarr calls it consolidated metadata; without it xarray.open_zarr warns. It must never be stale: who
changes arrays of a group takes it away first (`take_away`), and it is written again when a box has
been ingested or painted to its end (`consolidate`). In between readers look for themselves.

Realizations, groups of their own, are not told by the box's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigbox.store.durable import Disk, explained, own_name
from bigbox.store.metadata import read_json

KEY = "consolidated_metadata"


def consolidate(disk: Disk, group: Path, without: str) -> None:
    """Write into a group's zarr.json what its arrays and groups are, but that of one name."""
    about = read_json(group / "zarr.json")
    if about is None:
        return
    found: dict[str, Any] = {}
    todo = [path for path in group.iterdir() if path.name != without]
    while todo:
        place = todo.pop()
        path = place / "zarr.json"
        node = read_json(path) if path.is_file() else None
        if node is None:
            continue
        node.pop(KEY, None)
        found[place.relative_to(group).as_posix()] = node
        if node.get("node_type") == "group":
            todo += place.iterdir()
    told = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(found.items()))}
    if about.get(KEY) != told:
        _write(disk, group, {**about, KEY: told})


def take_away(disk: Disk, group: Path) -> None:
    """Take it away, before anything in the group is changed."""
    about = read_json(group / "zarr.json")
    if about is not None and about.pop(KEY, None) is not None:
        _write(disk, group, about)


def _write(disk: Disk, group: Path, about: dict[str, Any]) -> None:
    path = group / "zarr.json"
    with explained(path):
        disk.write_atomic(path, json.dumps(about, indent=2).encode(), own_name(group))
