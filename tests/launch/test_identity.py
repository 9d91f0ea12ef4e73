"""The same bytes of T_b however the box was painted: real ranks, real launchers, real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigbox.store.box import Box
from bigbox.store.status import status
from tests.launch.conftest import Launcher, halo_bytes, painted
from tests.models import write_model

GRID = 96  # 4 x 4 x 4 tiles; 84 gives the odd 3 x 3 x 3
GAUSSIAN = ("--painter", "gaussian", "--steps", "8", "--seed", "3", "--quiet")
HALOES = ("--painter", "trivial-halo", "--seed", "3", "--halo-stride", "32", "--quiet")
TRIVIAL = ("--painter", "trivial", "--seed", "3", "--quiet")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, mpirun: Launcher):
    """Paints one box per (grid, options) on one rank, batch 16; remembers the bytes."""
    from bigbox.store.box import Box
    from tests.launch.conftest import lognormal_density

    known: dict[tuple, bytes] = {}

    def get(grid: int, options: tuple[str, ...]) -> bytes:
        if (grid, options) not in known:
            path = tmp_path_factory.mktemp("reference") / "box.zarr"
            box = Box.create(path, (grid,) * 3, box_size=grid * 12.5 / 128, redshift=0.0)
            box.create_array("dm")[...] = lognormal_density(grid)
            mpirun.run(1, "paint", path, *options, "--batch", "16")
            known[grid, options] = painted(path)
        return known[grid, options]

    return get


@pytest.mark.parametrize(
    ("ranks", "batch", "more"), [(2, "1", ()), (3, "4", ("--colouring", "paper"))]
)
def test_gaussian(mpirun: Launcher, make_box, reference, ranks: int, batch: str, more) -> None:
    path = make_box(GRID)
    mpirun.run(ranks, "paint", path, *GAUSSIAN, "--batch", batch, *more)
    assert painted(path) == reference(GRID, GAUSSIAN)


@pytest.mark.parametrize("method", ["overwrite", "latents"])
def test_the_papers_methods(mpirun: Launcher, make_box, reference, method: str) -> None:
    options = (*GAUSSIAN, "--overlap-method", method, "--sampler", "ancestral")
    path = make_box(GRID)
    mpirun.run(3, "paint", path, *options, "--batch", "4")
    assert painted(path) == reference(GRID, options)
    assert not list((path / "latents" / "steps").glob("c.*"))


@pytest.mark.parametrize("grid", [84, 128])
def test_odd_numbers_of_tiles(mpirun: Launcher, make_box, reference, grid: int) -> None:
    path = make_box(grid)
    mpirun.run(4, "paint", path, *TRIVIAL, "--batch", "2")
    assert painted(path) == reference(grid, TRIVIAL)


def test_haloes_then_tb(mpirun: Launcher, make_box) -> None:
    """Haloes predicted in shared windows, and tb from them: the same bytes on 1, 2 and 4 ranks."""
    paths = []
    for ranks, batch in ((1, "16"), (2, "4"), (4, "1")):
        paths.append(make_box(GRID, f"{ranks}.zarr"))
        mpirun.run(ranks, "paint", paths[-1], *HALOES, "--batch", batch)
        begun = [r["windows_begun"] for r in status(Box.open(paths[-1]))["haloes"]["runs"]]
        assert begun == [27], "every window once, over all ranks"
    assert halo_bytes(paths[0]) == halo_bytes(paths[1]) == halo_bytes(paths[2])
    assert painted(paths[0]) == painted(paths[1]) == painted(paths[2])


@pytest.mark.parametrize("grid", [2])  # of 1: `test_hashes.py`
def test_networks(mpirun: Launcher, make_box, tmp_path: Path, grid: int) -> None:
    """HALOgen and LODI (random weights), from dm alone: the same bytes on 1, 2 and 4 ranks."""
    model = write_model(tmp_path / "model", grid=grid)
    options = ("--model", model, "--steps", "2", "--halo-stride", "32", "--quiet")
    paths = []
    for ranks, batch in ((1, "16"), (2, "3"), (4, "1")):
        paths.append(make_box(64 * grid, f"{ranks}.zarr"))
        mpirun.run(ranks, "paint", paths[-1], *options, "--batch", batch)
    assert Box.open(paths[0]).array("tb").shape == (64,) * 3
    assert halo_bytes(paths[0]) == halo_bytes(paths[1]) == halo_bytes(paths[2])
    assert painted(paths[0]) == painted(paths[1]) == painted(paths[2])


def test_more_ranks_than_bricks(mpirun: Launcher, make_box, reference) -> None:
    path = make_box(56)
    mpirun.run(12, "paint", path, *TRIVIAL)
    assert painted(path) == reference(56, TRIVIAL)


def test_openmpi(openmpi: Launcher, make_box, reference) -> None:
    path = make_box(GRID)
    openmpi.run(4, "paint", path, *GAUSSIAN, "--batch", "4")
    assert painted(path) == reference(GRID, GAUSSIAN)


def test_painting_again_does_nothing(mpirun: Launcher, make_box) -> None:
    path = make_box(56)
    mpirun.run(2, "paint", path, *TRIVIAL)
    before = {f: f.stat().st_mtime_ns for f in Path(path, "tb").rglob("*") if f.is_file()}
    said = mpirun.run(2, "paint", path, *TRIVIAL[:-1])
    after = {f: f.stat().st_mtime_ns for f in Path(path, "tb").rglob("*") if f.is_file()}
    assert before == after and "nothing was left to do" in said


def test_a_launcher_of_another_mpi_is_refused(mpirun: Launcher, openmpi: Launcher, make_box):
    path = make_box(56)
    wrong = Launcher(openmpi.name, openmpi.mpirun, mpirun.python)
    said = wrong.run(2, "paint", path, *TRIVIAL, ok=2)
    assert "the launcher started 2 ranks" in said and "mpi4py sees 1" in said
    assert not (path / "latents").exists()
