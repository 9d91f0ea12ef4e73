"""Samplers: against the closed-form recursion of one Gaussian mode, and the laws of a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bigbox.diffusion.samplers import ancestral_step, dpmpp_step, sample
from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.names import SAMPLERS
from bigbox.noise import Purpose

LEVELS = np.array([0.05, 0.1, 1.0, 10.0, 100.0, 240.0])


def untouched(z: Tensor, step: int) -> None:
    """No overlap method: z is left as it is."""


def by_dpmpp(variance: np.ndarray, schedule: Schedule, start: float, mean: float) -> np.ndarray:
    """What dpmpp makes of modes of that variance and mean, denoised exactly: a scalar recursion."""
    gamma = schedule.gammas
    signal = 1 / (1 + np.exp(gamma))
    z, previous = np.full_like(variance, start), None
    for t in range(len(gamma) - 1, 1, -1):
        a, s2 = np.sqrt(signal[t]), 1 - signal[t]
        estimate = mean + variance * a / (a * a * variance + s2) * (z - a * mean)
        if previous is None:  # a first-order step from infinite gamma, where z is pure noise
            z = np.sqrt(1 - signal[t - 1]) * z + np.sqrt(signal[t - 1]) * estimate
        else:
            h = (gamma[t] - gamma[t - 1]) / 2
            slope = (estimate - previous) / (gamma[t + 1] - gamma[t]) * h
            ratio = np.sqrt((1 - signal[t - 1]) / s2)
            z = ratio * z + np.sqrt(signal[t - 1]) * (1 - np.exp(-h)) * (estimate + slope)
        previous = estimate
    a, s2 = np.sqrt(signal[1]), 1 - signal[1]
    return mean + variance * a / (a * a * variance + s2) * (z - a * mean)


def kept_by_dpmpp(variance: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The share of their power that modes of that variance keep."""
    return by_dpmpp(variance, schedule, start=1.0, mean=0.0) ** 2 / variance


