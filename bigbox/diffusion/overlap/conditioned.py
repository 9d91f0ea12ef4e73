"""`conditioned`: the denoiser is shown the known voxels and how wide they are; z is left alone."""

from __future__ import annotations

from bigbox.diffusion.overlap.base import Known, OverlapMethod


class Conditioned(OverlapMethod):
    """The default. A denoiser that heeds what it is shown leaves no seam."""

    help = "the denoiser is given the known voxels, no seam"

    def shown(self) -> Known:
        """Return all that is known."""
        return self.known
