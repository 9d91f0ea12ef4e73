"""Give up paintings: nothing of any goes before all of them are this command's own to give up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.fields import HALO
from bigbox.store.layouts import HaloLayout, Layout
from bigbox.store.lease import LINGER, Lease
from bigbox.store.ledger import State
from bigbox.store.recorded import is_painted
from bigbox.store.run import claim, empty_tmp, fence_off, make_ledger, put_aside, refuse_others


def discard(
    paintings: Sequence[tuple[Box, type[Layout]]], *, disk: Disk = DISK, linger: float = LINGER
) -> bool:
    """Give up paintings, the first one first: their arrays and every record.

    What was painted on haloes is the caller's to name before them. A ledger that is damaged is no
    hindrance. Returns whether there was any. Raises Busy while a run holds the lease of one,
    and BadInput where an array was not painted by bigbox; nothing has gone then.
    """
    there = [
        (kind.place(box), kind.ledger(box), _arrays(box, kind))
        for box, kind in paintings
        if kind.ledger(box).path.exists() or _begun(box, kind)
    ]
    for place, _, arrays in there:
        refuse_others(place, arrays)
    found = False
    for box, _ in paintings if there else ():
        box.take_away_consolidated(disk)
    with ExitStack() as leases:
        held = []
        for place, ledger, arrays in there:
            with explained(ledger.path):
                make_ledger(disk, ledger)  # where a kill left half of it
                lease = Lease.exclusive(disk, ledger, linger)
            leases.callback(lease.close)
            held.append((place, ledger, arrays, lease))
        for place, ledger, arrays, lease in held:
            with explained(ledger.path):
                found |= (ledger.path / "run.json").exists()
                newest = max(ledger.newest(), ledger.newest_recorded())
                fence_off(disk, ledger, newest)
                about, nothing = {"kind": "discard", "n_ranks": 0}, State.nothing([], newest)
                lease.epoch = claim(disk, ledger, about, nothing, fresh=True)
                with lease.fenced():
                    put_aside(disk, place, arrays, ledger, lease.epoch)
                    empty_tmp(disk, ledger, lease.epoch)
    return found


def _begun(box: Box, kind: type[Layout]) -> list[str]:
    """Return the arrays in the group that say of themselves that bigbox paint began them."""
    place: Path = kind.place(box)
    found = [path.parent.name for path in place.glob("*/zarr.json") if is_painted(path.parent)]
    # Haloes stand in the same group as tb of realization 0.
    return sorted(name for name in found if (name == HALO.name) == (kind is HaloLayout))


def _arrays(box: Box, kind: type[Layout]) -> list[str]:
    return sorted({*kind.usual, *_begun(box, kind)})
