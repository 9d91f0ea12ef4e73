"""The job scripts of deploy/slurm under a real Slurm: preempted, warned, killed; the same bytes.

`deploy/test.sh slurm` starts a Slurm of one node and runs these; elsewhere they are skipped. The
ranks are real tasks of srun (MPICH by PMI2, Open MPI by PMIx where there is one).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bigbox.store.box import Box
from bigbox.store.status import status
from tests.launch.conftest import halo_bytes, lognormal_density, painted
from tests.launch.test_kills import ledger_bytes, new_box

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = DEPLOY / "slurm"
GRID = 84  # 3^3 = 27 tiles
TRIVIAL = ("--painter", "trivial", "--seed", "11")
HALOES = ("--painter", "trivial-halo", "--halo-stride", "32", "--seed", "11")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("BIGBOX_TEST_SLURM"), reason="deploy/test.sh slurm starts a Slurm"
    ),
    pytest.mark.timeout(1800),
]


def said(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


class Jobs:
    """Submits scripts in a folder of their own; `ended` waits for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submitted: list[str] = []
        self.environment = os.environ | {
            "BIGBOX_DEPLOY": str(DEPLOY),
            "BIGBOX": f"{sys.executable} -m bigbox",
            "SBATCH_CHDIR": str(folder),
        }

    def submit(self, script: str | Path, *arguments: object, options: str = "", **more: str) -> str:
        command = ["sbatch", "--parsable", f"--chdir={self.folder}", "--mem=0", "--nodes=1"]
        command += [*options.split(), str(SCRIPTS / script), *map(str, arguments)]
        environment = self.environment | more
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        self.submitted.append(done.stdout.strip())
        return self.submitted[-1]

    def log(self, job: str) -> str:
        logs = self.folder.glob(f"slurm-{job}*.out")
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in logs)

    def until(self, job: str, what: Callable[[dict[str, str]], bool], seconds: float = 800) -> None:
        deadline = time.monotonic() + seconds
        while not all(map(what, found := facts(job))):
            assert time.monotonic() < deadline, f"{found}\n{self.log(job)}"
            time.sleep(0.2)

    def ended(self, job: str, state: str = "COMPLETED") -> list[dict[str, str]]:
        self.until(job, lambda one: one["JobState"] in ENDED)
        found = facts(job)
        assert {one["JobState"] for one in found} == {state}, f"{found}\n{self.log(job)}"
        return found


def facts(job: str) -> list[dict[str, str]]:
    """What Slurm says of a job, or of each task of an array."""
    lines = said("scontrol", "show", "job", "--oneliner", job).splitlines()
    words = [[word.split("=", 1) for word in line.split() if "=" in word] for line in lines]
    return [{pair[0]: pair[1] for pair in one} for one in words]


@pytest.fixture
def jobs(tmp_path: Path):
    mine = Jobs(tmp_path)
    yield mine
    for job in mine.submitted:
        subprocess.run(["scancel", "--quiet", job], check=False)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """T_b by one undisturbed run without any launcher."""
    return straight(tmp_path_factory.mktemp("straight"), GRID)


def straight(folder: Path, grid: int) -> bytes:
    path = new_box(folder / "straight.zarr", grid)
    said(sys.executable, "-m", "bigbox", "paint", path, *TRIVIAL, "--quiet")
    return painted(path)


def preempt(jobs: Jobs, job: str) -> None:
    """A job that needs the whole node, from a partition that preempts the other."""
    command = ["sbatch", "--parsable", f"--chdir={jobs.folder}", "--partition=urgent"]
    said(*command, "--exclusive", "--wrap=sleep 1")


def warn(jobs: Jobs, job: str) -> None:
    """What --signal=B:USR2 and impatient people send, here the other one: to the batch script."""
    said("scancel", "--batch", "--signal=USR1", job)


def kill_step(jobs: Jobs, job: str) -> None:
    said("scancel", "--signal=KILL", f"{job}.0")


def kill_rank(jobs: Jobs, job: str) -> None:
    pids = [line.split()[0] for line in said("scontrol", "listpids", job).splitlines()[1:]]
    ranks = [pid for pid in pids if b"bigbox" in cmdline(pid) and b"srun" not in cmdline(pid)[:20]]
    os.kill(int(ranks[-1]), 9)


def cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("disturb", [preempt, warn, kill_step, kill_rank])
def test_requeued(jobs: Jobs, tmp_path: Path, wanted: bytes, disturb) -> None:
    """Disturbed in flight, the job comes back by itself and ends with the same bytes."""
    path = new_box(tmp_path / "box.zarr", GRID)
    slow = (*TRIVIAL, "--seconds-per-tile", "0.5", "--batch", "1")
    job = jobs.submit("cpu.sh", path, *slow, options="--ntasks-per-node=4")
    jobs.until(job, lambda one: ledger_bytes(path) > 0 or one["JobState"] in ENDED)
    disturb(jobs, job)
    found = jobs.ended(job)
    assert int(found[0]["Restarts"]) >= 1, jobs.log(job)
    assert painted(path) == wanted
    runs = [run["n_ranks"] for run in status(Box.open(path))["runs"]]
    assert runs == [4] * len(runs) and len(runs) >= 2


