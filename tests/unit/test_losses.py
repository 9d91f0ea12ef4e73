"""The losses against slow versions written voxel by voxel from the paper's equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi, clean_estimate, target
from bigbox.networks.presets import LodiSize
from bigbox.painters.lodi import SCHEDULES
from bigbox.training.losses import (
    GAMMA_CENTRE,
    GAMMA_MAX,
    GAMMA_MIN,
    GAMMA_WIDTH,
    LEVEL_RATE,
    LEVEL_WIDTH,
    LEVELS,
    NEAR_REACH,
    NEAR_WEIGHT,
    HalogenTask,
    LodiTask,
    MeanHalogenTask,
    amplitudes,
    halo_mask,
    halo_site_weights,
    halo_thresholds,
    halogen_loss,
    level_index,
    mean_scales,
    noise_levels,
)
from tests.models import HALOGEN
from tests.reference.losses import slow_balanced, slow_mask, slow_weights

N = 6


@pytest.fixture
def density() -> torch.Tensor:
    """log10 rho_h of four channels, mostly background, as real ones: (4, N, N, N)."""
    rng = np.random.default_rng(3)
    field = np.full((4, N, N, N), 9.0)
    for channel in range(4):
        sites = rng.choice(N**3, 30 - 5 * channel, replace=False)
        field[channel].reshape(-1)[sites] = rng.uniform(10, 13, len(sites))
    return torch.from_numpy(field)


def test_thresholds_leave_five_per_cent(density: torch.Tensor) -> None:
    for channel, threshold in zip(density, halo_thresholds(density), strict=True):
        above = (channel > threshold).double().mean()
        assert above <= 0.05
        # One voxel more would be over 5 %, ties aside.
        assert (channel >= threshold).double().mean() > 0.05


def test_weights_and_mask(density: torch.Tensor) -> None:
    thresholds = halo_thresholds(density)
    weights = halo_site_weights(density > thresholds[:, None, None, None])
    slow = slow_weights(density.numpy(), thresholds.numpy())
    np.testing.assert_allclose(weights.numpy(), slow)
    assert (weights >= 1).all()
    mask = halo_mask(density[None], thresholds, weights)[0]
    np.testing.assert_allclose(mask, slow_mask(density.numpy(), thresholds.numpy(), slow))


def test_halogen_loss_is_equation_5(density: torch.Tensor) -> None:
    rng = np.random.default_rng(4)
    wanted = torch.stack([density, density.flip(1)])
    predicted = wanted + torch.from_numpy(rng.normal(0, 1, wanted.shape))
    mask = torch.from_numpy(rng.uniform(1, 9, wanted.shape))
    mean_mask = float(mask.mean())
    alpha, q, beta = 0.6, 0.7, (1, 2, 5, 8)
    total = 0.0
    for b in range(2):
        # A mask of one sub-volume sums to 1 on average: divided by its voxels and its mean.
        normalised = mask[b] / (mean_mask * mask[b].numel())
        for j in range(4):
            squared = quantile = 0.0
            for voxel in np.ndindex(N, N, N):
                error = float(wanted[(b, j, *voxel)] - predicted[(b, j, *voxel)])
                squared += error**2 * float(normalised[(j, *voxel)])
                quantile += max(q * error, (q - 1) * error) / mask[b].numel()
            total += (alpha * beta[j] * squared + (1 - alpha) * quantile) / 2
    found = halogen_loss(predicted, wanted, mask, mean_mask)
    assert float(found) == pytest.approx(total)


def test_an_overestimate_costs_less_than_an_underestimate() -> None:
    zero, one = torch.zeros(1, 4, 2, 2, 2), torch.ones(1, 4, 2, 2, 2)
    over = halogen_loss(one, zero, one, 1.0, alpha=0.0)
    under = halogen_loss(zero, one, one, 1.0, alpha=0.0)
    assert float(under / over) == pytest.approx(0.7 / 0.3)


@pytest.mark.parametrize("parametrisation", ["v", "noise"])
def test_a_perfect_network_gives_back_the_clean_tile(parametrisation: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x0, noise = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64, generator=generator)
    alpha, sigma = amplitudes(torch.tensor([-8.0, 0.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    z = alpha * x0 + sigma * noise
    said = target(parametrisation, x0, noise, alpha, sigma)
    torch.testing.assert_close(clean_estimate(parametrisation, z, said, alpha, sigma), x0)


def lodi_task(parametrisation: str) -> LodiTask:
    torch.manual_seed(6)
    size = LodiSize(2, (16, 16, 16), 1, 2, 2, 16, parametrisation)
    task = LodiTask(Lodi(size))
    for parameter in task.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return task.eval()


def lodi_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    known = torch.zeros(2, 32, 32, 32)
    known[1, :4] = 1.0
    return {
        "tb": torch.randn(2, 32, 32, 32, generator=generator),
        "halo": torch.randn(2, 4, 32, 32, 32, generator=generator),
        "known": known,
        "uniform": torch.tensor([0.31, 0.87]),
        "noise": torch.randn(2, 32, 32, 32, generator=generator),
    }


def test_noise_loss_is_equation_13() -> None:
    """T/2 expm1(gamma_t - gamma_s) |eps - eps_hat|^2 per voxel to paint, plus the bound's ends."""
    task, batch = lodi_task("noise"), lodi_batch()
    start, slope = -13.3, 18.3
    total = 0.0
    with torch.no_grad():
        for b, u in enumerate(batch["uniform"].tolist()):
            step = math.ceil(u * 50)
            gamma, before = start + slope * step / 50, start + slope * (step - 1) / 50
            alpha = math.sqrt(1 / (1 + math.exp(gamma)))
            sigma = math.sqrt(1 / (1 + math.exp(-gamma)))
            x, eps, known = batch["tb"][b], batch["noise"][b], batch["known"][b]
            z = alpha * x + sigma * eps
            prepared = task.network.prepare(
                batch["halo"][b : b + 1], (x * known)[None], known[None]
            )
            level = torch.tensor([(gamma - start) / slope])
            predicted = task.network(z[None], level, prepared)[0]
            unknown = known == 0
            error = ((eps - predicted)[unknown] ** 2).mean()
            total += 25 * math.expm1(gamma - before) * float(error) / 2
            end = start + slope
            alpha2, sigma2 = 1 / (1 + math.exp(end)), 1 / (1 + math.exp(-end))
            prior = 0.5 * (alpha2 * x[unknown] ** 2 + sigma2 - 1 - math.log(sigma2)).mean()
            total += (float(prior) + 0.5 * (start + math.log(2 * math.pi) + 1)) / 2
        found = float(task(**batch))
    assert found == pytest.approx(total, rel=1e-4)


