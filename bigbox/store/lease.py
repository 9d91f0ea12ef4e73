"""Who may write: one run at a time holds the lease of a box, and later runs fence off earlier ones.

Two guards, either of which is enough to keep finished work safe:

* `ledger/lease.lock`: every rank of a run holds it shared (flock) for as long as it lives; a new
  run needs it alone for a moment, so it cannot start while any rank of another one is alive.
* the number of the run: whoever finds a newer `ledger/epochs/NNNNN.json` stops, and nothing it
  does from then on counts (its records are sealed, its files are dead, its directory of
  files-without-a-name is gone, so it can rename nothing into place).

Where the file system has no flock only the second guard is left, and one warning says so.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from bigbox.errors import BadInput, StoppedEarly
from bigbox.store.durable import Disk, File
from bigbox.store.ledger import Ledger

LOG = logging.getLogger(__name__)

# How long a new run waits for the last ranks of an earlier one whose first rank is gone, seconds
# (the launcher of Open MPI, killed, leaves ranks for ten seconds and more), and how often it looks.
LINGER = 30.0
LOOK = 0.1


class Lease:
    """The lock file, held exclusively (starting a run) or shared (a rank of run `epoch`)."""

    def __init__(self, disk: Disk, ledger: Ledger, file: File | None, epoch: int = 0) -> None:
        self._disk = disk
        self._ledger = ledger
        self._file = file
        self.epoch = epoch

    @classmethod
    def exclusive(cls, disk: Disk, ledger: Ledger, linger: float = LINGER) -> Lease:
        """Take the lease for starting a run; raises BadInput where another run holds it.

        Whoever is going to write or remove anything comes this way: no link is followed.
        """
        ledger.refuse_links()
        file = disk.open(ledger.lock_path, create=True)
        deadline = time.monotonic() + linger
        while True:
            got = disk.lock(file, exclusive=True)
            if got is None:
                LOG.warning(
                    "%s: no file locks here: never run two paintings of one box at a time",
                    ledger.lock_path,
                )
                disk.close(file)
                return cls(disk, ledger, None)
            if got:
                return cls(disk, ledger, file)
            holder, alive = _holder(ledger)
            if alive or time.monotonic() > deadline:
                disk.close(file)
                raise BadInput(
                    f"{ledger.path.parent}: another run holds the lease ({holder});"
                    " wait for its end, or stop it, and run the same command again"
                )
            time.sleep(LOOK)

    @classmethod
    def shared(cls, disk: Disk, ledger: Ledger, epoch: int, linger: float = LINGER) -> Lease:
        """Join run `epoch` as one of its ranks; raises StoppedEarly where a newer run started."""
        lease = cls(disk, ledger, disk.open(ledger.lock_path), epoch)
        lease.share(linger)
        try:
            lease.check()
        except StoppedEarly:
            lease.close()
            raise
        return lease

    def share(self, linger: float = LINGER) -> None:
        """Get the lock shared, waiting for whoever holds it alone.

        flock lets go of an old lock before it asks for the new one, so another run may hold the
        lease for a moment in between. Raises StoppedEarly where it does so for long.
        """
        deadline = time.monotonic() + linger
        while self._file is not None:
            got = self._disk.lock(self._file, exclusive=False)
            if got:
                return
            if got is None:
                self.close()
            elif time.monotonic() > deadline:
                self.close()
                raise StoppedEarly(
                    f"{self._ledger.path.parent}: another run is starting; run the same command"
                    " again"
                )
            else:
                time.sleep(LOOK)

    def check(self) -> None:
        """Raise StoppedEarly if a newer run has started: one stat, no reading."""
        if os.path.exists(self._ledger.epoch_path(self.epoch + 1)):
            raise StoppedEarly(
                f"{self._ledger.path.parent}: run {self.epoch + 1} has taken over from this one"
                f" (run {self.epoch}); nothing that is recorded is lost"
            )

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Raise StoppedEarly for what a newer run took away from under this one (its directory)."""
        try:
            yield
        except FileNotFoundError as error:
            self.check()
            if self._ledger.tmp_of(self.epoch).exists():
                raise
            raise StoppedEarly(
                f"{self._ledger.path.parent}: another run is starting in place of this one"
                f" (run {self.epoch}); nothing that is recorded is lost"
            ) from error

    def close(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None


def _holder(ledger: Ledger) -> tuple[str, bool]:
    """Return the newest run in words, and whether its first rank lives on this machine."""
    epoch = ledger.newest()
    # Nothing is known where a first run just starts.
    found: dict[str, Any] = {"host": "?", "pid": 0, "started": "?"} | (
        ledger.epoch(epoch) if epoch else {}
    )
    host, pid = found["host"], found["pid"]
    alive = host == socket.gethostname() and pid > 0 and psutil.pid_exists(pid)
    return f"run {epoch} on {host}, pid {pid}, since {found['started']}", alive