def test_cancelled(jobs: Jobs, tmp_path: Path) -> None:
    """What its owner cancels stops cleanly, and does not come back."""
    path = new_box(tmp_path / "box.zarr", GRID)
    slow = (*TRIVIAL, "--seconds-per-tile", "0.5", "--batch", "1")
    job = jobs.submit("cpu.sh", path, *slow, options="--ntasks-per-node=2")
    jobs.until(job, lambda one: ledger_bytes(path) > 0 or one["JobState"] in ENDED)
    said("scancel", job)
    assert jobs.ended(job, "CANCELLED")[0]["Restarts"] == "0"
    while said("squeue", "--noheader", f"--jobs={job}"):
        time.sleep(0.2)
    assert jobs.ended(job, "CANCELLED")[0]["Restarts"] == "0"


@pytest.mark.parametrize("launcher", ["mpirun", "srun --mpi=pmi2", "srun --mpi=pmix"])
def test_launchers(jobs: Jobs, tmp_path: Path, wanted: bytes, launcher: str) -> None:
    more = {"BIGBOX_LAUNCH": launcher}
    if "pmix" in launcher:
        if not (folder := os.environ.get("BIGBOX_OPENMPI")):
            pytest.skip("BIGBOX_OPENMPI does not name an Open MPI, which speaks PMIx")
        more["BIGBOX"] = f"{folder}/python -m bigbox"
    path = new_box(tmp_path / "box.zarr", GRID)
    jobs.ended(jobs.submit("cpu.sh", path, *TRIVIAL, options="--ntasks-per-node=2", **more))
    assert painted(path) == wanted
    assert [run["n_ranks"] for run in status(Box.open(path))["runs"]] == [2]


def test_a_launcher_that_does_not_fit(jobs: Jobs, tmp_path: Path) -> None:
    """srun without a --mpi: two worlds of one rank each. The job fails at once, with one line."""
    path = new_box(tmp_path / "box.zarr", GRID)
    options = "--ntasks-per-node=2"
    job = jobs.submit("cpu.sh", path, *TRIVIAL, options=options, BIGBOX_LAUNCH="srun --mpi=none")
    found = jobs.ended(job, "FAILED")
    assert found[0]["ExitCode"] == "2:0" and found[0]["Restarts"] == "0"
    assert "mpi4py sees 1" in jobs.log(job) and "pmi2" in jobs.log(job)
    assert not (path / "ledger").exists()


def test_regions(jobs: Jobs, tmp_path: Path, wanted: bytes) -> None:
    """Four slabs as an array, all at once: those that come too early go into the queue again."""
    path = new_box(tmp_path / "box.zarr", GRID)
    options = "--ntasks-per-node=2 --array=0-3"
    job = jobs.submit("regions.sh", path, GRID, *TRIVIAL, options=options, SLABS="4")
    jobs.ended(job)
    assert painted(path) == wanted


def test_chain(jobs: Jobs, tmp_path: Path) -> None:
    """Ingest, haloes, two realizations side by side, and their pages."""
    np.save(tmp_path / "density.npy", lognormal_density(84))
    path = tmp_path / "box.zarr"
    environment = jobs.environment | {
        "INGEST": "--box-size 8 --redshift 0",
        "PAINT": "--nodes=1 --ntasks-per-node=2",
    }
    command = [SCRIPTS / "chain.sh", tmp_path / "density.npy", path, 2, *HALOES]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    numbers = dict(part.split() for part in done.stdout.strip().split(", "))
    jobs.ended(numbers["haloes"])
    assert not Box.open(path).has("tb")
    jobs.ended(numbers["realizations"])
    jobs.until(numbers["validate"], lambda one: one["JobState"] in ENDED)
    # What a painter without networks paints is no sky: the page says so, with exit status 3.
    assert {one["ExitCode"] for one in facts(numbers["validate"])} <= {"0:0", "3:0"}
    pages = sorted(page.parent.name for page in tmp_path.glob("*/index.html"))
    assert pages == ["box_r0001_validate", "box_validate"], jobs.log(numbers["validate"])
    undisturbed = new_box(tmp_path / "straight.zarr", 84)
    for realization in (0, 1):
        each = ("--realization", str(realization), "--quiet")
        said(sys.executable, "-m", "bigbox", "paint", undisturbed, *HALOES, *each)
        both = (Box.open(one, realization=realization).array("tb") for one in (path, undisturbed))
        first, second = (one[...].tobytes() for one in both)
        assert first == second
    assert halo_bytes(path) == halo_bytes(undisturbed)


def test_sixty_four_tasks(jobs: Jobs, tmp_path: Path) -> None:
    """64 tasks of srun on this one node, whose painter sleeps."""
    path = new_box(tmp_path / "box.zarr", 128)
    slow = (*TRIVIAL, "--seconds-per-tile", "1", "--batch", "1")
    job = jobs.submit("cpu.sh", path, *slow, options="--ntasks-per-node=64 --overcommit")
    jobs.ended(job)
    assert [run["n_ranks"] for run in status(Box.open(path))["runs"]] == [64]
    assert painted(path) == straight(tmp_path, 128)
