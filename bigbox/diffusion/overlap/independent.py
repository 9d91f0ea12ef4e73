"""`independent`: no tile knows of another. What seams look like; for tests only."""

from __future__ import annotations

from bigbox.diffusion.overlap.base import OverlapMethod


class Independent(OverlapMethod):
    """Nothing is shown and nothing is done."""

    offered = False
