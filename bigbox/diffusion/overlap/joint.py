"""`joint`: all tiles are parts of one noisy field, and take each denoising step together.

At every step a tile is denoised alone, with nothing known, from the field under its whole cube. Of
the result only the core is kept: a margin at each face belongs to the neighbours. So no tile waits
for a finished one, and what neighbours disagree on at one step they share at the next.

The tiles of Cosmo-FOLD (arXiv:2601.14377) are a partition that is moved by a voxel at each step;
a margin does the same at twelve steps as that at a hundred.
"""

from __future__ import annotations

from bigbox.diffusion.overlap.base import OverlapMethod


class Joint(OverlapMethod):
    """One noisy field; nothing is known to a tile but the field itself."""

    help = "all tiles are painted together, step by step, as parts of one noisy field, no seam"
    task = "bigbox.engine.joint:JointTask"
    together = True
