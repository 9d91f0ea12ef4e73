"""What bigbox is started in: notebooks, launchers, signals, odd names and terminals, full disks."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store.box import Box
from tests.boxes import new_box

TRIVIAL = ("--painter", "trivial", "--quiet")
CHILD = """
import multiprocessing, sys, bigbox
def mean(i):
    return float(bigbox.open(sys.argv[1]).dm.isel(x=i).mean())
if __name__ == "__main__":
    first = mean(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(mean, range(2)).get(timeout=60)[0] == first
    print(first)
"""


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, _ = new_box(tmp_path_factory.mktemp("surroundings"), (64, 64, 64), seed=3)
    assert main(["paint", str(path), *TRIVIAL]) == 0
    return path


# ---------------------------------------------------------------- notebooks, forks, terminals


def test_a_notebook_names_a_backend_that_is_not_here(painted: Path, tmp_path: Path) -> None:
    """deeptools/deepTools#1416: the kernel of a notebook exports MPLBACKEND."""
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [sys.executable, "-m", "bigbox", "plot", painted, "--out", tmp_path / "a.png"]
    done = subprocess.run(command, env=os.environ | backend, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_forked_workers_compute(painted: Path, tmp_path: Path) -> None:
    """czbiohub-sf/iohub#416: dask's threads do not survive a fork."""
    (tmp_path / "t.py").write_text(CHILD)
    command = [sys.executable, tmp_path / "t.py", painted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(Box.open(painted).array("dm")[0].mean(), rel=1e-6)


@pytest.mark.parametrize("command", ["", "train", "ingest", "bench", "paint", "plan"])
def test_any_help_goes_into_ascii(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """httpie/cli#1411."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    sys.stdout.flush()
    assert ended.value.code == 0 and b"usage: bigbox" in raw.getvalue()


@pytest.mark.slow
def test_a_folder_whose_name_is_latin_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, painted: Path
) -> None:
    """arvidn/libtorrent#5984: bindings cannot cast such a path; nor can it be printed as it is."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    folder.mkdir()
    np.save(folder / "a.npy", Box.open(painted).array("dm")[...])
    box = folder / "box.zarr"
    for command in (
        ["ingest", str(folder / "a.npy"), str(box), "--box-size", "64"],
        ["paint", str(box), *TRIVIAL],
        ["status", str(box)],
        ["verify", str(box)],
        ["plot", str(box)],
        ["export", str(box), "--to", "npy"],
        ["export", str(box), "--to", "hdf5"],
        ["export", str(box), "--to", "ome-zarr"],
    ):
        assert main(command) == 0, command
    exported = np.load(folder / "box_tb.npy")
    assert np.array_equal(exported, Box.open(box).array("tb")[...])


# ---------------------------------------------------------------- order of options


def test_the_way_out_of_the_line_works(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(1).lognormal(size=(34, 34, 34)))
    assert main(["ingest", "--box-size", "5", "--", f"{tmp_path}/a.npy", f"{tmp_path}/b.zarr"]) == 0
    assert Box.open(tmp_path / "b.zarr").box_size == (5.0, 5.0, 5.0)


# ---------------------------------------------------------------- launchers


LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


@pytest.mark.parametrize("size", LAUNCHERS)
@pytest.mark.parametrize("command", ["ingest a.npy b.zarr --box-size 5", "verify b.zarr"])
def test_one_process_is_not_launched(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, size: str, command: str
) -> None:
    """open-mpi/ompi#6535: each of several would do all of it. The others wait and are silent."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.ones((34, 34, 34)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv(size, "2")
    monkeypatch.setenv(LAUNCHERS[size], "0")
    assert main(command.split()) == 2
    assert f"is one process, and a launcher started 2 ({size}=2)" in capsys.readouterr().err
    monkeypatch.setenv(LAUNCHERS[size], "1")
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2 and not capsys.readouterr().err
    assert not Path("b.zarr").exists()


def test_a_batch_script_is_no_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm tells the tasks of a job to its script too, which is task 0 of one."""
    np.save(tmp_path / "a.npy", np.random.default_rng(1).lognormal(size=(34, 34, 34)))
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert main(["ingest", f"{tmp_path}/a.npy", f"{tmp_path}/b.zarr", "--box-size", "5"]) == 0


def test_tasks_that_do_not_see_each_other(
    painted: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mpi4py/mpi4py#155: srun and MPI do not fit, and every task is rank 0 of 1."""
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert main(["paint", str(painted), *TRIVIAL]) == 2
    said = capsys.readouterr().err
    assert "the launcher started 2 ranks (SLURM_NTASKS=2) but mpi4py sees 1" in said
    assert "srun --mpi=pmix" in said and said.count("\n") == 1


# ---------------------------------------------------------------- signals


def stopped_in(
    module: str, name: str, number: int = signal.SIGTERM
) -> Callable[[pytest.MonkeyPatch], None]:
    """Have a signal come when a function is called."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib import import_module

        real = getattr(import_module(module), name)

        def stopped(*arguments: object, **more: object) -> object:
            os.kill(os.getpid(), number)
            return real(*arguments, **more)

        monkeypatch.setattr(f"{module}.{name}", stopped)

    return patch


@pytest.mark.parametrize(
    ("name", "where"),
    [("SIGUSR1", "_run"), ("SIGHUP", "_run"), ("SIGXCPU", "_run"), ("SIGTERM", "join_world")],
)
def test_any_warning_stops_a_painting_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    """facebookincubator/submitit#1615: SIGUSR1 is the usual one before a limit."""
    path, _ = new_box(tmp_path, (64, 64, 64), seed=3)
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # nohup has it ignored
    try:
        with monkeypatch.context() as patch:
            stopped_in("bigbox.engine.run", where, number)(patch)
            assert main(["paint", str(path), *TRIVIAL]) == 75
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert main(["paint", str(path), *TRIVIAL]) == 0


def test_nohup_stays(monkeypatch: pytest.MonkeyPatch, painted: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["paint", str(painted), *TRIVIAL]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("command", "when"),
    [
        ("verify BOX", stopped_in("bigbox.store.verify", "verify")),
        ("plot BOX --out OUT/p.png", stopped_in("bigbox.analysis.maps.picture", "panels")),
        ("validate BOX --out OUT/v",
         stopped_in("bigbox.analysis.report.validate", "write_report")),
        ("export BOX --to ome-zarr --out OUT/e", stopped_in("bigbox.export.ome", "_metadata")),
        ("bench --seconds 1 --scratch OUT --out OUT/b.json",
         stopped_in("bigbox.bench.ceilings", "store_rates")),
        ("status BOX", stopped_in("bigbox.cli.status", "open_box")),
    ],
)  # fmt: skip
def test_sigterm_ends_any_command_with_75(
    painted: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, command: str, when
) -> None:
    when(monkeypatch)
    words = command.replace("BOX", str(painted)).replace("OUT", str(tmp_path)).split()
    assert main(words) == 75
    said = capsys.readouterr().err
    *before, last = said.splitlines()
    assert "stopped by SIGTERM" in last and all("measuring" in line for line in before)
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# ---------------------------------------------------------------- full disks


@pytest.mark.slow
def test_a_full_disk_leaves_the_report_as_it_was(painted: Path, tmp_path: Path, capsys) -> None:
    """hpcugent/vsc_user_docs#660; the limit of a file's size stands for a full disk."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    older = folder / "v" / "index.html"
    older.parent.mkdir(parents=True)
    older.write_text("an older report")
    box = shutil.copytree(painted, folder / "box.zarr")
    command = ["validate", str(box), "--out", str(older.parent), "--scratch", "/dev/shm"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (180 << 10, before[1]))
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert "the report cannot be written (File too large)" in said and said.count("\n") == 1
    assert [*older.parent.iterdir()] == [older] and older.read_text() == "an older report"
    assert main(command) in (0, 3)
    assert older.stat().st_size > 10_000 and not list(older.parent.glob(".*"))
    assert json.loads((older.parent / "numbers.json").read_text())["box"]["name"]
