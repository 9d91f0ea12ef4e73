"""Damage every file that bigbox reads, one at a time, and see what is said.

    python -m tests.faults.mutations [--each N] [--seed S] [--only NAME ..]

A file is cut, flipped, zeroed, emptied, lengthened, lost, or replaced by a folder or a link. Then
the commands that read it end with a known status, in minutes at most. Where they refuse it they say
so in one line; where they do not, what they make is what they make of the undamaged file. A file
without checksums may hold other numbers after a flip, and nobody can tell: there the last is not
asked (`sealed`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.store.box import Box
from tests import catalogues, grids, models, small_training, snapshots
from tests.boxes import new_box, scratch
from tests.faults.damaged import HALOES, N

SECONDS = 240  # of a busy machine, that a command may take
ALIKE = 2  # files of one kind in one folder that are tried
BESIDE = "made again|^bigbox: (warning|note): "  # lines that refuse nothing
EITHER = ("flip", "zeros")  # ways that leave a file's length and name as they are

Made = bytes | None
Step = tuple[str, int, str, Made]
"""What was done, its status, what it said, and what it made where that is to be compared."""


def told(*command: object) -> tuple[str, int, str]:
    """Run a command here; return its name, its status and its standard error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main([*map(str, command)])
    return str(command[0]), status, said.getvalue()


def array(box: Path, name: str) -> bytes:
    return np.asarray(Box.open(box).array(name)[...]).tobytes()


# ---------------------------------------------------------------- what is damaged


def make_box(folder: Path) -> None:
    path, _ = new_box(folder, (N, N, N), seed=3)
    assert main(["paint", str(path), *HALOES]) == 0


def use_box(folder: Path) -> Iterator[Step]:
    box, out = folder / "box.zarr", folder / "out.npy"
    for command in (("status", box), ("verify", box, "--dry-run")):
        yield *told(*command), None
    for name in ("tb", "dm"):
        step = told("export", box, "--to", "npy", "--array", name, "--out", out)
        yield *step, out.read_bytes() if step[1] == 0 else None
        out.unlink(missing_ok=True)
    step = told("paint", box, *HALOES)
    yield *step, None
    if step[1] == 0:
        verified = told("verify", box)
        yield *verified, array(box, "tb") if verified[1] == 0 else None


def make_model(folder: Path) -> None:
    new_box(folder, (36, 36, 36), seed=3)
    models.write_model(folder / "model")


def use_model(folder: Path) -> Iterator[Step]:
    box, model = folder / "box.zarr", folder / "model"
    yield *told("models", model), None
    command = ("--model", model, "--force", "--tile", "20", "--steps", "1", "--quiet")
    step = told("paint", box, *command)
    yield *step, array(box, "tb") if step[1] == 0 else None


def sealed_hdf5(path: Path) -> None:
    """Write an HDF5 file again so that all in it has checksums: Fletcher's, and its metadata's."""
    old = path.with_suffix(".old")
    path.rename(old)
    with h5py.File(old) as source, h5py.File(path, "w", libver="latest") as file:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                more = {"chunks": item.shape, "fletcher32": True} if item.size else {}
                new = file.create_dataset(name, data=item[...], **more)
            else:
                new = file.create_group(name)
            new.attrs.update(item.attrs)

        source.visititems(copy)
    old.unlink()


def make_snapshot(folder: Path) -> None:
    places = snapshots.clustered(16**3)
    masses = np.full(8, 1e11)
    for path in (
        *snapshots.gadget(folder / "snapshot", places, files=2, style="arepo"),
        *snapshots.catalogue(folder / "groups", places[:8], masses, files=2),
    ):
        sealed_hdf5(path)


def use_snapshot(folder: Path) -> Iterator[Step]:
    box = folder / "box.zarr"
    command = ("ingest", folder / "snapshot", box, "--grid", "16", "--halos", folder / "groups")
    step = told(*command)
    yield *step, array(box, "dm") + array(box, "halo") if step[1] == 0 else None
    assert step[1] == 0 or not list(folder.glob("*box.zarr*")), "left behind"


