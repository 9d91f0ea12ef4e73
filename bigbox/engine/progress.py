"""Show progress on rank 0: units done, rate, time left; a bar on a terminal, else a plain log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


@dataclass(frozen=True)
class Goal:
    """How many units of a task there are, over all ranks, and how many earlier runs have done.

    A task without a noun is not shown, the first one with `main` has the bar.
    """

    noun: str = ""
    total: int = 0
    already: int = 0
    main: bool = False


NO_GOAL = Goal()


class Progress:
    """Shows how far all ranks are, by one goal for each task; nothing unless `show`.

    note: is told the same, whether or not it is shown: a rank, its units of each task, and the
    seconds that it painted.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        n_ranks: int = 1,
        show: bool = False,
        note: Callable[[int, Sequence[int], float], None] | None = None,
    ) -> None:
        self._goals, self._note = list(goals), note
        self._main = next((i for i, goal in enumerate(goals) if goal.main), 0)
        self._done = np.zeros((n_ranks, len(goals)), np.int64)
        self._began = self._last = time.monotonic()
        self._show = show and bool(goals)
        self._bar = None
        if not self._show:
            return
        main = self._goals[self._main]
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=main.total,
                initial=main.already,
                unit=main.noun,
                desc="painting",
                smoothing=0.05,
            )
        elif main.already:
            self._say(f"{main.already} of {main.total} {main.noun}s were done before; going on")

    def _say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    def update(self, rank: int, busy: int, *done: int) -> None:
        """Take the milliseconds that a rank painted, and the units of each task that it stored."""
        if self._note is not None:
            self._note(rank, done, busy / 1000)
        if not self._show:
            return
        self._done[rank] = done
        counts = self._done.sum(axis=0).tolist()
        now = time.monotonic()
        goal, new = self._goals[self._main], counts[self._main]
        beside = "; ".join(
            self._beside(other, counts[i], now - self._began)
            for i, other in enumerate(self._goals)
            if i != self._main and other.noun and other.total
        )
        if self._bar is not None:
            self._bar.set_postfix_str(beside, refresh=False)
            self._bar.update(goal.already + new - self._bar.n)
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            rate, done_now = new / (now - self._began), goal.already + new
            left = tqdm.format_interval(int((goal.total - done_now) / rate)) if rate else "?"
            self._say(
                f"{done_now}/{goal.total} {goal.noun}s ({100 * done_now / goal.total:.1f} %), "
                f"{rate:.1f} {goal.noun}s/s, {left} left" + (f"; {beside}" if beside else "")
            )

    @staticmethod
    def _beside(goal: Goal, done: int, seconds: float) -> str:
        rate = done / seconds if seconds > 0 else 0.0
        left = tqdm.format_interval(int((goal.total - done) / rate)) if rate else "?"
        return f"haloes {done}/{goal.total} {goal.noun}s, {rate:.1f}/s" + (
            f", {left} left" if done < goal.total else ""
        )

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
