"""Agree with the other ranks, and wait for other runs, before a painting begins.

What goes wrong when a cluster starts a painting is found here, and told: ranks that see different
file systems, a launcher that does not fit, two jobs that need the same haloes.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bigbox.engine.mpi import World, ranks_of_job
from bigbox.engine.prepared import HaloesUnderWay, Prepared
from bigbox.engine.stop import StopRequest
from bigbox.errors import BadInput, Busy, StoppedEarly
from bigbox.store.box import Box
from bigbox.store.lease import LINGER, who

# Seconds in which what one machine has written must be seen by all: NFS remembers for a while that
# a file was not there.
SEEN_WITHIN = 40.0
# Seconds between two looks at a run that is waited for: the first, and at most.
LOOK, LONGEST_LOOK = 0.5, 20.0


def same_box(world: World, path: Path) -> None:
    """Raise BadInput unless all ranks find the same box at a path, before anything is written."""
    found = world.gather((socket.gethostname(), _checksum(path / "zarr.json")))
    for rank, (host, checksum) in enumerate(found):
        if checksum != found[0][1]:
            what = "another box" if checksum is not None else "no such box"
            raise BadInput(
                f"{path}: rank {rank} on {host} finds {what} there than rank 0 on {found[0][0]}; "
                "put the box on a file system that all nodes share, and give its whole path"
            )


def same_run(world: World, path: Path, realization: int, prepared: Prepared) -> None:
    """Raise BadInput unless all ranks see the run that rank 0 has just begun on the disk."""
    if world.size == 1:
        return
    begun = [one for one in (prepared.painting, prepared.haloes) if one is not None]
    box = Box.open(path, "r", realization)
    files = [one.layout.ledger(box).epoch_path(one.epoch) for one in begun]
    wanted = world.first(lambda: [_checksum(file) for file in files])
    deadline = time.monotonic() + SEEN_WITHIN
    mine = [_checksum(file) for file in files]
    while None in mine and time.monotonic() < deadline:
        time.sleep(LOOK)
        for file in files:
            with suppress(OSError):
                os.listdir(file.parent)  # so that NFS looks again
        mine = [_checksum(file) for file in files]
    found = world.gather((socket.gethostname(), mine == wanted))
    for rank, (host, same) in enumerate(found):
        if not same:
            raise BadInput(
                f"{path}: rank {rank} on {host} does not see {files[0].name} in {files[0].parent}, "
                f"which rank 0 on {found[0][0]} has written: each has a file system of its own; put"
                " the box on one that all nodes share"
            )


def _checksum(path: Path) -> int | None:
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:
        return None


def begun(
    world: World, stop: StopRequest, begin: Callable[[float], Prepared], show: bool
) -> Prepared:
    """Have rank 0 begin a painting; wait where another run paints the haloes that it needs.

    begin: given the seconds to wait for the last ranks of a dead run. Raises Busy, also where a
    stop is asked for while waiting; BadInput where what is waited for is another rank of this very
    command.
    """
    pause, linger = LOOK, LINGER

    def attempt() -> Prepared | HaloesUnderWay:
        try:
            return begin(linger)
        except Busy as busy:
            _refuse_own(world, busy)
            if isinstance(busy, HaloesUnderWay):
                return busy
            raise

    while isinstance(found := world.first(attempt), HaloesUnderWay):
        if show and pause == LOOK:
            print(f"waiting for the haloes: {found}".partition("; wait")[0], file=sys.stderr)
        time.sleep(pause)
        pause, linger = min(LONGEST_LOOK, 1.5 * pause), 0.0
        if why := next((why for why in world.gather(stop.asked()) if why), ""):
            raise StoppedEarly(
                f"stopped by {why} while another run paints the haloes; nothing is lost, the same"
                " command goes on from here"
            )
    return found


def _refuse_own(world: World, busy: Busy) -> None:
    """Raise BadInput where it is a rank of this very command that holds the lease."""
    job, ranks = who()["job"], ranks_of_job()
    if world.size == 1 and ranks > 1 and job and busy.holder.get("job") == job:
        raise BadInput(
            f"{busy}. Both are of this job, {job}, of {ranks} tasks: if they are one command, its"
            " launcher does not fit mpi4py's MPI; use the mpirun that belongs to it, or srun with"
            " the --mpi that it speaks (pmi2, pmix)"
        ) from busy
