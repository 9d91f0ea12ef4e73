"""Size the networks: one table for HALOgen, one for LODI."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class UNetSize:
    """Size what both networks have in common."""

    patch: int  # voxels on an edge that the first convolution takes as one
    widths: tuple[int, ...]  # channels at each resolution, the last at the bottleneck
    blocks: int  # residual blocks at each resolution
    convs: int  # convolutions in each block
    heads: int  # of the attention, a multiple of the groups
    # How a level meets what comes up from below: channels side by side ("join"), or their sum.
    skips: str = field(default="join", kw_only=True)


@dataclass(frozen=True)
class HalogenSize(UNetSize):
    """Size HALOgen."""

    groups: int = field(default=4, kw_only=True)  # shares of the channels that never meet


@dataclass(frozen=True)
class LodiSize(UNetSize):
    """Size LODI."""

    embedding: int  # length of the noise level's embedding
    parametrisation: str  # what it predicts: "v" (Salimans & Ho 2022) or "noise" (the paper)
    masked: bool = field(default=True, kw_only=True)  # it is shown known voxels and their mask
    bypass: int = field(default=0, kw_only=True)  # linear filters of z around the network


# The paper gives HALOgen's input, poolings and bottleneck (64³, three, 8³), not its widths, and
# LODI's input (32³) and one convolution more in a block than Ono et al. 2024, whose widths it has.
# mini works on the painting grid, every second voxel: the maps are smoothed over R = 0.2 Mpc/h, two
# voxels, and have nothing between.
HALOGEN = {
    #                      patch  widths             blocks convs heads
    "paper": HalogenSize(1, (64, 128, 256, 512), 1, 2, 4),
    "mini": HalogenSize(1, (32, 64, 128, 128), 1, 2, 4, skips="add", groups=1),
}
LODI = {
    #                   patch  widths              blocks convs heads embedding parametrisation
    "paper": LodiSize(1, (48, 96, 192, 384), 1, 3, 4, 192, "noise"),
    "mini": LodiSize(1, (32, 64, 128), 1, 2, 4, 128, "v", skips="add", masked=False, bypass=8),
}
# Voxels of dm on an axis for one of the grid that a preset works on.
GRID = {"paper": 1, "mini": 2}


def as_dict(size: UNetSize) -> dict[str, Any]:
    """Return JSON values for the model card, of which `size(**dict)` makes it again."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(size).items()}
