"""kill -9 at random moments: a rank, all ranks, the launcher. Resumed with a random number of
ranks each time, the painting ends with the bytes of one straight run.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from bigbox.store.box import Box
from bigbox.store.status import status
from tests.launch.conftest import Launcher, halo_bytes, lognormal_density, painted
from tests.models import write_model

GRID = 128  # 5³ = 125 tiles
CONDITIONED = ("--overlap-method", "conditioned")
BATCHES = (1, 2, 4)
IN_FLIGHT = 3  # batches begun and not recorded: one being painted, two being committed


@dataclass
class Story:
    """What happened: one entry a kill."""

    kills: list[str] = field(default_factory=list)
    runs: int = 0


def new_box(path: Path, grid: int = GRID) -> Path:
    box = Box.create(path, (grid,) * 3, box_size=grid * 12.5 / 128, redshift=0.0)
    box.create_array("dm")[...] = lognormal_density(grid)
    return path


def ledger_bytes(path: Path) -> int:
    """Bytes in all record files: grows with every tile or block that becomes durable."""
    total = 0
    for file in [*path.glob("ledger/records/*"), *path.glob("halogen/ledger/records/*")]:
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            pass
    return total


class SavesSeen:
    """Counts what ranks have saved of the noisy field, from the first call on."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, path: Path) -> int:
        for file in path.glob("ledger/field/*.idx"):
            try:
                self._seen.add((file.name, file.stat().st_mtime_ns))
            except FileNotFoundError:
                pass
        return len(self._seen)


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The Python processes under a launcher (the launcher itself when there is none)."""
    found = []
    for process in [launcher, *launcher.children(recursive=True)]:
        try:
            named = {"paint", "decompress"} & set(process.cmdline())
            if named and "python" in process.name():
                found.append(process)
        except psutil.Error:
            pass
    return found


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        pass


def paint_with_kills(
    launcher: Launcher,
    path: Path,
    options: tuple[str, ...],
    *,
    kills: int,
    seed: int,
    most: int,
    check: Callable[[], None],
    progress: Callable[[Path], int] = ledger_bytes,
) -> Story:
    """Paints `path`, killing runs `kills` times in all; each resume has 1 to 4 ranks.

    A run is killed when its progress, bytes of the ledger, has grown by a random number (up to
    `most`), or, when that is 0, a random while after its start, which also hits the start and the
    resume themselves. A box that is done before all kills are dealt is checked and painted anew.
    """
    rng = random.Random(seed)
    story = Story()
    anew = False
    while True:
        story.runs += 1
        ranks = rng.randint(1, 4)
        batch = rng.choice(BATCHES)
        command = launcher.command(ranks, "paint", path, *options, "--batch", str(batch))
        log = path.parent / f"run{story.runs}.log"
        with open(log, "w") as out:
            command += ["--discard", "--discard-halo"] if anew else []
            run = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
            killed = False
            if len(story.kills) < kills:
                how = rng.choice(["a rank", "all ranks", "launcher"])
                killed = wait_and_kill(run, path, rng, most, how, progress)
                story.kills += [f"{how} of {ranks}"] if killed else []
            status = run.wait(timeout=300)
        anew = status == 0 and len(story.kills) < kills
        if status == 0:
            check()
            if not anew:
                return story
        elif not killed:
            text = log.read_text()
            raise AssertionError(f"run {story.runs} on {ranks} ranks: status {status}\n{text}")
        assert story.runs < 5 * kills + 20, f"never done: {story}\n{log.read_text()}"


def wait_and_kill(
    run: subprocess.Popen,
    path: Path,
    rng: random.Random,
    most: int,
    how: str,
    progress: Callable[[Path], int] = ledger_bytes,
) -> bool:
    grown = rng.choice([0, rng.randint(1, most), rng.randint(1, most)])
    before = progress(path)
    if grown == 0:
        time.sleep(rng.uniform(0.05, 3.0))
    while run.poll() is None and progress(path) < before + grown:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    if run.poll() is not None:
        return False
    process = psutil.Process(run.pid)
    there = ranks_of(process)
    if how == "launcher" or not there:
        kill(process)
    else:
        for one in [rng.choice(there)] if how == "a rank" else there:
            kill(one)
    return True


def painted_again(path: Path) -> list[tuple[int, int, int]]:
    """(epoch, ranks, tiles begun but never recorded) of every run, from the ledger."""
    runs = [r for r in status(Box.open(path))["runs"] if r["kind"] == "paint"]
    return [(r["epoch"], r["n_ranks"], r["tiles_begun"] - r["tiles"]) for r in runs]


def check_painted_again(path: Path) -> None:
    """A killed rank has at most one batch being painted and two being committed."""
    for epoch, ranks, lost in painted_again(path):
        limit = ranks * IN_FLIGHT * max(BATCHES)
        assert 0 <= lost <= limit, f"run {epoch} on {ranks} ranks lost {lost} tiles > {limit}"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("painter", "grid", "kills"),
    [
        (("trivial", "--seconds-per-tile", "0.03"), GRID, 6),
        (("trivial", "--seconds-per-tile", "0.03", *CONDITIONED), GRID, 4),
        (("gaussian",), 96, 3),
        (("trivial-halo", "--halo-stride", "32", "--seconds-per-window", "0.05"), GRID, 3),
        (("lodi", "--steps", "2", "--halo-stride", "32", *CONDITIONED), 96, 2),
        (("lodi", "--steps", "2", "--halo-stride", "32"), 96, 2),
    ],
)
def test_killed_and_resumed(mpirun: Launcher, tmp_path: Path, painter, grid, kills: int) -> None:
    options = ("--painter", *painter, "--seed", "11", "--quiet")
    if painter[0] == "lodi":  # haloes and tb by networks, with random weights
        options += ("--model", str(write_model(tmp_path / "model")))
    straight = new_box(tmp_path / "straight.zarr", grid)
    mpirun.run(2, "paint", straight, *options)
    path = new_box(tmp_path / "killed.zarr", grid)

    def check() -> None:
        assert painted(path) == painted(straight)
        if painter[0] in ("trivial-halo", "lodi"):
            assert halo_bytes(path) == halo_bytes(straight)
        if "conditioned" in options:  # else nothing of a tile is safe before its last step
            check_painted_again(path)

    story = paint_with_kills(mpirun, path, options, kills=kills, seed=1, most=60 * 40, check=check)
    assert len(story.kills) == kills
    mpirun.run(1, "verify", path)


def test_killed_between_saves(openmpi: Launcher, tmp_path: Path) -> None:
    """Under Open MPI; 40 kills, and with the field on the disk: `tests.launch.kill_story`."""
    launcher = replace(openmpi, module="tests.launch.saving")
    options = ("--painter", "trivial", "--seed", "11", "--quiet")
    straight = new_box(tmp_path / "straight.zarr", 96)
    openmpi.run(2, "paint", straight, *options)
    path = new_box(tmp_path / "killed.zarr", 96)

    def check() -> None:
        assert painted(path) == painted(straight)

    how = (*options, "--seconds-per-tile", "0.1")
    story = paint_with_kills(
        launcher, path, how, kills=2, seed=4, most=3, check=check, progress=SavesSeen()
    )
    assert len(story.kills) == 2


@pytest.mark.parametrize("method", ["joint", "conditioned"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, "STOP file"])
def test_asked_to_stop(mpirun: Launcher, tmp_path: Path, number, method: str) -> None:
    path = new_box(tmp_path / "box.zarr")
    options = ("--painter", "trivial", "--overlap-method", method)
    options += ("--seconds-per-tile", "0.1", "--batch", "2")
    command = mpirun.command(2, "paint", path, *options)
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while ledger_bytes(path) < 40 and run.poll() is None:
        time.sleep(0.01)
    if number == "STOP file":
        (path / "STOP").touch()
    else:
        # SIGUSR1 to one rank, which tells the others: not every launcher passes it on.
        first = ranks_of(psutil.Process(run.pid))[0]
        (first if number == signal.SIGUSR1 else run).send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 75, said
    assert "the same command goes on" in said
    assert not (path / "STOP").exists()
    lost = [lost for _, _, lost in painted_again(path)]
    assert method == "joint" or lost == [0], "a clean stop loses nothing"
    # A requeued job has the same command line, --discard and all.
    assert "going on" in mpirun.run(3, "paint", path, *options[:4], "--discard")
    begun = [run["tiles_begun"] for run in status(Box.open(path))["runs"]]
    assert len(begun) == 2 and sum(begun) == 125, "no step is done twice"
