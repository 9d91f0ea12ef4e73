"""Faults of the machine that a process meets: full, read-only and failing disks, no memory, NaN."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.place import Bad, Place, mount, mounted
from tests.faults.commands import KILLED, Fault

YEAR = 31_557_600
# Seconds that the clock is off: decades, hours, and what is just beyond what a record can tell.
CLOCKS = (-20 * YEAR, 30 * YEAR, 97 * 86400, -3 * 3600, -5, 0)


def full_disk(place: Place) -> None:
    """A file system with too few bytes or inodes; then it is made larger."""
    need = sum(path.stat().st_size for path in place.source.rglob("*") if path.is_file())
    names = sum(1 for _ in place.source.rglob("*"))
    whole = sum(len(values) for values in place.truth.values())
    if place.rng.random() < 0.6:
        room = need + 200_000 + int(place.rng.uniform(0, 1.2) * whole)
        small, large = f"size={room // 1024}k", "size=64m"
    else:
        small = f"size=64m,nr_inodes={names + 8 + place.rng.randint(0, 25)}"
        large = "size=64m,nr_inodes=0"
    with mounted(place.folder / "mnt", small) as place.root:
        place.fresh()
        place.tell(small)
        for _ in range(place.rng.randint(1, 2)):
            ended = place.paint()
            place.said_well(ended, 0, 2)
            if ended.status == 2 and "space" not in ended.said:
                raise Bad("crash", f"a full disk is not told: {ended.said[-800:]}")
        mount("-o", f"remount,{large}", place.root)
        place.finish()
    place.root = None


def read_only(place: Place) -> None:
    """The box becomes read-only between two commands, and is writable again later."""
    with mounted(place.folder / "mnt", "size=64m") as place.root:
        place.fresh()
        place.paint(fault=Fault(kill_at=place.rng.randint(1, 200)))
        mount("-o", "remount,ro", place.root)
        ended = place.paint()
        place.said_well(ended, 2, 0)
        for command in ("status", "verify"):
            place.said_well(place.run(command, place.box), 0, 2)
        mount("-o", "remount,rw", place.root)
        place.finish()
    place.root = None


def failing_calls(place: Place) -> None:
    """From one call on, or at one, the system answers with an error, as a disk that goes does."""
    number = place.rng.choice(
        [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.ESTALE, errno.EMFILE]
    )
    for _ in range(place.rng.randint(1, 2)):
        at, lasting = place.rng.randint(1, 250), place.rng.random() < 0.7
        ended = place.paint(fault=Fault(fail_at=at, error=number, lasting=lasting))
        place.tell(f"{errno.errorcode[number]} at call {at}, lasting: {lasting}")
        place.said_well(ended, 0, 2, 75)
    place.finish()


def no_memory(place: Place) -> None:
    """Batches of more than so many tiles find no memory: half goes on; with none, status 2."""
    most = place.rng.choice([0, 1, 2, 3])
    batch = place.rng.choice([4, 6, 8])
    fault = Fault(first="tests.campaign.inside:starve", given=(most,))
    ended = place.paint("--batch", batch, fault=fault)
    place.tell(f"memory for {most} of {batch}")
    place.said_well(ended, 0 if most else 2)
    if most:
        place.right()
    place.finish()


def not_finite(place: Place) -> None:
    """A network makes NaN of one tile: it is named, nothing of it is recorded."""
    tile = place.rng.randint(0, 7)
    bad = place.rng.choice([np.nan, np.inf, -np.inf])
    fault = Fault(first="tests.campaign.inside:spoil", given=(tile, float(bad)))
    ended = place.paint(fault=fault)
    place.tell(f"{bad} in tile {tile}")
    place.said_well(ended, 2)
    if f"tile {tile} " not in ended.said:
        raise Bad("wrong", f"tile {tile} is not named: {ended.said[-800:]}")
    if tile in place.done():
        raise Bad("wrong", f"tile {tile} counts as painted")
    place.finish()


def jumping_clock(place: Place) -> None:
    """The clock of one run after the other jumps: before it starts, and while it paints."""
    library, told = place.folder / "clock.so", place.folder / "clock"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    about = dict(os.environ, LD_PRELOAD=str(library), CLOCK_FILE=str(told))
    for _ in range(place.rng.randint(1, 2)):
        clock = place.rng.choice(CLOCKS)
        told.write_text(f"{clock}\n")
        command = [sys.executable, "-m", "bigbox", "paint", str(place.box)]
        command += map(str, place.paint_options("--seconds-per-tile", "0.03"))
        process = subprocess.Popen(
            command, env=about, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        place.wait_for_records(lambda p=process: p.poll() is None, place.rng.choice([1, 300]))
        told.write_text(f"{place.rng.choice(CLOCKS)}\n")
        if place.rng.random() < 0.7:
            place.wait_for_records(lambda p=process: p.poll() is None, 200)
            process.kill()
        status, said = place.launched(process)
        place.tell(f"clock {clock}")
        if status not in (0, KILLED):
            raise Bad("crash", f"status {status}: {said[-1500:]}")
    place.finish()


# ---------------------------------------------------------------- called in the command's process


def starve(most: int) -> None:
    """Have painters find no memory for more than so many tiles."""
    _around(lambda real, batch: real(batch) if len(batch) <= most else _no_memory())


def _no_memory() -> Any:
    raise MemoryError("Unable to allocate 7.00 TiB")


def spoil(tile: int, value: float) -> None:
    """Have painters make something that is no number of one tile."""

    def painted(real: Any, batch: Any) -> Any:
        made = real(batch)
        made[batch.tiles == tile, 0, 2, 2, 2] = value
        return made

    _around(painted)


def _around(what: Any) -> None:
    from bigbox.testing.painters import TrivialPainter

    for name in ("paint", "advance"):
        real = getattr(TrivialPainter, name)

        def call(self: Any, batch: Any, real: Any = real) -> Any:
            return what(lambda part: real(self, part), batch)

        setattr(TrivialPainter, name, call)


KINDS = {
    "full disk: bytes or inodes, then room again": full_disk,
    "read-only, then writable again": read_only,
    "system calls that fail: ENOSPC, EROFS, EIO, ...": failing_calls,
    "no memory for a batch": no_memory,
    "NaN from a network": not_finite,
    "clock jumps": jumping_clock,
}
