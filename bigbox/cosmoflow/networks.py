"""Encode a field, and tell the velocity that leads from noise to it, given the encoding.

                 Encoder                                    Velocity(x_t, t, latent)
    field ─────────────────────► latent ──mask(t)──┬──────► upsampled, beside x_t ──► U-Net ──► v
    (B, 1, n, n)                 (B, C, n/16, n/16)└─mean─► summary, with t ──────────► norms

The same in two and three dimensions. The sizes of the networks are one table, PRESETS.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.cosmoflow import layers
from bigbox.cosmoflow.layers import Conv
from bigbox.cosmoflow.masks import masked
from bigbox.errors import BadInput
from bigbox.networks.layers import level_features, zero_weights


@dataclass(frozen=True)
class FlowSize:
    """Size encoder and velocity network. Raises BadInput for what cannot be built."""

    ndim: int  # 2 or 3
    latent: int  # channels of the latent, C
    encoder: tuple[int, ...]  # channels of the encoder's residual blocks
    strides: tuple[int, ...]  # of these blocks; before them a max-pool halves
    widths: tuple[int, ...]  # channels of the velocity network at each resolution, finest first
    blocks: int  # residual blocks of two convolutions, at each resolution down and up
    embedding: int  # length of the embedding of the time
    norm: str  # of the velocity network: "group" (over a map or tile) or "voxel"
    patch: int = 1  # voxels on an edge that the velocity network takes as one
    attention: tuple[str, ...] = ()  # after which stages: "down 1" is that of the second resolution
    summary: bool = True  # the mean of the masked latent is told as well: needs the whole field
    periodic: bool = True  # the velocity network: beyond an edge is the opposite one, else zeros
    preconditioned: bool = True  # the network is left with what no linear estimate of v knows

    def __post_init__(self) -> None:
        factor = self.factor
        for good, what in (
            (self.ndim in (2, 3), f"ndim {self.ndim}: must be 2 or 3"),
            (len(self.encoder) == len(self.strides), "encoder and strides: must be as many"),
            (factor & (factor - 1) == 0, f"strides {self.strides}: must be 1 or 2"),
            (factor % self.patch == 0, f"patch {self.patch}: must divide {factor}"),
            (self.norm in ("group", "voxel"), f"norm {self.norm}: must be group or voxel"),
            (self.latent >= 1, f"latent {self.latent}: must be at least 1"),
        ):
            if not good:
                raise BadInput(f"network: {what}")

    @property
    def factor(self) -> int:
        """Voxels on an axis for one of the latent."""
        return 2 * prod(self.strides)

    @property
    def compression(self) -> float:
        """Numbers of the field for one of the latent."""
        return self.factor**self.ndim / self.latent

    @property
    def multiple(self) -> int:
        """What the edge of a field, or of a tile, must be a multiple of."""
        return max(self.factor, self.patch << (len(self.widths) - 1))

    def with_latent(self, channels: int) -> FlowSize:
        """Return the same networks with another number of latent channels."""
        return replace(self, latent=channels)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for a card, of which `from_dict` makes it again."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FlowSize:
        """Return the sizes of a card."""
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**given)


# paper, 2-D: appendix A.1 and the widths of its code; 256^2 to C x 16^2. small trains on two cores.
# 3-D: 32 times fewer numbers as well, 8^3 voxels to 16; no mean over the whole field and no
# attention, which tiles cannot have.
PRESETS = {
    ("small", 2): FlowSize(
        2, 8, (16, 32, 32, 64, 64, 128), (1, 1, 2, 2, 1, 2), (48, 64, 96), 1, 128, "group", patch=2
    ),
    ("paper", 2): FlowSize(
        2, 8, (64, 64, 128, 128, 256, 256), (1, 1, 2, 2, 1, 2), (64, 128, 256, 512, 512), 2, 256,
        "group", attention=("down 1", "down 2", "up 2"), preconditioned=False,
    ),
    ("small", 3): FlowSize(
        3, 16, (16, 32, 64, 64), (1, 2, 2, 1), (32, 64, 96), 1, 64, "voxel", patch=2,
        summary=False, periodic=False,
    ),
    ("paper", 3): FlowSize(
        3, 16, (64, 64, 128, 128, 256, 256), (1, 1, 2, 1, 2, 1), (64, 128, 256, 512), 2, 256,
        "voxel", summary=False, periodic=False,
    ),
}  # fmt: skip


class Encoder(nn.Module):
    """Encode a normalised field, (B, 1, n, ...), as a latent, (B, C, n / factor, ...).

    Each voxel of the latent knows the field within `reach` of its own factor^ndim voxels and
    nothing else: a box may be encoded block by block, each with so much of its neighbours.
    """

    def __init__(self, size: FlowSize):
        super().__init__()
        self.size = size
        ndim, widths = size.ndim, size.encoder
        # No norm over the channels here: it would throw away the amplitude of a single number.
        self.stem = Conv(ndim, 1, widths[0], periodic=True)
        pairs = pairwise((widths[0], *widths))
        self.blocks = nn.ModuleList(
            layers.EncoderBlock(ndim, a, b, stride, periodic=True)
            for (a, b), stride in zip(pairs, size.strides, strict=True)
        )
        self.outlet = Conv(ndim, widths[-1], size.latent, periodic=True)

    @property
    def reach(self) -> int:
        """Voxels beyond a latent voxel's own, on each side, that it may depend on."""
        reach, scale = 1, 2
        for stride in self.size.strides:
            reach += scale  # the first convolution of a block
            scale *= stride
            reach += scale
        return reach + scale

    def forward(self, field: Tensor) -> Tensor:
        """Return the latent. The field is periodic; see `reach` for a part of a larger one."""
        h = layers.pool(functional.gelu(self.stem(field)))
        for block in self.blocks:
            h = block(h)
        latent: Tensor = self.outlet(h)
        return latent


