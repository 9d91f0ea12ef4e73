"""Looking on, logs, metrics, the page of a run; repair from tiles; cleaning up only when safe."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from bigbox.analysis.runs.page import busy_shares, rows_of
from bigbox.cli import main, watching
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.ledger import Ledger
from bigbox.store.recorded import painting_of
from bigbox.store.watch import newest_watch, numbers, watch_path, write_watch
from tests.boxes import new_box
from tests.faults.commands import KILLED, Commands
from tests.faults.damaged import HALOES as ON_HALOES
from tests.faults.damaged import TILES, files, flip, refused, tb

HALOES = (*ON_HALOES, "--steps", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box that is painted, with a log."""
    folder = tmp_path_factory.mktemp("whole")
    path, _ = new_box(folder, (64, 64, 64), seed=3)
    assert main(["paint", str(path), *HALOES, "--log", str(folder / "log")]) == 0
    return path


@pytest.fixture
def box(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "box.zarr")


def of_ranks(seconds: float, done: list[int], busy: list[float], heard: float) -> dict[str, object]:
    """What three or more ranks have written down half-way."""
    half = [[count // 2] for count in done]
    return {
        "run": 1, "beat": 7, "state": "painting", "said": "", "host": "elsewhere", "pid": 1,
        "ranks": len(done), "time": "2026-01-01T00:00:00+00:00", "seconds": seconds,
        "work": [{"noun": "tile", "total": 1000, "already": 100, "done": done}],
        "busy": busy, "heard": [heard] * len(done),
        "timeline": {
            "seconds": [seconds / 2, seconds],
            "done": [half, [[count] for count in done]],
            "busy": [[one / 2 for one in busy], busy],
        },
    }  # fmt: skip


def test_rates_slow_and_silent_ranks_are_told() -> None:
    found = numbers(of_ranks(200.0, [100, 100, 50, 100], [90.0, 90.0, 90.0, 90.0], 200.0))
    work = found["work"][0]
    assert (work["done"], work["total"]) == (450, 1000)
    # Over the last half, the newest look that is a minute old: 175 tiles in 100 s.
    assert work["rate"] == pytest.approx(1.75) and work["left"] == pytest.approx(550 / 1.75)
    assert found["slow"] == {2: pytest.approx(2.0)} and found["silent"] == {}
    assert set(numbers(of_ranks(200.0, [9] * 4, [9.0] * 4, 10.0))["silent"]) == {0, 1, 2, 3}


def test_a_run_writes_down_what_it_did(whole: Path) -> None:
    found = newest_watch(Ledger(whole))
    assert found is not None and found["state"] == "done" and found["run"] == 1
    assert [(one["done"], one["total"]) for one in found["now"]["work"] if one["total"]] == [
        (1, 1),
        (54, 54),
    ]
    moments, shares = busy_shares(found)
    assert len(moments) == len(shares) + 1 and shares.shape[1] == 1
    # What was painted is what the shares say.
    assert (shares[:, 0] * np.diff(moments)).sum() == pytest.approx(found["busy"][0], abs=0.1)


def test_the_log_has_a_json_object_a_line(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole.parent / "log").read_text().splitlines()]
    assert [line["event"] for line in lines if "event" in line][:1] == ["begin"]
    assert lines[-1]["event"] == "end" and lines[-1]["status"] == 0 and lines[-1]["tiles"] == 27
    assert all({"time", "level", "rank", "said"} <= set(line) for line in lines)


def test_an_error_is_the_last_word_of_the_log(whole: Path, tmp_path: Path, capsys) -> None:
    log = tmp_path / "log"
    said = refused(capsys, "paint", whole, *HALOES, "--seed", "9", "--log", log)
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error" and last["status"] == 2 and last["said"] in said
    assert "cannot be written" in refused(
        capsys, "paint", whole, *HALOES, "--log", tmp_path / "none" / "log"
    )


def test_status_says_the_same_of_a_copy(whole: Path, box: Path, capsys) -> None:
    for path in box.rglob("*"):
        os.utime(path, (time.time() + 5000, time.time() + 5000))
    said = []
    for one in (whole, box):
        capsys.readouterr()
        assert main(["status", str(one)]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_a_run_that_was_killed_is_told_from_one_at_work(box: Path, capsys) -> None:
    ledger = Ledger(box)
    found = newest_watch(ledger)
    assert found is not None
    write_watch(DISK, watch_path(ledger, 1), found | {"state": "painting"})
    assert main(["status", str(box), "--watch", "0.1"]) == 0  # ends, as nobody is at work
    assert "killed" in capsys.readouterr().out


def test_another_node_knows_a_living_run_by_its_beat(box: Path, capsys, monkeypatch) -> None:
    ledger, beats = Ledger(box), iter(range(100, 200))

    def sleep(seconds: float) -> None:  # meanwhile the run goes on, and in the end stops
        beat = next(beats)
        found = of_ranks(10.0, [beat - 99] * 3, [1.0] * 3, 10.0) | {"beat": beat}
        if beat == 104:
            found |= {"state": "stopped", "said": "stopped by SIGTERM"}
        write_watch(DISK, watch_path(ledger, 1), found)

    sleep(0)
    monkeypatch.setattr(watching.time, "sleep", sleep)
    assert main(["status", str(box), "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [("at work" in line) for line in lines] == [True] * 4 + [False]
    assert "103 of 1,000 tiles" in lines[0] and "stopped by SIGTERM" in lines[-1]


def test_news_that_are_damaged_are_no_news(box: Path, capsys) -> None:
    flip(watch_path(Ledger(box), 1), 1)
    assert newest_watch(Ledger(box)) is None
    assert main(["status", str(box)]) == 0
    assert "no run has written" in refused(capsys, "status", box, "--watch")


def test_metrics_are_those_of_the_run(box: Path, tmp_path: Path) -> None:
    out = tmp_path / "bigbox.prom"
    assert main(["status", str(box), "--metrics", str(out)]) == 0
    line = re.compile(r'(bigbox_\w+)\{box="[^"]+",run="1"(?:,(\w+)="(\w+)")?\} (\S+)')
    rows = [row for row in out.read_text().splitlines() if not row.startswith("#")]
    values = {line.fullmatch(row).groups()[:3]: float(row.split()[-1]) for row in rows}  # type: ignore[union-attr]
    assert values["bigbox_done", "unit", "step"] == 54
    assert values["bigbox_up", None, None] == 0 and ("bigbox_busy_seconds", "rank", "0") in values


def test_the_page_of_a_run_shows_each_rank(box: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    write_watch(DISK, watch_path(Ledger(box), 1), of_ranks(10.0, [16, 16, 4], [8.0] * 3, 10.0))
    assert main(["status", str(box), "--report", str(out)]) == 0
    page = out.read_text()
    assert page.count("<rect ") == 6 and "rank 2 takes 4.0 times the usual" in page
    assert "busy 80 %" in page and "src=" not in page
    ranks = [row.stop - row.start for row in rows_of(1000)]
    assert len(ranks) <= 64 and sum(ranks) == 1000


@pytest.mark.parametrize("how", ["flip", "lose"])
def test_shards_are_made_again_from_tiles_without_a_painter(
    box: Path, whole: Path, capsys, how: str
) -> None:
    shard = box / "tb" / "c.0.0.0"
    flip(shard, 700) if how == "flip" else shard.unlink()
    assert main(["verify", str(box), "--repair"]) == 0
    assert "1 of the shards of tb made again" in capsys.readouterr().out
    assert tb(box).tobytes() == tb(whole).tobytes()
    found = painting_of(Box.open(box))
    assert found is not None and found.state.complete
    flip(sorted((box / "latents" / "painted").glob("c.*"))[0], 700)  # that takes a painter
    assert main(["verify", str(box), "--repair"]) == 2
    assert main(["paint", str(box), *HALOES]) == 0
    assert main(["verify", str(box)]) == 0 and tb(box).tobytes() == tb(whole).tobytes()


def test_clean_removes_tiles_only_of_a_tb_that_is_right(box: Path, whole: Path, capsys) -> None:
    flip(sorted((box / "tb").glob("c.*"))[0], 700)
    before = files(box)
    assert "nothing is removed" in refused(capsys, "clean", box)
    assert files(box) == before
    assert main(["verify", str(box), "--repair"]) == 0
    before = files(box)
    assert main(["clean", str(box), "--dry-run"]) == 0 and files(box) == before
    assert main(["clean", str(box)]) == 0
    assert not (box / "latents").exists() and tb(box).tobytes() == tb(whole).tobytes()
    assert main(["verify", str(box)]) == 0 and main(["paint", str(box), *HALOES]) == 0
    assert main(["clean", str(box)]) == 0


def test_clean_leaves_what_is_not_finished(tmp_path: Path, capsys) -> None:
    path, _ = new_box(tmp_path, (96, 96, 96), seed=3)
    assert main(["paint", str(path), *TILES, "--steps", "2", "--region", "0:32,0:32,0:32"]) == 0
    before = files(path)
    assert main(["clean", str(path)]) == 0
    said = capsys.readouterr().out
    assert "latents: stays: 8 of 8 shards of tb are not done" in said
    assert files(path) == before


@pytest.mark.slow
def test_clean_may_be_killed_anywhere(box: Path, whole: Path, tmp_path: Path) -> None:
    commands, kept = Commands(box), shutil.copytree(box, tmp_path / "kept")
    calls = commands.run("clean", box).calls
    for at in range(1, calls + 1, calls // 3):
        shutil.rmtree(box)
        shutil.copytree(kept, box)
        assert commands.run("clean", box, kill_at=at).status == KILLED
        assert commands.run("verify", box).status == 0, at
        assert commands.run("clean", box).status == 0, at
        assert not (box / "latents").exists() and commands.run("verify", box).status == 0, at
        assert not list((box / "ledger" / "tmp").glob("*/*")), at
    assert tb(box).tobytes() == tb(whole).tobytes()
