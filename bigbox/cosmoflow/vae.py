"""Encode and decode without a flow: the baseline, a variational autoencoder of the same latent.

Convolutions of 5^ndim and generalised divisive normalisation, as Balle et al. 2016 (appendix A.2).
In place of its two linear layers, which fit one size of map alone, mean and variance come from the
last convolution. The noise of the field is the one that fits best (Rybkin et al. 2021), so that no
weight of the prior must be chosen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log2, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.cosmoflow import layers
from bigbox.cosmoflow.layers import Conv
from bigbox.cosmoflow.networks import FlowSize


@dataclass(frozen=True)
class VaeSize:
    """Size the autoencoder."""

    ndim: int
    latent: int  # channels of the latent
    factor: int  # voxels on an axis for one of the latent, a power of 2
    width: int  # channels of all other convolutions

    @classmethod
    def beside(cls, size: FlowSize, preset: str) -> VaeSize:
        """Return the baseline of the same latent."""
        return cls(size.ndim, size.latent, size.factor, 128 if preset == "paper" else 48)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for a card, of which `from_dict` makes it again."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VaeSize:
        """Return the sizes of a card."""
        return cls(**values)


class DivisiveNorm(nn.Module):
    """Divide each channel by the others' power at its voxel, or multiply (Balle et al. 2016)."""

    def __init__(self, channels: int, inverse: bool):
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(0.1 * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ...)."""
        weights = self.gamma.abs()[(..., *(None,) * (x.dim() - 2))]
        mix: Any = functional.conv2d if x.dim() == 4 else functional.conv3d
        scale = mix(x.float().square(), weights, self.beta.abs() + 1e-6).sqrt()
        return x * scale if self.inverse else x / scale


class Vae(nn.Module):
    """Encode a normalised field as the mean and the log variance of its latent, and decode it."""

    def __init__(self, size: VaeSize):
        super().__init__()
        self.size = size
        halvings = int(log2(size.factor))
        down = [1, *(size.width,) * (halvings - 1), 2 * size.latent]
        up = [size.latent, *(size.width,) * (halvings - 1), 1]

        def conv(channels: int, out: int, stride: int) -> Conv:
            return Conv(size.ndim, channels, out, edge=5, stride=stride, periodic=True)

        self.down = nn.ModuleList(conv(a, b, 2) for a, b in pairwise(down))
        self.up = nn.ModuleList(conv(a, b, 1) for a, b in pairwise(up))
        self.norms = nn.ModuleList(DivisiveNorm(size.width, False) for _ in down[1:-1])
        self.inverses = nn.ModuleList(DivisiveNorm(size.width, True) for _ in up[1:-1])

    def encode(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent, each (B, C, n / factor, ...)."""
        h = field
        for index, convolve in enumerate(self.down):
            h = convolve(h)
            h = self.norms[index](h) if index < len(self.norms) else h
        mean, log_variance = h.float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def encoder(self, field: Tensor) -> Tensor:
        """Return the latent that is stored, the mean."""
        return self.encode(field)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Return the field, (B, 1, n, ...)."""
        h = latent
        for index, convolve in enumerate(self.up):
            h = convolve(layers.unpool(h, 2))
            h = self.inverses[index](h) if index < len(self.inverses) else h
        return h.float()


class VaeTask(nn.Module):
    """Hold the autoencoder and its loss, per voxel of the field."""

    def __init__(self, network: Vae):
        super().__init__()
        self.network = network

    def forward(self, x1: Tensor, noise: Tensor) -> Tensor:
        """Return log(rms error) and the divergence from the prior; noise is of the latent."""
        mean, log_variance = self.network.encode(x1)
        decoded = self.network.decode(mean + noise * (0.5 * log_variance).exp())
        error = functional.mse_loss(decoded, x1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        voxels = prod(x1.shape)
        return 0.5 * error.clamp_min(1e-8).log() + divergence.sum() / voxels
