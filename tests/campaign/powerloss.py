"""Losses of power under the command line: `python -m tests.campaign.powerloss --points 200`.

Each story is a real command, recorded below the C library (record.c): bigbox's own writes, and
those of zarr, tensorstore and HDF5 alike. It is cut at seeded points; what a disk may hold then is
written out (recorded.py), and the same command must go on from there to the bytes of an undisturbed
one, with nothing lost that was recorded as done. Half of the points are just behind a sync, where
most is at stake.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.store.records import RECORD, checks, made
from tests.boxes import scratch
from tests.campaign.place import LIMIT, RECIPES, Bad, Place, sources, values_of
from tests.campaign.recorded import Change, Disk, counts, read_log, tree_of, tree_of_node

# What was done to the box before, and the command: {box}, {grid}; and the ranks.
STORIES: dict[str, tuple[str, list[list[str]], list[str], int]] = {
    "paint, joint": ("joint", [], ["paint", "{box}"], 1),
    "paint, conditioned, 2 ranks": ("conditioned", [], ["paint", "{box}"], 2),
    "paint, stored latents": ("latents", [], ["paint", "{box}"], 1),
    "paint, haloes too": ("haloes", [], ["paint", "{box}"], 1),
    "paint --discard": ("joint", [["paint", "{box}", "--seed", "7"]],
                        ["paint", "{box}", "--discard"], 1),
    "clean": ("joint", [["paint", "{box}"]], ["clean", "{box}"], 1),
    "ingest": ("joint", [], ["ingest", "{grid}", "{box}", "--box-size", "4", "--redshift", "0"], 1),
    "export to HDF5": ("joint", [["paint", "{box}"]],
                       ["export", "{box}", "--to", "hdf5", "--out", "{out}"], 1),
}  # fmt: skip


def command_of(words: list[str], place: Place) -> list[str]:
    """The command line of a story."""
    out, grid = place.folder / "out.hdf5", place.source.parent / "density.npy"
    line = [word.format(box=place.box, grid=grid, out=out) for word in words]
    return line + ([*RECIPES[place.recipe][1], "--quiet"] if words[0] == "paint" else [])


def record(place: Place, words: list[str], ranks: int, library: Path) -> tuple[Disk, list[Change]]:
    """Run a command under the recorder; return the disk before it, and its changes."""
    log = place.folder.parent / f"{place.folder.name}.log"
    log.unlink(missing_ok=True)
    before = Disk(place.folder)
    about = dict(os.environ, LD_PRELOAD=str(library), RECORD_LOG=str(log))
    about["RECORD_ROOT"] = str(place.folder)
    command = [sys.executable, "-m", "bigbox", *command_of(words, place)]
    if ranks > 1:
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *command]
    subprocess.run(command, env=about, check=True, capture_output=True, timeout=LIMIT)
    changes = read_log(log)
    log.unlink()
    return before, changes


def recorded_tiles(disk: Disk, place: Place) -> set[int]:
    """Tiles whose records are durable: bytes synced, names synced, in the newest painting."""
    box = disk.top.durable.get("box.zarr")
    ledger = box and box.durable.get("ledger")
    records = ledger and ledger.durable.get("records")
    if not records or "run.json" not in ledger.durable:
        return set()
    base = json.loads(bytes(ledger.durable["run.json"].data) or b"{}").get("base", 0)
    found: set[int] = set()
    for name, node in records.durable.items():
        size = len(node.data) if not node.undo else min(u[2] for u in node.undo)
        rows = np.frombuffer(bytes(node.data[: size // RECORD.itemsize * RECORD.itemsize]), RECORD)
        if int(name[1:6]) >= base:
            good = (rows["check"] == checks(rows)) & (rows["kind"] == made(0))
            found |= set(rows["index"][good].astype(int).tolist())
    return found


def points_of(changes: list[Change], many: int, rng: random.Random) -> list[int]:
    """Where to cut: half of the points anywhere, half just after a sync, and the end."""
    syncs = [at for at, change in enumerate(changes, 1) if change.what == "sync"]
    found = [len(changes)]
    while len(found) < many:
        near = rng.choice(syncs) + rng.randint(0, 2) if syncs and rng.random() < 0.5 else 0
        found.append(min(near or rng.randint(1, len(changes)), len(changes)))
    return sorted(found[:many])


def after_cut(place: Place, words: list[str], safe: set[int]) -> None:
    """The same command goes on from what is left, and nothing is lost."""
    name = words[0]
    if name == "ingest":
        again_ingest(place, words)
        return
    look = place.run("status", place.box)
    place.said_well(look, 0)
    check = place.run("verify", place.box)
    if check.status != 0:
        raise Bad("wrong", f"verify after the loss: {check.said[-1500:]}")
    if lost := safe - place.done():
        raise Bad("lost", f"tiles {sorted(lost)} were recorded and synced")
    ended = place.run(*command_of(words, place))
    place.said_well(ended, 0)
    if name == "export":
        same_export(place)
    if name == "clean":
        place.right()
        return
    place.finish()


def again_ingest(place: Place, words: list[str]) -> None:
    """A box is whole, or is none, or says that it must be made again; then it is."""
    there = place.box.exists() and place.run("verify", place.box).status == 0
    if there:
        if values_of(place.box, "dm") != place.truth["dm"]:
            raise Bad("wrong", "dm that verify finds intact has other values")
        return
    ended = place.run(*command_of(words, place))
    place.said_well(ended, 0, 2)
    if ended.status == 2:
        shutil.rmtree(place.box)
        place.said_well(place.run(*command_of(words, place)), 0)
    if values_of(place.box, "dm") != place.truth["dm"]:
        raise Bad("wrong", "dm has other values")


def same_export(place: Place) -> None:
    """The exported file has the values of the box."""
    import h5py

    with h5py.File(place.folder / "out.hdf5", "r") as file:
        if file["tb"][...].tobytes() != place.truth["tb"]:
            raise Bad("wrong", "the exported tb has other values")


def story(
    name: str, many: int, seed: int, folder: Path, found: dict[str, Any], library: Path
) -> list[tuple[str, str]]:
    """Cut one story at so many points: return what was bad of each, and where."""
    recipe, earlier, words, ranks = STORIES[name]
    source, truth = found[recipe]
    rng = random.Random(f"{seed} {name}")
    place = Place(folder / "recorded", recipe, rng, truth, source)
    place.folder.mkdir()
    if words[0] != "ingest":
        place.fresh()
    for one in earlier:
        ended = place.run(*command_of(one, place))
        assert ended.status == 0, ended.said
    disk, changes = record(place, words, ranks, library)
    print(f"{name}: {counts(changes)}", flush=True)
    results, at, actual = [], 0, tree_of(place.folder)
    for point in points_of(changes, many, rng):
        while at < point:
            disk.apply(changes[at])
            at += 1
        if at == len(changes):  # the recording is whole, or nothing follows from it
            assert dict(tree_of_node(disk.top)) == actual, "the recorder has missed changes"
        cut = Place(folder / "cut", recipe, rng, truth, source)
        shutil.rmtree(cut.folder, ignore_errors=True)
        disk.after_loss(rng).write(cut.folder)
        bad = ""
        try:
            given_up = "--discard" in words
            after_cut(cut, words, set() if given_up else recorded_tiles(disk, cut))
        except Bad as error:
            bad = error.what
            print(f"{name}, point {point} of {len(changes)}: {bad}\n  {error}", flush=True)
        results.append((bad, f"{name} {point}"))
    for left in (place.folder, folder / "cut"):
        shutil.rmtree(left, ignore_errors=True)
    return results


def main() -> int:
    """Cut all stories; 1 where anything was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=208, help="over all stories")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="stories that contain this")
    options = parser.parse_args()
    names = [name for name in STORIES if options.only in name]
    rows, bad, began = [], Counter[str](), time.monotonic()
    with scratch() as folder:
        library = folder / "record.so"
        source = Path(__file__).with_name("record.c")
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
        found = sources(folder)
        for name in names:
            many = -(-options.points // len(names))
            results = story(name, many, options.seed, folder, found, library)
            each = Counter(what for what, _ in results if what)
            bad += each
            cells = [str(each[kind]) for kind in ("lost", "wrong", "hang", "crash")]
            rows.append(f"| {name} | {len(results)} | " + " | ".join(cells) + " |")
    print("| command | cut at | lost | wrong | hang | crash |\n|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"{time.monotonic() - began:.0f} s")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
