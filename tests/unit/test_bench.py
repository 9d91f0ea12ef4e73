"""`bigbox bench`: every number is there, and `bigbox plan` goes by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bigbox.bench import ceilings
from bigbox.bench.painting import halogen_speed, lodi_speed
from bigbox.bench.record import load_speed, save_speed
from bigbox.cli import main
from bigbox.cli.bench import cost
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter
from tests.models import write_model

SMALL = (
    "--model",
    "{model}",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--steps",
    "2",
    "--seconds",
    "1",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceilings, "SECONDS", 0.02)
    monkeypatch.setattr(ceilings, "CONVOLUTIONS", ((16, 8),))
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "STORE_BYTES", 1 << 20)
    monkeypatch.setattr("bigbox.bench.painting.SIDES", (2, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_bench_measures_and_plan_goes_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ("plan", "--shape", "128", "--box-size", "12.5", "--memory", "99", "--disk", "99",
             "--threads", "1")  # fmt: skip
    assert main(shape) == 0
    assert "an estimate; bigbox bench measures it" in capsys.readouterr().out
    model = write_model(tmp_path / "model")
    told = [word.format(model=model) for word in SMALL]
    assert main(["bench", *told, "--shape", "256", "--box-size", "25", "--devices", "2"]) == 0
    said = capsys.readouterr().out
    speed = load_speed()
    assert speed is not None and speed.tiles == 8 and speed.steps == 2 and speed.threads == 1
    numbers = [v for v in vars(speed).values() if isinstance(v, float)]
    assert len(numbers) == 14 and min(numbers) > 0
    assert 0.2 < speed.busy <= 1 and speed.engine_tile > 0.5 * speed.tile
    for word in ("convolution ceiling", "painter busy", "256³ voxels of 25 Mpc/h", "device hours"):
        assert word in said

    # What a box costs: its tiles, and its windows of haloes.
    tiles, windows = 10**3, 6**3
    by_hand = tiles * speed.engine_tile + windows * speed.halogen_window
    assert cost(speed, 256, 25.0, 1).endswith(f" {by_hand / 3600:,.1f} device hours")
    slow = replace(speed, engine_tile=3.6, halogen_window=7.2)
    assert cost(slow, 256, 25.0, 1).endswith(f" {1.0 + 216 * 0.002:,.1f} device hours")

    assert main([*shape, "--steps", "4"]) == 0
    said = capsys.readouterr().out
    assert said.count(f"measured by bigbox bench on {speed.device}") == 2
    assert f"{speed.seconds_per_tile(4):.3g} s a tile" in said
    assert speed.seconds_per_tile(4) == pytest.approx(2 * speed.engine_tile)
    # bench and plan tell the same cost of the same box on the same ranks.
    agreed = replace(speed, threads=2, engine_tile=36.0, halogen_window=36000 / 216, layers={})
    save_speed(agreed, tmp_path / "agreed.json")
    told = ["plan", "--shape", "256", "--box-size", "25", "--memory", "99", "--disk", "99"]
    told += ["--model", str(model), "--steps", "2", "--bench"]  # a rank is what was measured
    assert main([*told, str(tmp_path / "agreed.json")]) == 0
    hours = float(cost(agreed, 256, 25.0, 1).rsplit(maxsplit=3)[1])
    assert f"{2 * hours:,.1f} core hours on 1 ranks of 2 threads" in capsys.readouterr().out
    gpu = replace(agreed, kind="cuda", threads=1)
    save_speed(gpu, tmp_path / "gpu.json")
    assert main([*told, str(tmp_path / "gpu.json")]) == 0
    assert f"{hours:,.1f} GPU hours on 1 GPUs" in capsys.readouterr().out
    assert cost(gpu, 256, 25.0, 1).endswith(f" {hours:,.1f} GPU hours")
    assert "125 tiles" in cost(replace(speed, grid=2), 256, 25.0, 1)
    parts = [name for name in speed.layers if name.startswith("lodi ")]
    assert "lodi outlet" in parts and 0 < speed.copies < 1
    assert sum(speed.layers[name][1] for name in parts) == pytest.approx(speed.lodi_operations)

    elsewhere = tmp_path / "there.json"
    faster = json.loads((tmp_path / "cache" / "bigbox" / "bench.json").read_text())
    elsewhere.write_text(json.dumps(faster | {"engine_tile": 1.0, "threads": 3}))
    assert main([*shape, "--steps", "4", "--bench", str(elsewhere)]) == 0
    assert "at 6 s a tile" in capsys.readouterr().out


@torch.inference_mode()
def test_operations_are_those_of_the_layers(tmp_path: Path) -> None:
    """Counted by hand for the convolutions, which are nearly all of it."""
    folder = write_model(tmp_path)
    lodi = LodiPainter(seed=0, box_shape=(64,) * 3, model=load_model(folder, "lodi"))
    halogen = HalogenPainter(load_model(folder, "halogen"))
    tile, window = torch.zeros(1, 32, 32, 32), torch.zeros(1, 1, 64, 64, 64)
    told = lodi.model.network.prepare(torch.zeros(1, 4, 32, 32, 32), tile, tile)
    for painter, found, inputs in (
        (lodi, lodi_speed(lodi), (tile, torch.zeros(1), told)),
        (halogen, halogen_speed(halogen), (window,)),
    ):
        operations = []

        def count(layer: torch.nn.Conv3d, _: object, out: torch.Tensor) -> None:
            operations.append(2 * layer.weight[0].numel() * out[0].numel())  # noqa: B023

        network = painter.model.network
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv3d):
                layer.register_forward_hook(count)
        network(*inputs)
        assert sum(operations) == pytest.approx(found[0], rel=0.1)
        assert found[1] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda:77"], "device cuda:77"),
        (["--model", "nowhere"], "nowhere"),
        (["--scratch", "nowhere"], "no such folder"),
        (["--seconds", "0"], "out of range"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["bench", *arguments])
    except SystemExit as exit:
        status = exit.code
    assert status == 2 and said in capsys.readouterr().err


def test_numbers_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    shape = ["plan", "--shape", "128", "--box-size", "12.5"]
    assert main([*shape, "--bench", str(tmp_path / "x.json")]) == 2
    assert "not the numbers of bigbox bench" in capsys.readouterr().err
