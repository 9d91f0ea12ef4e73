"""Compute the losses: HALOgen's of the mean or the paper's (eqs. 2-7), LODI's by diffusion."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi, target, weighted_mse

TOP_SHARE = 0.05  # of a channel's voxels that count as halo sites (eq. 3)
# The terms of eq. 5, with the values of section 2.3.1.
ALPHA = 0.6  # share of the squared error, against the quantile loss
QUANTILE = 0.7
BETA = (1.0, 2.0, 5.0, 8.0)  # weight of each channel's squared error
L1 = 1e-6  # weight of sum |theta|

# The mean loss: share of the divergence that is nearly relative, which teaches the faint outskirts.
FAINT_SHARE = 0.3

# Noise levels of the v parametrisation: gamma is normal, cut at its ends. Painting uses levels
# within them.
GAMMA_MIN, GAMMA_MAX = -9.0, 12.0
GAMMA_CENTRE, GAMMA_WIDTH = 1.5, 3.5
STEPS = 50  # T of eq. 13, for noise prediction
NEAR_WEIGHT, NEAR_REACH = 3.0, 2  # added weight of voxels that near to a known one
# Every noise level counts the same: its error is divided by its own running mean.
LEVEL_WIDTH = 0.5  # of gamma, that share one mean
LEVELS = round((GAMMA_MAX - GAMMA_MIN) / LEVEL_WIDTH)
LEVEL_RATE = 0.03  # of the running means, a step


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


class MeanHalogenTask(nn.Module):
    """Join HALOgen and a loss whose best network is the mean density, E[rho_h | dm].

    The paper's loss regresses the logarithm: where a halo may be in either of two bins it says
    "neither", and most mass of a narrow bin is lost. A Bregman divergence of the density itself is
    least at the conditional mean, which shares the halo's mass between the bins and loses none.
    Two are summed, for each channel in units of its `scale`, x of the truth against l:

        x log(x / l) - x + l            (Poisson)    over the mean of x: every M_sun/h counts
        (sqrt(x) - sqrt(l))² / sqrt(l)  (Tweedie, power 3/2)      over the mean of sqrt(x)

    `log_scale`, (4,), is log10 of the scale, of x = 1, in network units; `dex` are the dex of one
    network unit; `mean`, `mean_sqrt`, (4,), are means of x and sqrt(x) over the training data. The
    network's output is the logarithm of the density plus its transform's floor.
    """

    log_scale: Tensor
    over_mean: Tensor
    over_sqrt: Tensor

    def __init__(
        self, network: Halogen, dex: float, log_scale: Tensor, mean: Tensor, mean_sqrt: Tensor
    ):
        super().__init__()
        self.network, self.dex = network, dex
        values = {"log_scale": log_scale, "over_mean": 1 / mean, "over_sqrt": 1 / mean_sqrt}
        for name, of_channel in values.items():
            of_voxel = of_channel.float()[None, :, None, None, None]
            self.register_buffer(name, of_voxel, persistent=False)

    def forward(self, dm: Tensor, halo: Tensor) -> Tensor:
        """Return the loss of normalised dm (B, 1, n, n, n) and halo (B, 4, n, n, n), a scalar."""
        return self.of_output(self.network(dm), halo)

    def of_output(self, output: Tensor, halo: Tensor) -> Tensor:
        """Return the loss of what the network says, (B, 4, n, n, n)."""
        to_log = self.dex * math.log(10.0)
        log_x = (halo - self.log_scale) * to_log
        log_l = ((output.float() - self.log_scale) * to_log).clamp(max=4.0 * math.log(10.0))
        x, found = log_x.exp(), log_l.exp()
        poisson = x * (log_x - log_l) - x + found
        root_x, root_l = (0.5 * log_x).exp(), (0.5 * log_l).exp()
        tweedie = (root_x - root_l).square() / root_l
        error = poisson * self.over_mean + FAINT_SHARE * tweedie * self.over_sqrt
        return error.mean()


def mean_scales(halo: Tensor, dex: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log_scale, mean and mean_sqrt of `MeanHalogenTask` of normalised halo (4, ...).

    The scale of a channel is its mass-weighted mean density.
    """
    log = halo.flatten(1).double() * dex * math.log(10.0)
    rho = log.exp()
    scale = rho.square().sum(1) / rho.sum(1)
    x = rho / scale[:, None]
    return scale.log10() / dex, x.mean(1), x.sqrt().mean(1)


def noise_levels(uniform: Tensor) -> Tensor:
    """Return gamma of the v parametrisation from uniform numbers in 0 .. 1, (B,)."""
    normal = torch.distributions.Normal(0.0, 1.0)
    ends = torch.tensor([GAMMA_MIN, GAMMA_MAX], dtype=torch.float64)
    low, high = normal.cdf((ends - GAMMA_CENTRE) / GAMMA_WIDTH).tolist()
    share = low + uniform.double() * (high - low)
    levels: Tensor = GAMMA_CENTRE + GAMMA_WIDTH * math.sqrt(2.0) * torch.erfinv(2.0 * share - 1.0)
    return levels.float()


