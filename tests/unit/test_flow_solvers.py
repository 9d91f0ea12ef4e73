"""Solvers of dx/dt = v(x, t): orders, the adaptive one, and samplers that take the same steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from bigbox.cosmoflow.masks import masked
from bigbox.cosmoflow.solvers import adaptive, euler, flow_times, heun
from bigbox.diffusion.samplers import sample
from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.painters.gaussian import SCHEDULES

VARIANCE = torch.tensor([0.01, 0.24, 1.0, 10.0, 240.0], dtype=torch.float64)


def gaussian(x: torch.Tensor, t: float) -> torch.Tensor:
    """The exact velocity of modes of these variances: from noise to them."""
    return (t * VARIANCE - (1 - t)) / (t * t * VARIANCE + (1 - t) ** 2) * x


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_orders(solver, order) -> None:
    begin = torch.ones(3, dtype=torch.float64)

    def error(intervals: int) -> float:
        found = solver(lambda x, t: -x * t, begin, np.linspace(0, 1, intervals + 1))
        return float((found - np.exp(-0.5)).abs().max())

    assert error(16) / error(32) == pytest.approx(2.0**order, rel=0.1)


def test_the_adaptive_solver_is_right_and_says_what_it_took() -> None:
    seen: list[float] = []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(t)
        return gaussian(x, t)

    begin = torch.full((5,), 0.7, dtype=torch.float64)
    found = adaptive(velocity, begin, rtol=1e-6, atol=1e-8)
    assert torch.allclose(found.x, 0.7 * VARIANCE.sqrt(), rtol=1e-4)
    reference = solve_ivp(
        lambda t, x: gaussian(torch.from_numpy(x), t).numpy(), (0, 1), begin.numpy(),
        method="RK23", rtol=1e-6, atol=1e-8,
    )  # fmt: skip
    assert torch.allclose(found.x, torch.from_numpy(reference.y[:, -1]), rtol=1e-4)
    assert found.calls == len(seen) == 1 + 3 * (len(found.times) - 1 + found.refused)
    assert found.times[0] == 0.0 and found.times[-1] == 1.0
    assert 0.3 < found.calls / reference.nfev < 3


def test_a_refused_interval_leaves_the_latent_as_it_was() -> None:
    latent = torch.ones(1, 4, 2, 2, 2)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        seen = masked(latent, torch.tensor([t])).sum(1)
        return 50.0 * (seen - x)  # stiff: intervals of the first guess are refused

    found = adaptive(velocity, torch.zeros(1, 2, 2, 2), first=0.5)
    assert found.refused > 0
    assert bool((latent == 1).all())
    assert torch.allclose(found.x, torch.ones(1, 2, 2, 2), atol=0.02)  # one channel is seen at 1


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 20])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_samplers_take_the_steps_of_the_solvers(sampler: str, steps: int) -> None:
    """On z, the scaled x_t, and from estimates of x_1: as the plain loop on x_t and velocities."""
    schedule = Schedule(steps, **SCHEDULES[sampler])
    times = flow_times(schedule)
    random = torch.Generator().manual_seed(steps)
    noise = torch.randn(6, dtype=torch.float64, generator=random)

    def estimate(x: torch.Tensor, t: float) -> torch.Tensor:
        return torch.tanh(x + t) * 2 + t  # of x_1: anything that is not linear

    class Denoiser:
        def denoise(self, z: torch.Tensor, step: int) -> torch.Tensor:
            t = float(times[step])
            return estimate(z * np.hypot(t, 1 - t), t)

    found = sample(Denoiser(), schedule, sampler, lambda *_: noise.clone(), lambda z, step: None)

    # The first call is told the schedule's first time, and z is pure noise: of time 0.
    levels = [float(t) for t in dict.fromkeys(times[::-1].tolist())]

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        if t == 0:
            return estimate(x * np.hypot(levels[0], 1 - levels[0]), levels[0]) - x
        return (estimate(x, t) - x) / (1 - t)

    nodes = [0.0, *levels[1:]]
    x = noise
    if sampler == "euler":
        x = euler(velocity, x, nodes)
    else:  # the last interval is Euler's, and the first of an even number of calls
        single = 1 - steps % 2 if steps > 2 else len(nodes) - 2
        x = euler(velocity, x, nodes[: single + 1]) if single else x
        x = heun(velocity, x, nodes[single:-1]) if len(nodes[single:-1]) > 1 else x
        x = euler(velocity, x, nodes[-2:])
    assert torch.allclose(found, x, rtol=1e-6)


def test_heun_keeps_the_power_of_a_gaussian_field_at_its_default_calls() -> None:
    schedule = Schedule(37, **SCHEDULES["heun"])
    variance = torch.from_numpy(np.geomspace(0.24, 240, 40))

    class Exact:
        def denoise(self, z: torch.Tensor, step: int) -> torch.Tensor:
            alpha, sigma = float(schedule.alphas[step]), float(schedule.sigmas[step])
            return z * alpha * variance / (alpha**2 * variance + sigma**2)

    one = torch.ones(40, dtype=torch.float64)
    found = sample(Exact(), schedule, "heun", lambda *_: one.clone(), lambda z, step: None)
    assert float((found**2 / variance - 1).abs().max()) < 0.02


def test_refusals() -> None:
    with pytest.raises(BadInput, match="ascending"):
        euler(gaussian, VARIANCE, [0.0, 0.5, 0.5])
    with pytest.raises(BadInput, match="not finite"):
        adaptive(lambda x, t: x * np.nan, VARIANCE)
    with pytest.raises(BadInput, match="allow larger errors"):
        adaptive(gaussian, VARIANCE, rtol=1e-12, atol=1e-12, most_calls=50)
