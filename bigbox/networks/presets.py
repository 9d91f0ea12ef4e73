"""Size the networks: one table for HALOgen, one for LODI."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class HalogenSize:
    """Size HALOgen."""

    patch: int  # voxels on an edge that the first convolution takes as one
    widths: tuple[int, ...]  # channels at each resolution, the last at the bottleneck
    blocks: int  # residual blocks at each resolution
    convs: int  # convolutions in each block
    heads: int  # of the attention, a multiple of 4


@dataclass(frozen=True)
class LodiSize(HalogenSize):
    """Size LODI."""

    embedding: int  # length of the noise level's embedding
    parametrisation: str  # what it predicts: "v" (Salimans & Ho 2022) or "noise" (the paper)


# The paper gives HALOgen's input, poolings and bottleneck (64³, three, 8³), not its widths, and
# LODI's input (32³) and one convolution more in a block than Ono et al. 2024, whose widths it has.
# mini works on patches of 2³ voxels: the maps are smoothed over R = 0.2 Mpc/h, two voxels, so that
# a patch loses nothing, and convolutions of a coarser grid with more channels are what processors
# are fast at.
HALOGEN = {
    #                      patch  widths                blocks convs heads
    "paper": HalogenSize(1, (64, 128, 256, 512), 1, 2, 4),
    "mini": HalogenSize(2, (64, 96, 128), 1, 2, 4),
}
LODI = {
    #                   patch  widths              blocks convs heads embedding parametrisation
    "paper": LodiSize(1, (48, 96, 192, 384), 1, 3, 4, 192, "noise"),
    "mini": LodiSize(2, (64, 96, 128), 1, 2, 4, 128, "v"),
}


def as_dict(size: HalogenSize) -> dict[str, Any]:
    """Return JSON values for the model card, of which `size(**dict)` makes it again."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(size).items()}
