"""The training loop: kills are mended, time is kept, a loss that is no number ends it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bigbox.errors import BadInput, StoppedEarly
from bigbox.training.curve import Curve
from bigbox.training.recipes import RECIPES, recipe
from tests.small_training import line_batch, line_trainer


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Clock:
    """Time that only work lets pass: nothing waits, and no machine is too slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("bigbox.training.loop.time.monotonic", lambda: self.now)

    def training(self, seconds: float) -> object:
        def batch(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
            self.now += seconds
            return line_batch(step, rank, share)

        return batch

    def validating(self, seconds: float) -> object:
        def measure(task: torch.nn.Module) -> dict[str, float]:
            self.now += seconds
            return {"error": 1.0}

        return measure


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("kind", ["halogen", "lodi"])
@pytest.mark.parametrize("preset", ["mini", "mini, CPU", "paper"])
def test_learning_rates_stay_within_their_recipe(kind: str, preset: str) -> None:
    chosen = RECIPES[kind][preset]
    steps = range(0, chosen.steps, chosen.steps // 500)
    rates = [chosen.rate_at(step, step / chosen.steps) for step in steps]
    assert max(rates) <= chosen.rate and min(rates) >= 0
    if chosen.epoch:  # the paper's: ten epochs at 2e-4, then restarts of period 50 epochs
        assert chosen.rate_at(9 * chosen.epoch, 0.5) == 2e-4
        for restart in (10, 60, 110):
            assert chosen.rate_at(restart * chosen.epoch, 0.5) == pytest.approx(1e-4)
        assert chosen.rate_at(60 * chosen.epoch - 1, 0.5) == pytest.approx(3e-5, rel=0.01)
    else:  # warm-up, then a cosine to zero
        assert max(rates) > 0.99 * chosen.rate
        assert rates[0] < 0.02 * chosen.rate and rates[-1] < 1e-3 * chosen.rate


def test_a_recipe_is_the_device_s_and_can_be_changed() -> None:
    assert recipe("lodi", "mini", gpu=True).batch > recipe("lodi", "mini", gpu=False).batch
    assert recipe("lodi", "paper", gpu=False) == RECIPES["lodi"]["paper"]
    changed = recipe("halogen", "mini", True, steps=7, rate=0.5)
    assert changed == replace(RECIPES["halogen"]["mini"], steps=7, rate=0.5)


def test_a_training_that_is_stopped_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    straight = line_trainer(tmp_path / "straight")
    straight.run()
    assert straight.best < 0.5
    stops = {17, 34}

    def stopping(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
        if step in stops:
            stops.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return line_batch(step, rank, share)

    stopped = 0
    while True:
        trainer = line_trainer(tmp_path / "stopped", batch=stopping)
        try:
            trainer.run()
            break
        except StoppedEarly as stop:
            assert "goes on from here" in str(stop)
            stopped += 1
    assert stopped == 2
    for one in ("task", "average"):
        mine, theirs = (getattr(t, one).state_dict() for t in (straight, trainer))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (straight.best, straight.best_step) == (trainer.best, trainer.best_step)
    steps = [int(row["step"]) for row in trainer.curve.rows()]
    # At each twentieth, and every ten steps.
    assert steps == [step for step in range(1, 61) if step % 3 == 0 or step % 10 == 0]
    for mine, theirs in zip(straight.curve.rows(), trainer.curve.rows(), strict=True):
        del mine["training"], theirs["training"]  # the mean since the start, or since the stop
        assert mine == theirs


def test_what_a_kill_left_in_the_curve_is_written_once(tmp_path: Path) -> None:
    """Killed between a validation and the next checkpoint."""
    trainer = line_trainer(tmp_path, steps=40)
    trainer.run()
    rows = trainer.curve.rows()
    saved = torch.load(trainer.checkpoint, weights_only=True)
    saved["step"] = 20
    torch.save(saved, trainer.checkpoint)
    again = line_trainer(tmp_path, steps=40)
    again.run()
    assert [row["step"] for row in again.curve.rows()] == [row["step"] for row in rows]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    line_trainer(tmp_path).run()
    with pytest.raises(BadInput, match="trained with seed None, now 2"):
        line_trainer(tmp_path, settings={"recipe": 1, "seed": 2}).run()
    checkpoint = tmp_path / "line.checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(BadInput, match="damaged"):
        line_trainer(tmp_path).run()


@pytest.mark.parametrize("began", [0.0, 20.0])
def test_the_rate_is_fitted_to_the_time(tmp_path: Path, clock: Clock, began: float) -> None:
    """100 s, of which reading the boxes took some: it ends in time, at a rate of next to zero."""
    trainer = line_trainer(
        tmp_path,
        steps=10**9,
        batch=clock.training(0.5),
        measure=clock.validating(1.5),
        within=100.0,
        began=clock.now - began,
        validate_every=10**9,
    )
    trainer.run()
    spent = clock.now - trainer.began
    assert 96 < spent <= 100
    rates = [row["rate"] for row in trainer.curve.rows()]
    assert len(rates) >= 15 and max(rates) > 0.15 and rates[-1] < 1e-3 * max(rates)
    assert trainer.best < 0.5


def test_a_time_in_several_starts_is_one(tmp_path: Path, clock: Clock) -> None:
    more = {"batch": clock.training(0.5), "within": 100.0, "steps": 10**9}
    starts, spent = 0, 0.0
    while True:
        starts += 1
        began = clock.now
        try:
            line_trainer(tmp_path, deadline=clock.now + 30, **more).run()
            break
        except StoppedEarly as stop:
            assert "the time limit" in str(stop)
            assert 28 < clock.now - began <= 30
        finally:
            spent += clock.now - began
        clock.now += 1e6  # in the queue
    assert starts == 4 and 96 < spent <= 101


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    tmp_path: Path, bad: float
) -> None:
    def batch(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
        made = line_batch(step, rank, share)
        return {name: x * bad if step == 33 else x for name, x in made.items()}

    trainer = line_trainer(tmp_path, batch=batch, checkpoint_every=-1.0)
    with pytest.raises(BadInput, match=r"smaller --rate than 0\.2.*is of before"):
        trainer.run()
    saved = torch.load(trainer.checkpoint, weights_only=True)
    assert saved["step"] == 33
    assert all(bool(x.isfinite().all()) for x in saved["task"].values())
    # And it can be gone on from, with better batches.
    line_trainer(tmp_path).run()


def test_a_rate_that_blows_up(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the loss is .* smaller --rate than 1e\+30") as caught:
        line_trainer(tmp_path, rate=1e30, checkpoint_every=-1.0).run()
    assert caught.value.exit_status == 2
    assert not (tmp_path / "line.checkpoint.pt").exists()


def test_weights_that_were_trained_are_validated_first(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path, rate=1e-9, validate_first=True)
    trainer.run()
    first, *others = trainer.curve.rows()
    assert first["step"] == 0 and "training" not in first and first["rate"] > 0
    assert first["validation"] == pytest.approx(trainer.before)
    assert all("training" in row for row in others)
    assert trainer.before == pytest.approx(14 / 3, rel=0.5)  # of a = 0
    bad = line_trainer(tmp_path / "bad", rate=50.0, steps=6, validate_first=True)
    bad.run()
    assert bad.best_step == 0 and not bad.best_network().network.weight.any()  # as they began


def test_a_curve_is_drawn_whatever_its_signs(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "c.csv")
    curve.add({"step": 0, "rate": 0.1, "validation": -1.5, "v at gamma -2": 0.3})
    curve.plot(tmp_path / "none.png")  # nothing was trained yet
    for step in (1, 2):
        told = {"step": step, "rate": 0.1, "training": 1.0, "validation": -2.0 + step}
        curve.add({**told, "v at gamma -2": 0.2})
    assert curve.rows()[0] == {"step": 0, "rate": 0.1, "validation": -1.5, "v at gamma -2": 0.3}
    curve.plot(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    curve.begin_after(1)
    assert [row["step"] for row in curve.rows()] == [0, 1]
    curve.begin_after(0)
    assert curve.rows() == []
