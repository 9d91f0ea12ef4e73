"""A small box, what it must become undisturbed, the commands that make it, and the judgement."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import zarr

from bigbox.store.box import Box
from bigbox.store.recorded import haloes_of, painting_of
from tests.faults.commands import Commands, Ended, Fault, Started

LIMIT = 240.0  # seconds after which a command hangs
# What is painted: voxels of the box, and the options.
RECIPES: dict[str, tuple[int, tuple[str, ...]]] = {
    "joint": (32, ("--painter", "trivial", "--tile", "16", "--steps", "3")),
    "conditioned": (
        32,
        ("--painter", "trivial", "--overlap-method", "conditioned", "--tile", "16"),
    ),
    "latents": (
        32,
        ("--painter", "trivial", "--overlap-method", "latents", "--tile", "16", "--steps", "2"),
    ),
    "haloes": (
        64,
        ("--painter", "trivial-halo", "--halo-stride", "64", "--tile", "32", "--steps", "2"),
    ),
}


class Bad(AssertionError):
    """A scenario that ended as none may: `what` is lost, wrong, hang, crash or refused."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


@dataclass
class Place:
    """Where a scenario happens: a fresh box, and what it must become."""

    folder: Path
    recipe: str
    rng: random.Random
    truth: dict[str, bytes]
    source: Path
    story: list[str] = field(default_factory=list)
    root: Path | None = None  # another place for the box: a mount

    def __post_init__(self) -> None:
        self.commands = Commands(self.box, self.folder)

    @property
    def box(self) -> Path:
        """The box."""
        return (self.root or self.folder) / "box.zarr"

    def fresh(self) -> None:
        """Put an ingested box there."""
        shutil.rmtree(self.box, ignore_errors=True)
        shutil.copytree(self.source, self.box)
        self.commands = Commands(self.box, self.folder)

    def tell(self, what: str) -> None:
        """Note what happened."""
        self.story.append(what)

    # ------------------------------------------------------------------ commands

    def paint_options(self, *more: object) -> list[object]:
        """The options of the painting."""
        batch = self.rng.choice([1, 2, 4])
        return [*RECIPES[self.recipe][1], "--quiet", "--batch", batch, *more]

    def start(self, *more: object, fault: Fault = Fault()) -> Started:  # noqa: B008
        """Start painting in one process."""
        return self.commands.start("paint", self.box, *self.paint_options(*more), fault=fault)

    def paint(self, *more: object, fault: Fault = Fault()) -> Ended:  # noqa: B008
        """Paint in one process, to its end."""
        ended = self.end(self.start(*more, fault=fault))
        self.tell(f"paint: {ended.status}")
        return ended

    def run(self, *arguments: object) -> Ended:
        """Run another command to its end."""
        ended = self.end(self.commands.start(*arguments))
        self.tell(f"{arguments[0]}: {ended.status}")
        return ended

    def end(self, started: Started) -> Ended:
        """Wait for a command's end."""
        try:
            return started.ended(LIMIT)
        except AssertionError as error:
            raise Bad("hang", str(error)) from None

    def launch(self, ranks: int, *more: object) -> subprocess.Popen[str]:
        """Start painting on several ranks, with a real launcher."""
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), sys.executable]
        command += ["-m", "bigbox", "paint", str(self.box), *map(str, self.paint_options(*more))]
        self.tell(f"mpirun -n {ranks}")
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def launched(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a launcher's end."""
        try:
            _, said = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            for one in family(process.pid):
                with suppress(psutil.Error):
                    one.kill()
            process.communicate()
            raise Bad("hang", f"a launcher is at work after {LIMIT} s") from None
        self.tell(f"mpirun: {process.returncode}")
        return process.returncode, said

    def wait_for_records(self, process: Callable[[], bool], grown: int) -> None:
        """Return when the ledgers have grown by so many bytes, or nothing is at work any more."""
        before = ledger_bytes(self.box)
        while process() and ledger_bytes(self.box) < before + grown:
            time.sleep(0.004)

    # ------------------------------------------------------------------ judgement

    def done(self) -> set[int]:
        """Tiles that the ledger says are done."""
        found = painting_of(Box.open(self.box))
        return set() if found is None else set(np.flatnonzero(found.state.done[0]).tolist())

    def said_well(self, ended: Ended, *statuses: int) -> None:
        """A command ended with one of these statuses, and where it is refused, in a line."""
        words = [line for line in ended.said.splitlines() if line.startswith("bigbox: ")]
        if "Traceback" in ended.said or ended.status not in statuses:
            raise Bad("crash", f"status {ended.status}, not {statuses}: {ended.said[-1500:]}")
        if ended.status in (2, 75) and not words:
            raise Bad("crash", f"status {ended.status} without a word: {ended.said[-500:]}")

    def finish(self) -> None:
        """The same command again ends the painting with the bytes of an undisturbed one."""
        before = self.done()
        look = self.run("status", self.box)
        self.said_well(look, 0)
        ended = self.paint()
        if ended.status != 0:
            raise Bad("refused", f"the same command again: {ended.status}: {ended.said[-1500:]}")
        if not before <= self.done():
            raise Bad("lost", f"tiles {sorted(before - self.done())} were done")
        self.right()
        check = self.run("verify", self.box)
        if check.status != 0:
            raise Bad("wrong", f"verify: {check.status}: {check.said[-1500:]}")

    def right(self) -> None:
        """All bytes are those of an undisturbed painting."""
        for name, wanted in self.truth.items():
            if values_of(self.box, name) != wanted:
                raise Bad("wrong", f"{name} has other values")


def values_of(box: Path, name: str) -> bytes:
    """The values of an array."""
    return bytes(zarr.open_array(box / name, mode="r")[...].tobytes())


def ledger_bytes(box: Path) -> int:
    """Bytes in all record files."""
    total = 0
    for path in [*box.glob("ledger/records/*"), *box.glob("halogen/ledger/records/*")]:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


def ranks_of(pid: int) -> list[psutil.Process]:
    """The ranks that a launcher has started."""
    found = []
    for one in family(pid):
        with suppress(psutil.Error):
            line = one.cmdline()
            if len(line) > 2 and "python" in line[0] and line[1:3] == ["-m", "bigbox"]:
                found.append(one)
    return found


def to_all(processes: list[psutil.Process], number: int = signal.SIGKILL) -> None:
    """Send a signal to those that live."""
    for one in processes:
        with suppress(psutil.Error):
            one.send_signal(number)


def sources(folder: Path) -> dict[str, tuple[Path, dict[str, bytes]]]:
    """For each recipe an ingested box, and what its arrays are when painted undisturbed."""
    found = {}
    for name, (voxels, options) in RECIPES.items():
        source, whole = folder / name / "source.zarr", folder / name / "whole.zarr"
        values = np.random.default_rng(voxels).lognormal(size=(voxels,) * 3).astype(np.float32)
        grid = folder / name / "density.npy"
        grid.parent.mkdir(parents=True)
        np.save(grid, values)
        commands = Commands(whole)
        ingest = ("ingest", grid, source, "--box-size", str(voxels / 8), "--redshift", "0")
        for command in (ingest, ("paint", whole, *options, "--quiet")):
            if command[0] == "paint":
                shutil.copytree(source, whole)
            ended = commands.run(*command, timeout=LIMIT)
            assert ended.status == 0, ended.said
        arrays = ["dm", "tb", *(["halo"] if haloes_of(Box.open(whole)) else [])]
        found[name] = source, {one: values_of(whole, one) for one in arrays}
    return found


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, of a size of its own."""
    folder.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def mount(*arguments: object) -> None:
    """Call mount."""
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
