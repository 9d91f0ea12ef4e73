"""What this machine has to give: memory within the limits of containers, and disk."""

from __future__ import annotations

import shutil
from contextlib import suppress
from itertools import product
from pathlib import Path

import psutil


def available_memory() -> int:
    """Return the bytes that this process and its children could still take, in a container too."""
    free = int(psutil.virtual_memory().available)
    return min([free, *(max(0, limit - used) for limit, used in _control_groups())])


def available_disk(place: Path) -> int:
    """Return the free bytes where `place` is or will be."""
    while not place.exists():
        place = place.absolute().parent
    return shutil.disk_usage(place).free


def written_bytes(box: Path) -> int:
    """Return the bytes that the files of a box take on the disk."""
    return sum(512 * p.stat().st_blocks for p in box.rglob("*") if p.is_file())


def _control_groups(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[int, int]]:
    """Return (limit, used) bytes of the control groups that hold this process, v2 and v1."""
    places = [root, root / "memory"]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            top = root / "memory" if controllers == "memory" else root
            if controllers in ("", "memory"):
                inside = top / name.strip("/")
                places += [p for p in (inside, *inside.parents) if p.is_relative_to(top)]
    names = ("max", "current"), ("limit_in_bytes", "usage_in_bytes")
    found = []
    for place, (limit, used) in product(dict.fromkeys(places), names):
        with suppress(OSError, ValueError):  # "max", a word, is no limit
            most = int((place / f"memory.{limit}").read_text())
            now = int((place / f"memory.{used}").read_text())
            lines = (place / "memory.stat").read_text().splitlines()
            # Cached file pages are given back when memory is asked for.
            cached = int(dict(line.split() for line in lines if line).get("inactive_file", 0))
            found.append((most, max(0, now - cached)))
    return found
