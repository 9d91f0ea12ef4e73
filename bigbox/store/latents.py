"""Latents that the user has put elsewhere: a box's `latents` may be a link to a folder.

It stays a link. Only files with names that bigbox makes are removed from the folder, and none of a
folder that belongs to another box: a link in a box of somebody else may lead anywhere. On another
file system the folder has a place of its own for files that have no name yet:

    latents -> /scratch/me/latents/
                 painted/  steps/
                 unfinished-e00001/      of run 1; gone as soon as a later run starts
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.store.durable import Disk
from bigbox.store.fields import PAINTED, STEPS

_MADE = re.compile(r"c(\.\d+){6,7}|zarr\.json(\.partial)?")


def linked(place: Path) -> Path | None:
    """Return `latents` in a group of the box where that is a link.

    Raises BadInput where it leads nowhere, or into another box.
    """
    link = place / "latents"
    if not link.is_symlink():
        return None
    target = Path(os.path.realpath(link))
    why = ""
    if not target.is_dir():
        why = "where there is no folder: make it, or remove the link"
    elif (target.parent / "zarr.json").exists():
        why = "which belongs to another box: make a folder for this one alone, and the link to it"
    if why:
        raise BadInput(f"{link}: is a link to {target}, {why}")
    return link


def on_other_disk(place: Path) -> Path | None:
    """Return `latents` in a group of the box where that is a link to another file system."""
    link = linked(place)
    return link if link and link.stat().st_dev != place.stat().st_dev else None


def unfinished_of(link: Path, epoch: int) -> Path:
    """Return where a run makes files before they have a name, on the disk of the latents."""
    return link / f"unfinished-e{epoch:05d}"


def fence_linked(disk: Disk, link: Path, newest: int) -> None:
    """Keep runs up to `newest` from putting a file into place there: their directories go."""
    for name in os.listdir(link):
        match = re.fullmatch(r"unfinished-(?:e(\d+)|gone-[0-9a-f]{16})", name)
        path = link / name
        if not match or path.is_symlink() or (match[1] and int(match[1]) > newest):
            continue
        if match[1]:  # at once, whatever is being made in it
            gone = link / f"unfinished-gone-{os.urandom(8).hex()}"
            disk.replace(path, gone)
            path = gone
        disk.remove_tree(path)


def empty_linked(disk: Disk, link: Path) -> None:
    """Remove what bigbox has made in the folder that `latents` is a link to."""
    for name in (PAINTED.name, STEPS.name, ""):
        folder = link / Path(name).name if name else link
        if folder.is_symlink() and name or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if _MADE.fullmatch(path.name):
                disk.unlink(path)
        if name and not any(folder.iterdir()):
            disk.remove_tree(folder)
        disk.fsync_dir(link)
