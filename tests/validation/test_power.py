"""Spectra in memory: normalisation, bins, conventions, and answers that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.analysis.spectra.modes import (
    CylinderBins,
    ModeSums,
    Shells,
    default_edges,
    log_edges,
)
from bigbox.analysis.spectra.power import cylinder, mode_sums
from bigbox.errors import BadInput
from tests.fields import autoregressive, draw, isotropic
from tests.reference.cic import deposit
from tests.reference.spectra import pair_in_memory, power_in_memory

EVERYTHING = (slice(None), slice(None), slice(None))


def binned(spectrum: np.ndarray, shape: tuple[int, int, int], size: float) -> np.ndarray:
    """The mean of a spectrum of rfftn modes over the modes of each default bin."""
    sums = ModeSums(shape, size, Shells(default_edges(shape, size)))
    total = sums.block(EVERYTHING, [np.sqrt(spectrum * np.prod(shape))])
    return sums.means(total)[1][1]


def slow_power(
    field: np.ndarray, sides: tuple[float, ...], edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The definition, mode by mode of the full FFT."""
    modes = np.fft.fftn(field) / field.size
    k = [2 * np.pi * np.fft.fftfreq(n, s / n) for n, s in zip(field.shape, sides, strict=True)]
    sums: list[list[float]] = [[] for _ in edges[1:]]
    for i in np.ndindex(field.shape):
        length = float(np.sqrt(sum(k[a][i[a]] ** 2 for a in range(3))))
        at = int(np.searchsorted(edges, length, side="right")) - 1
        if 0 <= at < len(sums) and any(i):
            sums[at].append(float(abs(modes[i]) ** 2 * np.prod(sides)))
    return np.array([np.mean(s) for s in sums]), np.array([len(s) for s in sums])


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 8, 7), (12, 6, 10)])
def test_power_is_its_definition(shape: tuple[int, int, int]) -> None:
    field = np.random.default_rng(3).standard_normal(shape)
    sides = tuple(0.5 * n for n in shape)
    found = power_in_memory(field, sides)
    p, modes = slow_power(field, sides, found.edges)
    assert np.array_equal(found.modes, modes)
    assert np.allclose(found.power, p, rtol=1e-12)


@pytest.mark.parametrize("law", [autoregressive, isotropic])
def test_power_is_that_of_powerbox(law) -> None:  # type: ignore[no-untyped-def]
    powerbox = pytest.importorskip("powerbox")
    field = draw(law((40, 40, 40)), (40, 40, 40), 3).astype(np.float64)
    ours = power_in_memory(field, 12.0)
    theirs = powerbox.get_power(
        field,
        12.0,
        bins=ours.edges,
        dimensionless=False,
        ignore_zero_mode=True,
        bins_upto_boxlen=True,
        nthreads=1,
    )
    assert np.allclose(ours.power, theirs.power, rtol=1e-9)


def test_a_plane_wave_has_all_its_power_in_its_bin() -> None:
    n, size, amplitude = 32, 50.0, 0.3
    x = np.arange(n) / n
    wave = 2.0 + amplitude * np.cos(2 * np.pi * (3 * x[:, None, None] + 4 * x[None, :, None]))
    found = power_in_memory(wave * np.ones((n, n, n)), size)
    at = 4  # |(3, 4, 0)| = 5, the first bin is 1
    assert found.edges[at] < 5 * 2 * np.pi / size < found.edges[at + 1]
    total = found.power * found.modes / size**3
    assert total[at] == pytest.approx(amplitude**2 / 2)
    assert np.delete(total, at).max() < 1e-20


def test_sum_of_all_modes_is_the_variance() -> None:
    field = np.random.default_rng(0).standard_normal((16, 20, 11))
    found = power_in_memory(field, 8.0, edges=[0.0, 1e3])
    volume = 8.0 * 10.0 * 5.5
    assert found.modes[0] == field.size - 1
    assert found.power[0] * found.modes[0] / volume == pytest.approx(field.var())


@pytest.mark.parametrize("law", [autoregressive, isotropic])
def test_gaussian_field_has_its_analytic_spectrum(law) -> None:  # type: ignore[no-untyped-def]
    shape, size = (96, 64, 80), 9.6
    spectrum = law(shape)
    found = power_in_memory(draw(spectrum, shape, 7), size)
    truth = binned(spectrum, shape, size)
    # The scatter of a bin whose modes differ in power.
    square = binned(spectrum**2, shape, size) * (size / shape[0]) ** 3
    error = np.sqrt(2 * square / found.modes)
    pull = (found.power - truth) / error
    assert abs(pull).max() < 4.5
    assert 0.7 < pull.std() < 1.3


