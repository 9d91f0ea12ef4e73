"""Latents that the user has put elsewhere: a box's `latents` may be a link to a folder.

It stays a link. Only files with names that bigbox makes are removed from the folder, and none of a
folder that belongs to another box: a link in a box of somebody else may lead anywhere.
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

    Raises BadInput where it leads nowhere, into another box, or to another file system: what is
    made is put into place by renames.
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
    elif target.stat().st_dev != place.stat().st_dev:
        why = (
            "on another file system, and files are put into place by renames: link to a folder on"
            " this one, or move the whole box there"
        )
    if why:
        raise BadInput(f"{link}: is a link to {target}, {why}")
    return link


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
