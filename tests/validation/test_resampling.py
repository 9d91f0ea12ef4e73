"""Errors by resampling: those of a Gaussian field are known."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.analysis.spectra.resampling import over_subvolumes, scatter
from bigbox.errors import BadInput
from tests.fields import draw, isotropic
from tests.reference.spectra import power_in_memory

SHAPE = (24, 24, 24)


def test_scatter_over_realizations_is_that_of_gaussian_modes() -> None:
    spectra = [power_in_memory(draw(isotropic(SHAPE), SHAPE, s), 10.0) for s in range(100)]
    expected = np.mean([s.mode_errors for s in spectra], axis=0)
    # A scatter from 100 is known to 7 %; modes of one bin differ a little in power.
    assert np.allclose(scatter(spectra)[:9] / expected[:9], 1.05, atol=0.3)


def test_subvolumes_of_a_gaussian_field_give_its_errors() -> None:
    shape = (96, 96, 96)
    field = draw(isotropic(shape, 1.0), shape, 4)
    spectrum = power_in_memory(field, 30.0)
    found = over_subvolumes(spectrum, field, 30.0, pieces=4)
    assert found.errors is not None and found.error_kind == "jackknife over 64 sub-volumes"
    ratio = found.errors / spectrum.mode_errors
    # 64 sub-volumes tell a scatter to 9 %.
    assert 0.7 < ratio.min() and ratio.max() < 1.45
    assert ratio.mean() == pytest.approx(1, abs=0.2)
    assert np.array_equal(found.power, spectrum.power)


def test_a_field_of_few_bright_places_has_larger_errors() -> None:
    shape = (64, 64, 64)
    field = np.exp(2.5 * draw(isotropic(shape, 2.0), shape, 4).astype(np.float64))
    spectrum = power_in_memory(field, 30.0, normalise=True)
    found = over_subvolumes(spectrum, field, 30.0, pieces=4)
    assert found.errors is not None
    assert np.median(found.errors / spectrum.mode_errors) > 2


def test_bad_input() -> None:
    field = draw(isotropic(SHAPE), SHAPE, 1)
    spectrum = power_in_memory(field, 10.0)
    with pytest.raises(BadInput, match="at least 2"):
        scatter([spectrum])
    with pytest.raises(BadInput, match="different bins"):
        scatter([spectrum, power_in_memory(field, 20.0)])
    with pytest.raises(BadInput, match="at least 16"):
        over_subvolumes(spectrum, field, 10.0, pieces=2)
