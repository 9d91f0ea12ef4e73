"""Kill real commands exactly before a system call; the same command again must set all right.

Every call of a new halo run and of a discard may be the last. They are tried in a seeded order for
as long as the budget lasts (BIGBOX_KILL_SECONDS); the seed is printed (BIGBOX_SEED).
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import zarr

from tests.boxes import new_box
from tests.faults.commands import KILLED, Commands

# For each story. On a busy machine a point takes ten seconds, else two.
SECONDS = float(os.environ.get("BIGBOX_KILL_SECONDS", "8"))
# Calls in which a run begins: every other point is one of these.
BEGINS = 100
OLD = ("--painter", "trivial-halo", "--halo-stride", "32", "--quiet")
NEW = ("--painter", "trivial-halo", "--halo-stride", "64", "--quiet")
STORIES = {  # what was painted before, and the command that is killed
    "halo": ((), NEW),
    "discard halo": (OLD, (*NEW, "--discard-halo")),
    "discard": (OLD, (*OLD, "--seed", "5", "--discard")),
    "latents": ((), ("--painter", "trivial", "--overlap-method", "latents", "--steps", "2")),
    "drop latents": ((), ("--painter", "trivial", "--drop-latents", "--quiet")),
}


def bytes_of(box: Path) -> dict[str, bytes]:
    names = [name for name in ("halo", "tb") if (box / name).exists()]
    return {name: zarr.open_array(box / name, mode="r")[...].tobytes() for name in names}


def shuffled(rng: random.Random, points: list[int]) -> list[int]:
    return rng.sample(points, len(points))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STORIES)
def test_any_call_may_be_the_last(place: Path, name: str) -> None:
    before, command = STORIES[name]
    source, _ = new_box(place / "source", (64, 64, 64), seed=3)
    box, undisturbed = place / "box.zarr", place / "whole.zarr"
    commands = Commands(box)
    if before:
        assert commands.run("paint", source, *before).status == 0
    shutil.copytree(source, undisturbed)
    assert Commands(undisturbed).run("paint", undisturbed, *command).status == 0
    truth, old = bytes_of(undisturbed), bytes_of(source)

    shutil.copytree(source, box)
    calls = commands.run("paint", box, *command).calls
    assert calls > BEGINS
    seed = int(os.environ.get("BIGBOX_SEED", "1"))
    rng = random.Random(seed)
    early, late = list(range(1, BEGINS + 1)), list(range(BEGINS + 1, calls + 1))
    points = [
        at for pair in zip(shuffled(rng, early), shuffled(rng, late), strict=False) for at in pair
    ]
    print(f"\n{name}: {calls} calls, BIGBOX_SEED={seed}")
    tried, began = 0, time.monotonic()
    for at in points:
        if time.monotonic() - began > SECONDS:
            break
        shutil.rmtree(box)
        shutil.copytree(source, box)
        where = f"BIGBOX_SEED={seed}: killed before call {at} of {calls}"
        if commands.run("paint", box, *command, kill_at=at).status != KILLED:
            continue  # the number of calls depends on how the threads took turns
        tried += 1
        if rng.random() < 0.3:
            commands.run("paint", box, *command, kill_at=rng.randint(1, calls))
        if rng.random() < 0.3:  # without the option: it goes on, or is refused and nothing has gone
            ended = commands.run("paint", box, *(o for o in command if not o.startswith("--disc")))
            if ended.status == 2 and before:
                assert bytes_of(box).get("halo") == old["halo"], f"{where}: {ended.said}"
            else:
                assert (ended.status, bytes_of(box)) == (0, truth), f"{where}: {ended.said}"
        assert commands.run("status", box).status == 0, where
        ended = commands.run("paint", box, *command)
        assert ended.status == 0, f"{where}: {ended.said}"
        assert bytes_of(box) == truth, where
        ended = commands.run("verify", box)
        assert ended.status == 0, f"{where}: {ended.said}"
    print(f"{tried} of {calls} calls tried")
    assert tried
