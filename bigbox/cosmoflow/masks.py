"""Say which channels of a latent the velocity network sees at a time.

        t    0                                  1        flow time, noise to field
    visible  C   C-1   C-2   ...    3     2     1        channels, the first ones

Channel 0 is seen to the end, the last channel at the beginning only. A field is made from its
largest scales to its smallest (appendix B of the paper), so the last channels are left with what is
large, the first with what is small. The paper says: all at t = 0, exactly one at t = 1. Its code
leaves none at t = 1, and writes the mask into the latent that it was given.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visible(t: Tensor, channels: int) -> Tensor:
    """Return how many channels are seen at times t in 0 .. 1, int64 of t's shape: C to 1."""
    gone = (channels * t.double()).floor().long()
    return (channels - gone).clamp(1, channels)


def mask(t: Tensor, channels: int) -> Tensor:
    """Return 1 for a channel that is seen at its time, else 0: (B,) to float32 (B, C)."""
    order = torch.arange(channels, device=t.device)
    return (order < visible(t, channels)[:, None]).float()


def masked(latent: Tensor, t: Tensor) -> Tensor:
    """Return a new latent (B, C, ...) with 0 for what is not seen at t, (B,) or (1,)."""
    seen = mask(t, latent.shape[1]).to(latent.dtype)
    return latent * seen[(..., *(None,) * (latent.dim() - 2))]
