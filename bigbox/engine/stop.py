"""When to stop early: SIGTERM, a scheduler's warning before it (SIGUSR1, SIGUSR2), a STOP file.

Python runs signal handlers only between bytecodes of the main thread, so the engine's main
thread never blocks, and asks here once a pass.
"""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

from bigbox.signals import handled

# Seconds after which the same signal again is a user's who does not want to wait.
IMPATIENT = 3.0


class StopRequest:
    """Asked by the engine once a pass: why to stop, or "" to go on."""

    def __init__(self, file: Path | None = None, seconds_between_looks: float = 1.0):
        self.reason = ""
        self.file = file
        self._between = seconds_between_looks
        self._looked = 0.0
        self._signalled: dict[int, float] = {}  # when each came first

    def listening(self) -> AbstractContextManager[None]:
        """Let signals ask for a stop. The same one again, later, ends the process at once.

        To be entered when MPI has begun: MPICH has a use for SIGUSR1 in one of its modes, where a
        rank has died.
        """
        return handled(self._on_signal, signal.SIGINT)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self.reason = self.reason or signal.Signals(number).name
        if now - self._signalled.setdefault(number, now) > IMPATIENT:
            # Not before: launcher and batch system may both pass the same signal on.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def clear(self) -> None:
        """Take the STOP file away: the run has ended."""
        if self.file:
            self.file.unlink(missing_ok=True)

    def asked(self) -> str:
        """Return the reason to stop, or "" to go on; looks for the STOP file once a second."""
        now = time.monotonic()
        if not self.reason and self.file and now - self._looked > self._between:
            self._looked = now
            if self.file.exists():
                self.reason = f"the file {self.file}"
        return self.reason
