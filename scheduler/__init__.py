"""How a box is cut into tiles, what waits for what, who paints it, and in which order.

Geometry and ordering only: numpy, no torch, no zarr, no MPI, and nothing of cosmology.
What a tile waits for is asked of the module `bigbox.scheduler.stages`.
"""

from bigbox.scheduler.bricks import Assignment, Bricks, default_edge
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.tiling import Tiling, TilingError

__all__ = ["Assignment", "Bricks", "Policy", "Tiling", "TilingError", "default_edge"]