def make_plain(folder: Path) -> None:
    """As most codes write them: nothing has a checksum."""
    places = snapshots.clustered(16**3)
    snapshots.gadget(folder / "snapshot", places, files=2)
    snapshots.catalogue(folder / "groups", places[:8], np.full(8, 1e11))


def make_text(folder: Path) -> None:
    rng = np.random.default_rng(1)
    places, masses = rng.uniform(0, catalogues.BOX, (50, 3)), np.full(50, 1e11)
    catalogues.rockstar(folder / "out_33.list", places, masses)


def use_text(folder: Path) -> Iterator[Step]:
    box = folder / "box.zarr"
    step = told("ingest", "--halos", folder / "out_33.list", "--grid", "16", "--", box)
    yield *step, array(box, "halo") if step[1] == 0 else None


def make_grids(folder: Path) -> None:
    rho = grids.grid()
    np.save(folder / "rho.npy", rho)
    with h5py.File(folder / "rho.hdf5", "w", libver="latest") as file:
        file.create_dataset("rho", data=rho, chunks=(16, 16, 16), fletcher32=True)
    how = {"chunks": (16, 16, 16), "shards": (32, 32, 32), "compressors": Crc32cCodec()}
    zarr.create_array(folder / "rho.zarr", data=rho, **how)


def use_grids(folder: Path) -> Iterator[Step]:
    for source in ("rho.npy", "rho.hdf5", "rho.zarr"):
        box = folder / "box.zarr"
        step = told("ingest", folder / source, box, "--box-size", "25")
        yield *step, array(box, "dm") if step[1] == 0 else None
        shutil.rmtree(box, ignore_errors=True)


def make_checkpoint(folder: Path) -> None:
    small_training.line_trainer(folder, steps=20).run()


def use_checkpoint(folder: Path) -> Iterator[Step]:
    """Train from the checkpoint on, as `bigbox train` does."""
    said = io.StringIO()
    trainer = small_training.line_trainer(folder, steps=20)
    try:
        with contextlib.redirect_stderr(said):
            trainer.run()
    except BadInput as error:
        yield "train", error.exit_status, f"bigbox: {error}\n", None
        return
    weights = trainer.task.state_dict()["network.weight"].numpy().tobytes()
    yield "train", 0, "", weights


@dataclass(frozen=True)
class Subject:
    """What is damaged, how it is used, and which files have checksums of all that is in them."""

    make: Callable[[Path], None]
    use: Callable[[Path], Iterator[Step]]
    sealed: Callable[[Path], bool]
    among: str  # of these files, a pattern


SUBJECTS = {
    # Metadata of arrays is no secret: where it was changed to other metadata that is right too, as
    # an attribute's text, the values are still those of the shards.
    "box": Subject(make_box, use_box, lambda path: True, "box.zarr/**/*"),
    "model": Subject(make_model, use_model, lambda path: True, "model/*"),
    "snapshot": Subject(make_snapshot, use_snapshot, lambda path: True, "*/*"),
    "plain snapshot": Subject(make_plain, use_snapshot, lambda path: False, "*/*"),
    "text catalogue": Subject(make_text, use_text, lambda path: False, "*"),
    "grid": Subject(
        make_grids, use_grids, lambda path: path.suffix not in (".npy", ".json"), "**/*"
    ),
    "checkpoint": Subject(make_checkpoint, use_checkpoint, lambda path: True, "*.pt"),
}


# ---------------------------------------------------------------- how


def ways(size: int, rng: random.Random) -> list[str]:
    """Return the names of the ways to damage a file of so many bytes."""
    always = ["empty", "lost", "folder", "link to nothing", "link to itself", "longer"]
    if not size:
        return always
    at = [rng.randrange(min(size, 48)), size - 1 - rng.randrange(min(size, 24))]
    at += [rng.randrange(size) for _ in range(4)]
    return [*always, "cut by half", "cut by one", "zeros", *(f"flip at {one}" for one in at)]


