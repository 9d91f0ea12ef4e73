"""Write down on rank 0 how all ranks get on: for `bigbox status --watch`, and for a log.

The writing is done in a thread of its own and never holds a run up: a disk that cannot take it
costs those who look on their news, and nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.engine.progress import Goal
from bigbox.store.durable import DISK, Disk
from bigbox.store.watch import numbers, write_watch

LOG = logging.getLogger(__name__)

SECONDS_BETWEEN = 2.0  # of writings; more where there are many ranks
SECONDS_BETWEEN_LINES = 10.0  # of the log
MOST_SAMPLES = 240  # of the timeline: then every second one goes
MOST_NUMBERS = 100_000  # in all of it


class Monitor:
    """What rank 0 has heard of all ranks, and where it writes it down."""

    def __init__(
        self, path: Path, epoch: int, goals: Sequence[Goal], n_ranks: int, disk: Disk = DISK
    ) -> None:
        self._path, self._disk, self._epoch = path, disk, epoch
        self._goals, self._n_ranks = list(goals), n_ranks
        self._done = np.zeros((n_ranks, len(goals)), np.int64)
        self._busy, self._heard = np.zeros(n_ranks), np.zeros(n_ranks)
        self._began = self._written = self._logged = time.monotonic()
        self._between = max(SECONDS_BETWEEN, n_ranks / 100)
        self._samples: list[tuple[float, list[list[int]], list[float]]] = []
        self._most = max(16, min(MOST_SAMPLES, MOST_NUMBERS // (n_ranks * (1 + len(goals)))))
        self._apart = self._between
        self._beat = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._writing: Future[None] | None = None
        self._told = False
        self._write("painting")

    def note(self, rank: int, done: Sequence[int], busy: float) -> None:
        """Take the units of each task that a rank has done, and the seconds that it painted."""
        now = time.monotonic()
        self._done[rank], self._busy[rank] = done, busy
        self._heard[rank] = now - self._began
        last = self._samples[-1][0] if self._samples else -self._apart
        if now - self._began - last >= self._apart:
            self._sample(now)
        if now - self._written >= self._between and (self._writing is None or self._writing.done()):
            self._written = now
            self._write("painting")
        if now - self._logged >= SECONDS_BETWEEN_LINES:
            self._logged = now
            self.log_progress()

    def _sample(self, now: float) -> None:
        self._samples.append((
            round(now - self._began, 2), self._done.tolist(), self._busy.round(2).tolist()
        ))  # fmt: skip
        if len(self._samples) > self._most:
            self._samples, self._apart = self._samples[::2], 2 * self._apart

    def log_progress(self) -> None:
        """Say in the log how far all ranks are."""
        found = self._found("painting", "")
        about = numbers(found)
        parts = [
            f"{one['done']} of {one['total']} {one['noun']}s, {one['rate']:.2f}/s"
            for one in about["work"]
            if one["noun"] and one["total"]
        ]
        LOG.info("; ".join(parts), extra={"data": {"event": "progress", **about}})

    def end(self, state: str, said: str = "") -> None:
        """Write down how the run ended: done, stopped or failed, and its last word."""
        self._sample(time.monotonic())
        self._write(state, said)
        self._thread.shutdown(wait=True)

    def _found(self, state: str, said: str) -> dict[str, Any]:
        seconds, done, busy = zip(*self._samples, strict=True) if self._samples else ((), (), ())
        return {
            "run": self._epoch,
            "beat": self._beat,
            "state": state,
            "said": said,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "ranks": self._n_ranks,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._began, 2),
            "work": [
                {"noun": goal.noun, "total": goal.total, "already": goal.already,
                 "done": self._done[:, number].tolist()}
                for number, goal in enumerate(self._goals)
            ],
            "busy": self._busy.round(3).tolist(),
            "heard": self._heard.round(2).tolist(),
            "timeline": {"seconds": seconds, "done": done, "busy": busy},
        }  # fmt: skip

    def _write(self, state: str, said: str = "") -> None:
        self._beat += 1
        self._writing = self._thread.submit(self._put, self._found(state, said))

    def _put(self, found: dict[str, Any]) -> None:
        try:
            write_watch(self._disk, self._path, found)
        except OSError as error:
            if not self._told:
                self._told = True
                LOG.warning("%s: not written (%s): status --watch knows less", self._path, error)
