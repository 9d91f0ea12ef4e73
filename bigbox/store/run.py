"""Starting a run of a painting, or giving one up: the lease, the identity, the arrays, the number.

The order is what makes it safe.  A run first fences off its predecessors (their directory of files
without a name goes, so they can put nothing into place any more), then notes how far their records
count, then takes its number; only the one who gets the number goes on.  Whatever is removed is
first renamed into the run's own directory, which is gone as soon as a later run starts.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.scheduler.bricks import Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.store.arrays import painted_metadata, steps_metadata, tb_metadata
from bigbox.store.box import Box, make_realization
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.lease import LINGER, Lease
from bigbox.store.ledger import Ledger
from bigbox.store.metadata import group_metadata, read_json
from bigbox.store.tbshards import TbShards, default_edges

# What a painting makes in its group.
PAINTED = ("latents", "tb")
LIBRARIES = ("bigbox", "numpy", "zarr", "torch", "mpi4py")


def start_run(
    box: Box,
    identity: Mapping[str, Any],
    tiling: Tiling,
    bricks: Bricks,
    *,
    n_ranks: int = 1,
    n_steps: int = 0,
    device: str = "",
    disk: Disk | None = None,
    tb_edges: tuple[int, int] | None = None,
    linger: float = LINGER,
    check: bool = False,
) -> int:
    """Begin a run of the painting that `identity` describes; returns its number (epoch).

    For rank 0 alone, before any rank calls `Painting.begin`.  identity: JSON, everything that
    decides the bytes; n_steps: per-step latents kept for each tile; tb_edges: (shard, chunk) of tb;
    check: only see whether it would be refused, and return 0.
    Raises BadInput where another run holds the lease, the store cannot be written, or some tiles
    are painted already with another identity.
    """
    disk = disk or DISK
    shard, chunk = tb_edges or default_edges(max(tiling.shape))
    wanted = {
        "identity": json.loads(json.dumps(dict(identity))),
        "tiling": tiling.as_dict(),
        "edge": bricks.edge,
        "n_steps": n_steps,
        "tb": {"shard": shard, "chunk": chunk},
    }

    def files(tmp: Path) -> dict[Path, bytes]:
        latents, tb = tmp / "latents", tmp / "tb"
        found = {
            latents: group_metadata(),
            latents / "painted": painted_metadata(bricks),
            tb: tb_metadata(box.shape, wanted["tb"], {"painting": wanted["identity"]}),
        }
        if n_steps:
            found[latents / "steps"] = steps_metadata(bricks.tiling, n_steps)
        return found

    what = Made(box.place, PAINTED, painted, "is painted", "--discard")
    if check:
        with suppress(FileNotFoundError):  # of a painting that another command gives up just now
            check_run(what, wanted)
        return 0
    make_realization(disk, box)
    about = {"kind": "paint", "n_ranks": n_ranks, "device": device}
    return begin_run(what, wanted, files, about, disk, linger)


def discard_painting(box: Box, *, disk: Disk | None = None, linger: float = LINGER) -> bool:
    """Give up the painting of a box: tb, the latents and every record; dm and halo stay.

    Returns whether there was one.  Raises BadInput while a run holds the lease.
    """
    return discard_run(box.place, box.place, PAINTED, disk or DISK, linger)


@dataclass(frozen=True)
class Made:
    """What a ledger is about, and how its run is spoken of.

    place: the group that the arrays stand in; arrays: what the run makes in it; done: how much a
    run.json's ledger has done; is_made, way_out: words for a message.
    """

    place: Path
    arrays: tuple[str, ...]
    done: Callable[[Ledger, Mapping[str, Any]], int]
    is_made: str
    way_out: str
    ledger: str = ""  # the group inside `place` that holds the ledger


def begin_run(
    what: Made,
    wanted: Mapping[str, Any],
    files: Callable[[Path], Mapping[Path, bytes]],
    about: Mapping[str, Any],
    disk: Disk,
    linger: float,
) -> int:
    """Begin a run; returns its number.  Raises BadInput as `start_run` does.

    wanted: what run.json is to say; files: zarr.json by directory, parents first, of the empty
    arrays made in a directory; about: noted with the number.
    """
    ledger = Ledger(what.place / what.ledger)
    _refuse_others(what.place, what.arrays)
    with explained(ledger.path):
        _make_ledger(disk, ledger)
        lease = Lease.exclusive(disk, ledger, linger)
        try:
            fresh = check_run(what, wanted)
            epoch = claim(disk, ledger, about, fresh)
            if fresh:
                with lease.fenced(epoch):
                    tmp = ledger.tmp_of(epoch)
                    _put_aside(disk, what.place, what.arrays, ledger, epoch)
                    _create_arrays(disk, what.place, what.arrays, files(tmp), tmp)
                    record = json.dumps({"base": epoch, **wanted}, indent=2).encode()
                    disk.write_atomic(ledger.path / "run.json", record, tmp / "run.json")
                    _empty_tmp(disk, ledger, epoch)
        except BaseException:
            lease.close()
            raise
        lease.share(epoch)
    return epoch


def check_run(what: Made, wanted: Mapping[str, Any]) -> bool:
    """Whether a run would begin a new painting; raises BadInput where it would be refused."""
    _refuse_others(what.place, what.arrays)
    ledger = Ledger(what.place / what.ledger)
    run = ledger.run()
    difference = None if run is None else _difference(run, wanted)
    if run is not None and difference and what.done(ledger, run):
        key, old, new = difference
        raise BadInput(
            f"{what.place}: {what.is_made} with {key} = {old}, this run asks for {new};"
            f" paint with the old value, or give that painting up with {what.way_out}, or"
            " use another copy of the box"
        )
    return run is None or difference is not None


def discard_run(
    ledger_place: Path, place: Path, arrays: Sequence[str], disk: Disk, linger: float
) -> bool:
    """Give up what a ledger's runs have made: the arrays in `place`, and every record."""
    ledger = Ledger(ledger_place)
    _refuse_others(place, arrays)
    if not ledger.path.exists():
        return False
    with explained(ledger.path):
        _make_ledger(disk, ledger)  # where a kill left half of it
        lease = Lease.exclusive(disk, ledger, linger)
        try:
            found = (ledger.path / "run.json").exists()
            epoch = claim(disk, ledger, {"kind": "discard", "n_ranks": 0}, fresh=True)
            with lease.fenced(epoch):
                _put_aside(disk, place, arrays, ledger, epoch)
                _empty_tmp(disk, ledger, epoch)
        finally:
            lease.close()
    return found


