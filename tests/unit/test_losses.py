"""The losses against slow versions written voxel by voxel from the paper's equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from bigbox.networks.lodi import Lodi, clean_estimate, coherent_mse, target, weighted_mse
from bigbox.networks.presets import LodiSize
from bigbox.painters.lodi import SCHEDULES
from bigbox.training.losses import (
    BLOCK_SHARES,
    GAMMA_CENTRE,
    GAMMA_MAX,
    GAMMA_MIN,
    NEAR_REACH,
    NEAR_WEIGHT,
    LodiTask,
    amplitudes,
    halo_mask,
    halo_site_weights,
    halo_thresholds,
    halogen_loss,
    noise_levels,
)
from tests.reference.losses import slow_mask, slow_weights

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
            error *= np.sqrt(1 + NEAR_WEIGHT * beside_known(known[b].numpy()))
            square = (error**2).sum()
            for n, share in BLOCK_SHARES:  # and of the errors summed over blocks of n³ voxels
                for x, y, z in itertools.product(range(0, 32, n), repeat=3):
                    square += share * error[x : x + n, y : y + n, z : z + n].sum() ** 2
            each.append(square / int((known[b] == 0).sum()))
        assert float(task(**batch)) == pytest.approx(float(sum(each)) / 2, rel=1e-5)


def test_coherent_errors_count_more() -> None:
    rng = np.random.default_rng(8)
    noise = torch.from_numpy(rng.standard_normal((4, 32, 32, 32), np.float32))
    nothing, weight = torch.zeros_like(noise), torch.ones_like(noise)
    single = weighted_mse(noise, nothing, weight).mean()
    torch.testing.assert_close(
        coherent_mse(noise, nothing, weight, 4).mean(), single, rtol=0.05, atol=0.0
    )
    same = torch.full_like(noise, 0.5)
    torch.testing.assert_close(coherent_mse(same, nothing, weight, 4), torch.full((4,), 0.25 * 64))
    torch.testing.assert_close(
        coherent_mse(same, nothing, 4 * weight, 8), torch.full((4,), 0.25 * 4 * 512)
    )


def test_weights_are_a_function_of_the_haloes() -> None:
    task, batch = lodi_task("v"), lodi_batch()
    task.sites = ((0.5, 4.0), (1.5, 10.0))
    densest = batch["halo"].max(dim=1).values.numpy()
    slow = np.vectorize(lambda h: 1 + 4 * (h > 0.5) + 10 * (h > 1.5))(densest)
    np.testing.assert_allclose(task._site_weight(batch["halo"]).numpy(), slow)
    with torch.no_grad():
        heavier = float(task(**batch))
        task.sites = ()
        assert heavier > 1.5 * float(task(**batch))


def test_training_levels_cover_those_that_are_painted() -> None:
    gamma = noise_levels(torch.linspace(0, 1, 1001)[1:-1])
    assert (gamma.diff() > 0).all()
    for sampler in ("dpmpp-sde", "dpmpp"):
        painted = SCHEDULES[sampler]
        assert GAMMA_MIN <= gamma[0] <= painted["gamma_min"]
        assert painted["gamma_max"] <= gamma[-1] <= GAMMA_MAX
    middle = noise_levels(torch.tensor([0.5]))
    assert abs(float(middle) - GAMMA_CENTRE) < 0.2