def beside_known(known: np.ndarray) -> np.ndarray:
    """Which voxels have a known one within NEAR_REACH voxels on every axis."""
    padded = np.pad(known, NEAR_REACH)
    reach, n = range(2 * NEAR_REACH + 1), len(known)
    moved = [padded[x:, y:, z:][:n, :n, :n] for x, y, z in itertools.product(reach, repeat=3)]
    return np.asarray(np.max(moved, axis=0) > 0)


def test_known_voxels_cost_nothing() -> None:
    """What the network says of known voxels does not enter the loss, and they are told it clean."""
    task, batch = lodi_task("v"), lodi_batch()
    with torch.no_grad():
        gamma = noise_levels(batch["uniform"])
        alpha, sigma = amplitudes(gamma)
        z = alpha * batch["tb"] + sigma * batch["noise"]
        known = batch["known"]
        prepared = task.network.prepare(batch["halo"], batch["tb"] * known, known)
        low, high = task.gamma_ends()
        said = task.network(z, (gamma - low) / (high - low), prepared)
        wanted = alpha * batch["noise"] - sigma * batch["tb"]
        each = []
        for b in range(2):
            error = np.where(known[b] == 0, (said - wanted)[b], 0).astype(np.float64)
            weight = 1 + NEAR_WEIGHT * beside_known(known[b].numpy())
            each.append((weight * error**2).sum() / int((known[b] == 0).sum()))
        # In evaluation the loss is the mean logarithm of the tiles' errors.
        assert float(task(**batch)) == pytest.approx(np.log(each).mean(), rel=1e-5)
        task.train()
        assert float(task(**batch)) == pytest.approx(1.0)  # a level's first error is its mean


