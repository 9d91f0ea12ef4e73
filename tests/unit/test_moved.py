"""Seams measured by pairs of paintings: tiles that are moved, and what two of them say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.errors import BadInput
from bigbox.evaluation.moved import (
    MovedOptions,
    make_moved,
    pair_ratios,
    places,
    seam_numbers,
)
from bigbox.store.box import Box

N = 20  # two tiles of 16 that own ten voxels each


def haloes(path: Path, shape: tuple[int, int, int]) -> Box:
    """A box that has random haloes, and nothing else."""
    box = Box.create(path, shape, tuple(0.1 * n for n in shape), 0.0, cosmology={"h": 0.7})
    values = np.random.default_rng(5).lognormal(size=(4, *shape)).astype(np.float32)
    box.create_array("halo", channels=4, attributes={"source": "random"})[...] = values
    return Box.open(path)


@pytest.mark.parametrize("moved", [(0, 0, 0), (3, 39, -7), (19, 1, 1)])
def test_haloes_are_moved(tmp_path: Path, moved: tuple[int, int, int]) -> None:
    truth = haloes(tmp_path / "truth.zarr", (20, 36, 24))
    make_moved(truth, tmp_path / "moved.zarr", moved)
    found = Box.open(tmp_path / "moved.zarr").array("halo")
    wanted = np.roll(np.asarray(truth.array("halo")[...]), moved, (1, 2, 3))
    assert np.asarray(found[...]).tobytes() == wanted.tobytes()
    assert found.attrs["source"] == "random"


def test_tiles_that_come_to_lie_on_tiles_paint_the_same_bytes(tmp_path: Path) -> None:
    """Noise and haloes are moved alike: by whole tiles, or not at all, nothing changes."""
    truth, moved = haloes(tmp_path / "truth.zarr", (N,) * 3), (10, 0, -10)
    tiling = tiling_for("joint", (N,) * 3, 16)
    assert tiling.counts == (2, 2, 2) and tiling.kept == 10
    make_moved(truth, tmp_path / "moved.zarr", moved)
    options = PaintOptions(truth.path, painter="trivial-halo", tile=16, steps=3, quiet=True)
    paint(options)
    wanted = np.asarray(Box.open(truth.path).array("tb")[...])
    asked = vars(options) | {"box": tmp_path / "moved.zarr", "moved": moved}
    paint(MovedOptions(**asked))
    found = np.roll(
        np.asarray(Box.open(tmp_path / "moved.zarr").array("tb")[...]), (-10, 0, 10), (0, 1, 2)
    )
    assert found.tobytes() == wanted.tobytes()
    # It is another painting, which no run without the move goes on with.
    with pytest.raises(BadInput, match="moved"):
        paint(replace(options, box=tmp_path / "moved.zarr"))


def test_pairs_are_moved_by_half_a_tile() -> None:
    tiling = tiling_for("joint", (64, 64, 64))
    found = places(tiling, 50)
    assert found[:3] == places(tiling, 3)
    steps = {tuple(np.subtract(b, a).tolist()) for a, b in found}
    assert steps == {(10, 10, 10)}  # tiles own 21 and 22
    assert len({a for a, _ in found}) == 50
    with pytest.raises(BadInput, match="own 2 voxels"):
        places(tiling_for("joint", (8, 8, 8), 8), 1)


def steepness(rng: np.random.Generator, seam: float) -> list[tuple[np.ndarray, ...]]:
    """Planes of two paintings of a box of few planes that differ by 30 %, on three axes."""
    both: list[list] = [[], []]
    for _ in range(3):
        structure = np.exp(0.3 * rng.normal(size=64))
        for one, start in zip(both, rng.integers(64) + np.array([0, 10]), strict=True):
            at = np.zeros(64, bool)
            at[(start + np.array([0, 21, 42])) % 64] = True
            own = structure * np.exp(0.02 * rng.normal(size=64))
            one.append((own * np.where(at, seam, 1.0), at))
    return both  # type: ignore[return-value]


@pytest.mark.parametrize("seam", [1.0, 1.05])
def test_structure_cancels_and_a_seam_stays(seam: float) -> None:
    """Ten pairs know a seam of a percent; planes against others of the same box do not."""
    rng = np.random.default_rng(8)
    pairs = [steepness(rng, seam) for _ in range(10)]
    found = seam_numbers([pair_ratios(*pair) for pair in pairs])
    assert found["pairs"] == 10 and np.all(found["error"] < 0.006)
    assert np.all(abs(found["ratio"] - seam) < 4 * found["error"] + 0.002)
    scatter = found["each"].std(axis=0, ddof=1) / 10**0.5
    assert np.all(abs(np.log(scatter / found["error"])) < 0.7), "the error that is told"
    plain = [jump[at].mean() / jump[~at].mean() for first, _ in pairs for jump, at in first]
    assert np.std(plain) > 0.1


def test_what_both_have_a_seam_at_does_not_count() -> None:
    jump, at, there = np.ones(8), np.zeros(8, bool), np.zeros(8, bool)
    at[[0, 4]] = there[[0, 2]] = True
    other = jump.copy()
    jump[[0, 4]], other[[0, 2]] = (100, 3), (100, 3)
    jump[[1, 3]] = np.e, 1 / np.e
    found = pair_ratios([(jump, at)] * 3, [(other, there)] * 3)
    assert found[:, 0].tolist() == [3.0] * 4
    error = 3 * np.std([1, -1, 0, 0, 0], ddof=1) / 2**0.5
    np.testing.assert_allclose(found[:, 1], [error, error, error, error / 3**0.5])