def damage(path: Path, way: str) -> None:
    """Damage a file."""
    raw = bytearray(path.read_bytes())
    how, _, at = way.partition(" at ")
    path.unlink()
    if how == "flip":
        raw[int(at)] ^= 1 << int(at) % 8
        path.write_bytes(raw)
    elif how == "folder":
        path.mkdir()
    elif how.startswith("link"):
        path.symlink_to("/nowhere/x" if how == "link to nothing" else path.name)
    elif how != "lost":
        half = len(raw) // 2
        path.write_bytes({"empty": b"", "longer": raw + bytes(100), "cut by half": raw[:half],
                          "cut by one": raw[:-1], "zeros": bytes(len(raw))}[how])  # fmt: skip


def files(folder: Path, among: str) -> list[Path]:
    """Return some files of each kind in each folder, relative to it."""
    seen: dict[tuple[Path, str], int] = {}
    chosen = []
    for path in sorted(one for one in folder.glob(among) if one.is_file()):
        kind = (path.parent, path.suffix if path.suffix in (".json", ".bin") else "")
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= ALIKE or path.suffix == ".json":
            chosen.append(path.relative_to(folder))
    return chosen


def fault(subject: Subject, folder: Path, truth: list[Made], compare: bool) -> str:
    """Use what is damaged; return what is wrong with how that ends, or ""."""

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError(f"at work for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    name = "first command"
    try:
        signal.alarm(SECONDS)
        for (name, status, said, made), right in zip(subject.use(folder), truth, strict=False):
            signal.alarm(SECONDS)
            lines = said.splitlines()
            if status not in (0, 2, 75) or "Traceback" in said or "\x1b" in said:
                return f"{name}: status {status}: {said[-300:]}"
            ours = all(line.startswith("bigbox: ") for line in lines)
            # Beside what is told of a painting that goes on, or of what was read until then.
            refusals = [line for line in lines if not re.search(BESIDE, line)]
            if status and not (ours and (len(refusals) == 1 or name == "verify")):
                return f"{name}: status {status} in {len(lines)} lines: {said[-300:]}"
            if compare and status == 0 and made != right:
                return f"{name}: ends well, and has other values"
    except (Exception, SystemExit) as error:
        return f"{name}, or what follows: {type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ""


def campaign(
    name: str, each: int, seed: int, place: Path, most: int | None = None
) -> tuple[int, list[str]]:
    """Damage the files of a subject, each in so many ways; return how many, and what went wrong.

    most: changes that are made, chosen among all of them.
    """
    subject, rng = SUBJECTS[name], random.Random(f"{seed} {name}")
    whole, work = place / "whole", place / "work"
    whole.mkdir(parents=True)
    subject.make(whole)
    shutil.copytree(whole, work)
    truth = [made for *_, made in subject.use(work)]
    changes, wrong = [], []
    for path in files(whole, subject.among):
        known = ways((whole / path).stat().st_size, rng)
        changes += [(path, way) for way in rng.sample(known, min(each, len(known)))]
    changes = changes if most is None else rng.sample(changes, min(most, len(changes)))
    for path, way in changes:
        shutil.rmtree(work)
        shutil.copytree(whole, work)
        damage(work / path, way)
        compare = subject.sealed(path) or not way.startswith(EITHER)
        if found := fault(subject, work, truth, compare):
            wrong.append(f"{name}: {path}: {way}: {found}")
            print(wrong[-1], flush=True)
    shutil.rmtree(place)
    return len(changes), wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=100, help="ways for a file (all)")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("BIGBOX_SEED", "1")))
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=[*SUBJECTS])
    options = parser.parse_args()
    total, bad, began = 0, 0, time.monotonic()
    for one in options.only:
        with scratch() as folder:
            tried, wrong = campaign(one, options.each, options.seed, folder / "campaign")
        print(f"{one}: {tried} changes, {len(wrong)} end wrong", flush=True)
        total, bad = total + tried, bad + len(wrong)
    print(
        f"{total} changes, {bad} end wrong, {time.monotonic() - began:.0f} s, seed {options.seed}"
    )
    sys.exit(bool(bad))