def test_every_level_counts_the_same() -> None:
    """Errors over the running means of their levels, step by step, against plain Python."""
    task = lodi_task("v").train()
    rng = np.random.default_rng(9)
    means: dict[int, float] = {}
    for _ in range(20):
        gamma = torch.from_numpy(rng.choice([-8.9, -8.6, -3.0, 0.1, 11.9, 12.0], 12)).float()
        errors = torch.from_numpy(rng.lognormal(0, 1, 12)).float() * (gamma + 10)
        levels = level_index(gamma).tolist()
        slow = slow_balanced(means, errors.tolist(), levels, LEVEL_RATE)
        assert float(task._balanced(errors, gamma)) == pytest.approx(slow, rel=1e-5)
    assert set(means) == {0, 12, 18, 41} and len(task.level_error) == LEVELS == 42
    for level in range(LEVELS):
        assert float(task.level_error[level]) == pytest.approx(means.get(level, 0.0), rel=1e-5)
    # Neither the means nor their update take a gradient, or move in evaluation.
    before = task.level_error.clone()
    error = torch.tensor([2.0, 3.0], requires_grad=True)
    task.eval()._balanced(error, torch.tensor([0.0, 5.0])).backward()
    assert torch.equal(task.level_error, before)
    torch.testing.assert_close(error.grad, torch.tensor([1 / 4, 1 / 6]))


