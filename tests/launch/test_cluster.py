"""What a cluster does to a painting: jobs side by side, launchers that do not fit, split disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigbox.store.box import Box
from tests.launch.conftest import Launcher, halo_bytes, painted
from tests.launch.test_care import one_line
from tests.launch.test_kills import ledger_bytes

HALOES = ("--painter", "trivial-halo", "--halo-stride", "32", "--quiet")
LOUD = HALOES[:-1]
SLOW_WINDOWS = ("--seconds-per-window", "0.3")
SLOW_TILES = ("--seconds-per-tile", "9", "--batch", "1")  # not waited for


def begin(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Starts `bigbox ARGUMENTS` on one rank."""
    command = [sys.executable, "-m", "bigbox", *map(str, arguments)]
    env = os.environ | environment
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)


def wait_for(what, run: subprocess.Popen[str]) -> None:
    while not what():
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)


def tb(path: Path, realization: int) -> bytes:
    return Box.open(path, realization=realization).array("tb")[...].tobytes()


def test_two_jobs_on_a_fresh_box(mpirun: Launcher, make_box) -> None:
    """One paints the haloes; the other waits until they are whole, and not for its end."""
    path, straight = make_box(84), make_box(84, "straight.zarr")
    first = begin("paint", path, *HALOES, *SLOW_WINDOWS, *SLOW_TILES, "--realization", "1")
    wait_for(lambda: ledger_bytes(path), first)
    first.send_signal(signal.SIGSTOP)
    second = begin("paint", path, *LOUD, "--realization", "2")
    assert second.stderr is not None
    assert "waiting for the haloes" in second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    assert second.wait(timeout=300) == 0 and first.poll() is None
    first.kill()
    mpirun.run(2, "paint", path, *HALOES, "--realization", "1")
    for realization in (1, 2):
        mpirun.run(2, "paint", straight, *HALOES, "--realization", str(realization))
        assert tb(path, realization) == tb(straight, realization)
    assert halo_bytes(path) == halo_bytes(straight)


def test_a_waiting_job_stops_and_takes_over(mpirun: Launcher, make_box) -> None:
    path, straight = make_box(84), make_box(84, "straight.zarr")
    first = begin("paint", path, *HALOES, *SLOW_WINDOWS, "--realization", "1")
    wait_for(lambda: ledger_bytes(path), first)
    first.send_signal(signal.SIGSTOP)
    waiting = [begin("paint", path, *LOUD, "--realization", "2") for _ in range(2)]
    for second in waiting:
        assert second.stderr is not None
        assert "waiting for the haloes" in second.stderr.readline()
    waiting[0].send_signal(signal.SIGUSR1)
    assert waiting[0].wait(timeout=300) == 75
    first.kill()
    assert waiting[1].wait(timeout=300) == 0
    mpirun.run(1, "paint", straight, *HALOES, "--realization", "2")
    assert tb(path, 2) == tb(straight, 2)


def test_haloes_only(mpirun: Launcher, make_box) -> None:
    path, straight = make_box(84), make_box(84, "straight.zarr")
    run = begin("paint", path, *HALOES, *SLOW_WINDOWS, "--haloes-only")
    wait_for(lambda: ledger_bytes(path), run)
    run.send_signal(signal.SIGUSR1)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 75 and "windows of haloes left" in said and "tiles" not in said, said
    mpirun.run(2, "paint", path, *HALOES, "--haloes-only")
    assert not Box.open(path).has("tb") and not (path / "latents").exists()
    mpirun.run(1, "verify", path)
    assert "nothing was left to do" in mpirun.run(1, "paint", path, *HALOES[:4], "--haloes-only")
    mpirun.run(2, "paint", path, *HALOES)
    mpirun.run(1, "paint", straight, *HALOES)
    assert painted(path) == painted(straight) and halo_bytes(path) == halo_bytes(straight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--painter", "trivial"), "paints tb without haloes"),
        ((*HALOES, "--discard"), "leave it out"),
        ((*HALOES, "--drop-latents"), "leave it out"),
    ],
)
def test_haloes_only_refused(make_box, options, words: str) -> None:
    path = make_box(56)
    run = begin("paint", path, *options, "--haloes-only")
    assert words in one_line(run.communicate(timeout=300)[1]) and run.returncode == 2
    assert not (path / "ledger").exists() and not (path / "halogen").exists()


def test_the_haloes_of_a_region(mpirun: Launcher, make_box) -> None:
    path, straight = make_box(128), make_box(128, "straight.zarr")
    region = ("--region", "0:20,0:20,0:20", "--overlap-method", "conditioned")
    mpirun.run(1, "paint", path, *HALOES, *region, "--haloes-only")
    assert "0 windows" not in mpirun.run(1, "paint", path, *HALOES, *region)
    mpirun.run(1, "paint", straight, *HALOES, *region[2:])
    there = slice(0, 20), slice(0, 20), slice(0, 20)
    assert (Box.open(path).array("tb")[there] == Box.open(straight).array("tb")[there]).all()


def test_two_worlds_of_one_job(make_box) -> None:
    """Slurm says two tasks, but each is alone: the launcher does not fit, and that is told."""
    path = make_box(84)
    slow = ("paint", path, "--painter", "trivial", *SLOW_TILES, "--quiet")
    job = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "2"}
    first = begin(*slow, **job)
    wait_for(lambda: list(path.glob("ledger/records/*")), first)
    second = begin(*slow, **job)
    assert "launcher does not fit" in one_line(second.communicate(timeout=300)[1])
    assert second.returncode == 2
    third = begin(*slow, **job, SLURM_RESTART_COUNT="1")  # the job again: worth another start
    assert "another run holds the lease" in one_line(third.communicate(timeout=300)[1])
    assert third.returncode == 75
    fourth = begin(*slow, **job, SLURM_PROCID="1")
    assert "mpi4py sees 1" in one_line(fourth.communicate(timeout=300)[1])
    assert fourth.returncode == 2
    first.kill()
    first.wait()


def test_no_mpi_library(make_box, tmp_path: Path) -> None:
    """A Python beside which there is no libmpi, started by some launcher."""
    script = tmp_path / "without.py"
    script.write_text(
        "import sys\n"
        "sys.prefix = sys.exec_prefix = '/nowhere'\n"
        "from bigbox import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, str(script), "paint", str(make_box(56)), "--painter", "trivial"]
    env = os.environ | {"PMI_SIZE": "2", "PMI_RANK": "0", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    said = one_line(done.stderr)
    assert done.returncode == 2 and "finds no MPI library" in said and "bigbox[mpich]" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("beyond", ["nothing", "a copy"])
def test_ranks_that_see_different_disks(mpirun: Launcher, make_box, tmp_path, beyond: str) -> None:
    path = make_box(56)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy) if beyond == "a copy" else copy.mkdir()
    script = tmp_path / "impatient.py"
    script.write_text(
        "import sys\n"
        "from bigbox import cli\n"
        "from bigbox.engine import agree\n"
        "agree.SEEN_WITHIN = 1.0\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    bigbox = [mpirun.python, str(script), "paint", str(path), "--painter", "trivial", "--quiet"]
    other = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"']
    apart = [*other, str(copy), str(path), *bigbox]
    command = [mpirun.mpirun, "-n", "1", *bigbox, ":", "-n", "1", *apart]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = one_line(done.stderr)
    assert done.returncode == 2 and "rank 1" in said and "all nodes share" in said
    assert not (copy / "ledger").exists()
