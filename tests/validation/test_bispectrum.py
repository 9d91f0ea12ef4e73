"""Bispectrum: its definition, a field whose answer is known, none for a Gaussian field."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.analysis.spectra.bispectrum import bispectrum
from bigbox.analysis.spectra.modes import box_sides, nyquist
from bigbox.errors import BadInput
from tests.fields import draw, isotropic
from tests.reference.bispectrum import slow_bispectrum


def common_triangles(shape: tuple[int, ...], box_size: float) -> np.ndarray:
    """Equilateral, squeezed (1, 1, 1/4) and flat (1, 1/2, 1/2) ones at four scales, h/Mpc."""
    sides = box_sides(shape, box_size)
    low, high = 8 * np.pi / max(sides), nyquist(shape, sides) / 2
    scales = np.geomspace(low, max(high, low), 4)
    shapes = np.array([(1, 1, 1), (1, 1, 0.25), (1, 0.5, 0.5)])
    return (scales[None, :, None] * shapes[:, None, :]).reshape(-1, 3)


@pytest.mark.parametrize("k", [(2.0, 2.0, 2.0), (3.0, 2.0, 1.0), (3.2, 3.2, 1.0)])
@pytest.mark.parametrize("n", [10, 11])
def test_bispectrum_is_its_definition(k: tuple[float, float, float], n: int) -> None:
    size = 2 * np.pi
    field = np.random.default_rng(1).gamma(1.0, size=(n, n, n))
    found = bispectrum(field, size, [k], width=1.2)
    value, count = slow_bispectrum(field, size, k, 1.2)
    assert found.triangles[0] == count > 0
    assert found.value[0] == pytest.approx(value, rel=1e-5)


def test_three_waves_that_close_a_triangle() -> None:
    n, size = 24, 2 * np.pi
    x = np.arange(n) * size / n
    a, b = x[:, None, None] * 3, x[None, :, None] * 4
    waves = np.cos(a) + np.cos(b) + np.cos(a + b + 0 * x)
    found = bispectrum(waves, size, [(3.0, 4.0, 5.0)], width=0.2)
    # Two closed triples, +++ and ---, of amplitude 1/8 each.
    assert found.value[0] * found.triangles[0] / size**6 == pytest.approx(2 / 8)


def test_quadratic_field_has_q_of_second_order() -> None:
    """g + f (g^2 - <g^2>): B = 2 f (P1 P2 + P2 P3 + P3 P1) to first order in f, so Q = 2 f."""
    shape, f, q = (64, 64, 64), 0.02, []
    triangles = [(3.0, 3.0, 3.0), (4.0, 4.0, 1.5), (4.0, 3.0, 2.0)]
    for seed in range(4):
        g = draw(isotropic(shape, 1.0, 0.0), shape, seed).astype(np.float64)
        bent, plain = (bispectrum(x, 20.0, triangles) for x in (g + f * g**2, g))
        q.append(bent.reduced - plain.reduced)
    assert np.allclose(np.mean(q, axis=0), 2 * f, rtol=0.15)


def test_gaussian_field_has_none() -> None:
    shape = (64, 64, 64)
    pulls = []
    for seed in range(6):
        found = bispectrum(draw(isotropic(shape), shape, seed), 20.0, common_triangles(shape, 20.0))
        pulls.append(found.value / found.errors)
    assert abs(np.array(pulls)).max() < 4.5 and 0.6 < np.std(pulls) < 1.4


def test_units_and_normalisation() -> None:
    field = 2 + 0.1 * draw(isotropic((32, 32, 32)), (32, 32, 32), 1).astype(np.float64) ** 2
    triangles = common_triangles(field.shape, 10.0)[:2]
    plain = bispectrum(field, 10.0, triangles, unit="mK")
    ratio = bispectrum(field, 10.0, triangles, unit="mK", normalise=True)
    assert np.allclose(plain.value, ratio.value * field.mean() ** 3, rtol=1e-4)
    assert (plain.units, ratio.units) == ("(Mpc/h)^6 mK^3", "(Mpc/h)^6")


def test_bad_input() -> None:
    field = np.random.default_rng(0).random((16, 16, 16))
    with pytest.raises(BadInput, match="close no triangle"):
        bispectrum(field, 10.0, [(4.0, 1.0, 1.0)])
    with pytest.raises(BadInput, match="longest side may be"):
        bispectrum(field, 10.0, [(9.0, 9.0, 9.0)])
