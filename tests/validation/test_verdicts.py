"""What `validate` says of truths and of planted faults: a sample of tests.benchmarks.verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bigbox.analysis.report.draws import beside, open_draws, reach
from bigbox.analysis.report.fields import open_field
from bigbox.analysis.report.judge import FAIL, PASS
from bigbox.errors import BadInput
from bigbox.ingest.draws import catalogue_of, draw_of, drawn
from bigbox.store.box import Box
from tests.benchmarks.verdicts import FAULTS, judged, synthetic
from tests.boxes import scratch

SEED = int(os.environ.get("BIGBOX_VERDICT_SEED", "0"))


@pytest.fixture(scope="module")
def truth() -> Iterator[Path]:
    with scratch() as folder:
        yield synthetic(folder, 20.0, 64)


def failed(found: dict) -> set[str]:
    return {check["name"] for check in found["checks"] if check["word"] == FAIL}


def test_draws_are_made_of_the_truths_own_haloes(truth: Path, tmp_path: Path) -> None:
    box = Box.open(truth)
    catalogue = catalogue_of(box)
    again = drawn(box, catalogue, draw_of(box))
    np.testing.assert_array_equal(again, np.asarray(box.require("tb")[...]))
    assert (drawn(box, catalogue, 1) != again).any()
    other = tmp_path / "other"
    other.mkdir()
    foreign = catalogue_of(Box.open(synthetic(other, 10.0, 32))).files[0]
    with pytest.raises(BadInput, match="not made of these haloes"):
        open_draws(open_field(truth), 4, [foreign], 1 << 30)
    told = open_draws(open_field(truth), 4, [], 1 << 20)
    assert isinstance(told, str) and "--memory" in told


@pytest.mark.slow
def test_another_draw_of_the_truth_passes(truth: Path) -> None:
    found = judged(truth, "none", SEED, truth.parent)
    assert found["pass"], found["verdict"]
    assert found["draws"]["count"] == 24 and abs(found["draws"]["follows"]) < 0.5
    origins = {check["name"]: check["origin"] for check in found["checks"]}
    assert origins["power"] == origins["level"] == "spread of 24 draws of the truth"
    assert all(check["word"] == PASS for check in found["checks"] if check["name"] == "level")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "check", "itself"),
    [
        ("power + 10 %", "level", True),
        ("seams of 5 %", "seam_found", False),
        ("a mass bin at half", "halo_mass", False),
    ],
)
def test_a_planted_fault_fails(truth: Path, fault: str, check: str, itself: bool) -> None:
    assert fault in FAULTS
    found = judged(truth, fault, SEED, truth.parent, itself=itself)
    assert not found["pass"] and check in failed(found), found["verdict"]


def test_errors_are_those_of_means_and_shrink_where_a_box_follows_the_truth() -> None:
    rng = np.random.default_rng(3)

    def row(follows: float) -> dict:
        numbers = {name: rng.normal(0, 1, 2) for name in ("power", "correlation")}
        one = {name: float(rng.normal()) for name in ("mean", "level")}
        return {**numbers, **one, "follows": follows, "k": np.ones(2)}

    draws = [row(0.0) for _ in range(400)]
    found = beside([row(0.1) for _ in range(4)], draws)
    np.testing.assert_allclose(found["power"]["error"], (1 / 4 + 1 / 400) ** 0.5, rtol=0.15)
    same = beside([row(1.0)], draws)
    np.testing.assert_allclose(same["mean"]["error"], 0, atol=1e-7)
    np.testing.assert_allclose(same["mean"]["expected"], draws[0]["mean"], rtol=1e-6)
    assert reach(0.005, 24, 1) == pytest.approx(3.104, abs=2e-3)  # Student's t, 23 degrees
