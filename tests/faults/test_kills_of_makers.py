"""Kill what makes a new file or folder before a system call; the same command sets all right.

Every call of an ingest, a simulation and an export may be the last. Some are tried, the same ones
in every run; BIGBOX_KILL_POINTS tells how many, BIGBOX_SEED which.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from bigbox.store.box import Box
from tests import snapshots
from tests.faults.commands import KILLED, Commands

POINTS = int(os.environ.get("BIGBOX_KILL_POINTS", "4"))  # of each story
SECONDS = 300  # that a command may take on a busy machine


def values_of(path: Path) -> dict[str, bytes]:
    """What a file or folder holds, where times and compression do not matter."""
    if path.suffix == ".npy":
        return {"": np.load(path).tobytes()}
    if path.suffix == ".hdf5":
        with h5py.File(path) as file:
            found: dict[str, bytes] = {}
            file.visititems(lambda name, it: found.update({name: it[()].tobytes()})
                            if isinstance(it, h5py.Dataset) else None)  # fmt: skip
            return found
    if path.name.endswith(".ome.zarr"):
        return {
            str(p.relative_to(path)): p.read_bytes() for p in path.rglob("c/**/*") if p.is_file()
        }
    if path.suffix == ".zarr":
        box = Box.open(path)
        return {name: box.array(name)[...].tobytes() for name in box.names()}
    return {
        f"{one.relative_to(path)} {name}": values
        for one in sorted(path.rglob("*.hdf5"))
        for name, values in values_of(one).items()
    }


@dataclass(frozen=True)
class Story:
    """A command that makes `made`, from what stands in SOURCE (a folder) or BOX (painted)."""

    command: str
    made: str


STORIES = {
    "ingest grid": Story("ingest SOURCE/a.npy OUT/a.zarr --box-size 5", "a.zarr"),
    "ingest snapshot": Story(
        "ingest SOURCE/snapshot OUT/a.zarr --grid 16 --halos SOURCE/groups --hi-halo", "a.zarr"
    ),
    "ingest catalogue": Story(
        "ingest --grid 16 --halos SOURCE/groups -- OUT/a.zarr", "a.zarr"
    ),
    "simulate": Story("simulate OUT/sim --grid 16 --box-size 3 --steps 3 --seed 1", "sim"),
    "export npy": Story("export BOX --to npy --out OUT/a.npy", "a.npy"),
    "export hdf5": Story("export BOX --to hdf5 --array dm tb --out OUT/a.hdf5", "a.hdf5"),
    "export ome-zarr": Story("export BOX --to ome-zarr --out OUT/a.ome.zarr", "a.ome.zarr"),
}  # fmt: skip


def make_source(folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "a.npy", np.random.default_rng(1).lognormal(size=(34, 34, 34)))
    places = snapshots.clustered(16**3)
    snapshots.gadget(folder / "snapshot", places, files=2)
    snapshots.catalogue(folder / "groups", places[:8], np.full(8, 1e11))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", STORIES)
def test_any_call_of_a_maker_may_be_the_last(place: Path, painted: Path, name: str) -> None:
    story, out, seed = STORIES[name], place / "out", int(os.environ.get("BIGBOX_SEED", "1"))
    make_source(place / "source")
    words = story.command.replace("OUT", str(out)).replace("BOX", str(painted))
    command = words.replace("SOURCE", str(place / "source")).split()
    out.mkdir()
    commands = Commands(out)
    ended = commands.run(*command, timeout=SECONDS)
    assert ended.status == 0, ended.said
    truth = values_of(out / story.made)
    assert truth and [path.name for path in out.iterdir()] == [story.made]
    rng = random.Random(f"{seed} {name}")
    # The last calls are those that give it its name: one of them is always tried.
    points = rng.sample(range(1, ended.calls + 1), min(POINTS, ended.calls))
    points = list(dict.fromkeys([ended.calls - 1, *points]))
    tried = 0
    for at in points:
        shutil.rmtree(out)
        out.mkdir()
        if commands.run(*command, kill_at=at, timeout=SECONDS).status != KILLED:
            continue  # the number of calls depends on how the threads took turns
        tried += 1
        where = f"BIGBOX_SEED={seed}: {name}: killed before call {at} of {ended.calls}"
        if rng.random() < 0.3:
            commands.run(*command, kill_at=rng.randint(1, ended.calls), timeout=SECONDS)
        again = commands.run(*command, timeout=SECONDS)
        if (again.status, "exists already" in again.said) != (2, True):
            assert again.status == 0, f"{where}: {again.said}"
        assert values_of(out / story.made) == truth, where
        assert [path.name for path in out.iterdir()] == [story.made], where
    print(f"\n{name}: {tried} of {ended.calls} calls tried, BIGBOX_SEED={seed}")
    assert tried
