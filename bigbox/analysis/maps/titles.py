"""Say in words what a picture shows: the haloes of a mass bin, the slab that is averaged over."""

from __future__ import annotations

import math
from typing import Any

from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box

AXIS_WORDS = {"x": "first", "y": "second", "z": "third"}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def halo_title(box: Box, channel: int) -> str:
    """Return the mass range of a halo channel, as in "haloes of 3×10¹⁰ to 10¹¹ M☉/h"."""
    edges: Any = box.array("halo").attrs.get("mass_edges")
    if edges is None:
        return f"haloes, mass bin {channel}"
    if channel == len(HALO_EDGES) - 1:
        return f"haloes above {_mass(edges[channel])} M☉/h"
    lower, upper = _mass(edges[channel]), _mass(edges[channel + 1])
    return f"haloes of {lower} to {upper} M☉/h"


def slab_words(axis: str, low: float, high: float) -> str:
    """Say which slab is shown; the third axis is no redshift."""
    return f"slab {low:.4g} to {high:.4g} Mpc/h along the {AXIS_WORDS[axis]} axis"


def _mass(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10**power, 2)
    ten = f"10{str(power).translate(_RAISED)}"
    return ten if factor == 1 else f"{factor:g}×{ten}"
