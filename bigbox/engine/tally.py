"""Count what one rank did, and report on all of them at the end of a run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from bigbox.store.fields import HALO, PAINTED, TB

_COUNTING = Lock()  # batches computed side by side end in threads of their own


@dataclass
class Tally:
    """What one rank did.

    first_paint and last_paint are in seconds since `run` began, which all ranks do together: the
    clocks of two machines have no common zero. painting_s is the device's time, that of windows
    included: of two batches side by side on one device the time counts once, on
    `full_speed_streams` cores half of each.
    """

    units: Counter[str] = field(default_factory=Counter)  # stored, by product
    final: Counter[str] = field(default_factory=Counter)  # chunks made final, by product
    batches: int = 0
    painting_s: float = 0.0
    first_paint: float = float("inf")
    last_paint: float = 0.0
    full_speed_streams: int = 1

    def timed(self, start: float, what: Callable[..., Any], *arguments: Any) -> Any:
        """Have the device do it, and note when, from `start` on (time.monotonic)."""
        began = time.monotonic() - start
        made = what(*arguments)
        ended = time.monotonic() - start
        with _COUNTING:
            self.batches += 1
            since = began if self.full_speed_streams > 1 else max(began, self.last_paint)
            self.painting_s += max(0.0, ended - since) / self.full_speed_streams
            self.first_paint = min(self.first_paint, began)
            self.last_paint = max(ended, self.last_paint)
        return made


def summary(tallies: list[Tally], already: int, total: int, seconds: float) -> dict[str, Any]:
    """Return the numbers of a run over all ranks.

    `busy` is the painters' share of the time from the first batch that any rank began to the last
    that any ended.
    """
    span = max(t.last_paint for t in tallies) - min(t.first_paint for t in tallies)
    painting = sum(t.painting_s for t in tallies)
    batches = sum(t.batches for t in tallies)
    units = sum((t.units for t in tallies), Counter())
    final = sum((t.final for t in tallies), Counter())
    return {
        "tiles": final[PAINTED.name],
        "windows": units[HALO.name],
        "already": already,
        "total": total,
        "ranks": len(tallies),
        "batches": batches,
        "shards": units[TB.name],
        "seconds": seconds,
        "painting_seconds": painting,
        "span": span if batches else 0.0,
        "busy": painting / (span * len(tallies)) if batches else 0.0,
    }


def describe(report: dict[str, Any], box: Path, haloes_only: bool = False) -> str:
    """Return the last line of a run, for people."""
    ranks = f"{report['ranks']} rank{'s' if report['ranks'] > 1 else ''}"
    if haloes_only and not report["windows"]:
        return f"the haloes of {box} are there: nothing was left to do"
    if haloes_only:
        windows, seconds = report["windows"], report["seconds"]
        return f"predicted haloes of {box} in {windows} windows in {seconds:.1f} s on {ranks}"
    if not report["tiles"] and not report["windows"]:
        return f"{box} is painted: all {report['total']} tiles were done, nothing was left to do"
    windows = f"predicted haloes in {report['windows']} windows, " if report["windows"] else ""
    return (
        f"{windows}painted {report['tiles']} tiles of {box} in {report['seconds']:.1f} s on "
        f"{ranks} "
        f"({report['tiles'] / report['seconds']:.1f} tiles/s, painters busy "
        f"{100 * report['busy']:.1f} % of the time)"
    )
