"""Progress on rank 0: tiles and windows, rate, time left; a bar on a terminal, else a plain log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm


class Progress:
    """Shows how far all ranks are. On ranks other than 0, or when quiet, shows nothing."""

    def __init__(self, total: int, already: int, n_ranks: int, show: bool, every: float = 10.0):
        self._total = total
        self._done = [0] * n_ranks
        self._windows = [0] * n_ranks
        self.windows = 0  # windows of haloes that this run predicts, over all ranks
        self._already = already
        self._began = self._last = time.monotonic()
        self._every = every
        self._show = show
        self._bar = None
        if show and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=already, unit="tile", desc="painting", smoothing=0.05
            )
        elif show and already:
            self._say(f"{already} of {total} tiles were painted before; going on")

    def _say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    def update(self, rank: int, done: int, windows: int = 0) -> None:
        """`rank` has `done` tiles durable in this run, and `windows` of haloes predicted."""
        self._done[rank], self._windows[rank] = done, windows
        total_done = self._already + sum(self._done)
        if self._bar is not None:
            if self.windows:
                self._bar.set_postfix_str(self._haloes(), refresh=False)
            self._bar.update(total_done - self._bar.n)
        elif self._show and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            rate = sum(self._done) / (self._last - self._began)
            left = (self._total - total_done) / rate if rate else float("inf")
            self._say(
                f"{total_done}/{self._total} tiles ({100 * total_done / self._total:.1f} %), "
                f"{rate:.1f} tiles/s, {tqdm.format_interval(int(left)) if rate else '?'} left"
                + (f"; {self._haloes()}" if self.windows else "")
            )

    def _haloes(self) -> str:
        done = sum(self._windows)
        seconds = time.monotonic() - self._began
        rate = done / seconds if seconds > 0 else 0.0
        left = tqdm.format_interval(int((self.windows - done) / rate)) if rate else "?"
        return f"haloes {done}/{self.windows} windows, {rate:.1f}/s" + (
            f", {left} left" if done < self.windows else ""
        )

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
