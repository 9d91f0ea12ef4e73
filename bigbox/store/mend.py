"""Find what a painting has lost since it was recorded, and take it back, so that it is made again.

    zarr.json of an array          written again: run.json knows what it said
    a file of tiles, or a shard    its chunks are taken back; the next run makes them

Only names and sizes are looked at, which is quick; `bigbox.store.verify` reads every byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.scheduler.grid import Ints
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.fields import AXES, PAINTED, is_axis
from bigbox.store.geometry import open_array
from bigbox.store.lease import LINGER, Lease
from bigbox.store.metadata import read_json
from bigbox.store.painting_grid import write_coordinate
from bigbox.store.recorded import Recorded
from bigbox.store.records import RecordWriter
from bigbox.store.run import claim, fence_off
from bigbox.store.writer import revocation


def was_dropped(found: Recorded[Any]) -> bool:
    """Return whether the painted tiles were removed when all was done, as --drop-latents does."""
    first = found.products[0]
    return first.name == PAINTED.name and found.state.complete and not first.path.parent.exists()


def lost_metadata(found: Recorded[Any]) -> dict[Path, bytes]:
    """Return what zarr.json of the groups and arrays must be, where one is lost or damaged.

    Attributes are not compared: they may have been added to.
    """
    lost = {}
    for directory, data in found.layout.files(found.place, found.attributes).items():
        if was_dropped(found) and directory.is_relative_to(found.products[0].path.parent):
            continue
        path = directory / "zarr.json"
        try:
            there = read_json(path)
        except BadInput:
            there = None
        wanted = json.loads(data)
        if there is None or any(there.get(k) != v for k, v in wanted.items() if k != "attributes"):
            lost[path] = data
    return lost


def lost_chunks(found: Recorded[Any]) -> dict[str, Ints]:
    """Return the chunks that are recorded and whose file is not there, or is cut, by product."""
    lost: dict[str, Ints] = {}
    for number, (product, done) in enumerate(zip(found.products, found.state.done, strict=True)):
        if number == 0 and was_dropped(found):
            continue
        ends = found.state.ends if number == 0 else np.ones(product.files, np.uint64)
        sizes = _sizes(product.path)
        made = np.flatnonzero(done)
        files = np.unique(product.file_of(made)) if len(made) else made
        gone = [f for f in files.tolist() if sizes.get(product.file(f).name, -1) < int(ends[f])]
        if gone:
            lost[product.name] = made[np.isin(product.file_of(made), gone)]
    return lost


def mend(found: Recorded[Any], *, disk: Disk = DISK, linger: float = LINGER) -> list[str]:
    """Take back what is lost, for a run that goes on; return what that is, a line each.

    Raises BadInput where it cannot be made again, or cannot be recorded, Busy where another run
    holds the lease.
    """
    files, chunks = lost_metadata(found), lost_chunks(found)
    if not files and not chunks:
        return []
    if was_dropped(found) and chunks:
        name, some = next(iter(chunks.items()))
        raise BadInput(
            f"{found.place}/{name}: {len(some)} shards are lost, and the tiles that they were made"
            " of were removed (--drop-latents); restore the files, or give the painting up with:"
            f" bigbox paint {found.layout.way_out}"
        )
    taken = found.layout.taken_back(found.place, chunks) if chunks else {}
    if why_not := take_back(disk, found, taken, files=files, linger=linger):
        raise BadInput(why_not)
    said = [f"{path}: was lost or damaged, and is written again" for path in files]
    many = {product.name: product.many for product in found.products}
    return said + [
        f"{found.place / name}: files of {len(some):,} {many[name]} are lost; they are made again"
        for name, some in chunks.items()
    ]


def lost_axes(box: Box, *, repair: bool = True, disk: Disk = DISK) -> list[str]:
    """Return a line for each coordinate array that is lost or damaged; write it again.

    They follow from the box's own attributes.
    """
    said = []
    for group in dict.fromkeys((box.path, box.place)):
        there = {path.name for path in group.iterdir() if is_axis(path.name)}
        for name in sorted({*AXES, *there}):
            axis, step = AXES.index(name[0]), int(name[1:] or 1)
            wanted = box.centres(axis, step)
            try:
                same = np.array_equal(open_array(group / name, "r")[...], wanted)
            except Exception:  # zarr raises what it likes at metadata that is none
                same = False
            if same:
                continue
            said.append(f"{group / name}: coordinates lost or damaged")
            if repair and os.access(group, os.W_OK):
                with explained(group / name):
                    write_coordinate(disk, group / name, name, wanted)
                said[-1] += "; they are written again"
    return said


def take_back(
    disk: Disk,
    found: Recorded[Any],
    taken: Mapping[str, Ints],
    *,
    reseal: Mapping[str, int] | None = None,
    files: Mapping[Path, bytes] | None = None,
    linger: float = 0.0,
) -> str:
    """Take chunks back in a run of its own, and write files; return why that could not be.

    Raises Busy where another run holds the lease.

    reseal: as for `claim`; files: zarr.json by their paths, parents first.
    """
    ledger = found.ledger
    if not os.access(ledger.path, os.W_OK):
        return f"{ledger.path}: the store is read-only"
    try:
        with explained(ledger.path):
            lease = Lease.exclusive(disk, ledger, linger)
    except BadInput as error:
        return str(error)
    try:
        if not ledger.is_current(found.state):
            return f"{ledger.path}: a run painted meanwhile; run the same command again"
        with explained(ledger.path):
            fence_off(disk, ledger, found.state.newest)
            about = {"kind": "verify", "n_ranks": 1}
            epoch = claim(disk, ledger, about, found.state, reseal=reseal)
            names = {product.name: n for n, product in enumerate(found.products)}
            if any(len(some) for some in taken.values()):
                writer = RecordWriter(disk, ledger.records_path, epoch, 0)
                try:
                    writer.append(revocation(epoch, names, taken))
                finally:
                    writer.close()
            for path, data in (files or {}).items():
                if path.is_dir() and not path.is_symlink():
                    return f"{path}: is a folder; remove it"
                disk.make_dir(path.parent)
                disk.write_atomic(path, data, ledger.tmp_for(path, epoch) / "zarr.json")
    finally:
        lease.close()
    return ""


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of the files in a folder by their names; none where there is no folder."""
    try:
        return dict(_files(os.scandir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _files(entries: Iterable[os.DirEntry[str]]) -> Iterable[tuple[str, int]]:
    for entry in entries:
        try:
            yield entry.name, entry.stat().st_size if entry.is_file() else -1
        except FileNotFoundError:  # removed meanwhile, or a link that leads nowhere
            continue
