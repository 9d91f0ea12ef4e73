"""`latents`: as overwrite, with the z that the earlier tile itself had at that step.

The other reading of the paper's section 2.4. Step T needs no store: it is pure noise, which is a
function of the voxel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigbox.diffusion.overlap.base import OverlapMethod
from bigbox.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


class Latents(OverlapMethod):
    """Known voxels as the earlier tile had them at the step, and this tile's own z kept."""

    help = (
        "the paper's other reading, with the neighbours' own noisy steps kept in the store "
        "(disk: --steps + 1 times tb)"
    )
    stores_latents = True

    def __post_init__(self) -> None:
        stored = self.known.steps
        if stored is None:
            raise BadInput("latents method: the step latents of the known voxels are missing")
        self.stored, self.kept = stored, stored.new_empty(stored.shape)

    def before_step(self, z: Tensor, step: int) -> None:
        """Put back what the earlier tile had, and keep what the denoiser will see."""
        import torch

        if step < self.schedule.steps:
            torch.where(self.known.mask, self.stored[:, step - 1], z, out=z)
            self.kept[:, step - 1] = z

    @property
    def latents(self) -> Tensor:
        """What the denoiser saw, (B, T - 1, t, t, t)."""
        return self.kept
