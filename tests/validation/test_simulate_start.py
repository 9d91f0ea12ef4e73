"""How a simulation starts: growth, the linear spectrum, the random field and 2LPT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from bigbox.physics.cosmology import Cosmology
from bigbox.simulation.initial import displacements, linear_field, start, white_noise
from bigbox.simulation.linear import Growth, power_spectrum

CPU = torch.device("cpu")
SPECTRUM = np.geomspace(1e-3, 1e3, 200), 100 * np.geomspace(1e-3, 1e3, 200) ** -1.5


@pytest.mark.parametrize("omega_m", [0.1, 0.3, 1.0])
def test_growth_solves_its_equation(omega_m: float) -> None:
    """D'' + (3/a + E'/E) D' = 3/2 Omega_m D / (a^5 E^2), from deep in matter domination."""
    growth = Growth(omega_m)

    def right_side(a: float, y: np.ndarray) -> list[float]:
        square = growth.expansion(a) ** 2
        slope = -1.5 * omega_m / a**4 / square  # E'/E
        return [y[1], -(3 / a + slope) * y[1] + 1.5 * omega_m / (a**5 * square) * y[0]]

    early = 1e-4
    found = solve_ivp(right_side, (early, 1.0), [early, 1.0], rtol=1e-9, atol=1e-14, method="LSODA")
    end, slope = found.y[:, -1]
    assert growth.factor(1.0) == 1.0
    assert growth.factor(early) == pytest.approx(early / end, rel=1e-5)
    assert growth.rate(1.0) == pytest.approx(slope / end, rel=1e-5)
    assert growth.momentum(1.0) == pytest.approx(slope / end, rel=1e-5)


def test_without_lambda_growth_is_the_scale_factor() -> None:
    growth = Growth(1.0)
    assert [growth.factor(a) for a in (0.02, 0.5)] == pytest.approx([0.02, 0.5])
    assert growth.rate(0.3) == pytest.approx(1.0)


def test_the_spectrum_has_the_asked_amplitude_and_slope() -> None:
    cosmology = Cosmology(sigma8=0.7, n_s=0.9)
    k, p = power_spectrum(cosmology, 1e-4, 20.0)
    x = 8 * k
    top_hat = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    square = np.trapezoid(p * top_hat**2 * k**3 / (2 * np.pi**2), np.log(k))
    assert square**0.5 == pytest.approx(0.7, rel=2e-3)
    slope = np.diff(np.log(p[:20])).mean() / np.diff(np.log(k[:20])).mean()
    assert slope == pytest.approx(0.9, abs=0.02)


def test_the_field_has_its_spectrum_and_belongs_to_its_seed() -> None:
    n, side = 32, 10.0
    fields = [linear_field(white_noise(n, seed, CPU), side, SPECTRUM).numpy() for seed in (1, 1, 2)]
    assert fields[0].tobytes() == fields[1].tobytes()
    f = 2 * np.pi / side * np.abs(np.fft.fftfreq(n, 1 / n))
    k = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + f[: n // 2 + 1] ** 2)
    good = k > 0
    measured = np.abs(fields[0][good]) ** 2 * side**3 / n**6 / (100 * k[good] ** -1.5)
    assert measured.mean() == pytest.approx(1.0, abs=5 * (2 / good.sum()) ** 0.5)
    alike = (fields[0].conj() * fields[2]).real.sum() / (np.abs(fields[0]) ** 2).sum()
    assert abs(alike) < 0.1


def test_2lpt_agrees_with_sums_over_all_pairs_of_modes() -> None:
    """psi2 from its definition in real space, every derivative a plain sum over modes."""
    n, side = 8, 5.0
    rng = np.random.default_rng(0)
    axis = np.fft.fftfreq(n, 1 / n)
    wave = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    field = rng.standard_normal((n, n, n))
    modes = np.fft.fftn(field).reshape(-1)
    modes[(np.abs(wave) >= 2).any(axis=1)] = 0  # so that products of two are on the grid as well
    modes[0] = 0
    kept = np.flatnonzero(modes)
    k = wave[kept] * (2 * np.pi / side)
    points = np.stack(np.meshgrid(*[np.arange(n) * side / n] * 3, indexing="ij"), -1).reshape(-1, 3)
    phases = np.exp(1j * points @ k.T) / n**3
    delta = (phases @ modes[kept]).real
    potential = -modes[kept] / (k**2).sum(axis=1)
    first = -np.stack([(phases @ (1j * k[:, i] * potential)).real for i in range(3)])

    def second(i: int, j: int) -> np.ndarray:
        return (phases @ (-k[:, i] * k[:, j] * potential)).real

    source = sum(
        second(i, i) * second(j, j) - second(i, j) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))
    )
    again = np.flatnonzero((wave**2).sum(axis=1))
    k = wave[again] * (2 * np.pi / side)
    phases = np.exp(1j * points @ k.T)
    of_source = (phases.conj().T @ source) / n**3
    potential = -of_source / (k**2).sum(axis=1)
    other = -np.stack([(phases @ (1j * k[:, i] * potential)).real for i in range(3)])

    spectrum = np.fft.rfftn(delta.reshape(n, n, n)).astype(np.complex64)
    ours = displacements(torch.from_numpy(spectrum), side)
    for mine, reference in zip(ours, (first, other), strict=True):
        scale = np.abs(reference).max()
        assert np.abs(mine.numpy().reshape(3, -1) - reference).max() < 1e-5 * scale


def test_a_plane_wave_has_no_second_order() -> None:
    n, side = 16, 10.0
    wave = np.cos(2 * np.pi * np.arange(n) / n)[:, None, None] * np.ones((n, n, n))
    first, second = displacements(torch.from_numpy(np.fft.rfftn(wave)).to(torch.complex64), side)
    assert first[0].abs().max() == pytest.approx(side / (2 * np.pi), rel=1e-5)
    assert second.abs().max() < 1e-5 * first.abs().max()


def test_particles_start_where_the_field_says() -> None:
    n, side, a = 16, 50.0, 0.02
    growth = Growth(0.3)
    delta = linear_field(white_noise(n, 3, CPU), side, SPECTRUM)
    first, second = displacements(delta, side)
    x, p = start(delta, side, growth, a)
    assert ((x >= 0) & (x <= side)).all()
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) * side / n] * 3, indexing="ij"))
    moved = (x.view(3, n, n, n) - grid + side / 2).remainder(side) - side / 2
    d = growth.factor(a)
    assert torch.allclose(moved, d * first + 3 / 7 * d**2 * second, rtol=1e-3, atol=1e-4)
    # In matter domination, p = a^2 E dD/dlna psi: second order grows twice as fast.
    rate = a**2 * growth.expansion(a)
    expected = rate * (d * first + 6 / 7 * d**2 * second)
    assert torch.allclose(p.view(3, n, n, n), expected, rtol=1e-3, atol=1e-6)
