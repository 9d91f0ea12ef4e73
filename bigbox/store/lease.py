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

from bigbox.errors import Busy, StoppedEarly
from bigbox.store.durable import Disk, File
from bigbox.store.ledger import Ledger

LOG = logging.getLogger(__name__)

# How long a new run waits for the last ranks of an earlier one whose first rank is gone, seconds
# (the launcher of Open MPI, killed, leaves ranks for ten seconds and more), and how often it looks.
LINGER = 30.0
LOOK = 0.1
# Where batch systems say which job this is: Slurm, PBS, LSF, Grid Engine.
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


class Lease:
    """The lock file, held exclusively (starting a run) or shared (a rank of run `epoch`)."""

    def __init__(self, disk: Disk, ledger: Ledger, file: File | None, epoch: int = 0) -> None:
        self._disk = disk
        self._ledger = ledger
        self._file = file
        self.epoch = epoch

    @classmethod
    def exclusive(cls, disk: Disk, ledger: Ledger, linger: float = LINGER) -> Lease:
        """Take the lease for starting a run; raises Busy where another run holds it.

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
            found = holder(ledger)
            if _alive(found) or time.monotonic() > deadline:
                disk.close(file)
                raise Busy(
                    f"{ledger.path.parent}: another run holds the lease (run {found['epoch']} on "
                    f"{found['host']}, pid {found['pid']}, since {found['started']});"
                    " wait for its end, or stop it, and run the same command again",
                    found,
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


def who() -> dict[str, Any]:
    """Return what a run notes of itself: its machine, its first process, its batch job."""
    job = next((f"{os.environ[name]}" for name in _JOBS if os.environ.get(name)), "")
    if job and (again := os.environ.get("SLURM_RESTART_COUNT")):
        job += f" (start {int(again) + 1})" if again.isdigit() else ""
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": job}


def holder(ledger: Ledger) -> dict[str, Any]:
    """Return what the newest run has noted of itself."""
    epoch = ledger.newest()
    # Nothing is known where a first run just starts.
    nothing = {"epoch": epoch, "host": "?", "pid": 0, "job": "", "started": "?"}
    return nothing | (ledger.epoch(epoch) if epoch else {})


def _alive(found: dict[str, Any]) -> bool:
    """Return whether the first rank of a run lives on this machine."""
    host, pid = found["host"], found["pid"]
    return bool(host == socket.gethostname() and pid > 0 and psutil.pid_exists(pid))
