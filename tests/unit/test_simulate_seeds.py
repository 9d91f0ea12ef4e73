"""`bigbox simulate --seeds`: the boxes of each, what is made again, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.simulation import run, seeds
from bigbox.simulation.options import Options
from bigbox.simulation.run import simulate
from bigbox.simulation.seeds import Series, simulate_seeds
from bigbox.simulation.snapshot import CATALOGUE, SNAPSHOT
from bigbox.store.box import Box
from tests.small_runs import quick_runs

ASKED = Options(32, 3.125, 0, steps=10)
COMMAND = ["simulate", "OUT", "--grid", "32", "--box-size", "3.125", "--steps", "10"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Workers are given the spectrum."""
    with quick_runs(run, seeds):
        yield


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> list[Box]:
    """The boxes of seed 3, both draws, by one command after the other."""
    folder = tmp_path_factory.mktemp("by_hand")
    simulate(folder / "sim", Options(32, 3.125, 3, steps=10))
    sim = folder / "sim"
    boxes = []
    for draw in (0, 1):
        ingest_snapshot(
            [(sim / SNAPSHOT).parent],
            folder / f"{draw}.zarr",
            haloes=[(sim / CATALOGUE).parent],
            hi_halo=True,
            hi_draw=draw,
        )
        boxes.append(Box.open(folder / f"{draw}.zarr"))
    return boxes


def alike(box: Box, other: Box) -> bool:
    return all(
        np.array_equal(box.array(name)[...], other.array(name)[...])
        for name in ("dm", "halo", "tb")
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("here", [False, True], ids=["in workers", "as on a GPU"])
def test_boxes_are_those_of_one_command_after_the_other(
    here: bool, by_hand: list[Box], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "_evolves_here", lambda device: here)
    out = tmp_path / "out"
    series = Series(out, ASKED, (3, 4), draws=2, keep=False)
    assert simulate_seeds(series, "cpu", workers=2) == [3, 4]
    boxes = [f"seed00{seed}{draw}.zarr" for seed in (3, 4) for draw in ("", "_draw1")]
    assert names(out) == sorted([*boxes, "simulate.json"])
    first, second, other, _ = (Box.open(out / name) for name in boxes)
    assert alike(first, by_hand[0]) and alike(second, by_hand[1])
    assert not alike(first, second) and not alike(first, other)
    assert np.array_equal(first.array("halo")[...], second.array("halo")[...])


@pytest.mark.slow
def test_what_is_whole_is_not_made_again(by_hand: list[Box], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert simulate_seeds(Series(out, ASKED, (3,)), "cpu", 1) == [3]
    assert names(out) == ["seed003", "simulate.json"]
    before = (out / "seed003" / SNAPSHOT).stat()
    # A killed process has left something.
    (out / f".seed003.zarr.ingest-{os.uname().nodename}-{os.getpid()}").mkdir()
    with_boxes = Series(out, ASKED, (3,), draws=2, keep=True)
    assert simulate_seeds(with_boxes, "cpu", 1) == [3]
    assert names(out) == ["seed003", "seed003.zarr", "seed003_draw1.zarr", "simulate.json"]
    assert (out / "seed003" / SNAPSHOT).stat().st_mtime_ns == before.st_mtime_ns
    assert alike(Box.open(out / "seed003_draw1.zarr"), by_hand[1])
    assert simulate_seeds(with_boxes, "cpu", 1) == []
    words = [*COMMAND, "--seeds", "3", "--boxes", "--hi-draws", "2", "--keep-snapshots"]
    assert main([str(out) if word == "OUT" else word for word in words]) == 0
    # Half of it is lost.
    (out / "seed003.zarr").rename(tmp_path / "away")
    assert simulate_seeds(with_boxes, "cpu", 1) == [3]
    assert alike(Box.open(out / "seed003.zarr"), by_hand[0])
    assert (out / "seed003" / SNAPSHOT).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--seeds", "1", "2", "1-3"], "seed 1 is given twice"),
        (["--seeds", "3-1"], "3-1: must be 1 to 10000 seeds"),
        (["--seeds", "0-10000"], "must be 1 to 10000 seeds"),
        (["--seeds", "x-3"], "'x' is not a whole number"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "1", "--seed", "1"], "not allowed with"),
        ([], "--seed --seeds is required"),
        (["--seed", "4", "--boxes"], "--boxes is for several seeds: give --seeds 4"),
        (["--seed", "4", "--workers", "2"], "--workers is for several seeds"),
        (["--seeds", "4", "--hi-draws", "2"], "give --boxes"),
        (["--seeds", "4", "--keep-snapshots"], "give --boxes"),
        (["--seeds", "4", "--threads", "2"], "--threads is for one seed"),
        (["--seeds", "4", "--workers", "9999"], "9999 processes of .* fewer --workers"),
    ],
)
def test_bad_input_is_one_line(words: list[str], match: str, tmp_path: Path, capsys) -> None:
    refused(tmp_path / "out", words, match, capsys)


