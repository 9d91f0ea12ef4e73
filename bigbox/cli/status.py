"""Define `bigbox status`: how far a painting is, from the ledger."""

from __future__ import annotations

import argparse
import json
import socket
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.cli.values import add_box, in_time, number, open_box
from bigbox.cli.watching import at_work, run_lines, watch

if TYPE_CHECKING:
    from bigbox.store.box import Box

TEXT = """\
Tells from the ledger how far a painting is: windows and blocks of haloes where bigbox predicts
them, tiles and shards of tb that are safe on the disk, every run that worked on it with its rate,
tiles that had to be painted again after a kill, and whether a run is at work now. Reads only, and
can be used while painting. Times are UTC.

--watch looks again and again until the run ends, from any node that sees the box: how far it is,
its rate, what is left, ranks that are slow or silent, its last word. It reads one small file,
however large the box. --report makes a page of the newest run: how busy each rank was, and when.

example:  bigbox status box.zarr
example:  bigbox status box.zarr --watch
example:  bigbox status box.zarr --watch 30 --metrics /var/lib/node_exporter/bigbox.prom
example:  bigbox status box.zarr --report run.html
"""

SUMMARY = "how far a painting is"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument(
        "--watch",
        metavar="S",
        nargs="?",
        const=2.0,
        type=number(0.1),
        help="look again every S seconds (2) until the run at work ends",
    )
    text = "write the numbers of the newest run as Prometheus text, for a textfile collector"
    parser.add_argument("--metrics", metavar="FILE", type=Path, help=text)
    text = "make a page of the newest run: what each rank did, and when"
    parser.add_argument("--report", metavar="FILE", type=Path, help=text)


def run(options: argparse.Namespace) -> int:
    """Print the table, or the JSON."""
    from bigbox.store.status import status

    box = open_box(options)
    if options.report is not None:
        return _report(box, options.report)
    if options.watch is not None or options.metrics is not None:
        return watch(box, options.watch, options.metrics, options.json)
    found = status(box)
    found["at_work"] = at_work(box.place)
    print(json.dumps(found, indent=2) if options.json else table(box.place, found))
    return 0


def _report(box: Box, out: Path) -> int:
    from bigbox.analysis.runs import write_page
    from bigbox.cli.watching import newest

    write_page(box, newest(box), out)
    print(out)
    return 0


def table(box: Path, found: dict[str, Any]) -> str:
    """Write a status for people, from what `bigbox.store.status.status` returns."""
    lines = _haloes(found["haloes"], found["at_work"]) if found["haloes"] else []
    if found["painting"] is None:
        lines.append(("tb", f"{box}: nothing is painted; begin with: bigbox paint {box}"))
        return _text(lines)
    identity = found["identity"]
    keys = ("seed", "realization", "overlap_method", "sampler")
    names = {"overlap_method": "overlaps"}
    how = [f"{names.get(key, key)} {identity[key]}" for key in keys if key in identity]
    lines = [
        ("box", found["description"] + _grid(found["grid"])),
        ("painter", ", ".join([str(identity.get("painter", "unknown")), *how])),
        *lines,
        ("tiles", _of(found["tiles_done"], found["tiles"])
                  + f", {found['painted_again']:,} painted more than once"),
        ("tb", _of(found["tb_shards_done"], found["tb_shards"]) + " of the shards"),
        *_set_aside(found["set_aside"]),
        ("now", _now(found)),
        *run_lines(found["watch"], found["at_work"]),
    ]  # fmt: skip
    return _text(lines) + "\n\n" + _runs(found["runs"])


def _set_aside(regions: list[dict[str, Any]]) -> list[tuple[str, str]]:
    shown = [f"{one['region']}: {one['why']}" for one in regions[:8]]
    shown += [f"and {len(regions) - 8} more"] if len(regions) > 8 else []
    return [("aside" if at == 0 else "", text) for at, text in enumerate(shown)]


def _text(lines: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name:9}{text}" for name, text in lines)


def _grid(grid: int) -> str:
    return f"; one voxel for {grid} of dm on each axis" if grid > 1 else ""


def _haloes(found: dict[str, Any], at_work: bool) -> list[tuple[str, str]]:
    lines = [("haloes", found["source"])]
    if "windows" not in found:
        return lines
    lines.append(("windows", found["description"]))
    done = _of(found["blocks_done"], found["blocks"]) + " of the blocks are final"
    if not found["complete"]:
        run = found["runs"][-1]
        # What a run at work has predicted and not yet stored is lost only if it is killed.
        left = run["windows"] - run["windows_begun"] if at_work else found["windows_left"]
        done += f", {left:,} windows to predict"
        if rate := _rate(run, "windows_begun"):
            done += f", at {rate:.1f} a second about {in_time(left / rate)}"
    return [*lines, ("", done)]


def _runs(runs: list[dict[str, Any]]) -> str:
    rows = [("run", "kind", "started", "worked", "ranks", "tiles", "tiles/s", "where")]
    for run in runs:
        rate, seconds = _rate(run, "tiles"), _seconds(run)
        rows.append((
            str(run["epoch"]),
            str(run["kind"] or ""),
            datetime.fromisoformat(run["started"]).strftime("%Y-%m-%d %H:%M:%S"),
            in_time(seconds) if seconds else "-",
            str(run["n_ranks"] or "-"),
            f"{run['tiles']:,}",
            f"{rate:.1f}" if rate else "-",
            f"{run['host']}{', ' + run['device'] if run['device'] else ''}",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _of(done: int, total: int) -> str:
    return f"{done:,} of {total:,} ({100 * done / total:.1f} %)"


def _now(found: dict[str, Any]) -> str:
    if found["at_work"]:
        return "a run is at work"
    whole = found["complete"] and (found["haloes"] or {"complete": True})["complete"]
    state = "complete" if whole else "not complete: the same bigbox paint goes on"
    last = found["runs"][-1] if found["runs"] else {}
    elsewhere = last.get("host") not in (None, socket.gethostname()) and not whole
    return state + (f" (the last run was on {last['host']}, not this machine)" if elsewhere else "")


def _seconds(run: dict[str, Any]) -> float:
    began, last = (datetime.fromisoformat(run[key]) for key in ("started", "last"))
    return (last - began).total_seconds()


def _rate(run: dict[str, Any], what: str) -> float:
    # Times are whole seconds: a rate over fewer than a few of them would mean nothing.
    seconds = _seconds(run)
    return float(run[what] / seconds) if seconds >= 3 else 0.0