def test_a_scaled_copy_is_known() -> None:
    shape = (32, 32, 32)
    field = draw(isotropic(shape), shape, 1).astype(np.float64)
    both = pair_in_memory(3.0 * field + 1.0, field, 10.0)
    assert np.allclose(both.correlation, 1) and np.allclose(both.transfer, 3)
    assert np.allclose(both.cross.power, 3 * both.second.power)
    assert np.allclose(power_in_memory(3.0 * field + 1.0, 10.0, field).power, both.cross.power)
    k3 = both.first.k**3 / (2 * np.pi**2)
    assert np.allclose(both.first.delta2, k3 * both.first.power)


def test_independent_fields_do_not_correlate() -> None:
    shape = (48, 48, 48)
    a, b = (draw(isotropic(shape), shape, s) for s in (1, 2))
    both = pair_in_memory(a, b, 10.0)
    # The scatter of Gaussian fields: (1 - r^2) / sqrt(modes), sqrt((P11 P22 + P12^2) / modes).
    root, square = np.sqrt(both.cross.modes), both.first.power * both.second.power
    for pull in (
        both.correlation / (1 - both.correlation**2) * root,
        both.cross.power / np.sqrt(square + both.cross.power**2) * root,
    ):
        assert abs(pull).max() < 4 and 0.7 < pull.std() < 1.3


def test_normalised_is_of_the_field_over_its_mean() -> None:
    field = 0.05 * (1 + 0.3 * draw(isotropic((32, 32, 32)), (32, 32, 32), 2).astype(np.float64))
    found = power_in_memory(field, 10.0, normalise=True, unit="mK")
    plain = power_in_memory(field, 10.0, unit="mK")
    assert np.allclose(found.power, plain.power / field.mean() ** 2)
    assert (found.units, plain.units) == ("(Mpc/h)^3", "(Mpc/h)^3 mK^2")


def test_float32_loses_nothing_to_a_large_mean() -> None:
    field = draw(isotropic((32, 32, 32)), (32, 32, 32), 2)
    shifted = power_in_memory((field.astype(np.float64) + 1000).astype(np.float32), 10.0)
    assert np.allclose(shifted.power[:8], power_in_memory(field, 10.0).power[:8], rtol=1e-4)


def test_shift_and_units() -> None:
    field = draw(isotropic((24, 24, 24)), (24, 24, 24), 2).astype(np.float64)
    one = power_in_memory(field, 10.0)
    moved = power_in_memory(np.roll(field, (3, 5, 7), (0, 1, 2)), 10.0)
    larger = power_in_memory(field, 20.0)
    assert np.allclose(moved.power, one.power)
    assert np.allclose(larger.power, 8 * one.power) and np.allclose(larger.k, one.k / 2)


@pytest.mark.parametrize("window", ["ngp", "cic", "tsc"])
def test_window_and_shot_noise_of_random_points(window: str) -> None:
    """Unclustered points: P is the shot noise, whatever the mass assignment, at every k."""
    n, size, count = 32, 20.0, 200_000
    points = np.random.default_rng(5).random((count, 3)) * n
    density = assign(points, n, window) * n**3 / count
    noise = size**3 / count
    found = power_in_memory(density, size, window=window, shot_noise=noise)
    error = noise * np.sqrt(2 / found.modes)
    bare = power_in_memory(density, size)
    # Divided by a window that falls to 0.06 at the corner: the errors grow like the compensation.
    compensated = power_in_memory(density, size, window=window)
    error = error * compensated.power / bare.power * bare.power.max() / bare.power
    assert abs(found.power / error).max() < 4.5
    assert compensated.power[-1] > bare.power[-1]


def assign(points: np.ndarray, n: int, window: str) -> np.ndarray:
    """Mass assignment of points in voxel units, voxel centres at i + 1/2, by its definition."""
    near = np.floor(points).astype(int)
    density = np.zeros((n, n, n))

    def kernel(d: np.ndarray) -> np.ndarray:
        d = abs(d)
        if window == "ngp":
            return (d <= 0.5).astype(float)
        if window == "cic":
            return np.clip(1 - d, 0, None)
        return np.where(d < 0.5, 0.75 - d**2, np.where(d < 1.5, (1.5 - d) ** 2 / 2, 0.0))

    for offset in np.ndindex(3, 3, 3):
        voxel = near + np.array(offset) - 1
        weight = kernel(points - voxel - 0.5).prod(axis=1)
        np.add.at(density, tuple((voxel % n).T), weight)
    return density


