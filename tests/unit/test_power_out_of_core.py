"""Spectra out of core: the same modes in the same bins as in memory, within the memory given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr

from bigbox.analysis.spectra.modes import Spectrum, log_edges
from bigbox.analysis.spectra.power import BlockSizes, pair, power
from bigbox.errors import BadInput
from tests.fields import draw, isotropic
from tests.reference.spectra import pair_in_memory, power_in_memory

SHAPE = (40, 36, 50)


@pytest.fixture(scope="module")
def fields() -> tuple[np.ndarray, np.ndarray]:
    a = 0.05 + 0.02 * draw(isotropic(SHAPE), SHAPE, 1)
    return a, a + 0.01 * draw(isotropic(SHAPE), SHAPE, 2)


def alike(one: Spectrum, two: Spectrum) -> None:
    """Equal but for the rounding of a float32 FFT, which is white: a part of the largest power."""
    assert np.array_equal(one.modes, two.modes)
    assert np.allclose(one.k, two.k, rtol=1e-12, equal_nan=True)
    floor = 1e-11 * np.nanmax(abs(two.power))
    assert np.allclose(one.power, two.power, rtol=2e-6, atol=floor, equal_nan=True)


@pytest.mark.parametrize("memory", [22 << 20, 64 << 20, 1 << 30])
@pytest.mark.parametrize("workers", [1, 2])
def test_same_as_in_memory(
    fields: tuple[np.ndarray, np.ndarray], memory: int, workers: int, tmp_path: Path
) -> None:
    a, b = fields
    memory *= workers
    expected = pair_in_memory(a.astype(np.float64), b.astype(np.float64), 8.0, normalise=True)
    found = pair(a, b, 8.0, normalise=True, memory=memory, workers=workers, scratch=tmp_path)
    for name in ("first", "second", "cross"):
        alike(getattr(found, name), getattr(expected, name))
    assert list(tmp_path.iterdir()) == []


def test_same_switches(fields: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = fields
    edges = log_edges(SHAPE, 8.0, 8)
    tried: list[dict[str, Any]] = [
        {"window": "cic", "shot_noise": 1e-7, "unit": "mK"},
        {"edges": edges, "other": b, "window": "tsc"},
    ]
    for options in tried:
        expected = power_in_memory(a.astype(np.float64), 8.0, **options)
        other = options.pop("other", None)
        found = power(a, 8.0, **options) if other is None else pair(a, other, 8.0, **options).cross
        alike(found, expected)
        for name in ("units", "window", "shot_noise"):
            assert getattr(found, name) == getattr(expected, name)


def test_kinds_of_array(fields: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    a, _ = fields
    stored = zarr.create_array(
        tmp_path / "a.zarr", shape=SHAPE, chunks=(10, 12, 25), shards=(20, 36, 50), dtype="f4"
    )
    stored[:] = a
    expected = power(a, 8.0)
    for array in (stored, dask.array.from_array(a, chunks=13), a.astype(np.float64)):
        alike(power(array, 8.0, memory=24 << 20), expected)


def test_a_large_mean_costs_nothing(fields: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = fields
    lifted = (a + 8).astype(np.float32)
    alike(power(lifted, 8.0), power_in_memory(lifted.astype(np.float64), 8.0))


def test_the_array_is_left_alone(fields: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = fields
    before = a.copy()
    power(a, 8.0)
    assert np.array_equal(a, before)


@pytest.mark.parametrize("n", [256, 1024, 2048])
@pytest.mark.parametrize("memory", [1 << 30, 2 << 30])
@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_fit_the_memory(n: int, memory: int, workers: int) -> None:
    array = dask.array.zeros((n, n, n), chunks=64, dtype="f4")
    layout = BlockSizes.choose([array, array], memory, workers)
    plane = 4 * n * n
    half = 8 * n * (n // 2 + 1)
    share = memory / workers
    assert layout.slab * plane + 3 * layout.planes * half <= share
    assert 2 * 2 * layout.pencil * half <= share
    assert layout.slab % layout.planes == 0


def test_bad_input(fields: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    a, _ = fields
    hurt = a.copy()
    hurt[3, 4, 5] = np.nan
    with pytest.raises(BadInput, match=r"\(3, 4, 5\) is not finite"):
        power(hurt, 8.0)
    with pytest.raises(BadInput, match="constant"):
        power(np.ones(SHAPE), 8.0)
    with pytest.raises(BadInput, match="too little, it needs"):
        power(a, 8.0, memory=1000)
    with pytest.raises(BadInput, match="no such folder"):
        power(a, 8.0, scratch=tmp_path / "none")
    with pytest.raises(BadInput, match="must be alike"):
        pair(a, a[:-1], 8.0)
