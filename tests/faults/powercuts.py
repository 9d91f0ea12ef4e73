"""Cut the power of an ext4 exactly before a system call; the same command must set all right.

    sudo env PATH=$PATH python -m tests.faults.powercuts [--cuts 20] [--seed S]

The file system is an image in a file, mounted by a loop device. It is shut down without a flush, as
a loss of power does it, mounted again (its journal is played back), and looked at. Needs root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.boxes import new_box, scratch
from tests.faults.commands import KILLED, Commands, Fault
from tests.faults.test_kills import NEW, OLD, bytes_of
from tests.faults.test_kills_of_makers import make_source, values_of

SIZE = 96 << 20
INGEST = "ingest grid"
# What was painted before, and the command whose power is cut.
PAINTINGS = {
    "halo": ((), NEW),
    "discard halo": (OLD, (*NEW, "--discard-halo")),
    "latents": ((), ("--painter", "trivial", "--overlap-method", "latents", "--steps", "2")),
    "drop latents": ((), ("--painter", "trivial", "--drop-latents", "--quiet")),
}


def shell(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


@contextmanager
def mounted(image: Path, on: Path) -> Iterator[None]:
    shell("mount", "-o", "loop", image, on)
    try:
        yield
    finally:
        shell("umount", on)


def cut_once(rng: random.Random, place: Path) -> tuple[str, str]:
    """Cut the power of a command; return which it was and when, and what is wrong after, or ""."""
    name = rng.choice([*PAINTINGS, INGEST])
    image, disk = place / "disk.img", place / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(SIZE)
    shell("mkfs.ext4", "-q", "-F", image)
    before, options = PAINTINGS.get(name, ((), ()))
    make_source(place / "source")
    source, _ = new_box(place / "source", (64, 64, 64), seed=3)
    for folder in (place / "whole", disk):
        folder.mkdir(exist_ok=True)
    plain = Commands(place)
    if before:
        assert plain.run("paint", source, *before).status == 0

    def command(folder: Path) -> list[object]:
        if name == INGEST:
            return ["ingest", place / "source" / "a.npy", folder / "a.zarr", "--box-size", "5"]
        return ["paint", folder / "box.zarr", *options]

    def made(folder: Path) -> dict[str, bytes]:
        return values_of(folder / "a.zarr") if name == INGEST else bytes_of(folder / "box.zarr")

    shutil.copytree(source, place / "whole" / "box.zarr")
    counted = Commands(place / "whole").run(*command(place / "whole"))
    assert counted.status == 0, counted.said
    truth = made(place / "whole")
    on = Commands(disk, disk.parent)
    with mounted(image, disk):
        shutil.copytree(source, disk / "box.zarr")
        os.sync()
        at = rng.randint(1, counted.calls)
        ended = on.run(*command(disk), fault=Fault(kill_at=at, power=disk))
    where = f"{name}, before call {at} of {counted.calls}"
    if ended.status != KILLED:
        where += " (it ended before)"
    with mounted(image, disk):
        looked = on.run("status", disk / "box.zarr")
        again = on.run(*command(disk))
        there = name == INGEST and "exists already" in again.said
        if looked.status:
            return where, f"status: {looked.said}"
        if again.status and not there:
            return where, f"the same command: {again.said}"
        if made(disk) != truth:
            return where, "other bytes"
        verified = on.run("verify", disk / ("a.zarr" if name == INGEST else "box.zarr"))
        return where, f"verify: {verified.said}" if verified.status else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("BIGBOX_SEED", "1")))
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("powercuts: mounts a file system: needs root")
    rng, bad = random.Random(options.seed), 0
    for cut in range(options.cuts):
        with scratch() as place:
            where, wrong = cut_once(rng, place)
        print(f"{cut + 1:3} {where}: {wrong or 'right'}", flush=True)
        bad += bool(wrong)
    print(f"{options.cuts} cuts, {bad} end wrong, seed {options.seed}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