def mean_kept_by_dpmpp(variance: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The share of their mean that they keep."""
    return by_dpmpp(variance, schedule, start=0.0, mean=1.0)


def by_sde(variance: np.ndarray, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """The shares of their power and of their mean that modes keep with dpmpp-sde.

    A recursion for the covariance of z and the last estimate, and for their mean.
    """
    gamma = schedule.gammas
    signal = 1 / (1 + np.exp(gamma))
    cov = np.zeros((len(variance), 2, 2))
    cov[:, 0, 0] = 1.0
    mean = np.zeros((len(variance), 2))
    for t in range(len(gamma) - 1, 0, -1):
        a, s2 = np.sqrt(signal[t]), 1 - signal[t]
        a_next, s2_next = np.sqrt(signal[t - 1]), 1 - signal[t - 1]
        gain = variance * a / (a * a * variance + s2)
        if t == len(gamma) - 1:
            keep, new, old, fresh = np.sqrt(s2_next), a_next, 0.0, 0.0
        elif t == 1:
            keep, new, old, fresh = 0.0, 1.0, 0.0, 0.0
        else:
            h = (gamma[t] - gamma[t - 1]) / 2
            slope = h / (gamma[t + 1] - gamma[t])
            keep = np.sqrt(s2_next / s2) * np.exp(-h)
            step = a_next * (1 - np.exp(-2 * h))
            new, old = step * (1 + slope), -step * slope
            fresh = s2_next * (1 - np.exp(-2 * h))
        move = np.zeros_like(cov)
        move[:, 0, 0], move[:, 0, 1], move[:, 1, 0] = keep + new * gain, old, gain
        cov = move @ cov @ move.transpose(0, 2, 1)
        cov[:, 0, 0] += fresh
        shift = (1 - gain * a)[:, None] * np.array([new, 1.0])
        mean = (move @ mean[:, :, None])[:, :, 0] + shift
    return cov[:, 0, 0] / variance, mean[:, 0]


def kept_by_sde(variance: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The share of their power."""
    return by_sde(variance, schedule)[0]


def mean_kept_by_sde(variance: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The share of their mean."""
    return by_sde(variance, schedule)[1]


def kept_by_ancestral(variance: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The same for ancestral sampling: a recursion for the variance of z."""
    gamma = schedule.gammas
    signal = 1 / (1 + np.exp(gamma))
    power = np.ones_like(variance)
    for t in range(len(gamma) - 1, 0, -1):
        a, s2, a_next, s2_next = signal[t] ** 0.5, 1 - signal[t], signal[t - 1] ** 0.5, 0.0
        s2_next = 1 - signal[t - 1]
        c = 1 - np.exp(gamma[t - 1] - gamma[t])
        shrink = variance * a / (a * a * variance + s2)
        power = (a_next / a * (1 - c * (1 - a * shrink))) ** 2 * power
        power += s2_next * c if t > 1 else 0.0
    return power / signal[0] / variance


class Modes:
    """Exact denoiser of independent voxels whose variances are given."""

    def __init__(self, variance: np.ndarray, schedule: Schedule, mean: float = 0.0) -> None:
        self.variance, self.schedule = torch.from_numpy(variance)[:, None, None, None], schedule
        self.mean = mean
        self.calls: list[int] = []

    def denoise(self, z: Tensor, step: int) -> Tensor:
        self.calls.append(step)
        alpha, sigma = self.schedule.alphas[step], self.schedule.sigmas[step]
        gain = self.variance * alpha / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (z - alpha * self.mean)


def one_draw(which: tuple[Purpose, int], size: int) -> Callable[[Purpose, int], Tensor]:
    """Noise that is one at one draw and zero at all others."""

    def noise(purpose: Purpose, step: int) -> Tensor:
        value = float((purpose, step) == which)
        return torch.full((size, 1, 1, 1), value, dtype=torch.float64)

    return noise


def power_of_draws(sampler: str, schedule: Schedule, steps: range) -> np.ndarray:
    """The power that modes have of their first noise and of the fresh noise of these steps."""
    power = np.zeros(len(LEVELS))
    for draw in [(Purpose.INITIAL, 0), *((Purpose.ANCESTRAL, step) for step in steps)]:
        noise = one_draw(draw, len(LEVELS))
        x0 = sample(Modes(LEVELS, schedule), schedule, sampler, noise, untouched)
        power += x0.numpy().ravel() ** 2
    return power


SCHEDULES = [
    Schedule(25, -8, 11, to_zero=True),
    Schedule(25, -8, 11, 0.5, to_zero=True),
    Schedule(25, -8, 8, 0.5, to_zero=True),
    Schedule(12, -8, 11, 0.0, to_zero=True),
    Schedule(12, -8, 11, 0.5, to_zero=True),
    Schedule(1, -8, 10, 0.5, to_zero=True),
]


SDE = Schedule(12, -8, 9, 0.4, to_zero=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpmpp_follows_its_recursion(schedule: Schedule) -> None:
    denoiser = Modes(LEVELS, schedule)
    noise = one_draw((Purpose.INITIAL, 0), len(LEVELS))
    x0 = sample(denoiser, schedule, "dpmpp", noise, untouched).numpy().ravel()
    assert np.allclose(x0**2 / LEVELS, kept_by_dpmpp(LEVELS, schedule), rtol=1e-10)
    assert denoiser.calls == list(range(schedule.steps, 0, -1))
    with_mean = Modes(LEVELS, schedule, mean=1.0)
    no_noise = one_draw((Purpose.PAINT, 0), len(LEVELS))
    x0 = sample(with_mean, schedule, "dpmpp", no_noise, untouched).numpy().ravel()
    assert np.allclose(x0, mean_kept_by_dpmpp(LEVELS, schedule), rtol=1e-10)


@pytest.mark.parametrize("schedule", [*SCHEDULES[3:], Schedule(25, -8, 9, 0.4, to_zero=True)])
def test_sde_follows_its_recursion(schedule: Schedule) -> None:
    power = power_of_draws("dpmpp-sde", schedule, range(2, schedule.steps))
    assert np.allclose(power / LEVELS, kept_by_sde(LEVELS, schedule), rtol=1e-10)
    no_noise = one_draw((Purpose.PAINT, 0), len(LEVELS))
    x0 = sample(Modes(LEVELS, schedule, 1.0), schedule, "dpmpp-sde", no_noise, untouched)
    assert np.allclose(x0.numpy().ravel(), mean_kept_by_sde(LEVELS, schedule), rtol=1e-10)


@pytest.mark.parametrize("schedule", [Schedule(50, -10, 8), Schedule(7, -13.3, 5, 0.3)])
def test_ancestral_follows_its_recursion(schedule: Schedule) -> None:
    power = power_of_draws("ancestral", schedule, range(2, schedule.steps + 1))
    assert np.allclose(power / LEVELS, kept_by_ancestral(LEVELS, schedule), rtol=1e-10)


@pytest.mark.parametrize(
    ("kept", "schedule", "table"),
    [
        (kept_by_dpmpp, SCHEDULES[0], [1.010, 1.014, 1.018, 1.019, 1.020, 1.022]),
        (kept_by_dpmpp, SCHEDULES[1], [0.995, 1.000, 1.006, 1.011, 1.015, 1.019]),
        (mean_kept_by_dpmpp, SCHEDULES[1], [1.000, 1.000, 1.000, 1.000, 1.000, 1.000]),
        (mean_kept_by_dpmpp, SCHEDULES[2], [1.000, 1.000, 1.000, 1.000, 0.993, 0.976]),
        (kept_by_dpmpp, SCHEDULES[2], [0.995, 0.999, 1.006, 1.012, 1.039, 1.070]),
        (kept_by_dpmpp, SCHEDULES[3], [1.029, 1.043, 1.063, 1.067, 1.068, 1.069]),
        (kept_by_dpmpp, SCHEDULES[4], [0.978, 0.984, 0.996, 1.002, 1.005, 1.007]),
        (kept_by_sde, SDE, [0.978, 0.989, 1.005, 1.011, 1.007, 0.991]),
        (
            kept_by_sde,
            Schedule(25, -8, 9, 0.4, to_zero=True),
            [1.003, 1.009, 1.019, 1.026, 1.032, 1.035],
        ),
        (mean_kept_by_sde, SDE, [1.000, 1.000, 1.000, 1.000, 1.002, 1.004]),
        (kept_by_ancestral, Schedule(50, -10, 8), [0.840, 0.840, 0.840, 0.840, 0.839, 0.835]),
        (kept_by_ancestral, Schedule(50, -13.3, 5), [0.837, 0.837, 0.837, 0.835, 0.705, 0.522]),
    ],
)
def test_the_table_in_the_schedule_is_true(
    kept: Callable[[np.ndarray, Schedule], np.ndarray], schedule: Schedule, table: list[float]
) -> None:
    assert np.allclose(kept(LEVELS, schedule), table, atol=6e-4)


def test_dpmpp_is_of_second_order() -> None:
    errors = [
        abs(kept_by_dpmpp(np.array([1.0]), Schedule(n, -14, 14, to_zero=True))[0] - 1)
        for n in (50, 100, 200)
    ]
    assert 3 < errors[0] / errors[1] < 5.5
    assert 3 < errors[1] / errors[2] < 5.5


def test_ancestral_step_is_equation_14() -> None:
    schedule = Schedule(10, -9, 6)
    generator = torch.Generator().manual_seed(1)
    z, x0, noise = (torch.randn(2, 3, 3, 3, generator=generator).double() for _ in range(3))
    for t in (10, 5, 2):
        alpha, sigma, s = schedule.alphas, schedule.sigmas, t - 1
        c = -np.expm1(schedule.gammas[s] - schedule.gammas[t])
        eps = (z - alpha[t] * x0) / sigma[t]
        expected = alpha[s] / alpha[t] * (z - c * sigma[t] * eps) + sigma[s] * np.sqrt(c) * noise
        result = ancestral_step(z.clone(), x0, noise, t, schedule)
        assert torch.allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_a_stirred_step_keeps_the_noise_level() -> None:
    """From z_t = alpha_t x0 + sigma_t eps, z_s is alpha_s x0 + sigma_s times a unit normal."""
    schedule = Schedule(8, -9, 6, 0.4, to_zero=True)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for t in range(7, 1, -1):
        z = one * schedule.alphas[t]
        signal = dpmpp_step(z, one, one, zero, t, schedule)
        from_eps = dpmpp_step(one * schedule.sigmas[t], zero, zero, zero, t, schedule)
        from_noise = dpmpp_step(zero.clone(), zero, zero, one, t, schedule)
        assert signal.item() == pytest.approx(schedule.alphas[t - 1], rel=1e-12)
        variance = from_eps.item() ** 2 + from_noise.item() ** 2
        assert variance == pytest.approx(schedule.sigmas[t - 1] ** 2, rel=1e-12)


def test_ancestral_step_keeps_the_noise_level() -> None:
    """From z_t = alpha_t x0 + sigma_t eps, z_s is alpha_s x0 + sigma_s times a unit normal."""
    schedule = Schedule(8, -9, 6, 0.4)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for t in range(8, 1, -1):
        signal = ancestral_step(one * schedule.alphas[t], one, zero, t, schedule)
        from_eps = ancestral_step(one * schedule.sigmas[t], zero, zero, t, schedule)
        from_noise = ancestral_step(zero.clone(), zero, one, t, schedule)
        assert signal.item() == pytest.approx(schedule.alphas[t - 1], rel=1e-12)
        variance = from_eps.item() ** 2 + from_noise.item() ** 2
        assert variance == pytest.approx(schedule.sigmas[t - 1] ** 2, rel=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_certain_denoiser_is_obeyed(sampler: str) -> None:
    truth = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2)).double()

    class Certain:
        def denoise(self, z: Tensor, step: int) -> Tensor:
            return truth

    def noise(purpose: Purpose, step: int) -> Tensor:
        seed = int(purpose) * 100 + step
        return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(seed)).double()

    ends = {"to_zero": sampler != "ancestral", "doubled": sampler == "heun"}
    schedule = Schedule(20, -20, 8, 0.2, **ends)
    x0 = sample(Certain(), schedule, sampler, noise, untouched)
    assert torch.allclose(x0, truth, atol=1e-3 if sampler == "ancestral" else 1e-12)


def test_a_step_works_in_place() -> None:
    schedule = Schedule(5, -8, 8, to_zero=True)
    z, x0 = torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    assert dpmpp_step(z, x0, None, None, 5, schedule).data_ptr() == z.data_ptr()
    assert dpmpp_step(z, x0, x0, x0, 4, schedule).data_ptr() == z.data_ptr()
    assert ancestral_step(z, x0, x0, 4, schedule).data_ptr() == z.data_ptr()


@pytest.mark.parametrize("to_zero", [True, False])
@pytest.mark.parametrize("skew", [0.0, 0.5])
def test_schedule_runs_from_noise_to_data(skew: float, to_zero: bool) -> None:
    schedule = Schedule(12, -9, 7, skew, to_zero)
    assert len(schedule.gammas) == 13
    assert np.all(np.diff(schedule.gammas) > 0)
    assert schedule.gammas[-1] == 7
    assert schedule.gammas[1 if to_zero else 0] == -9
    assert np.allclose(schedule.alphas**2 + schedule.sigmas**2, 1)
    assert np.allclose(schedule.alphas**2, 1 / (1 + np.exp(schedule.gammas)))
    if to_zero:
        assert (schedule.alphas[0], schedule.sigmas[0]) == (1, 0)
    steps = np.diff(schedule.gammas[1 if to_zero else 0 :])
    mean = steps.mean()
    edge = skew / len(steps)  # a step is the mean slope over its length, not the slope at the end
    assert steps[0] == pytest.approx(mean * (1 - skew + edge))
    assert steps[-1] == pytest.approx(mean * (1 + skew - edge))


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(BadInput, match="0 steps"):
        Schedule(0, -8, 8)
    with pytest.raises(BadInput, match="not below"):
        Schedule(5, 8, 8)
    with pytest.raises(BadInput, match="skew 1"):
        Schedule(5, -8, 8, 1.0)
    with pytest.raises(BadInput, match="to_zero"):
        ends_in_noise = Schedule(5, -8, 8)
        noise = one_draw((Purpose.INITIAL, 0), 1)
        sample(Modes(LEVELS[:1], ends_in_noise), ends_in_noise, "dpmpp", noise, untouched)
    with pytest.raises(BadInput, match="'rk4'"):
        schedule = Schedule(5, -8, 8)
        noise = one_draw((Purpose.INITIAL, 0), 1)
        sample(Modes(LEVELS[:1], schedule), schedule, "rk4", noise, untouched)
