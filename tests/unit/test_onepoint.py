"""One-point distribution: known laws, numpy's own histogram, any chunking alike."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from scipy import stats

from bigbox.analysis.spectra.modes import jsonable
from bigbox.analysis.spectra.onepoint import distribution
from bigbox.errors import BadInput


def test_gaussian_values_have_gaussian_moments_and_pdf() -> None:
    field = 3 + 2 * np.random.default_rng(0).standard_normal((100, 100, 50))
    found = distribution(field, bins=np.linspace(-3, 9, 25))
    n = field.size
    assert found.mean == pytest.approx(3, abs=8 / np.sqrt(n))
    assert found.variance == pytest.approx(4, rel=5 * np.sqrt(2 / n))
    assert abs(found.skewness) < 5 * np.sqrt(6 / n)
    assert abs(found.kurtosis) < 5 * np.sqrt(24 / n)
    expected = np.diff(stats.norm.cdf(found.edges, 3, 2)) * n
    assert abs((found.counts - expected) / np.sqrt(expected)).max() < 5
    assert found.counts.sum() + found.below + found.above == n
    assert (found.pdf * np.diff(found.edges)).sum() == pytest.approx(1 - 0.0027, abs=1e-3)


def test_logarithm_of_a_lognormal_is_gaussian() -> None:
    value = 10 ** (0.5 * np.random.default_rng(0).standard_normal((60, 60, 60)) - 2)
    value[0, 0, :7] = 0
    value[0, 1, :2] = -1
    found = distribution(value, log=True)
    assert (found.without, found.voxels) == (9, value.size - 9)
    assert found.mean == pytest.approx(-2, abs=0.01)
    assert found.variance == pytest.approx(0.25, rel=0.02)
    assert abs(found.skewness) < 0.05


def test_same_as_numpy_for_any_source(tmp_path: Path) -> None:
    field = np.random.default_rng(1).gamma(2.0, size=(70, 40, 150)).astype(np.float32)
    stored = zarr.create_array(
        tmp_path / "f.zarr", shape=field.shape, chunks=(32, 32, 32), dtype="f4"
    )
    stored[:] = field
    for array in (field, stored, dask.array.from_array(field, chunks=37)):
        found = distribution(array, bins=17)
        counts, edges = np.histogram(field.astype(np.float64), 17)
        assert np.array_equal(found.counts, counts) and np.allclose(found.edges, edges)
        values = field.astype(np.float64).ravel()
        assert found.mean == pytest.approx(values.mean())
        assert found.skewness == pytest.approx(stats.skew(values))
        assert found.kurtosis == pytest.approx(stats.kurtosis(values))
        assert (found.least, found.most) == (values.min(), values.max())
    json.dumps(jsonable(found), allow_nan=False)


def test_a_constant_field_has_one_bin_full() -> None:
    found = distribution(np.full((4, 4, 4), 0.3), bins=3)
    assert found.counts.tolist() == [0, 64, 0] and found.variance == pytest.approx(0)
    json.dumps(jsonable(found), allow_nan=False)


def test_bad_input() -> None:
    field = np.ones((4, 4, 4))
    field[1, 1, 1] = np.nan
    with pytest.raises(BadInput, match="not finite"):
        distribution(field)
    with pytest.raises(BadInput, match="no voxel is positive"):
        distribution(-np.ones((4, 4, 4)), log=True)
    with pytest.raises(BadInput, match="ascending"):
        distribution(np.ones((4, 4, 4)), bins=[1.0, 0.0])
