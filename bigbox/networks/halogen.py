"""Predict four halo mass density channels from the dark-matter density (paper section 2.1)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from bigbox.networks import layers
from bigbox.networks.presets import HalogenSize

WINDOW = 64  # voxels on an edge of what the network sees at once, at most (section 2.1.1)
STEP = 16  # a window's edge is a multiple: it is halved three times
STRIDE = 48  # voxels between windows, at most
CHANNELS = 4  # halo mass bins (eq. 1)


class Halogen(nn.Module):
    """Map 1 x 64³ to 4 x 64³ normalised logarithms by an attention ResUNet (section 2.1.1, fig. 2).

        64³ ─ blocks ──────────────────────────────── join ─ blocks ─ 4 x 64³
              max-pool                                upsample (trilinear)
              32³ ─ blocks ────────────────── join ─ blocks
                    max-pool                  upsample
                    16³ ─ blocks ──── join ─ blocks
                          max-pool    upsample
                          8³ ─ blocks, attention

    In the paper every convolution and norm works within four groups, so that the output channels
    are independent: each is a U-Net of its own behind the common input. With `groups` 1 they share
    what they know. It takes windows of any edge that its poolings divide.
    """

    def __init__(self, size: HalogenSize):
        super().__init__()
        self.size = size
        groups, widths = size.groups, size.widths
        blocks = partial(layers.ResidualBlocks, count=size.blocks, convs=size.convs, groups=groups)
        self.inlet = layers.conv(size.patch**3, widths[0])
        self.down = nn.ModuleList(blocks(a, b) for a, b in pairwise((widths[0], *widths[:-1])))
        self.bottom = blocks(widths[-2], widths[-1])
        self.attention = layers.Attention(widths[-1], size.heads, groups)
        self.narrow = nn.ModuleList(layers.conv(b, a, groups, edge=1) for a, b in pairwise(widths))
        met = 2 if size.skips == "join" else 1
        self.up = nn.ModuleList(blocks(met * width, width) for width in widths[:-1])
        self.outlet = layers.Outlet(widths[0], CHANNELS * size.patch**3, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4, n, n, n) from the normalised log density (B, 1, n, n, n)."""
        h = self.inlet(layers.patchify(x, self.size.patch))
        skips = []
        for level in self.down:
            h = level(h)
            skips.append(h)
            h = layers.pool(h)
        h = self.attention(self.bottom(h))
        for level, narrow in zip(reversed(self.up), reversed(self.narrow), strict=True):
            # Narrowed before it is upsampled: the same function, an eighth of the work.
            fine = layers.upsample(narrow(h))
            h = level(layers.meet(self.size.skips, fine, skips.pop(), self.size.groups))
        return layers.unpatchify(self.outlet(h), self.size.patch)
