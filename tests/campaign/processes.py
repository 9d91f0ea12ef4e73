"""Signals: kills, storms, stops, and a second run meanwhile."""

from __future__ import annotations

import shutil
import signal
import time

import psutil

from tests.campaign.place import Bad, Place, family, ranks_of, to_all
from tests.faults.commands import KILLED, Fault

SLOW = ("--seconds-per-tile", "0.05")


def killed_at_any_call(place: Place) -> None:
    """One process, killed before any of its system calls, up to three times; then finished."""
    calls = 400 if place.recipe != "latents" else 900
    for _ in range(place.rng.randint(1, 3)):
        at = place.rng.randint(1, place.rng.choice([90, calls]))
        ended = place.paint(fault=Fault(kill_at=at))
        place.tell(f"to be killed at call {at}")
        if ended.status not in (0, KILLED):
            raise Bad("crash", f"status {ended.status}: {ended.said[-1500:]}")
    place.finish()


def killed_ranks(place: Place) -> None:
    """A rank, all ranks, or the launcher of 2 or 3 ranks are killed with -9."""
    ranks = place.rng.randint(2, 3)
    process = place.launch(ranks, *SLOW)
    grown = place.rng.choice([1, 100, 400, 1000])
    place.wait_for_records(lambda: process.poll() is None, grown)
    time.sleep(place.rng.uniform(0, 0.1))
    before, whom = place.done() if grown > 1 else set(), place.rng.choice(["rank", "all", "mpirun"])
    everybody = family(process.pid)
    found = ranks_of(process.pid)
    if whom == "rank" and found:
        to_all([place.rng.choice(found)])
    elif whom == "mpirun" and place.rng.random() < 0.7:
        to_all([psutil.Process(process.pid)] if process.poll() is None else [])
    else:
        to_all(found)
    place.tell(f"killed: {whom} when the ledger had grown by {grown}")
    place.launched(process)
    if place.rng.random() < 0.5:  # the next one starts while ranks may still be there
        again = place.launch(place.rng.randint(1, 3), *SLOW)
        status, said = place.launched(again)
        if status not in (0, 2, 75):
            raise Bad("crash", f"the next run: {status}: {said[-1500:]}")
    to_all(everybody)
    if not before <= place.done():
        raise Bad("lost", f"tiles {sorted(before - place.done())} were done before the kill")
    place.finish()


def storm_of_signals(place: Place) -> None:
    """SIGTERM, SIGUSR2 and SIGINT rain on all ranks for a while."""
    ranks = place.rng.randint(1, 2)
    process = place.launch(ranks, *SLOW)
    place.wait_for_records(lambda: process.poll() is None, place.rng.choice([1, 100, 400]))
    for _ in range(place.rng.randint(2, 12)):
        number = place.rng.choice([signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
        to_all(ranks_of(process.pid), number)
        time.sleep(place.rng.uniform(0, 0.3))
    status, said = place.launched(process)
    place.tell(f"a storm: {status}")
    if "Traceback" in said:
        raise Bad("crash", said[-1500:])
    place.finish()


def stopped_rank(place: Place) -> None:
    """One of two ranks sleeps (SIGSTOP); another run is refused meanwhile; then it wakes."""
    process = place.launch(2, *SLOW)
    place.wait_for_records(lambda: process.poll() is None, place.rng.choice([1, 300]))
    sleeper = place.rng.choice(ranks_of(process.pid) or [psutil.Process()])
    if sleeper.pid == psutil.Process().pid:
        place.launched(process)
        return place.finish()
    to_all([sleeper], signal.SIGSTOP)
    other = place.paint()
    place.tell(f"rank {sleeper.pid} slept, another run: {other.status}")
    place.said_well(other, 2, 0) if process.poll() is not None else place.said_well(other, 2)
    to_all([sleeper], place.rng.choice([signal.SIGCONT, signal.SIGKILL]))
    place.launched(process)
    return place.finish()


def overtaken_run(place: Place) -> None:
    """A whole run sleeps, its lock is lost, another takes over; then the first one wakes."""
    first = place.start("--seconds-per-tile", "0.03")
    place.wait_for_records(lambda: first.process.exitcode is None, place.rng.choice([1, 100, 500]))
    first.signal(signal.SIGSTOP)
    for lock in place.box.glob("**/lease.lock"):
        lock.unlink(missing_ok=True)
    second = place.paint()
    place.said_well(second, 0, 2)
    first.signal(signal.SIGCONT)
    ended = place.end(first)
    place.tell(f"overtaken: {ended.status}")
    place.said_well(ended, 0, 2, 75)
    place.finish()


def run_while_another_sleeps(place: Place) -> None:
    """A whole run sleeps with its lease: another is refused; the first is killed or goes on."""
    first = place.start("--seconds-per-tile", "0.03")
    place.wait_for_records(lambda: first.process.exitcode is None, place.rng.choice([1, 300]))
    first.signal(signal.SIGSTOP)
    alive = first.process.exitcode is None
    second = place.paint()
    place.said_well(second, *((2,) if alive else (0, 2)))
    first.signal(place.rng.choice([signal.SIGCONT, signal.SIGKILL]))
    first.signal(signal.SIGCONT)
    ended = place.end(first)
    place.tell(f"the sleeper: {ended.status}")
    place.finish()


def killed_ingest(place: Place) -> None:
    """`bigbox ingest` is killed at any call; again, it makes the same box."""
    shutil.rmtree(place.box)
    grid = place.source.parent / "density.npy"
    voxels = round((len(place.truth["dm"]) // 4) ** (1 / 3))
    size = ("--box-size", str(voxels / 8), "--redshift", "0")
    command = ("ingest", grid, place.box, *size)
    for _ in range(place.rng.randint(1, 2)):
        at = place.rng.randint(1, 40)
        ended = place.end(place.commands.start(*command, fault=Fault(kill_at=at)))
        place.tell(f"ingest, to be killed at call {at}: {ended.status}")
        if ended.status not in (0, 2, KILLED):
            raise Bad("crash", ended.said[-1500:])
    ended = place.run(*command)
    place.said_well(ended, 0, 2)
    if ended.status == 2:  # a box is there: whole, or it says that it must go
        if place.run("verify", place.box).status != 0:
            shutil.rmtree(place.box)
            ended = place.run(*command)
            place.said_well(ended, 0)
    place.finish()


KINDS = {
    "kill -9 at any system call": killed_at_any_call,
    "kill -9 of ranks and launchers": killed_ranks,
    "storms of SIGTERM, SIGUSR2, SIGINT": storm_of_signals,
    "SIGSTOP of a rank, another run meanwhile": stopped_rank,
    "SIGSTOP of a run that is overtaken": overtaken_run,
    "SIGSTOP of a run, another meanwhile": run_while_another_sleeps,
    "kill -9 of ingest": killed_ingest,
}
