"""How a run gets on, as its first rank writes it down every few seconds, for those who look on.

    ledger/watch/00003.json   of run 3: what is done by rank, how busy each is, the last word

Nothing is decided by it: it is not synced, a run never reads it, and where it is lost or damaged
there is only less to tell. `beat` grows with every writing, so that who looks on from another node
needs no clock of its own to agree with the run's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from bigbox.errors import BadInput
from bigbox.store.durable import Disk
from bigbox.store.ledger import Ledger
from bigbox.store.metadata import read_json

WATCH = "watch"
SLOW = 1.5  # times the median rank's time for a unit
SILENT = 60.0  # seconds that a rank may say nothing
RECENT = 60.0  # seconds that rates are taken over
_NEEDED = {"run": int, "beat": int, "state": str, "seconds": float, "work": list, "busy": list,
           "heard": list, "timeline": dict}  # fmt: skip


def watch_path(ledger: Ledger, epoch: int) -> Path:
    """Return where a run writes down how it gets on."""
    return ledger.path / WATCH / f"{epoch:05d}.json"


def write_watch(disk: Disk, path: Path, found: Mapping[str, Any]) -> None:
    """Write it, over what was there; raises OSError."""
    data = json.dumps(found, separators=(",", ":")).encode()
    partial = path.with_suffix(".partial")
    disk.mkdir(path.parent)
    disk.unlink(partial)
    file = disk.open(partial, exclusive=True)
    try:
        disk.write_at(file, 0, [data])
    finally:
        disk.close(file)
    disk.replace(partial, path)


def read_watch(ledger: Ledger, epoch: int) -> dict[str, Any] | None:
    """Return what a run has written down; None where there is nothing, or it makes no sense."""
    try:
        found = read_json(watch_path(ledger, epoch))
    except (BadInput, OSError):
        return None
    if found is None or not all(
        isinstance(found.get(key), (int, float) if kind is float else kind)
        for key, kind in _NEEDED.items()
    ):
        return None
    with suppress(LookupError, TypeError, ValueError, ZeroDivisionError):
        return found | {"now": numbers(found)}
    return None


def newest_watch(ledger: Ledger) -> dict[str, Any] | None:
    """Return what the newest run that wrote anything down has; None where none has."""
    base = ledger.base()
    for epoch in range(ledger.newest(), base - 1, -1):
        if (found := read_watch(ledger, epoch)) is not None:
            return found
    return None


def numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what follows from it: {"work": [{noun, done, total, rate, left}], "slow", "silent"}.

    done: of earlier runs too; rate: a second, over the last minute; left: seconds, None where
    nobody can tell; slow: {rank: times the median rank's time for a unit}; silent: {rank: seconds}.
    """
    work = []
    for number, one in enumerate(found["work"]):
        new = sum(one["done"])
        rate = _rate(found, number, new)
        rest = one["total"] - one["already"] - new
        work.append({
            "noun": str(one["noun"]),
            "done": one["already"] + new,
            "total": one["total"],
            "rate": rate,
            "left": 0.0 if rest <= 0 else (rest / rate if rate > 0 else None),
        })  # fmt: skip
    painting = found["state"] == "painting"
    silent = {
        rank: found["seconds"] - heard
        for rank, heard in enumerate(found["heard"])
        if painting and found["seconds"] - heard > SILENT
    }
    return {"work": work, "slow": _slow(found), "silent": silent}


def _rate(found: Mapping[str, Any], number: int, new: int) -> float:
    seconds, before = float(found["seconds"]), 0
    line = found["timeline"]
    for moment, done in zip(line["seconds"], line["done"], strict=True):
        if moment <= found["seconds"] - RECENT:
            seconds, before = found["seconds"] - moment, sum(one[number] for one in done)
    return (new - before) / seconds if seconds > 0 else 0.0


def _slow(found: Mapping[str, Any]) -> dict[int, float]:
    """Return the ranks that take much longer for a unit than the median rank."""
    units = [sum(done) for done in zip(*(one["done"] for one in found["work"]), strict=True)]
    each = {
        rank: busy / count
        for rank, (busy, count) in enumerate(zip(found["busy"], units, strict=True))
        if count >= 4
    }
    if len(each) < 3 or (usual := median(each.values())) <= 0:
        return {}
    return {rank: value / usual for rank, value in each.items() if value > SLOW * usual}
