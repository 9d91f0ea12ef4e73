"""Compare the halo mass of two boxes bin by bin: read in blocks, on the painting grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbox.analysis.spectra.modes import Float
from bigbox.blockwise import Region, map_regions, regions
from bigbox.store.box import Box

HALO_FLOOR = 1e9  # (M_sun/h)/(Mpc/h)^3 under which haloes are alike
EDGE = 64
OCTANTS = 8  # of the box, left out one by one for the errors


@dataclass(frozen=True)
class HaloMass:
    """Hold what a box's halo maps are beside the truth's; arrays of one value per mass bin.

    ratio: mass over the true mass, NaN where the truth has none; error: one standard deviation, a
    jackknife over the octants of the box; rms: of the difference of log10 rho_h.
    """

    ratio: Float
    error: Float
    rms: Float


def halo_mass(painted: Box, truth: Box, memory: int) -> HaloMass:
    """Return predicted over true halo mass, of which the truth is sampled where it is finer."""
    array, wanted = painted.require("halo"), truth.require("halo")
    step = truth.steps_between("halo", painted.grid_of("halo").step)
    shape = array.shape[-3:]

    def look(region: Region) -> Float:
        found = np.asarray(array[(slice(None), *region)], np.float64)
        fine = (slice(s.start * step, s.stop * step, step) for s in region)
        true = np.asarray(wanted[(slice(None), *fine)], np.float64)
        logs = [np.log10(np.maximum(one, HALO_FLOOR)) for one in (found, true)]
        sums = [found, true, (logs[0] - logs[1]) ** 2]
        return np.array([one.sum(axis=(1, 2, 3)) for one in sums])

    parts = list(regions(shape, tuple(max(1, min(EDGE, n // 2)) for n in shape), 0))
    sums = np.array(list(map_regions(look, parts, memory // 16)))  # (parts, 3, bins)
    octant = [sum((2 * s.start // n) << i for i, (s, n) in enumerate(zip(p, shape, strict=True)))
              for p in parts]  # fmt: skip
    each = np.zeros((OCTANTS, *sums.shape[1:]))
    np.add.at(each, octant, sums)
    total = each.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(total[1] > 0, total[0] / total[1], np.nan)
        without = (total[0] - each[:, 0]) / (total[1] - each[:, 1])
    error = np.sqrt((OCTANTS - 1) * without.var(axis=0))
    voxels = np.prod([int(n) for n in shape])
    return HaloMass(ratio, error, np.sqrt(total[2] / voxels))