def test_window_is_undone_for_the_deposit_of_ingest() -> None:
    """A lattice of points moved by a small wave, deposited by CIC: the wave's power comes back."""
    n, fine, size, amplitude, mode = 32, 1 << 14, 10.0, 1e-3, 10
    q = (np.arange(fine) + 0.5) / fine
    x = q + amplitude / (2 * np.pi * mode) * np.sin(2 * np.pi * mode * q)
    line = np.zeros(n)
    for p in x * n - 0.5:
        i = int(np.floor(p))
        line[i % n] += 1 - (p - i)
        line[(i + 1) % n] += p - i
    field = np.broadcast_to((line / line.mean())[:, None, None], (n, n, n))
    found = power_in_memory(field, size, window="cic")
    at = mode - 1
    total = found.power[at] * found.modes[at] / size**3
    assert total == pytest.approx(amplitude**2 / 2, rel=2e-3)
    raw = power_in_memory(field, size)
    ratio = np.sinc(mode / n) ** 4
    assert raw.power[at] / found.power[at] == pytest.approx(ratio, rel=1e-6)


def test_window_of_a_cross_spectrum() -> None:
    shape = (32, 32, 32)
    a, b = (draw(isotropic(shape), shape, 1).astype(np.float64) for _ in range(2))
    plain = power_in_memory(a, 10.0, b, edges=[6.0, 6.2])
    assert plain.power < power_in_memory(a, 10.0, b, edges=[6.0, 6.2], window="cic").power


def test_edges() -> None:
    assert np.allclose(np.diff(default_edges((64, 32, 32), 10.0)), 2 * np.pi / 10)
    edges = log_edges((128, 128, 128), 10.0, 10)
    found = power_in_memory(np.random.default_rng(0).random((32, 32, 32)), 10.0 / 4, edges=edges)
    assert (np.diff(edges) >= 2 * np.pi / 10 * (1 - 1e-9)).all()
    ratio = edges[2:-1] / edges[1:-2]
    assert (ratio >= 10**0.1 * (1 - 1e-9)).all()
    assert found.power.shape == (len(edges) - 1,)


def test_cylinder_sums_to_the_sphere() -> None:
    shape, size = (24, 20, 30), 12.0
    field = np.random.default_rng(1).standard_normal(shape)
    wide = [0.0, 1e3]
    for axis in range(3):
        found, sums = mode_sums([field], size, CylinderBins(wide, wide, axis))
        modes, (power,) = found.means(sums)
        whole = power_in_memory(field, size, edges=wide)
        assert modes[0] == whole.modes[0]
        assert power[0] == pytest.approx(whole.power[0])


def test_cylinder_tells_the_line_of_sight() -> None:
    n, size = 32, 10.0
    wave = np.cos(2 * np.pi * 6 * np.arange(n) / n)
    field = np.broadcast_to(wave, (n, n, n))
    along = cylinder(field, size, axis=2)
    across = cylinder(field, size, axis=0)
    k = 6 * 2 * np.pi / size
    i, j = np.unravel_index(np.nanargmax(along.power), along.power.shape)
    assert along.parallel_edges[i] < k < along.parallel_edges[i + 1]
    assert along.transverse_edges[j] < 2 * np.pi / size
    i, j = np.unravel_index(np.nanargmax(across.power), across.power.shape)
    assert across.parallel_edges[i] < 2 * np.pi / size
    assert across.transverse_edges[j] < k < across.transverse_edges[j + 1]


@pytest.mark.parametrize(
    ("field", "arguments", "words"),
    [
        (np.ones((4, 4)), {}, "need 3"),
        (np.ones((4, 4, 4)), {}, "constant"),
        (np.full((4, 4, 4), np.nan), {}, "64 voxels are not finite"),
        (np.arange(64.0).reshape(4, 4, 4) - 31.5, {"normalise": True}, "mean 0"),
        (np.arange(64.0).reshape(4, 4, 4), {"edges": [1.0]}, "bin edges"),
        (np.arange(64.0).reshape(4, 4, 4), {"edges": [2.0, 1.0]}, "ascending"),
        (np.arange(64.0).reshape(4, 4, 4), {"window": "pcs"}, "not known"),
        (np.arange(64.0).reshape(4, 4, 4), {"other": np.ones((4, 4, 5))}, "must be alike"),
    ],
)
def test_bad_input_is_one_line(field: np.ndarray, arguments: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        power_in_memory(field, 10.0, **arguments)
    assert "\n" not in str(caught.value)


def test_bad_box_size() -> None:
    with pytest.raises(BadInput, match="box size"):
        power_in_memory(np.arange(64.0).reshape(4, 4, 4), -1.0)


def test_deposit_of_ingest_is_cic() -> None:
    """The switch named "cic" undoes what ingest does."""
    points = np.random.default_rng(5).random((500, 3))
    grid = np.zeros((8, 8, 8))
    for chunk in (points[:200], points[200:]):
        deposit(grid, chunk, 1.0)
    assert np.allclose(grid, assign(points * 8, 8, "cic"))
