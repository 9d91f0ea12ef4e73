"""Compute the losses: HALOgen's with mask and quantile (eqs. 2-7), LODI's by diffusion (eq. 13)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi, coherent_mse, target, weighted_mse

TOP_SHARE = 0.05  # of a channel's voxels that count as halo sites (eq. 3)
# The terms of eq. 5, with the values of section 2.3.1.
ALPHA = 0.6  # share of the squared error, against the quantile loss
QUANTILE = 0.7
BETA = (1.0, 2.0, 5.0, 8.0)  # weight of each channel's squared error
L1 = 1e-6  # weight of sum |theta|

# Noise levels of the v parametrisation: gamma is normal, cut at its ends. Painting uses levels
# within them. A halo's own brightness, 0.2 dex about the mean of its mass, is spread over a
# thousand voxels of its neighbourhood in the logarithm. It shows through the noise at gamma = 4.
# Networks trained about gamma = 1 settle for the mean there, which costs a third of the power.
GAMMA_MIN, GAMMA_MAX = -9.0, 12.0
GAMMA_CENTRE, GAMMA_WIDTH = 3.0, 3.2
STEPS = 50  # T of eq. 13, for noise prediction
NEAR_WEIGHT, NEAR_REACH = 3.0, 2  # added weight of voxels that near to a known one
BLOCK_SHARES = ((4, 0.05), (8, 0.05))  # voxels on a block's edge, share of its error in LODI's loss


def halo_thresholds(log_density: Tensor) -> Tensor:
    """Return T_i of eq. 3, (4,): the log density that 5 % of a channel's voxels exceed.

    `log_density` is that of the whole training data, (4, ...).
    """
    flat = log_density.flatten(1)
    rank = math.ceil((1.0 - TOP_SHARE) * flat.shape[1])
    return flat.kthvalue(rank, dim=1).values


def halo_site_weights(sites: Tensor) -> Tensor:
    """Return w_i of eq. 2, (4,): a channel's voxels over halo sites in it and its neighbours.

    `sites` is bool (4, ...) of the whole training data.
    """
    return 1.0 / _with_neighbours(sites.flatten(1).double().mean(1)[None])[0]


def halo_mask(log_density: Tensor, thresholds: Tensor, weights: Tensor) -> Tensor:
    """Return the mask m of eq. 4, (B, 4, n, n, n), not yet normalised.

    It is w_i at the halo sites of channel i and of its neighbour channels, and 1 elsewhere. Eq. 4
    as printed leaves the neighbours out. The text and fig. 3 have them, to enforce that a channel
    has no haloes where the next has.
    """
    sites = log_density > thresholds[:, None, None, None]
    near = _with_neighbours(sites.float()) > 0
    return torch.where(near, weights[:, None, None, None].to(log_density.dtype), 1.0)


def _with_neighbours(channels: Tensor) -> Tensor:
    """Sum channels i - 1, i and i + 1 of (B, 4, ...), where they exist."""
    total = channels.clone()
    total[:, 1:] += channels[:, :-1]
    total[:, :-1] += channels[:, 1:]
    return total


def halogen_loss(
    predicted: Tensor, wanted: Tensor, mask: Tensor, mean_mask: float, alpha: float = ALPHA
) -> Tensor:
    """Return eq. 5 without its last term, a scalar, from (B, 4, n, n, n) each.

    `mean_mask` is the mask's mean over the training data. A mask divided by it and by its 4 n³
    voxels sums to 1 on average (section 2.1.3).
    """
    error = wanted - predicted
    squared = (error.square() * mask).mean(dim=(0, 2, 3, 4)) / mean_mask / error.shape[1]
    quantile = torch.maximum(QUANTILE * error, (QUANTILE - 1.0) * error)
    quantile = quantile.mean(dim=(0, 2, 3, 4)) / error.shape[1]
    beta = torch.tensor(BETA, device=error.device)
    return (alpha * beta * squared + (1.0 - alpha) * quantile).sum()


class HalogenTask(nn.Module):
    """Join HALOgen and its loss in one module, so that DDP sees a single forward pass."""

    def __init__(
        self, network: Halogen, thresholds: Tensor, site_weights: Tensor, mean_mask: float
    ):
        super().__init__()
        self.thresholds: Tensor
        self.site_weights: Tensor
        self.network, self.mean_mask = network, mean_mask
        self.register_buffer("thresholds", thresholds.float(), persistent=False)
        self.register_buffer("site_weights", site_weights.float(), persistent=False)

    def forward(self, dm: Tensor, halo: Tensor) -> Tensor:
        """Return the loss of normalised dm (B, 1, n, n, n) and halo (B, 4, n, n, n), a scalar."""
        mask = halo_mask(halo, self.thresholds, self.site_weights)
        loss = halogen_loss(self.network(dm).float(), halo, mask, self.mean_mask)
        if self.training:
            loss = loss + L1 * sum(p.abs().sum() for p in self.network.parameters())
        return loss


def noise_levels(uniform: Tensor) -> Tensor:
    """Return gamma of the v parametrisation from uniform numbers in 0 .. 1, (B,)."""
    normal = torch.distributions.Normal(0.0, 1.0)
    ends = torch.tensor([GAMMA_MIN, GAMMA_MAX], dtype=uniform.dtype)
    low, high = normal.cdf((ends - GAMMA_CENTRE) / GAMMA_WIDTH)
    levels: Tensor = GAMMA_CENTRE + GAMMA_WIDTH * normal.icdf(low + uniform * (high - low))
    return levels


class LodiTask(nn.Module):
    """Join LODI and its loss in one module.

    With the v parametrisation the loss is the mean squared error of v, at `noise_levels`. With
    noise prediction it is the variational bound (Kingma et al. 2021) at T steps with gamma(t) =
    b + |w| t learned (eq. 13 and its text). The paper prints its diffusion term alone, which
    |w| = 0 would bring to zero, so that the bound's other two terms are here too.
    Known voxels have no weight, for painting pastes them.

    Nearly all power comes from few bright voxels in haloes. A weight that is a function of the
    condition alone leaves the best network what it is, E[x0 | z, haloes], and spends a small
    network's effort where it counts: in haloes, and beside known voxels, where seams are. So does
    any quadratic form of the error, such as that of errors summed over blocks (BLOCK_SHARES). How
    bright a halo is as a whole must be read from z at gamma = 2 to 6, where it is a small part of
    the error of single voxels, and all of the scatter between haloes.

    `sites`, for the v parametrisation, are pairs of a halo density, in network units, and the
    weight that is added where any channel is denser.
    """

    def __init__(self, network: Lodi, sites: tuple[tuple[float, float], ...] = ()):
        super().__init__()
        self.network, self.sites = network, sites
        self.parametrisation = network.size.parametrisation
        if self.parametrisation == "noise":
            # The bound has little to say of the ends at first: those of Kingma et al. 2021.
            self.gamma_start = nn.Parameter(torch.tensor(-13.3))
            self.gamma_slope = nn.Parameter(torch.tensor(18.3))

    def gamma_ends(self) -> tuple[float, float]:
        """Return gamma at t = 0 and t = 1."""
        if self.parametrisation == "v":
            return GAMMA_MIN, GAMMA_MAX
        start = float(self.gamma_start)
        return start, start + abs(float(self.gamma_slope))

    def forward(
        self, tb: Tensor, halo: Tensor, known: Tensor, uniform: Tensor, noise: Tensor
    ) -> Tensor:
        """Return the loss of normalised tb (B, t, t, t) and halo (B, 4, t, t, t), a scalar.

        `known` is 1 where a voxel is known, else 0, and `noise` standard normal, (B, t, t, t).
        `uniform`, in 0 .. 1, chooses the noise level, (B,).
        """
        unknown = 1.0 - known
        if self.parametrisation == "v":
            gamma = noise_levels(uniform)
            weight = unknown * (self._site_weight(halo) + NEAR_WEIGHT * _near(known))
            return self._error(tb, halo, known, weight, gamma, noise).mean()
        t = torch.ceil(uniform * STEPS).clamp(min=1.0) / STEPS
        gamma, before = self._gamma(t), self._gamma(t - 1.0 / STEPS)
        weight = STEPS / 2.0 * torch.expm1(gamma - before)
        diffusion = weight * self._error(tb, halo, known, unknown, gamma, noise)
        return (diffusion + self._ends(tb, unknown)).mean()

    def _site_weight(self, halo: Tensor) -> Tensor:
        """Return 1, and more in haloes, (B, t, t, t)."""
        densest = halo.amax(dim=1)
        added = (more * (densest > density) for density, more in self.sites)
        return sum(added, torch.ones_like(densest))

    def _gamma(self, t: Tensor) -> Tensor:
        return self.gamma_start + self.gamma_slope.abs() * t

    def _error(
        self, tb: Tensor, halo: Tensor, known: Tensor, weight: Tensor, gamma: Tensor, noise: Tensor
    ) -> Tensor:
        """Return the mean squared error of what is predicted, per tile, (B,)."""
        alpha, sigma = amplitudes(gamma)
        z = alpha * tb + sigma * noise
        low, high = self.gamma_ends()
        prepared = self.network.prepare(halo, tb * known, known)
        output = self.network(z, (gamma - low) / (high - low), prepared)
        wanted = target(self.parametrisation, tb, noise, alpha, sigma)
        error = weighted_mse(output, wanted, weight)
        if self.parametrisation == "v":
            for block, share in BLOCK_SHARES:
                error = error + share * coherent_mse(output, wanted, weight, block)
        return error

    def _ends(self, tb: Tensor, unknown: Tensor) -> Tensor:
        """Return the bound's prior and reconstruction terms, per voxel to paint, (B,)."""
        start, end = self._gamma(torch.zeros(1)), self._gamma(torch.ones(1))
        alpha2, sigma2 = torch.sigmoid(-end), torch.sigmoid(end)
        prior = 0.5 * (alpha2 * tb.square() + sigma2 - 1.0 - torch.log(sigma2))
        mean_prior = (prior * unknown).flatten(1).sum(1) / unknown.flatten(1).sum(1)
        reconstruction = 0.5 * (start + math.log(2.0 * math.pi) + 1.0)
        return mean_prior + reconstruction


def _near(known: Tensor) -> Tensor:
    """Return 1 within NEAR_REACH voxels of a known one, else 0, (B, t, t, t)."""
    edge = 2 * NEAR_REACH + 1
    return functional.max_pool3d(known[:, None], edge, stride=1, padding=NEAR_REACH)[:, 0]


def amplitudes(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma, (B, 1, 1, 1), of noise levels gamma (B,) (section 2.2.3)."""
    gamma = gamma[:, None, None, None]
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