def claim(
    disk: Disk,
    ledger: Ledger,
    about: Mapping[str, Any],
    fresh: bool = False,
    reseal: Mapping[str, int] | None = None,
) -> int:
    """Take the next number, under the exclusive lease; `fresh` makes all earlier records void.

    reseal: record files of earlier runs that were found damaged, and the bytes that still count.
    """
    newest = ledger.newest()
    _fence_off(disk, ledger, newest)
    sealed = dict(reseal or {})
    if not fresh:
        for source in ledger.sources():
            if source.epoch == newest:
                sealed[source.path.name] = ledger.good_bytes(source)
                # A rank that was killed between writing a record and syncing it left it in the
                # page cache; it counts from now on, so it must not be lost later.
                file = disk.open(source.path)
                disk.fsync(file)
                disk.close(file)
        disk.fsync_dir(ledger.records_path)
    epoch = newest + 1
    data = json.dumps(
        {
            "epoch": epoch,
            **about,
            "fresh": fresh,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": _libraries(),
            "sealed": sealed,
        },
        indent=1,
    ).encode()
    mine = ledger.tmp_path / f"start-{os.urandom(8).hex()}.partial"
    # Made before the number is ours: made later, a process that slept in between would make it
    # again after its successor had taken it away.
    disk.mkdir(ledger.tmp_of(epoch))
    try:
        disk.create_once(ledger.epoch_path(epoch), data, mine)
    except (FileExistsError, FileNotFoundError):
        raise BadInput(
            f"{ledger.path.parent}: another run (run {epoch}) started at this very moment; wait for"
            " its end, or stop it, and run the same command again"
        ) from None
    return epoch


def layout(run: Mapping[str, Any]) -> tuple[Tiling, Bricks, TbShards]:
    """Tiling, bricks and shards of tb as run.json has them."""
    tiling = Tiling.from_dict(run["tiling"])
    tb = TbShards(tiling, int(run["tb"]["shard"]), int(run["tb"]["chunk"]))
    return tiling, Bricks(tiling, int(run["edge"])), tb


