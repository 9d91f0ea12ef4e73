"""`bigbox train`, whole: models that load, options that do not go together, several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.cli import main
from bigbox.networks.model import load_model
from bigbox.networks.presets import HALOGEN, LODI
from bigbox.store.box import Box
from bigbox.training import measures
from bigbox.training.curve import Curve
from bigbox.training.measures import GAMMAS
from bigbox.training.train import MEASURED
from tests.small_training import STOPPING_STEP, use_small_networks

VOXEL = 12.5 / 128
ROOT = Path(__file__).parents[2]
TOLD = ("--batch", "1", "--seed", "3", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for table in (HALOGEN, LODI):
        monkeypatch.setitem(table, "mini", table["mini"])
    for name in ("TILES", "CURVE_TILES"):
        monkeypatch.setattr(measures, name, getattr(measures, name))
    monkeypatch.setitem(MEASURED, "cpu", MEASURED["cpu"])
    use_small_networks()


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two simulations of 64³ with haloes and a T_b that follows them, the first with two draws."""
    folder = tmp_path_factory.mktemp("boxes")
    paths = []
    for name in ("0", "0-again", "1"):
        rng = np.random.default_rng(int(name[0]))
        path = folder / f"{name}.zarr"
        box = Box.create(path, (64,) * 3, 64 * VOXEL, 0.0, {"omega_m": 0.3})
        halo = np.zeros((4, 64, 64, 64), dtype=np.float32)
        for channel in range(4):
            sites = rng.integers(0, 64, (60, 3))
            halo[(channel, *sites.T)] = 10 ** (11 + 0.5 * channel)
        told = {"smoothing": 0.2, "source": "made up for a test"}
        box.create_array("dm")[...] = rng.gamma(0.5, 2.0, (64,) * 3).astype(np.float32)
        box.create_array("halo", channels=4, attributes=told)[...] = halo
        box.create_array("tb", attributes=told)[...] = halo.sum(0) / 1e12 * len(name)
        paths.append(str(path))
    return paths


def run(kind: str, boxes: list[str], out: Path, *more: str, steps: int = 3) -> int:
    command = ["train", kind, *boxes, "--out", str(out), "--steps", str(steps), *TOLD, *more]
    return main(command)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("bigbox: ") and text.count("\n") == 1, text
    return text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["halogen", "lodi"])
def test_train_writes_a_model_that_loads(
    boxes: list[str], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert run(kind, boxes, out) == 0
    model = load_model(out, kind)
    card = model.card
    whole = {"axis 0": [0, 64], "of": 64}
    assert card["data"]["training"] == [{"box": "0.zarr, 0-again.zarr", **whole}]
    assert card["data"]["validation"] == [{"box": "1.zarr", **whole}]
    assert card["recipe"]["seed"] == 3 and card["sources"] == ["made up for a test"]
    assert card["grid"] == 2 and card["recipe"]["steps"] == 3
    if kind == "lodi":
        assert [*map(float, card["measured"]["error of v by gamma"])] == list(GAMMAS)
        assert all(error > 0 for error in card["measured"]["error of v by gamma"].values())
        assert card["tile"] == 32 and card["gamma"] == [-9.0, 12.0]
    else:
        assert len(card["measured"]["rms error of each channel, network units"]) == 4
        assert card["window"] == 32 and card["loss"].startswith("Poisson")
    rows = Curve(out / f"{kind}.csv").rows()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) > {"training", "validation", "rate"}
    assert len(rows[0]) == 4 + (len(GAMMAS) if kind == "lodi" else 4)
    assert card["measured"]["validation loss"] == pytest.approx(min(r["validation"] for r in rows))
    assert (out / f"{kind}.png").stat().st_size > 1000
    assert "validation loss" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["halogen", "lodi"])
