"""The cloud-in-cell deposit against a slow, obvious one, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.errors import BadInput
from bigbox.ingestion.cic import PLACE, deposit_fixed, fixed_exponent
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import boxes
from tests.reference import cic
from tests.reference.cic import slow_deposit


@given(seed=st.integers(0, 2**32 - 1), shape=boxes(2, 5))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_slow_deposit(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 7.0, (12, 3))
    positions[0], positions[1] = 0.0, np.nextafter(7.0, 0)
    weights = rng.uniform(0.1, 3, 12)
    grid = np.zeros(shape)
    cic.deposit(grid, positions, 7.0, weights)
    np.testing.assert_allclose(grid, slow_deposit(positions, shape, 7.0, weights), atol=1e-12)
    worked(np.count_nonzero(grid))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mass_is_conserved_and_mean_is_one(dtype: type) -> None:
    rng = np.random.default_rng(1)
    positions = rng.uniform(-3, 12, (5000, 3)).astype(dtype)
    grid = cic.density_contrast([positions[:1000], positions[1000:]], (8, 9, 10), 7.5)
    assert abs(grid.mean() - 1) < 1e-12
    assert grid.min() >= 0


def test_shift_by_whole_voxels_commutes() -> None:
    positions = np.random.default_rng(2).uniform(0, 1, (3000, 3))
    grid, moved = np.zeros((16, 16, 16)), np.zeros((16, 16, 16))
    cic.deposit(grid, positions, 1.0)
    cic.deposit(moved, positions + np.array([3, 20, -5]) / 16, 1.0)
    np.testing.assert_allclose(moved, np.roll(grid, (3, 20, -5), (0, 1, 2)), atol=1e-10)


def test_particles_at_voxel_centres_fill_one_voxel_each() -> None:
    centres = (np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1) + 0.5) / 6
    grid = np.zeros((6, 6, 6))
    cic.deposit(grid, centres.reshape(-1, 3), 1.0)
    np.testing.assert_allclose(grid, 1.0, atol=1e-12)


def test_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = np.random.default_rng(3).uniform(0, 1, (1000, 3))
    whole, pieces = np.zeros((8, 8, 8)), np.zeros((8, 8, 8))
    cic.deposit(whole, positions, 1.0)
    monkeypatch.setattr(cic, "CHUNK", 7)
    cic.deposit(pieces, positions, 1.0)
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)


def test_bad_particles_are_named() -> None:
    positions = np.full((10, 3), 0.5)
    positions[7, 1] = np.nan
    with pytest.raises(BadInput, match="particle 7"):
        cic.deposit(np.zeros((4, 4, 4)), positions, 1.0)
    with pytest.raises(BadInput, match="shape"):
        cic.deposit(np.zeros((4, 4, 4)), positions[:, :2], 1.0)
    with pytest.raises(BadInput, match="no particles"):
        cic.density_contrast([], (4, 4, 4), 1.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_fixed_point_agrees_and_knows_no_order(weighted: bool) -> None:
    """In a window of 7 voxels that no cloud leaves."""
    rng = np.random.default_rng(8)
    place = rng.uniform(0, 6, (900, 3))
    weights = rng.gamma(1, 5, 900).astype(np.float32) if weighted else None
    want = np.zeros((7, 7, 7))
    cic.deposit(want, place + 0.5, 7.0, weights)
    exponent = fixed_exponent(900, 1.0 if weights is None else float(weights.max()))
    steps = np.minimum(np.rint(place * PLACE), 6 * PLACE - 1).astype(np.uint32)
    whole, pieces = np.zeros((2, 7, 7, 7), np.int64)
    deposit_fixed(whole, steps, weights, exponent)
    for part in np.array_split(rng.permutation(900), 5):
        deposit_fixed(pieces, steps[part], None if weights is None else weights[part], exponent)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(whole * 2.0**-exponent, want, rtol=1e-5, atol=1e-5)
