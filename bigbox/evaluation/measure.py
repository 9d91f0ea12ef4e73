"""Measure one field of T_b: plain numbers, read in blocks.

Spectra and triangles keep their modes on the disk or few of them in memory; all else is sums over
blocks. Fields are measured on the grid of dm, seams and the checkerboard on the painting grid,
where tiles meet and networks paint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.analysis.report.fields import Field, LazyArray, at_tiles
from bigbox.analysis.seams.planes import plane_sums
from bigbox.analysis.spectra.bispectrum import bispectrum
from bigbox.analysis.spectra.modes import Float, nyquist
from bigbox.analysis.spectra.onepoint import distribution
from bigbox.analysis.spectra.power import Resources, pair
from bigbox.blockwise import Region, map_regions, regions
from bigbox.scheduler.grid import Grid, triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.cutouts import read_cutout

Numbers = dict[str, Any]
Bool = npt.NDArray[np.bool_]

K_EDGES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.3, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)  # h/Mpc
TRIANGLES = {"equilateral": (1, 1, 1), "squeezed": (1, 1, 0.25)}
SCALES = 4  # longest sides of triangles
# Bins of the one-point distribution, log10(T_b / mK); the first and last take what lies beyond, the
# first of them all voids.
LOG_TB = np.linspace(-2.0, 4.0, 13)
VOID = 1e-2  # mK under which a voxel is one of a void
# Fourth difference over 16: its response is sin^4(k/2), 1 at the voxels' own frequency and 1/16 in
# power at half of it.
ALTERNATING = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 16
EDGE = 64


@dataclass(frozen=True)
class Measures:
    """Say how fields are measured: alike for paintings and draws, so that they can be compared.

    tiling: where seams are looked for, on the painting grid of `grid` voxels of dm. floor: mK, of
    the logarithm that seams are judged by.
    """

    first: Field  # the draw that r(k) is taken with
    tiling: Tiling
    grid: int
    floor: float
    budget: Resources

    @property
    def edges(self) -> Float:
        """Edges of the bins of k, those that the box has modes for, h/Mpc."""
        least = 2 * np.pi / max(self.first.box_size)
        most = nyquist(self.first.shape, self.first.box_size)
        kept = [high > least and high <= most for high in K_EDGES[1:]]
        low = kept.index(True) if any(kept) else 0
        return np.array(K_EDGES[low : low + 1 + sum(kept)])

    @property
    def triangles(self) -> Float:
        """Longest sides of the triangles, h/Mpc; none in a box of few modes."""
        step = 2 * np.pi / max(self.first.box_size)
        top = nyquist(self.first.shape, self.first.box_size)
        most = min(K_EDGES[-1], top / 2, 40 * step)
        return np.geomspace(4 * step, most, SCALES) if most > 4 * step else np.empty(0)

    def of(self, field: Field) -> Numbers:
        """Return all numbers of one field."""
        versus = pair(
            field.array, self.first.array, field.box_size, edges=self.edges, **self.budget
        )
        painted = at_tiles(field, self.grid)
        return {
            "k": versus.first.k,
            "power": versus.first.power,
            "r": versus.correlation,
            **self._onepoint(field),
            **self._bispectrum(field),
            "seams": self._seams(painted),
            "voids": void_alternation(painted.array, self.budget["memory"]),
        }

    def _onepoint(self, field: Field) -> Numbers:
        memory = self.budget["memory"]
        logs = distribution(field.array, bins=LOG_TB, log=True, memory=memory)
        voxels = logs.voxels + logs.without
        shares = np.array([logs.without + logs.below, *logs.counts, logs.above]) / voxels
        # A mean wants no bins: two will do.
        mean = distribution(field.array, bins=np.array([0.0, 1.0, 2.0]), memory=memory).mean
        return {"mean": mean, "onepoint": shares}

    def _bispectrum(self, field: Field) -> Numbers:
        sides = self.triangles
        if not len(sides):
            return {"bispectrum": {}}
        rows = [side * np.array(shape) for shape in TRIANGLES.values() for side in sides]
        found = bispectrum(field.array, field.box_size, np.array(rows), **self.budget).value
        parts = found.reshape(len(TRIANGLES), len(sides))
        return {"bispectrum": dict(zip(TRIANGLES, parts, strict=True))}

    def _seams(self, field: Field) -> Float:
        """Return mean squared differences of log10(T_b + floor) across seams over those inside.

        By axis, then of all axes together.
        """
        ratios, sums = [], np.zeros((2, 2))
        for jump, at in self.jumps(field):
            area = field.shape[0] * field.shape[1] * field.shape[2] / len(jump)
            both = np.array([[jump[mask].sum(), mask.sum()] for mask in (at, ~at)]) * area
            sums += both
            ratios.append(_over(both))
        return np.array([*ratios, _over(sums)])

    def jumps(self, field: Field) -> list[tuple[Float, Bool]]:
        """Return of each axis, plane by plane, the mean squared difference to the plane before.

        Of log10(T_b + floor) on the painting grid; and whether there is a seam between them.
        """
        floor = np.float32(self.floor)

        def logs(region: Region) -> Any:
            return np.log10(np.maximum(np.asarray(field.array[region], np.float32), 0) + floor)

        array = LazyArray(field.shape, field.array.chunks, logs)
        planes = plane_sums(array, self.tiling, memory=self.budget["memory"])[0]
        found = []
        for axis in planes.axes:
            at = np.zeros(len(axis.jump), bool)
            at[axis.layers.seams] = True
            found.append((axis.jump, at))
        return found


def _over(sums: Float) -> float:
    """Return a mean over another, of rows (sum, number)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((sums[0, 0] / sums[0, 1]) / (sums[1, 0] / sums[1, 1]))


def wrapped(array: Any, region: Region, margin: int) -> np.ndarray:
    """Return a region of a periodic array (X, Y, Z) with a margin all round, float32."""
    shape = triple(int(n) for n in array.shape)
    return read_cutout(
        lambda _, at: np.asarray(array[at], np.float32),
        Grid.regular(shape, max(shape)).axes,
        (True, True, True),
        [cut.start - margin for cut in region],
        [cut.stop - cut.start + 2 * margin for cut in region],
    )


def void_alternation(array: Any, memory: int) -> Float:
    """Return the rms (mK) at the voxels' own frequency in voids, by axis, then of all axes.

    Of every voxel that with two on either side along the axis is below VOID. NaN without voids.
    """
    margin = len(ALTERNATING) // 2

    def look(region: Region) -> Float:
        block = wrapped(array, region, margin).astype(np.float64)
        found = np.zeros((3, 2))
        own = [slice(margin, -margin)] * 3
        for axis in range(3):
            cuts = list(own)
            cuts[axis] = slice(None)
            lines = np.moveaxis(block[tuple(cuts)], axis, -1)
            views = np.lib.stride_tricks.sliding_window_view(lines, len(ALTERNATING), axis=-1)
            inside = (views < VOID).all(axis=-1)
            found[axis] = (
                (views[inside] @ ALTERNATING) @ (views[inside] @ ALTERNATING),
                inside.sum(),
            )
        return found

    parts = list(regions(array.shape, (EDGE,) * 3, 0))
    total = np.sum(list(map_regions(look, parts, memory // 16)), axis=0)
    total = np.vstack([total, total.sum(axis=0)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(total[:, 0] / total[:, 1])