def painted(ledger: Ledger, run: Mapping[str, Any]) -> int:
    """Number of tiles that are done."""
    _, bricks, tb = layout(run)
    return int(ledger.state(bricks, tb.size).done.sum())


def _fence_off(disk: Disk, ledger: Ledger, newest: int) -> None:
    """From here on no run up to `newest` can put a file into place: its directory is gone."""
    for name in os.listdir(ledger.tmp_path):
        match = re.fullmatch(r"e(\d+)", name)
        if match and int(match[1]) > newest:
            continue
        path = ledger.tmp_path / name
        if match:
            # At once, whatever is being made in it.
            gone = ledger.tmp_path / f"gone-{os.urandom(8).hex()}"
            with suppress(FileNotFoundError):
                disk.replace(path, gone)
            path = gone
        if path.is_dir():
            disk.remove_tree(path)
        else:
            disk.unlink(path)


def _make_ledger(disk: Disk, ledger: Ledger) -> None:
    make_group(disk, ledger.path, ledger.epochs_path, ledger.records_path, ledger.tmp_path)


def make_group(disk: Disk, place: Path, *inside: Path) -> None:
    """Make a group, and directories inside it, where it is not yet; others may do so as well."""
    if (place / "zarr.json").exists():
        return
    with explained(place):
        for path in (place, *inside):
            disk.make_dir(path)
        # A group, so that zarr and xarray pass over it without a warning; last, so that all is
        # there.
        mine = place / f"start-{os.urandom(8).hex()}.partial"
        disk.write_atomic(place / "zarr.json", group_metadata(), mine)


def _refuse_others(place: Path, arrays: Sequence[str]) -> None:
    """What `bigbox ingest` or another program has made is never painted over, nor discarded."""
    for name in arrays:
        about = read_json(place / name / "zarr.json") or {}
        ours = name == "latents" or "painting" in about.get("attributes", {})
        if (place / name).exists() and not ours:
            beside = "paint beside it with --realization 1" if name == "tb" else "rename it"
            raise BadInput(
                f"{place}/{name}: was not painted by bigbox, and what is measured or simulated is"
                f" never painted over; {beside}, or use another copy of the box"
            )


def _put_aside(disk: Disk, place: Path, arrays: Sequence[str], ledger: Ledger, epoch: int) -> None:
    """Take the painting out of the box by renames."""
    aside = ledger.tmp_of(epoch)
    ours = (ledger.path / "run.json", ledger.path / "sums")
    for path in (*(place / name for name in arrays), *ours):
        with suppress(FileNotFoundError):
            disk.replace(path, aside / f"old-{path.name}")
    disk.fsync_dir(place)
    disk.fsync_dir(ledger.path)


def _empty_tmp(disk: Disk, ledger: Ledger, epoch: int) -> None:
    """Remove what was put aside, and the record files that are void since."""
    for name in os.listdir(ledger.records_path):
        match = re.match(r"e(\d+)-", name)
        if match and int(match[1]) < epoch:
            disk.unlink(ledger.records_path / name)
    place = ledger.tmp_of(epoch)
    for name in os.listdir(place):
        path = place / name
        if path.is_dir():
            disk.remove_tree(path)
        else:
            disk.unlink(path)


def _create_arrays(
    disk: Disk, place: Path, arrays: Sequence[str], files: Mapping[Path, bytes], tmp: Path
) -> None:
    """Make the empty arrays without a name, then give them one: also this only the newest can."""
    for directory, data in files.items():
        disk.make_dir(directory)
        disk.write_atomic(directory / "zarr.json", data)
    for name in arrays:
        disk.replace(tmp / name, place / name)
    disk.fsync_dir(place)


def _difference(run: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key in which two paintings differ, with the old and the new value."""
    for name, new in wanted.items():
        prefix = "" if name == "identity" else name
        found = _first(prefix, run.get(name), new)
        if found:
            return found
    return None


def _first(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            found = _first(f"{name}.{key}".lstrip("."), old.get(key), new.get(key))
            if found:
                return found
        return None
    return None if old == new else (name, old, new)


@cache
def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
