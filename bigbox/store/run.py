"""Begin a run of a painting: the lease, the identity, the arrays, the number.

The order is what makes it safe. A run first fences off its predecessors (their directory of files
without a name goes, so they can put nothing into place any more), then notes how far their records
count, then takes its number. Only the one who gets the number goes on. Whatever is removed is first
renamed into the run's own directory, which is gone as soon as a later run starts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic

from bigbox.errors import BadInput, Busy
from bigbox.store.box import Box, make_axes, make_group, make_realization
from bigbox.store.durable import Disk, explained, own_name
from bigbox.store.latents import (
    empty_linked,
    fence_linked,
    linked,
    on_other_disk,
    unfinished_of,
)
from bigbox.store.layouts import LayoutT
from bigbox.store.lease import LINGER, Lease, who
from bigbox.store.ledger import RECORD_FILE, Ledger, State
from bigbox.store.metadata import sealed_json
from bigbox.store.recorded import Recorded, is_painted, recorded
from bigbox.store.watch import WATCH

LIBRARIES = ("bigbox", "numpy", "zarr", "torch", "mpi4py")
# What an identity says beside what decides the bytes.
NOTES = ("trained_on",)
# What stands in a ledger's tmp beside the directories of runs.
_OURS = re.compile(r"(gone-[0-9a-f]{16}|start-[0-9a-f]{16}\.partial)")


@dataclass(frozen=True)
class Begun(Generic[LayoutT]):
    """A run that has begun: rank 0 sends this to all ranks, which then join it."""

    epoch: int  # the run's number
    layout: LayoutT
    state: State  # what earlier runs have done
    lease: Lease | None  # the first rank's. It does not travel: the others take their own

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lease behind."""
        return self.__dict__ | {"lease": None}


