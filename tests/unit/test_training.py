"""Training: nothing leaks between splits, batches are functions of their step, kills are mended."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.cli import main
from bigbox.errors import BadInput, StoppedEarly
from bigbox.networks.model import load_model
from bigbox.store.box import Box
from bigbox.training.data import (
    SYMMETRIES,
    LodiSampler,
    Region,
    Sampler,
    TrainingBox,
    cut,
    overlap_mask,
    split_boxes,
    turn,
)
from bigbox.training.loop import Process, Trainer
from bigbox.training.recipes import RECIPES, Recipe
from bigbox.training.train import TrainOptions, train

VOXEL = 12.5 / 128


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def numbered(edge: int, name: str = "box", voxel: float = VOXEL) -> TrainingBox:
    """A box whose voxels are numbered, so that a sub-volume tells where it was cut."""
    field = np.arange(edge**3, dtype=np.float32).reshape(1, edge, edge, edge)
    halo = np.repeat(field, 4, axis=0)
    return TrainingBox(Path(name), {"halo": halo}, {"voxel_size": voxel})


def test_the_48_symmetries() -> None:
    cube = np.arange(27).reshape(1, 3, 3, 3)
    turned = {turn(cube, s).tobytes() for s in range(len(SYMMETRIES))}
    assert len(turned) == 48
    # A symmetry keeps neighbours neighbours: distances between numbers' places are the same.
    places = np.argwhere(cube[0] >= 0)
    before = np.linalg.norm(places[:, None] - places[None], axis=-1)
    for s in range(48):
        order = turn(cube, s)[0].ravel()
        after = np.empty((27, 3))
        after[order] = places
        np.testing.assert_allclose(np.linalg.norm(after[:, None] - after[None], axis=-1), before)


def test_cutting_wraps() -> None:
    box = numbered(10)
    corner = np.array([8, 3, 9])
    wanted = np.roll(box.fields["halo"], (-8, -3, -9), axis=(1, 2, 3))[:, :4, :4, :4]
    np.testing.assert_array_equal(cut(box.fields["halo"], corner, 4), wanted)


def seen(regions: list[Region], box: TrainingBox, window: int, draws: int = 300) -> set[int]:
    """Planes of axis 0 that sub-volumes of these regions touch."""
    planes: set[int] = set()
    sampler = Sampler([box], regions, window, seed=1)
    rng = sampler.generator(0)
    for _ in range(draws):
        planes |= set((sampler.draw(rng)["halo"][0] // box.edge**2).astype(int).ravel().tolist())
    return planes


def test_one_box_is_split_with_a_gap_that_nothing_reaches_into() -> None:
    box = numbered(128)
    split = split_boxes([box], 32)
    training, validation = (seen(r, box, 32) for r in (split.training, split.validation))
    assert len(validation) == 32 and len(training) == 128 - 32 - 40
    apart = [min((a - b) % 128, (b - a) % 128) for a in training for b in validation]
    assert min(apart) * VOXEL > 2.0


def test_several_boxes_are_split_by_simulation() -> None:
    boxes = [numbered(32, str(i)) for i in range(8)]
    split = split_boxes(boxes, 32)
    assert [r.box for r in split.training] == [0, 1, 2, 3, 4, 5]
    assert [r.box for r in split.validation] == [6, 7]
    assert [r.box for r in split_boxes(boxes, 32, held_out=1).validation] == [7]


def test_boxes_that_cannot_be_split() -> None:
    with pytest.raises(BadInput, match="too few to split"):
        split_boxes([numbered(64)], 64)
    with pytest.raises(BadInput, match="48 voxels an axis, the network sees 64"):
        split_boxes([numbered(48)], 64)
    with pytest.raises(BadInput, match="none is left to train on"):
        split_boxes([numbered(32), numbered(32)], 32, held_out=2)


def test_a_batch_is_a_function_of_its_step() -> None:
    sampler = Sampler([numbered(40)], [Region(0)], 32, seed=3)
    first, again = (sampler.batch(2, sampler.generator(7, 1))["halo"] for _ in range(2))
    other = sampler.batch(2, sampler.generator(8, 1))["halo"]
    rank = sampler.batch(2, sampler.generator(7, 0))["halo"]
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes() != rank.tobytes()


def test_halo_poor_sub_volumes_are_seen_less_often() -> None:
    """Boxes of one kind each: massive haloes, low-mass ones, none. Shares 1 : 1/2 : 1/10."""
    boxes = []
    for channel in (3, 0, None):
        field = np.zeros((4, 8, 8, 8), dtype=np.float32)
        if channel is not None:
            field[channel] = 2.0
        boxes.append(TrainingBox(Path("b"), {"halo": field}, {}))
    sampler = LodiSampler(boxes, [Region(i) for i in range(3)], 8, seed=4, threshold=1.0)
    rng = sampler.generator(0)
    kinds = np.zeros(3)
    for _ in range(3000):
        halo = sampler.draw(rng)["halo"]
        kinds[0 if halo[3].any() else 1 if halo.any() else 2] += 1
    shares = np.array([1, 0.5, 0.1]) / 1.6
    assert (abs(kinds / 3000 - shares) < 4 * np.sqrt(shares / 3000)).all()


def test_predicted_haloes_take_the_place_of_true_ones() -> None:
    field = np.full((4, 8, 8, 8), 2.0, dtype=np.float32)
    box = TrainingBox(Path("b"), {"halo": field, "predicted": -field}, {})
    sampler = LodiSampler([box], [Region(0)], 8, seed=5, threshold=1.0, predicted=0.3)
    rng = sampler.generator(0)
    drawn = [sampler.draw(rng) for _ in range(1000)]
    assert all(set(d) == {"halo"} for d in drawn)
    assert abs(np.mean([d["halo"].max() < 0 for d in drawn]) - 0.3) < 0.06


def test_overlap_masks_are_slabs_on_faces() -> None:
    rng = np.random.default_rng(6)
    empty = pairs = 0
    combinations = set()
    for _ in range(1500):
        mask = overlap_mask(rng, 32)
        unknown = mask == 0
        # What is left to paint is a cuboid: a product of one interval on each axis.
        axes = [unknown.any(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        box = axes[0][:, None, None] & axes[1][:, None] & axes[2]
        np.testing.assert_array_equal(unknown, box)
        ends = []
        for axis in axes:
            inside = np.flatnonzero(axis)
            low, high = inside[0], 31 - inside[-1]
            assert {int(low), int(high)} <= {0, 3, 4, 5, 6, 7, 8}
            ends += [bool(low), bool(high)]
        combinations.add(tuple(ends))
        empty += not mask.any()
        pairs += ends[::2] == ends[1::2]
    # One in eight of the tiles whose axes have both ends known, and one in 64 of the others.
    expected = 1500 * (0.75 / 8 + 0.25 / 64)
    assert len(combinations) == 64 and abs(empty - expected) < 4 * expected**0.5
    assert pairs > 1100


@pytest.mark.parametrize("kind", ["halogen", "lodi"])
@pytest.mark.parametrize("preset", ["mini", "paper"])
def test_learning_rates_stay_within_their_recipe(kind: str, preset: str) -> None:
    recipe = RECIPES[kind][preset]
    assert set(RECIPES[kind]) == {"mini", "paper"}
    rates = [recipe.rate_at(step) for step in range(0, recipe.steps, recipe.steps // 500)]
    assert max(rates) <= recipe.rate and min(rates) >= 0
    if recipe.epoch:  # the paper's: ten epochs at 2e-4, then restarts of period 50 epochs
        assert recipe.rate_at(9 * recipe.epoch) == 2e-4
        for restart in (10, 60, 110):
            assert recipe.rate_at(restart * recipe.epoch) == pytest.approx(1e-4)
        assert recipe.rate_at(60 * recipe.epoch - 1) == pytest.approx(3e-5, rel=0.01)


class Line(torch.nn.Module):
    """A task small enough to train in a moment: y = a x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.a * x - y).square().mean()