def test_training_further_says_whether_it_is_better(
    boxes: list[str], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, worse = (tmp_path / name for name in ("first", "second", "worse"))
    assert run(kind, boxes, first, "--float32-weights") == 0
    assert run(kind, boxes, second, "--further", str(first), steps=1) == 0
    before, card = (json.loads((f / f"{kind}.json").read_text()) for f in (first, second))
    assert card["trained further from"]["sha256"] == before["sha256"]
    # What was validated last is validated first.
    told = card["measured"]["validation loss before"]
    assert told == pytest.approx(before["measured"]["validation loss"], rel=1e-3)
    assert Curve(second / f"{kind}.csv").rows()[0]["step"] == 0
    capsys.readouterr()
    assert run(kind, boxes, worse, "--further", str(first), "--rate", "0.3", steps=2) == 0
    text = capsys.readouterr()
    assert "of the weights as they were" in text.err and "no better than" in text.err
    kept, start = load_model(worse, kind), load_model(first, kind)
    for mine, theirs in zip(kept.network.parameters(), start.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.01, atol=1e-3)  # written in bfloat16


@pytest.mark.slow
def test_lodi_learns_on_predicted_haloes(boxes: list[str], tmp_path: Path) -> None:
    halogen, out = tmp_path / "halogen", tmp_path / "lodi"
    assert run("halogen", boxes, halogen, steps=2) == 0
    share = ["--halogen", str(halogen), "--halogen-share", "0.25"]
    assert run("lodi", boxes, out, *share, steps=2) == 0
    card = load_model(out, "lodi").card
    assert card["haloes"].startswith("25% of the samples as HALOgen predicts them")


@pytest.mark.slow
def test_the_paper_s_loss_and_noise_prediction(boxes: list[str], tmp_path: Path) -> None:
    assert run("halogen", boxes, tmp_path, "--loss", "paper", steps=2) == 0
    assert load_model(tmp_path, "halogen").card["loss"].startswith("eqs. 2-7")
    assert run("lodi", boxes, tmp_path, "--parametrisation", "noise", steps=2) == 0
    card = load_model(tmp_path, "lodi").card
    assert card["loss"].startswith("eq. 13") and card["gamma"][0] == pytest.approx(-13.3, abs=0.1)


def test_options_that_do_not_go_together(
    boxes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, options, message in (
        ("lodi", ["--loss", "mean"], "--loss mean: of halogen alone; leave it out"),
        ("halogen", ["--parametrisation", "v"], "--parametrisation v: of lodi alone"),
        ("halogen", ["--halogen", "model"], "--halogen model: of lodi alone"),
        ("lodi", ["--halogen-share", "0.5"], "--halogen-share 0.5: of the haloes that a model"),
        ("lodi", ["--halogen", str(tmp_path)], "no halogen.json there"),
        ("halogen", ["--preset", "paper", "--within", "1"], "--within 1: the schedule of halogen"),
    ):
        assert run(kind, boxes, tmp_path / "out", *options) == 2
        assert message in one_line(capsys)
    with pytest.raises(SystemExit) as caught:
        run("lodi", boxes, tmp_path / "out", "--halogen", "m", "--halogen-share", "1.5")
    assert caught.value.code == 2 and "at least 0, at most 1" in capsys.readouterr().err
    assert run("lodi", boxes[:2], tmp_path / "out", "--held-out", "1") == 2
    assert "is one simulation" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_models_of_other_boxes_and_sizes(
    boxes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("halogen", boxes, tmp_path, steps=1) == 0
    path = tmp_path / "halogen.json"
    card = json.loads(path.read_text())
    for key, value, message in (
        ("redshift", 2.0, "redshift 2, that of 0.zarr"),
        ("voxel_size", 0.2, "voxel_size 0.2, that of 0.zarr"),
        ("grid", 5, "paints every 5th voxel"),
    ):
        path.write_text(json.dumps(card | {key: value}))
        capsys.readouterr()
        assert run("lodi", boxes, tmp_path / "out", "--halogen", str(tmp_path)) == 2
        assert message in one_line(capsys)
    path.write_text(json.dumps(card | {"grid": 1}))
    assert run("halogen", boxes, tmp_path / "out", "--further", str(tmp_path)) == 2
    assert "on grid 1, not" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_rate_that_blows_up_ends_with_status_2(
    boxes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("lodi", boxes, tmp_path, "--rate", "1e30", steps=20) == 2
    assert "smaller --rate than 1e+30" in capsys.readouterr().err
    assert not (tmp_path / "lodi.json").exists()


@pytest.mark.slow
def test_a_job_s_time_is_kept_and_the_same_command_goes_on(
    boxes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A time limit that reading the boxes has used up: one step, and status 75."""
    assert run("lodi", boxes, tmp_path, "--hours", "1e-7", steps=3) == 75
    assert "at step 1 of 3; the same command goes on" in capsys.readouterr().err
    assert run("lodi", boxes, tmp_path, steps=3) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_compiled_it_learns_the_same(boxes: list[str], tmp_path: Path) -> None:
    losses = {}
    for compiled in ("on", "off"):
        out = tmp_path / compiled
        assert run("halogen", boxes, out, "--compile", compiled, steps=2) == 0
        losses[compiled] = [row["training"] for row in Curve(out / "halogen.csv").rows()]
    assert losses["on"] == pytest.approx(losses["off"], rel=0.02)


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2", "-m", "tests.small_training", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        launcher, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT
    )


@pytest.mark.slow
def test_two_processes_train_one_network(boxes: list[str], tmp_path: Path) -> None:
    """torch's DDP, here on CPUs: one model, whose steps saw the batches of both processes."""
    command = ["train", "lodi", *boxes, "--out", str(tmp_path), "--steps", "2", *TOLD]
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path, "lodi").card["recipe"]["processes"] == 2
    assert done.stdout.count("validation loss") == 1
    assert [row["step"] for row in Curve(tmp_path / "lodi.csv").rows()] == [1, 2]


@pytest.mark.slow
def test_all_processes_stop_together(tmp_path: Path) -> None:
    """One of them is told to; both end after the same step, with the same weights."""
    tmp_path.mkdir(exist_ok=True)
    done = torchrun("stop", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert first[:2] == second[:2] and first[0] == str(STOPPING_STEP + 1)
    assert "stopped by another rank" in first[2] and "stopped by SIGTERM" in second[2]
    saved = torch.load(tmp_path / "line.checkpoint.pt", weights_only=True)
    assert saved["step"] == STOPPING_STEP + 1