def refused(out: Path, words: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(out.parent.rglob("*"))
    try:
        status = main([str(out) if word == "OUT" else word for word in (*COMMAND, *words)])
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("bigbox: ") and said.count("\n") == 1
    assert re.search(match, said), said
    assert sorted(out.parent.rglob("*")) == before


def test_a_folder_is_gone_on_with_only_by_the_same_options(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    refused(out, ["--seeds", "1"], "exists already", capsys)
    common = Series(out, ASKED, (1,), draws=1, keep=False).common
    for name, value, shown in (("steps", 11, 11), ("snapshots", True, True)):
        (out / "simulate.json").write_text(json.dumps({**common, name: value}))
        words = ["--seeds", "1", "--boxes"]
        refused(out, words, f"was begun with {name} {shown}, not {common[name]}", capsys)
    (out / "simulate.json").write_text("{")
    refused(out, ["--seeds", "1", "--boxes"], "is damaged", capsys)


def test_too_little_disk_or_memory(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, memory = namedtuple("usage", "total used free"), namedtuple("memory", "available")
    words = ["--seeds", "1-4", "--boxes", "--workers", "1"]
    boxes = 4 * 4 * 6 * 32**3
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage(0, 0, boxes))
        refused(tmp_path / "out", words, "files need .* free: choose another folder", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: memory(ASKED.memory))
        refused(tmp_path / "out", words, "1 processes of .* need more memory", capsys)


def test_as_many_workers_as_cores_and_memory_suffice_for(monkeypatch: pytest.MonkeyPatch) -> None:
    series = Series(Path("out"), ASKED, tuple(range(100)))
    each = seeds.PROCESS + ASKED.memory
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for gigabytes, count, gpu, expected in (
        (3.5 * each, 100, False, 3),
        (1e12, 100, False, 16),
        (1e12, 100, True, 15),
        (1e12, 5, False, 5),
    ):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=gigabytes: memory(free))
        assert seeds._fitting(series, 0, count, gpu) == expected


@pytest.mark.slow
def test_a_stop_leaves_what_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [str(out) if word == "OUT" else word for word in COMMAND]
    words[words.index("10")] = "3000"
    process = subprocess.Popen(
        [sys.executable, "-m", "bigbox", *words, "--seeds", "1-3", "--boxes", "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = [process.stderr.readline()]  # the folder is there by now, and the worker begins
    children = psutil.Process(process.pid).children
    while not children(recursive=True):
        time.sleep(0.1)
    workers = children(recursive=True)
    process.send_signal(signal.SIGTERM)
    said += process.stderr.readlines()
    assert process.wait(60) == 75
    assert "what is whole stays, the same command goes on" in said[-1], said
    assert names(out) == ["simulate.json"]
    assert not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.slow
def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    out, others = tmp_path / "out", set(multiprocessing.active_children())

    def kill() -> None:
        while not (found := set(multiprocessing.active_children()) - others):
            time.sleep(0.1)
        for process in found:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BadInput, match=r"a process was killed.* fewer --workers \(1\)"):
        simulate_seeds(Series(out, Options(32, 3.125, 0, steps=3000), (1, 2)), "cpu", workers=1)
    killer.join()
    assert names(out) == ["simulate.json"]