def line_trainer(folder: Path, steps: int = 60, **settings: object) -> Trainer:
    def batch(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([step, rank])
        x = torch.from_numpy(rng.standard_normal((share, 3)).astype(np.float32))
        return {"x": x, "y": x * torch.tensor([1.0, -2.0, 3.0])}

    recipe = Recipe("adamw", 0.2, 8, steps, 0, 0.9, 1.0)
    process = Process(0, 1, torch.device("cpu"), autocast=False)
    return Trainer(
        Line(),
        recipe,
        process,
        folder,
        "line",
        {"recipe": 1, **settings},
        batch,
        lambda index, share: batch(10_000 + index, 0, share),
        validate_every=10,
        checkpoint_every=0.0,
        validation_batches=2,
    )


def test_a_training_that_is_stopped_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    straight = line_trainer(tmp_path / "straight")
    straight.run()
    assert straight.best < 0.5
    stops = {17, 34}

    def stopping(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
        if step in stops:
            stops.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return straight.batch(step, rank, share)

    stopped = 0
    while True:
        trainer = line_trainer(tmp_path / "stopped")
        trainer.batch = stopping
        try:
            trainer.run()
            break
        except StoppedEarly as stop:
            assert "goes on from here" in str(stop)
            stopped += 1
    assert stopped == 2
    for mine, theirs in zip(
        straight.best_network().parameters(), trainer.best_network().parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
    with trainer.curve.open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [10, 20, 30, 40, 50, 60]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    line_trainer(tmp_path).run()
    with pytest.raises(BadInput, match="trained with seed None, now 2"):
        line_trainer(tmp_path, seed=2).run()
    checkpoint = tmp_path / "line.checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(BadInput, match="damaged"):
        line_trainer(tmp_path).run()


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two boxes of 64³ with haloes and a T_b that follows them."""
    folder = tmp_path_factory.mktemp("boxes")
    paths = []
    for i in range(2):
        rng = np.random.default_rng(i)
        path = folder / f"{i}.zarr"
        box = Box.create(path, (64,) * 3, 64 * VOXEL, 0.0, {"omega_m": 0.3})
        halo = np.zeros((4, 64, 64, 64), dtype=np.float32)
        for channel in range(4):
            sites = rng.integers(0, 64, (60, 3))
            halo[(channel, *sites.T)] = 10 ** (11 + 0.5 * channel)
        told = {"smoothing": 0.2, "source": "made up for a test"}
        box.create_array("dm")[...] = rng.gamma(0.5, 2.0, (64,) * 3).astype(np.float32)
        box.create_array("halo", channels=4, attributes=told)[...] = halo
        box.create_array("tb", attributes=told)[...] = halo.sum(0) / 1e12
        paths.append(path)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["halogen", "lodi"])
def test_train_writes_a_model_that_loads(
    boxes: list[Path], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    told = ["--steps", "2", "--batch", "1", "--seed", "3", "--threads", "1", "--device", "cpu"]
    assert main(["train", kind, *map(str, boxes), "--out", str(out), *told]) == 0
    model = load_model(out, kind)
    assert sum(p.numel() for p in model.network.parameters()) > 100_000
    card = json.loads((out / f"{kind}.json").read_text())
    assert card["data"]["training"] == [{"box": "0.zarr", "axis 0": [0, 64], "of": 64}]
    assert card["data"]["validation"] == [{"box": "1.zarr", "axis 0": [0, 64], "of": 64}]
    assert card["recipe"]["seed"] == 3 and card["sources"] == ["made up for a test"]
    assert card["measured"]["validation loss"] > 0
    assert (out / f"{kind}.png").stat().st_size > 1000
    assert "validation loss" in capsys.readouterr().out
    more = tmp_path / "more"
    further = [*told, "--further", str(out)]
    assert main(["train", kind, *map(str, boxes), "--out", str(more), *further]) == 0
    before = json.loads((more / f"{kind}.json").read_text())["trained further from"]
    assert before["sha256"] == model.sha256


def test_boxes_that_do_not_belong_together(boxes: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    box = Box.create(other, (64,) * 3, 64 * 0.2, 0.0)
    for name, channels in (("halo", 4), ("tb", None)):
        box.create_array(name, channels=channels)[...] = 1.0
    options = TrainOptions("lodi", [boxes[0], other], tmp_path / "m", steps=1)
    with pytest.raises(BadInput, match=r"voxels of 0\.2 Mpc/h"):
        train(options)
    Box.create(tmp_path / "bare.zarr", (64,) * 3, 64 * VOXEL, 0.0)
    with pytest.raises(BadInput, match="has no 'halo'"):
        train(replace(options, boxes=[tmp_path / "bare.zarr"]))
    with pytest.raises(BadInput, match="given twice"):
        train(replace(options, boxes=[other, other]))
    flat = tmp_path / "flat.zarr"
    box = Box.create(flat, (64,) * 3, 64 * 0.2, 0.0)
    box.create_array("tb")[...] = 1.0
    box.create_array("halo", channels=4)[...] = 1.0
    with pytest.raises(BadInput, match="put all draws of one simulation on one side"):
        train(replace(options, boxes=[other, flat]))
    box.array("halo")[...] = 2.0
    with pytest.raises(BadInput, match="the same everywhere"):
        train(replace(options, boxes=[other, flat]))


@pytest.mark.slow
def test_two_processes_train_one_network(boxes: list[Path], tmp_path: Path) -> None:
    """torch's DDP, here on CPUs: one model, whose steps saw the batches of both processes."""
    out = tmp_path / "model"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--master-port",
        str(20_000 + os.getpid() % 20_000),
        "-m",
        "bigbox",
        "train",
        "lodi",
    ]
    command += [*map(str, boxes), "--out", str(out), "--steps", "2", "--batch", "2"]
    command += ["--device", "cpu", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert load_model(out, "lodi").card["recipe"]["processes"] == 2