class Start(Generic[LayoutT]):
    """The start of a run, for rank 0 alone.

    identity: JSON, everything that decides the bytes; found: what the ledger says, where that is
    known. It is read again only where another run has begun since.
    """

    def __init__(
        self,
        box: Box,
        layout: LayoutT,
        identity: Mapping[str, Any],
        found: Recorded[LayoutT] | None = None,
    ) -> None:
        self.box, self.place, self.ledger = box, layout.place(box), layout.ledger(box)
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity)))
        self.layout = layout
        self._take_up(found or recorded(box, type(layout)))

    def _take_up(self, found: Recorded[LayoutT] | None) -> None:
        self.found = found
        if self.layout.kept and found is not None and found.identity == self.identity:
            self.layout = found.layout
        self.wanted = {"identity": self.identity, **self.layout.as_dict()}

    @property
    def difference(self) -> tuple[str, Any, Any] | None:
        """The first key in which what is found differs from what is wanted: old and new value."""
        if self.found is None:
            return None
        before = {"identity": self.found.identity, **self.found.layout.as_dict()}
        for name, new in self.wanted.items():
            prefix = "" if name == "identity" else name
            if found := first_difference(prefix, before.get(name), new):
                return found
        return None

    def check(self) -> None:
        """Raise BadInput where the run would be refused."""
        refuse_others(self.place, self.layout.arrays())
        difference = self.difference
        with suppress(FileNotFoundError):  # of a painting that another command gives up just now
            if self.found is not None and difference and self.found.state.done[0].any():
                key, old, new = difference
                raise BadInput(
                    f"{self.place}: {self.layout.noun} with {key} = {old}, this run asks for"
                    f" {new}; paint with the old value, or give that painting up with"
                    f" {self.layout.way_out}, or use another copy of the box"
                )

    def begin(
        self,
        disk: Disk,
        about: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None,
        linger: float = LINGER,
    ) -> Begun[LayoutT]:
        """Begin the run.

        about: noted with the run's number; attributes: of the arrays, where they are made anew.
        Raises Busy where another run holds the lease, BadInput where the store cannot be written,
        or some chunks are made already with another identity.
        """
        self.check()
        self.box.take_away_consolidated(disk)
        make_realization(disk, self.box)
        make_axes(disk, self.box, self.place, self.layout.grid)
        with explained(self.ledger.path):
            make_ledger(disk, self.ledger)
            lease = Lease.exclusive(disk, self.ledger, linger)
            try:
                newest = self.ledger.newest()
                fence_off(disk, self.ledger, newest)
                found = self.found
                known = found is not None and found.newest == newest
                if found is None or not (known and self.ledger.is_current(found.state)):
                    self._take_up(found := recorded(self.box, type(self.layout)))
                    self.check()
                fresh = found is None or self.difference is not None
                if found is None or fresh:
                    state = State.nothing(self.layout.products(self.place), newest)
                else:
                    state = found.state
                about = {"kind": self.layout.kind, **about, **self.to_note(state, fresh)}
                lease.epoch = claim(disk, self.ledger, about, state, fresh)
                with lease.fenced():
                    if fresh:
                        self._make_arrays(disk, lease.epoch, attributes or {})
                    self.tidy(disk, lease.epoch)
            except BaseException:
                lease.close()
                raise
            lease.share(linger)
        return self.begun(Begun(lease.epoch, self.layout, state, lease))

    def tidy(self, disk: Disk, epoch: int) -> None:
        """Remove what earlier runs have left and run `epoch` does not go on from."""

    def begun(self, begun: Begun[LayoutT]) -> Begun[LayoutT]:
        """Return what all ranks are told of the run."""
        return begun

    def to_note(self, state: State, fresh: bool) -> dict[str, Any]:
        """Return what else is noted with the run's number, when earlier runs are fenced off.

        state: what they have done; fresh: the arrays are made anew.
        """
        return {}

    def _make_arrays(self, disk: Disk, epoch: int, attributes: Mapping[str, Any]) -> None:
        """Make the empty arrays without a name, then give them one: only the newest run can."""
        tmp, arrays = self.ledger.tmp_of(epoch), self.layout.arrays()
        before = self.found.layout.arrays() if self.found else ()
        put_aside(disk, self.place, {*before, *arrays}, self.ledger, epoch)
        about = {**attributes, **self.box.on_grid(self.layout.grid).attributes()}
        link = linked(self.place)
        files = self.layout.files(tmp, {**about, "painting": self.identity})
        for directory, data in files.items():
            if link and directory.is_relative_to(tmp / link.name):  # it stays where the user put it
                directory = self.place / directory.relative_to(tmp)
            disk.make_dir(directory)
            disk.write_atomic(directory / "zarr.json", data)
        for name in arrays:
            if not (link and name == link.name):
                disk.replace(tmp / name, self.place / name)
        disk.fsync_dir(self.place)
        record = sealed_json({"base": epoch, **self.wanted, "attributes": about})
        disk.write_atomic(self.ledger.path / "run.json", record, tmp / "run.json")
        empty_tmp(disk, self.ledger, epoch)


