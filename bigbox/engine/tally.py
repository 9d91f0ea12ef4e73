"""What the ranks did: one rank's counts, and the report at the end of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

_COUNTING = Lock()  # batches painted side by side end in threads of their own


@dataclass
class Tally:
    """What one rank did: the numbers behind the report at the end.

    first_paint and last_paint are in seconds since `run` began, which all ranks do together: the
    clocks of two machines have no common zero. painting_s is the device's time, that of windows
    included: of two batches side by side on one device the time counts once, on `parallel` cores
    half of each.
    """

    tiles: int = 0
    batches: int = 0
    shards: int = 0
    windows: int = 0
    painting_s: float = 0.0
    first_paint: float = float("inf")
    last_paint: float = 0.0
    parallel: int = 1

    def timed(self, start: float, what: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
        """Has the device do it, and notes when, from `start` on (time.monotonic)."""
        began = time.monotonic() - start
        made = what(*arguments)
        ended = time.monotonic() - start
        with _COUNTING:
            self.batches += 1
            since = began if self.parallel > 1 else max(began, self.last_paint)
            self.painting_s += max(0.0, ended - since) / self.parallel
            self.first_paint = min(self.first_paint, began)
            self.last_paint = max(ended, self.last_paint)
        return made


def summary(tallies: list[Tally], already: int, total: int, seconds: float) -> dict[str, Any]:
    """The numbers of a run over all ranks; `busy` is the painters' share of the time from the
    first batch that any rank began to the last that any ended."""
    span = max(t.last_paint for t in tallies) - min(t.first_paint for t in tallies)
    painting = sum(t.painting_s for t in tallies)
    batches = sum(t.batches for t in tallies)
    return {
        "tiles": sum(t.tiles for t in tallies),
        "windows": sum(t.windows for t in tallies),
        "already": already,
        "total": total,
        "ranks": len(tallies),
        "batches": batches,
        "shards": sum(t.shards for t in tallies),
        "seconds": seconds,
        "painting_seconds": painting,
        "span": span if batches else 0.0,
        "busy": painting / (span * len(tallies)) if batches else 0.0,
    }


def describe(report: dict[str, Any], box: Path) -> str:
    """The last line of a run, for people."""
    if not report["tiles"] and not report["windows"]:
        return f"{box} is painted: all {report['total']} tiles were done, nothing was left to do"
    windows = f"predicted haloes in {report['windows']} windows, " if report["windows"] else ""
    return (
        f"{windows}painted {report['tiles']} tiles of {box} in {report['seconds']:.1f} s on "
        f"{report['ranks']} rank{'s' if report['ranks'] > 1 else ''} "
        f"({report['tiles'] / report['seconds']:.1f} tiles/s, painters busy "
        f"{100 * report['busy']:.1f} % of the time)"
    )
