"""The bytes of `tb` and `halo` are those recorded, for every painter, method, sampler and order.

See `tests/reference/hashes.py`. Ranks are 1 to 4, under MPICH (or what stands beside this Python),
some also under Open MPI, and some after kills.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launch.conftest import Launcher
from tests.launch.test_kills import wait_and_kill
from tests.reference import hashes

RECORD = json.loads(hashes.RECORDED.read_text())
CASES = list(enumerate(hashes.cases()))
ON_A_GRID = next(case for case in CASES if "--painting-grid" in case[1][1])
WITHOUT_TORCH = ("trivial", "trivial-halo")


def of_torch(options: tuple[str, ...]) -> bool:
    return options[1] not in WITHOUT_TORCH


def expected(shape: str, options: tuple[str, ...]) -> dict[str, str]:
    """What was recorded; skips where this machine's bytes are not comparable."""
    here = hashes.machine()
    if of_torch(options) and here != RECORD["machine"]:
        pytest.skip(f"recorded on {RECORD['machine']}, this is {here}")
    return RECORD["cases"][" ".join((shape, *options))]


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A box of each shape, which nobody paints."""
    folder = tmp_path_factory.mktemp("ingested")
    return {shape: hashes.make_box(folder, shape, f"{shape}.zarr") for shape in hashes.SHAPES}


@pytest.fixture
def box_of(ingested: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies the box of a shape."""
    return lambda shape: shutil.copytree(ingested[shape], tmp_path / "box.zarr")


def paint_all(launcher: Launcher, ranks: int, given: list, ingested, folder: Path) -> None:
    """Paints cases in the same ranks, each with a batch of its own, and compares the hashes."""
    boxes, commands = [], []
    for number, (shape, options) in given:
        boxes.append(shutil.copytree(ingested[shape], folder / f"{number}.zarr"))
        told = hashes.command(boxes[-1], options, folder)
        commands.append([*told, "--batch", str((1, 4, 16)[number % 4 % 3])])
    launcher.run_all(ranks, commands, folder)
    for box, (_, (shape, options)) in zip(boxes, given, strict=True):
        assert hashes.hashes(box, hashes.realization(options)) == expected(shape, options), options


@pytest.mark.parametrize("torch", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_painter_method_and_order(
    mpirun: Launcher, ingested, tmp_path: Path, ranks: int, torch: bool
) -> None:
    given = [
        (number, (shape, options))
        for number, (shape, options) in CASES
        if ranks == (4 if number % 9 == 3 else 1 + number % 3) and torch == of_torch(options)
    ]
    assert given
    expected(*given[0][1])
    paint_all(mpirun, ranks, given, ingested, tmp_path)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_under_open_mpi(openmpi: Launcher, ingested, tmp_path: Path, ranks: int) -> None:
    given = [case for case in CASES[::7] if ranks == 2 + case[0] % 3]
    assert given
    for _, case in given:
        expected(*case)
    paint_all(openmpi, ranks, given, ingested, tmp_path)


@pytest.mark.parametrize(("number", "case"), [*CASES[2::14], ON_A_GRID])
def test_after_kills(mpirun: Launcher, box_of, number: int, case) -> None:
    shape, options = case
    wanted = expected(shape, options)
    box = box_of(shape)
    rng, killed = random.Random(number), 0
    slow = () if of_torch(options) else ("--seconds-per-tile", "0.05")
    for _ in range(3):
        told = hashes.command(box, options, box.parent)
        command = mpirun.command(rng.randint(1, 4), *told, "--batch", "2")
        run = subprocess.Popen([*command, *slow], start_new_session=True)
        how = rng.choice(["a rank", "all ranks", "launcher"])
        killed += wait_and_kill(run, box, rng, 6 * 40, how)
        run.wait(timeout=120)
    mpirun.run(rng.randint(1, 4), *hashes.command(box, options, box.parent))
    assert hashes.hashes(box, hashes.realization(options)) == wanted
    assert killed, "every run had ended before it could be killed"