def claim(
    disk: Disk,
    ledger: Ledger,
    about: Mapping[str, Any],
    state: State,
    fresh: bool = False,
    reseal: Mapping[str, int] | None = None,
) -> int:
    """Take the next number, under the exclusive lease, when earlier runs are fenced off.

    state: as it was read since; fresh: all earlier records become void; reseal: record files of
    earlier runs that were found damaged, and the bytes that still count.
    """
    sealed = dict(reseal or {})
    if not fresh:
        sealed |= state.good
        for name in state.good:
            # A rank that was killed between writing a record and syncing it left it in the page
            # cache; it counts from now on, so it must not be lost later.
            file = disk.open(ledger.records_path / name)
            disk.fsync(file)
            disk.close(file)
        disk.fsync_dir(ledger.records_path)
    epoch = state.newest + 1
    data = sealed_json(
        {
            "epoch": epoch,
            **about,
            "fresh": fresh,
            **who(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": _libraries(),
            "sealed": sealed,
        }
    )
    mine = own_name(ledger.tmp_path)
    # Made before the number is ours: made later, a process that slept in between would make it
    # again after its successor had taken it away.
    disk.mkdir(ledger.tmp_of(epoch))
    if link := on_other_disk(ledger.path.parent):
        disk.mkdir(unfinished_of(link, epoch))
    try:
        disk.create_once(ledger.epoch_path(epoch), data, mine)
    except (FileExistsError, FileNotFoundError):
        raise Busy(
            f"{ledger.path.parent}: another run (run {epoch}) started at this very moment; wait for"
            " its end, or stop it, and run the same command again"
        ) from None
    return epoch


def fence_off(disk: Disk, ledger: Ledger, newest: int) -> None:
    """Keep runs up to `newest` from putting a file into place: their directory goes.

    What bigbox would not have named so is left alone.
    """
    for name in os.listdir(ledger.tmp_path):
        match = re.fullmatch(r"e(\d+)", name)
        if match and int(match[1]) > newest or not (match or _OURS.fullmatch(name)):
            continue
        path = ledger.tmp_path / name
        if match:
            # At once, whatever is being made in it.
            gone = ledger.tmp_path / f"gone-{os.urandom(8).hex()}"
            with suppress(FileNotFoundError):
                disk.replace(path, gone)
            path = gone
        _remove(disk, path)
    if link := on_other_disk(ledger.path.parent):
        fence_linked(disk, link, newest)


def make_ledger(disk: Disk, ledger: Ledger) -> None:
    """Make the directories of a ledger where they are not yet, and the group that it stands in."""
    ledger.refuse_links()
    make_group(disk, ledger.path.parent)
    inside = ledger.epochs_path, ledger.records_path, ledger.tmp_path
    make_group(disk, ledger.path, *inside)
    for path in inside:  # also where one was lost since
        if not path.exists():
            disk.make_dir(path)


def refuse_others(place: Path, arrays: Sequence[str]) -> None:
    """Refuse to paint over, or discard, what `bigbox ingest` or another program has made."""
    for name in arrays:
        ours = name == "latents" or is_painted(place / name)
        if (place / name).exists() and not ours:
            beside = "paint beside it with --realization 1" if name == "tb" else "rename it"
            raise BadInput(
                f"{place}/{name}: was not painted by bigbox, and what is measured or simulated is"
                f" never painted over; {beside}, or use another copy of the box"
            )


def put_aside(disk: Disk, place: Path, arrays: Iterable[str], ledger: Ledger, epoch: int) -> None:
    """Take the painting out of the box by renames."""
    aside = ledger.tmp_of(epoch)
    if link := linked(place):
        empty_linked(disk, link)
        arrays = [name for name in arrays if name != link.name]
    ours = (ledger.path / name for name in ("run.json", "sums", "field", WATCH, "set_aside.json"))
    for path in (*(place / name for name in arrays), *ours):
        with suppress(FileNotFoundError):
            disk.replace(path, aside / f"old-{path.name}")
    disk.fsync_dir(place)
    disk.fsync_dir(ledger.path)


def empty_tmp(disk: Disk, ledger: Ledger, epoch: int) -> None:
    """Remove what was put aside, and the record files that are void since."""
    for name in os.listdir(ledger.records_path):
        match = RECORD_FILE.fullmatch(name)
        if match and int(match[1]) < epoch:
            disk.unlink(ledger.records_path / name)
    for path in ledger.tmp_of(epoch).iterdir():
        _remove(disk, path)


def _remove(disk: Disk, path: Path) -> None:
    (disk.remove_tree if path.is_dir() and not path.is_symlink() else disk.unlink)(path)


def first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """Return the first key, below `name`, in which two JSON values differ, and both values.

    Notes that decide no bytes are left out.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            if key in NOTES:
                continue
            found = first_difference(f"{name}.{key}".lstrip("."), old.get(key), new.get(key))
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
