"""Names that options are chosen from, for the command line and what plans: imports nothing."""

from __future__ import annotations

SAMPLERS = ("dpmpp-sde", "dpmpp", "ancestral")
DEFAULT_SAMPLER = "dpmpp-sde"
HALO_WEIGHTINGS = ("tent", "flat")
COLOURINGS = ("levels", "paper")
DEFAULT_OVERLAP_METHOD = "joint"
DEFAULT_OVERLAP = 4  # voxels that two tiles share, where one takes over what the other has painted
DEFAULT_MARGIN = 3  # voxels at a tile's face that are its neighbour's, where they go together
DEFAULT_STEPS = {"dpmpp-sde": 12, "dpmpp": 12, "ancestral": 50}
COMPILE = ("auto", "on", "off")
# Signals that ask a painting or a training to stop cleanly, with exit status 75: of schedulers,
# before a time limit or a preemption, and of users.
STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2")
GRIDS = ("dm", "painted")  # on which an array is shown
