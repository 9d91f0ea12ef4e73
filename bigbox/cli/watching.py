"""Look on while a box is painted, from this node or another: what the run writes down of itself."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.cli.values import in_time
from bigbox.errors import BadInput

if TYPE_CHECKING:
    from bigbox.store.box import Box

# Seconds without news after which a run on another node is taken for dead.
NO_NEWS = 60.0


def newest(box: Box) -> dict[str, Any]:
    """Return what the newest run has written down. Raises BadInput where there is none."""
    from bigbox.store.ledger import Ledger
    from bigbox.store.watch import newest_watch

    found = newest_watch(Ledger(box.place))
    if found is None:
        raise BadInput(
            f"{box.place}: no run has written down how it gets on; bigbox status tells what is"
            " painted, and runs of this version do"
        )
    return found


def at_work(box: Path) -> bool:
    """Find out whether a process of this machine holds the lease, without touching the lock."""
    try:
        lock = (box / "ledger" / "lease.lock").stat()
        held = Path("/proc/locks").read_text()
    except OSError:
        return False
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(device in line.split() for line in held.splitlines())


def watch(box: Box, seconds: float | None, metrics: Path | None, as_json: bool) -> int:
    """Say how the newest run gets on, once or until it ends; return the exit status."""
    beat, moved = -1, time.monotonic()
    while True:
        found, here = newest(box), at_work(box.place)
        if found["beat"] != beat:
            beat, moved = found["beat"], time.monotonic()
        mine = found["host"] == socket.gethostname()
        alive = found["state"] == "painting" and (
            here if mine else time.monotonic() - moved < NO_NEWS
        )
        if metrics is not None:
            _put(metrics, prometheus(box, found, alive))
        if seconds is not None or metrics is None:
            _show(found, alive, as_json)
        if seconds is None or not alive:
            return 0
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            return 0


def _show(found: dict[str, Any], alive: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({k: v for k, v in found.items() if k != "timeline"} | {"alive": alive}))
    elif sys.stdout.isatty():
        lines = [f"{name:9}{text}" for name, text in run_lines(found, alive)]
        print("\x1b[H\x1b[J" + "\n".join(lines))
    else:
        print("; ".join(text for _, text in run_lines(found, alive)))
    sys.stdout.flush()


def run_lines(found: dict[str, Any] | None, alive: bool) -> list[tuple[str, str]]:
    """Return what the newest run has written down of itself, for people: name and text."""
    if found is None:
        return []
    about, lines = found["now"], []
    where = f"run {found['run']} on {found['host']}, {found['ranks']} ranks"
    if found["state"] == "painting":
        ending = "at work" if alive else "ended without a word: killed, or its node is gone"
        lines.append(("run", f"{where}, {in_time(found['seconds'])}: {ending}"))
    else:
        said = f": {found['said']}" if found["said"] else ""
        lines.append(("run", f"{where}, {in_time(found['seconds'])}: {found['state']}{said}"))
    for one in about["work"]:
        if one["noun"] and one["total"]:
            share = 100 * one["done"] / one["total"]
            text = f"{one['done']:,} of {one['total']:,} {one['noun']}s ({share:.1f} %)"
            if alive:
                left = in_time(one["left"]) if one["left"] is not None else "?"
                text += f", {one['rate']:.1f}/s, {left} left"
            lines.append(("", text))
    if found["seconds"] > 0:
        busy = 100 * sum(found["busy"]) / (found["seconds"] * found["ranks"])
        lines.append(("", f"painters busy {busy:.0f} % of the time"))
    slow = [f"rank {rank} ({times:.1f} times the usual)" for rank, times in about["slow"].items()]
    if slow:
        lines.append(("slow", ", ".join(slow[:8]) + (" ..." if len(slow) > 8 else "")))
    silent = [f"rank {rank} for {in_time(s)}" for rank, s in about["silent"].items()]
    if silent and alive:
        lines.append(("silent", ", ".join(silent[:8]) + (" ..." if len(silent) > 8 else "")))
    return lines


def prometheus(box: Box, found: dict[str, Any], alive: bool) -> str:
    """Return the numbers in Prometheus' text format."""
    label = "{" + f'box={json.dumps(str(box.place))},run="{found["run"]}"' + "}"
    lines: list[str] = []

    def add(name: str, text: str, rows: list[tuple[str, float]]) -> None:
        lines.extend((f"# HELP bigbox_{name} {text}", f"# TYPE bigbox_{name} gauge"))
        for more, value in rows:
            lines.append(f"bigbox_{name}{label[:-1]}{more}}} {value:.10g}")

    work = [one for one in found["now"]["work"] if one["noun"] and one["total"]]
    each = [(f',unit="{one["noun"]}"', one) for one in work]
    add("up", "Whether the run is at work.", [("", float(alive))])
    add("failed", "Whether the run ended by an error.", [("", float(found["state"] == "failed"))])
    add("seconds", "Seconds since the run began to paint.", [("", found["seconds"])])
    add("done", "Units done, by earlier runs too.", [(unit, one["done"]) for unit, one in each])
    add("total", "Units in all.", [(unit, one["total"]) for unit, one in each])
    add("rate", "Units a second.", [(unit, one["rate"]) for unit, one in each])
    left = [(unit, one["left"]) for unit, one in each if one["left"] is not None]
    add("left_seconds", "Seconds that are left at this rate.", left)
    busy = [(f',rank="{rank}"', seconds) for rank, seconds in enumerate(found["busy"])]
    add("busy_seconds", "Seconds that a rank has painted.", busy)
    add("slow_ranks", "Ranks slower than the rest.", [("", len(found["now"]["slow"]))])
    return "\n".join(lines) + "\n"


def _put(path: Path, text: str) -> None:
    """Write a small file whose readers never see half of it. Raises BadInput."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None
