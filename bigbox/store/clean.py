"""Remove what a box no longer needs, and only that: nothing goes that something is made of.

    latents/        the painted tiles   once tb is whole and each of its checksums is right
    ledger/field    a noisy field       once all is painted
    ledger/sums     sums of haloes      once all haloes are final, and right
    ledger/tmp/     what a run left     the same

What goes is first renamed into the directory of a run of its own, as everywhere in the store: a
kill leaves it there, and the next run removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.fields import HALO
from bigbox.store.latents import empty_linked, linked
from bigbox.store.lease import LINGER, Lease
from bigbox.store.mend import was_dropped
from bigbox.store.recorded import Recorded
from bigbox.store.run import claim, fence_off
from bigbox.store.verify import verify


@dataclass
class Cleaned:
    """What went, or would: bytes by place; and what stays, with the reason, a line each."""

    gone: dict[Path, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def clean(
    found: Recorded[Any], *, dry_run: bool = False, disk: Disk = DISK, linger: float = LINGER
) -> Cleaned:
    """Remove what one painting no longer needs.

    Raises BadInput, and nothing has gone, where a run holds the lease or what would be left is
    damaged.
    """
    cleaned = Cleaned()
    there = [path for path in _removable(found) if path.exists() or path.is_symlink()]
    left_over = [path for path in found.ledger.tmp_path.glob("*") if bytes_of(path)]
    if not there and not left_over:
        return cleaned
    if not (found.state.complete and found.complete):
        many = found.products[-1]
        left = int((~found.state.done[-1]).sum())
        cleaned.kept += [
            f"{path}: stays: {left:,} of {many.size:,} {many.many} are not done" for path in there
        ]
        return cleaned
    report = verify(found, repair=False)
    if not report.intact:
        raise BadInput(
            f"{found.place}: {len(report.damage)} things are damaged, the first is"
            f" {report.damage[0]}; nothing is removed, as it may be made again from what is there:"
            " bigbox verify --repair"
        )
    cleaned.gone = {path: bytes_of(path) for path in (*there, *left_over)}
    if not dry_run:
        _remove(found, there, disk, linger)
    return cleaned


def _removable(found: Recorded[Any]) -> Sequence[Path]:
    ledger = found.ledger.path
    if found.products[0].name == HALO.name:
        return [ledger / "sums"]
    latents = [] if was_dropped(found) else [found.place / "latents"]
    return [*latents, ledger / "field"]


def _remove(found: Recorded[Any], paths: Sequence[Path], disk: Disk, linger: float) -> None:
    ledger = found.ledger
    with explained(ledger.path):
        lease = Lease.exclusive(disk, ledger, linger)
        try:
            if not ledger.is_current(found.state):
                raise BadInput(f"{ledger.path}: a run worked meanwhile; run the same command again")
            fence_off(disk, ledger, found.state.newest)  # and what they left in tmp goes
            lease.epoch = claim(disk, ledger, {"kind": "clean", "n_ranks": 1}, found.state)
            with lease.fenced():
                for path in paths:
                    _take(disk, found.place, path, ledger.tmp_of(lease.epoch) / f"old-{path.name}")
        finally:
            lease.close()


def _take(disk: Disk, place: Path, path: Path, aside: Path) -> None:
    link = linked(place)
    if link is not None and path == link:  # the folder stays where the user put it
        empty_linked(disk, link)
        disk.unlink(link)
        disk.fsync_dir(place)
        return
    disk.replace(path, aside)
    disk.fsync_dir(path.parent)
    disk.remove_tree(aside)


def bytes_of(path: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
