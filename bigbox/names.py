"""Names that options are chosen from, for the command line and what plans: imports nothing.

`bigbox.painters.base` has them too, for whoever works with painters.
"""

from __future__ import annotations

PAINTERS = ("lodi", "gaussian", "trivial", "trivial-halo")
OVERLAP_METHODS = ("conditioned", "overwrite", "latents")
SAMPLERS = ("dpmpp-sde", "dpmpp", "ancestral")
DEFAULT_SAMPLER = "dpmpp-sde"
HALO_WEIGHTINGS = ("tent", "flat")
COLOURINGS = ("levels", "paper")
DEFAULT_STEPS = {"dpmpp-sde": 12, "dpmpp": 12, "ancestral": 50}
COMPILE = ("auto", "on", "off")
