"""Names that options are chosen from, for the command line and what plans: imports nothing."""

from __future__ import annotations

SAMPLERS = ("dpmpp-sde", "dpmpp", "ancestral", "euler", "heun")
DEFAULT_SAMPLER = "dpmpp-sde"
HALO_WEIGHTINGS = ("tent", "flat")
COLOURINGS = ("levels", "paper")
DEFAULT_OVERLAP_METHOD = "joint"
DEFAULT_OVERLAP = 4  # voxels that two tiles share, where one takes over what the other has painted
DEFAULT_MARGIN = 3  # voxels at a tile's face that are its neighbour's, where they go together
DEFAULT_STEPS = {"dpmpp-sde": 12, "dpmpp": 12, "ancestral": 50, "euler": 100, "heun": 37}
COMPILE = ("auto", "on", "off")
GRIDS = ("dm", "painted")  # on which an array is shown