class Velocity(nn.Module):
    """Tell the velocity dx/dt at x_t = t x1 + (1 - t) x0 of the field x1, given its latent.

    At each t it sees the channels that `masks.mask` leaves: the latent that it is given is never
    changed, and a solver need only give each stage its own time.
    """

    def __init__(self, size: FlowSize):
        super().__init__()
        self.size = size
        ndim, widths, embedding = size.ndim, size.widths, size.embedding
        patch = size.patch**ndim

        def conv(channels: int, out: int, edge: int = 3, stride: int = 1) -> Conv:
            return Conv(ndim, channels, out, edge=edge, stride=stride, periodic=size.periodic)

        def stage(name: str, channels: int, out: int) -> nn.ModuleList:
            found: list[nn.Module] = [
                layers.FlowBlock(ndim, a, out, embedding, size.norm, size.periodic)
                for a in (channels, *(out,) * (size.blocks - 1))
            ]
            if name in size.attention:
                found.append(layers.Attention(out))
            return nn.ModuleList(found)

        self.inlet = conv(patch + size.latent, widths[0])
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.GELU())
        self.summary = nn.Linear(size.latent, embedding) if size.summary else None
        pairs = [*pairwise(widths)]
        self.down = nn.ModuleList(stage(f"down {i}", w, w) for i, w in enumerate(widths[:-1]))
        # Every second voxel of a convolution: the edge of 3 keeps it in place.
        self.coarsen = nn.ModuleList(conv(a, b, stride=2) for a, b in pairs)
        self.bottom = stage("bottom", widths[-1], widths[-1])
        self.narrow = nn.ModuleList(conv(b, a, edge=1) for a, b in pairs)
        self.up = nn.ModuleList(stage(f"up {i}", 2 * w, w) for i, w in enumerate(widths[:-1]))
        self.last = layers.norm(size.norm, widths[0])
        self.outlet = conv(widths[0], patch)
        zero_weights(self.outlet)

    def forward(self, x: Tensor, t: Tensor, latent: Tensor) -> Tensor:
        """Return v, (B, 1, n, ...), of x (B, 1, n, ...) at times t (B,) or (1,) in 0 .. 1.

        `latent`, (B, C, n / factor, ...), is of the same part of the field as x.
        """
        size = self.size
        told = masked(latent, t)
        level = self.embed(level_features(t, size.embedding))
        if self.summary is not None:
            level = level + self.summary(summary(told))
        level = functional.gelu(level)
        # At t, x_t of a field of variance 1 has this variance, and v given x_t alone this estimate.
        time = t.to(x.dtype)[(..., *(None,) * (x.dim() - 1))]
        variance = time**2 + (1 - time) ** 2
        lifted = x / variance.sqrt() if size.preconditioned else x
        told = layers.unpool(told, size.factor // size.patch)
        patches = layers.patchify(lifted, size.patch)
        h = self.inlet(torch.cat((patches, told.expand(len(x), *told.shape[1:])), dim=1))
        out = layers.unpatchify(self._unet(h, level), size.patch).float()
        if size.preconditioned:
            out = ((2 * time - 1) * x + variance.sqrt() * out) / variance
        return out

    def _unet(self, h: Tensor, level: Tensor) -> Tensor:
        """Go down to the coarsest resolution and up again."""
        skips = []
        for stage, coarsen in zip(self.down, self.coarsen, strict=True):
            h = _through(stage, h, level)
            skips.append(h)
            h = coarsen(h)
        h = _through(self.bottom, h, level)
        for stage, narrow in zip(reversed(self.up), reversed(self.narrow), strict=True):
            fine = layers.unpool(narrow(h), 2)
            h = _through(stage, torch.cat((fine, skips.pop().to(fine.dtype)), dim=1), level)
        outlet: Tensor = self.outlet(functional.gelu(self.last(h)))
        return outlet


class Flow(nn.Module):
    """Hold both networks, which are trained together and stored as one model."""

    def __init__(self, size: FlowSize):
        super().__init__()
        self.size = size
        self.encoder = Encoder(size)
        self.velocity = Velocity(size)


def summary(latent: Tensor) -> Tensor:
    """Return the mean of each channel, (B, C): the field in C numbers."""
    return latent.flatten(2).mean(2)


def _through(stage: nn.Module, h: Tensor, level: Tensor) -> Tensor:
    blocks: Any = stage
    for block in blocks:
        h = block(h, level) if isinstance(block, layers.FlowBlock) else block(h)
    return h