def test_an_error_ten_times_as_large_everywhere_changes_no_gradient() -> None:
    small, large = lodi_task("v").train(), lodi_task("v").train()
    gamma = torch.linspace(-9, 12, 8)
    grads = []
    for task, scale in ((small, 1.0), (large, 10.0)):
        error = torch.linspace(1, 2, 8).requires_grad_()
        for _ in range(3):
            task._balanced(scale * error.detach(), gamma)
        task._balanced(scale * error, gamma).backward()
        grads.append(error.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_weights_are_a_function_of_the_haloes() -> None:
    task, batch = lodi_task("v"), lodi_batch()
    task.sites = ((0.5, 4.0), (1.5, 10.0))
    densest = batch["halo"].max(dim=1).values.numpy()
    slow = np.vectorize(lambda h: 1 + 4 * (h > 0.5) + 10 * (h > 1.5))(densest)
    np.testing.assert_allclose(task._site_weight(batch["halo"]).numpy(), slow)
    with torch.no_grad():
        heavier = float(task(**batch))
        task.sites = ()
        assert heavier > math.log(1.5) + float(task(**batch))


def test_training_levels_cover_those_that_are_painted() -> None:
    gamma = noise_levels(torch.linspace(0, 1, 1001)[1:-1])
    assert (gamma.diff() > 0).all()
    for sampler in ("dpmpp-sde", "dpmpp"):
        painted = SCHEDULES[sampler]
        assert GAMMA_MIN <= gamma[0] <= painted["gamma_min"]
        assert painted["gamma_max"] <= gamma[-1] <= GAMMA_MAX
    middle = noise_levels(torch.tensor([0.5]))
    assert abs(float(middle) - GAMMA_CENTRE) < 0.2


def test_noise_levels_are_normal_cut_at_their_ends() -> None:
    uniform = torch.linspace(0, 1, 2001)[1:-1]
    low, high = ((end - GAMMA_CENTRE) / GAMMA_WIDTH for end in (GAMMA_MIN, GAMMA_MAX))
    wanted = stats.truncnorm(low, high, GAMMA_CENTRE, GAMMA_WIDTH).ppf(uniform.numpy())
    np.testing.assert_allclose(noise_levels(uniform), wanted, atol=1e-4)


def test_levels_are_intervals_of_gamma() -> None:
    gamma = torch.linspace(GAMMA_MIN, GAMMA_MAX, 500)
    slow = [min(int((g - GAMMA_MIN) // LEVEL_WIDTH), LEVELS - 1) for g in gamma.tolist()]
    assert level_index(gamma).tolist() == slow


@pytest.fixture
def bimodal() -> torch.Tensor:
    """Densities as at a bin's edge: of one dm, a halo in this bin or in its neighbour.

    (B, 4, n, n, n), in (M_sun/h) / (Mpc/h)^3, over the floor 1e9.
    """
    rng = np.random.default_rng(10)
    shape = (64, 1, 4, 4, 4)
    first = rng.random(shape) < 0.3
    dense = 10 ** rng.normal(11.5, 0.3, (64, 4, 4, 4, 4))
    mine = np.concatenate([first, ~first, rng.random(shape) < 0.01, np.ones(shape, bool)], axis=1)
    return torch.from_numpy(np.where(mine, dense, 1e9))


def test_the_best_network_of_the_mean_loss_is_the_mean_density(bimodal: torch.Tensor) -> None:
    """No network: four numbers, one for each channel, are optimised.

    The mean of the logarithm has less than a quarter of the mass of the rare channel.
    """
    centre, dex = 9.2, 0.4
    halo = ((bimodal.log10() - centre) / dex).float()
    scales = mean_scales(halo.transpose(0, 1), dex)
    task = MeanHalogenTask(Halogen(HALOGEN), dex, *scales)
    output = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.LBFGS([output], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        said = output[None, :, None, None, None].expand_as(halo)
        value = task.of_output(said, halo)
        value.backward()
        return value

    for _ in range(5):
        optimiser.step(loss)
    found = 10 ** (output.detach().double() * dex + centre)
    mean = bimodal.mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(found, mean, rtol=0.01, atol=0.0)
    geometric = 10 ** bimodal.log10().mean(dim=(0, 2, 3, 4))
    assert float(geometric[2] / mean[2]) < 0.25


def test_mean_loss_term_by_term(bimodal: torch.Tensor) -> None:
    dex, rng = 0.4, np.random.default_rng(11)
    halo = bimodal.log10() / dex  # network units whose zero is one M_sun/h
    log_scale, mean, mean_sqrt = mean_scales(halo.transpose(0, 1), dex)
    task = MeanHalogenTask(Halogen(HALOGEN), dex, log_scale, mean, mean_sqrt)
    output = halo + torch.from_numpy(rng.normal(0, 0.5, halo.shape))
    truth, said = 10 ** (dex * halo.numpy()), 10 ** (dex * output.numpy())
    total = 0.0
    for channel in range(4):
        rho = truth[:, channel]
        scale = (rho**2).sum() / rho.sum()  # the mean density of a place where mass is
        assert 10 ** (float(log_scale[channel]) * dex) == pytest.approx(scale, rel=1e-6)
        x, found = rho / scale, np.minimum(said[:, channel] / scale, 1e4)
        assert float(mean[channel]) == pytest.approx(x.mean())
        assert float(mean_sqrt[channel]) == pytest.approx(np.sqrt(x).mean())
        poisson = x * np.log(x / found) - x + found
        tweedie = (np.sqrt(x) - np.sqrt(found)) ** 2 / np.sqrt(found)
        total += (poisson / x.mean() + 0.3 * tweedie / np.sqrt(x).mean()).mean() / 4
    assert float(task.of_output(output, halo)) == pytest.approx(total, rel=1e-3)
    assert float(task.of_output(halo, halo)) == pytest.approx(0.0, abs=1e-4)


def test_halogen_tasks_see_their_network(density: torch.Tensor) -> None:
    """The loss of a task is that of what its network says, with the L1 term in training alone."""
    torch.manual_seed(12)
    network, dm = Halogen(HALOGEN), torch.randn(1, 1, 32, 32, 32)
    halo = torch.randn(1, 4, 32, 32, 32)
    scales = mean_scales(halo[0], 0.3)
    with torch.no_grad():
        mean = MeanHalogenTask(network, 0.3, *scales).eval()
        assert torch.equal(mean(dm, halo), mean.of_output(network(dm), halo))
        thresholds = halo_thresholds(halo[0])
        weights = halo_site_weights(halo[0] > thresholds[:, None, None, None])
        paper = HalogenTask(network, thresholds, weights, 3.0).eval()
        mask = halo_mask(halo, thresholds, weights)
        plain = float(paper(dm, halo))
        assert plain == pytest.approx(float(halogen_loss(network(dm), halo, mask, 3.0)))
        norm = sum(float(p.abs().sum()) for p in network.parameters())
        assert float(paper.train()(dm, halo)) == pytest.approx(plain + 1e-6 * norm)