def level_index(gamma: Tensor) -> Tensor:
    """Return which of the LEVELS intervals a noise level lies in, int64."""
    return ((gamma - GAMMA_MIN) / LEVEL_WIDTH).long().clamp(0, LEVELS - 1)


class LodiTask(nn.Module):
    """Join LODI and its loss in one module.

    With the v parametrisation the loss is the mean squared error of v, at `noise_levels`, over the
    running mean of its level (as the uncertainty weights of Karras et al. 2024): the error of v at
    high noise is a hundred times that at low noise, and would take the gradient. What a network
    leaves of the noise in a logarithm is exponentiated: it is the low levels that make T_b bright.
    A network in evaluation returns the logarithm of the error, whose mean over levels and tiles a
    training is judged by.

    With noise prediction the loss is the variational bound (Kingma et al. 2021) at T steps with
    gamma(t) = b + |w| t learned (eq. 13 and its text). The paper prints its diffusion term alone,
    which |w| = 0 would bring to zero, so that the bound's other two terms are here too.
    Known voxels have no weight, for painting pastes them.

    Nearly all power comes from few bright voxels in haloes. A weight that is a function of the
    condition alone leaves the best network what it is, E[x0 | z, haloes], and spends a small
    network's effort where it counts: in haloes, and beside known voxels, where seams are.

    `sites`, for the v parametrisation, are pairs of a halo density, in network units, and the
    weight that is added where any channel is denser.
    """

    level_error: Tensor

    def __init__(self, network: Lodi, sites: tuple[tuple[float, float], ...] = ()):
        super().__init__()
        self.network, self.sites = network, sites
        self.parametrisation = network.size.parametrisation
        if self.parametrisation == "noise":
            # The bound has little to say of the ends at first: those of Kingma et al. 2021.
            self.gamma_start = nn.Parameter(torch.tensor(-13.3))
            self.gamma_slope = nn.Parameter(torch.tensor(18.3))
        else:
            self.register_buffer("level_error", torch.zeros(LEVELS))

    def gamma_ends(self) -> tuple[float, float]:
        """Return gamma at t = 0 and t = 1."""
        if self.parametrisation == "v":
            return GAMMA_MIN, GAMMA_MAX
        start = float(self.gamma_start.detach())
        return start, start + abs(float(self.gamma_slope.detach()))

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
            near = NEAR_WEIGHT * _near(known) if self.network.size.masked else 0.0
            weight = unknown * (self._site_weight(halo) + near)
            return self._balanced(self.error(tb, halo, known, weight, gamma, noise), gamma)
        t = torch.ceil(uniform * STEPS).clamp(min=1.0) / STEPS
        gamma, before = self._gamma(t), self._gamma(t - 1.0 / STEPS)
        weight = STEPS / 2.0 * torch.expm1(gamma - before)
        diffusion = weight * self.error(tb, halo, known, unknown, gamma, noise)
        return (diffusion + self._ends(tb, unknown)).mean()

    def _balanced(self, error: Tensor, gamma: Tensor) -> Tensor:
        """Return the mean of the errors over their levels' running means, or of their logarithm."""
        if not self.training:
            return error.clamp(min=1e-12).log().mean()
        level = level_index(gamma)
        with torch.no_grad():
            found = error.detach().float()
            zeros = torch.zeros_like(self.level_error)
            count = zeros.index_add(0, level, torch.ones_like(found))
            mean = zeros.index_add(0, level, found) / count.clamp(min=1.0)
            rate = torch.where(self.level_error > 0, LEVEL_RATE * count.clamp(max=8.0), 1.0)
            self.level_error.lerp_(mean, torch.where(count > 0, rate, 0.0))
        return (error / self.level_error[level]).mean()

    def _site_weight(self, halo: Tensor) -> Tensor:
        """Return 1, and more in haloes, (B, t, t, t)."""
        densest = halo.amax(dim=1)
        added = (more * (densest > density) for density, more in self.sites)
        return sum(added, torch.ones_like(densest))

    def _gamma(self, t: Tensor) -> Tensor:
        return self.gamma_start + self.gamma_slope.abs() * t

    def error(
        self, tb: Tensor, halo: Tensor, known: Tensor, weight: Tensor, gamma: Tensor, noise: Tensor
    ) -> Tensor:
        """Return the mean squared error of what is predicted, per tile, (B,)."""
        alpha, sigma = amplitudes(gamma)
        z = alpha * tb + sigma * noise
        low, high = self.gamma_ends()
        prepared = self.network.prepare(halo, tb * known, known)
        output = self.network(z, (gamma - low) / (high - low), prepared)
        return weighted_mse(output, target(self.parametrisation, tb, noise, alpha, sigma), weight)

    def _ends(self, tb: Tensor, unknown: Tensor) -> Tensor:
        """Return the bound's prior and reconstruction terms, per voxel to paint, (B,)."""
        start, end = self._gamma(tb.new_zeros(1)), self._gamma(tb.new_ones(1))
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
