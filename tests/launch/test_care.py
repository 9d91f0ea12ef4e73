"""What `bigbox paint` refuses, survives and cleans up: one line, exit status, nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bigbox.store.box import Box
from tests.launch.conftest import Launcher, painted

TRIVIAL = ("--painter", "trivial", "--quiet")


def one_line(said: str) -> str:
    """The single line that bigbox ends with, whatever the launcher adds."""
    lines = [line for line in said.splitlines() if line.startswith("bigbox: ")]
    lines = [line for line in lines if not line.startswith("bigbox: warning: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    return lines[0]


def everything(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.parametrize("ranks", [1, 2])
def test_another_seed_is_refused(mpirun: Launcher, make_box, ranks: int) -> None:
    path = make_box(56)
    mpirun.run(2, "paint", path, *TRIVIAL, "--seed", "1")
    before = everything(path)
    said = one_line(mpirun.run(ranks, "paint", path, *TRIVIAL, "--seed", "2", ok=2))
    assert "seed = 1" in said and "asks for 2" in said and "--discard" in said
    after = everything(path)
    assert {k: v for k, v in after.items() if "lease" not in k} == {
        k: v for k, v in before.items() if "lease" not in k
    }
    mpirun.run(ranks, "paint", path, *TRIVIAL, "--seed", "2", "--discard")


def test_no_such_store(mpirun: Launcher, tmp_path: Path) -> None:
    said = one_line(mpirun.run(2, "paint", tmp_path / "no.zarr", *TRIVIAL, ok=2))
    assert "no such store" in said


def test_no_density(mpirun: Launcher, tmp_path: Path) -> None:
    Box.create(tmp_path / "b.zarr", (56,) * 3, box_size=5.0, redshift=0.0)
    said = one_line(mpirun.run(2, "paint", tmp_path / "b.zarr", *TRIVIAL, ok=2))
    assert "dm" in said and "ingest" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--margin", "16"), "reaches a tile"),
        (("--tile", "64"), "less than a tile"),
        (("--painter", "gaussian", "--device", "cuda:7"), "device"),
        (("--steps", "0"), "steps"),
    ],
)
def test_options_that_cannot_be(mpirun: Launcher, make_box, options, words: str) -> None:
    path = make_box(56)
    said = one_line(mpirun.run(2, "paint", path, "--quiet", *options, ok=2))
    assert words in said
    assert not (path / "latents").exists() and not (path / "tb").exists()


def test_a_running_painting_is_left_alone(mpirun: Launcher, make_box) -> None:
    path = make_box(84)
    slow = (*TRIVIAL, "--seconds-per-tile", "0.3", "--batch", "1")
    first = subprocess.Popen(mpirun.command(2, "paint", path, *slow))
    try:
        while not list((path / "ledger" / "records").glob("*")) and first.poll() is None:
            pass
        said = one_line(mpirun.run(2, "paint", path, *slow, ok=75))
        assert "another run" in said and "pid" in said
    finally:
        assert first.wait(timeout=120) == 0


def full_disk(folder: Path, size: str):
    """A small tmpfs mounted at `folder`, or a skip where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)])
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_a_full_disk_loses_nothing(mpirun: Launcher, make_box, tmp_path: Path) -> None:
    straight = make_box(84, "straight.zarr")
    mpirun.run(1, "paint", straight, *TRIVIAL)
    small = tmp_path / "small"
    full_disk(small, "6m")  # dm takes 2.3 MB, the tiles 3.4 MB, tb 2.3 MB
    try:
        path = small / "box.zarr"
        shutil.copytree(make_box(84), path)
        said = one_line(mpirun.run(2, "paint", path, *TRIVIAL, "--batch", "1", ok=2))
        assert "space" in said and "same command" in said
        subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
        mpirun.run(2, "paint", path, *TRIVIAL, "--batch", "1")
        assert painted(path) == painted(straight)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_store(mpirun: Launcher, make_box, tmp_path: Path) -> None:
    path = make_box(56)
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        said = one_line(mpirun.run(2, "paint", path, *TRIVIAL, ok=2))
        assert "read-only" in said.lower()
    finally:
        subprocess.run(["umount", str(path)], check=True)


def files_of(path: Path, array: str) -> list[Path]:
    return sorted(f for f in (path / array).rglob("c.*") if f.is_file())


@pytest.mark.parametrize(("array", "how"), [("latents/painted", "flip"), ("tb", "truncate")])
def test_damage_is_named_and_painted_again(mpirun: Launcher, make_box, array: str, how) -> None:
    path = make_box(84)
    mpirun.run(2, "paint", path, *TRIVIAL)
    good = painted(path)
    file = files_of(path, array)[3 if array != "tb" else 0]
    raw = bytearray(file.read_bytes())
    if how == "flip":
        raw[len(raw) // 2] ^= 4
        file.write_bytes(raw)
    else:
        file.write_bytes(raw[: len(raw) // 2])
    said = mpirun.run(1, "verify", path, ok=2)
    assert file.name in said and array in said
    mpirun.run(3, "paint", path, *TRIVIAL)
    assert painted(path) == good
    mpirun.run(1, "verify", path)


def test_damage_met_while_painting_stops_with_75(mpirun: Launcher, make_box) -> None:
    path = make_box(84)
    slow = (*TRIVIAL, "--seconds-per-tile", "0.1", "--batch", "1")
    run = subprocess.Popen(mpirun.command(1, "paint", path, *slow))
    while len(files_of(path, "latents/painted")) < 8 and run.poll() is None:
        pass
    run.terminate()
    assert run.wait(timeout=60) == 75
    for file in files_of(path, "latents/painted")[:4]:
        raw = bytearray(file.read_bytes())
        raw[1000] ^= 1
        file.write_bytes(raw)
    stops = 0
    while (status := subprocess.run(mpirun.command(2, "paint", path, *TRIVIAL)).returncode) == 75:
        stops += 1
        assert stops < 40
    assert status == 0 and stops > 0
    straight = make_box(84, "straight.zarr")
    mpirun.run(1, "paint", straight, *TRIVIAL)
    assert painted(path) == painted(straight)


def test_latents_can_be_dropped(mpirun: Launcher, make_box) -> None:
    path = make_box(56)
    mpirun.run(2, "paint", path, *TRIVIAL, "--drop-latents")
    assert not (path / "latents").exists()
    assert np.isfinite(np.frombuffer(painted(path), np.float32)).all()
    mpirun.run(1, "verify", path)
    mpirun.run(2, "paint", path, *TRIVIAL)


def test_an_exception_ends_all_ranks(mpirun: Launcher, make_box, tmp_path: Path) -> None:
    """A fault on one rank aborts the others: no rank is left waiting."""
    path = make_box(84)
    script = tmp_path / "faulty.py"
    script.write_text(
        "import sys\n"
        "from bigbox import cli\n"
        "from bigbox.testing.painters import TrivialPainter\n"
        "from bigbox.engine import mpi\n"
        "whole = TrivialPainter.advance\n"
        "def advance(self, batch):\n"
        "    if mpi.launched()[2] == 1:\n"
        "        raise RuntimeError('a fault of ours')\n"
        "    return whole(self, batch)\n"
        "TrivialPainter.advance = advance\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [mpirun.mpirun, "-n", "3", mpirun.python, str(script), "paint", str(path), *TRIVIAL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, 2, 75)
    assert "a fault of ours" in done.stderr
    mpirun.run(3, "paint", path, *TRIVIAL)
