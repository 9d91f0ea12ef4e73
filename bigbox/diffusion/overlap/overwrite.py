"""`overwrite`: at every step the known part of z is replaced (paper section 2.4, Algorithm 1).

With alpha x0_known + sigma eps, one fixed eps per voxel. The algorithm's mask is read the right way
round: M = 1 where known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigbox.diffusion.overlap.base import OverlapMethod

if TYPE_CHECKING:
    from torch import Tensor


class Overwrite(OverlapMethod):
    """Known voxels noised to the step again; the denoiser is shown nothing."""

    help = "the LODI paper's Algorithm 1, known voxels noised again at every step"

    def __post_init__(self) -> None:
        from bigbox.noise import Purpose

        self.eps = self.noise(Purpose.KNOWN, 0) if self.known.width.any() else None

    def before_step(self, z: Tensor, step: int) -> None:
        """Put the known voxels, noised to the step, into z."""
        if self.eps is None:
            return
        import torch

        noised = self.eps * float(self.schedule.sigmas[step])
        noised.add_(self.known.x0, alpha=float(self.schedule.alphas[step]))
        torch.where(self.known.mask, noised, z, out=z)
