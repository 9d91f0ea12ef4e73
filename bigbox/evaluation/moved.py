"""Measure seams by painting the same realization twice, with its tiles in other places.

    tiles         |--------|--------|--------|          planes at these seams lie in the middle of
    moved     ----|----|--------|--------|----          a tile in the other painting

Both have the same haloes and, voxel by voxel, the same noise. Structure of the box, which decides
how steep it is at a plane, is in both, so that what is left between them is what a seam makes. Held
against other planes of the same box, the few planes of a small box say little.

The tiles stay; haloes and noise are moved under them, and so is what is read off.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.analysis.report.fields import LazyArray, at_tiles, open_field
from bigbox.analysis.spectra.modes import Float
from bigbox.blockwise import regions
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.errors import BadInput
from bigbox.evaluation.measure import Bool, Measures, Numbers, wrapped
from bigbox.painters import Painter
from bigbox.painters.base import StepBatch, TileBatch
from bigbox.scheduler.grid import Triple, triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box

Plane = tuple[Float, Bool]

SEED = 20  # of where tiles are moved to
KEPT = ("source", "smoothing", "mass_edges")  # what haloes tell of themselves


class MovedPainter:
    """Paint as another painter does, with the noise of voxels that are moved.

    moved: voxels of the painting grid; a voxel has the noise of the one so far before it.
    """

    def __init__(self, painter: Painter, shape: Triple, moved: Triple) -> None:
        self._painter, self._shape, self._moved = painter, np.array(shape), np.array(moved)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._painter, name)

    def identity(self) -> dict[str, Any]:
        """Return what decides the bytes."""
        return self._painter.identity() | {"moved": self._moved.tolist()}

    def advance(self, batch: StepBatch) -> np.ndarray:
        """Take tiles a step on."""
        made: np.ndarray = self._painter.advance(self._of(batch))  # type: ignore[attr-defined]
        return made

    def paint(self, batch: TileBatch) -> np.ndarray:
        """Paint tiles."""
        return self._painter.paint(self._of(batch))

    def _of(self, batch: Any) -> Any:
        return replace(batch, origin=(batch.origin - self._moved) % self._shape)


@dataclass(frozen=True)
class MovedOptions(PaintOptions):
    """Options of a painting whose noise is moved, by voxels of the painting grid."""

    moved: Triple = (0, 0, 0)

    def painter_of(self, tiling: Tiling, device: str, threads: int) -> Painter:
        """Make the painter of tiles."""
        painter: Any = super().painter_of(tiling, device, threads)
        return MovedPainter(painter, tiling.shape, self.moved)


def places(tiling: Tiling, realizations: int) -> list[tuple[Triple, Triple]]:
    """Return where each realization's tiles are moved to, and there by half a tile, on every axis.

    Raises BadInput where a tile's share is too small for that.
    """
    least = [int(axis.length.min()) for axis in tiling.owned_grid.axes]
    if min(least) < 4:
        raise BadInput(f"tiles own {min(least)} voxels on an axis, too few to move them by half")
    half = np.array(least) // 2
    first = np.random.default_rng(SEED).integers(0, tiling.shape, (realizations, 3))
    return [(triple(one.tolist()), triple((one + half).tolist())) for one in first]


def make_moved(truth: Box, path: Path, moved: Triple) -> None:
    """Make a box that has the haloes of another, so many voxels of their own grid further on."""
    shutil.rmtree(path, ignore_errors=True)
    known = truth.attributes["cosmology"]
    box = Box.create(path, truth.shape, truth.box_size, truth.redshift, cosmology=known)
    halo, grid = truth.array("halo"), truth.grid_of("halo").step
    told: dict[str, Any] = halo.attrs.asdict()
    kept: dict[str, Any] = {key: told[key] for key in KEPT if key in told}
    channels, *shape = (int(n) for n in halo.shape)
    array = box.create_array("halo", channels=channels, attributes=kept, grid=grid)

    def one(channel: int) -> LazyArray:
        return LazyArray(shape, halo.chunks[1:], lambda at: halo[channel, at[0], at[1], at[2]])

    for region in regions(shape, (array.shards or array.chunks)[1:], 0):
        there = tuple(slice(s.start - m, s.stop - m) for s, m in zip(region, moved, strict=True))
        array[(slice(None), *region)] = np.stack(
            [wrapped(one(c), there, 0) for c in range(channels)]
        )


def pair_ratios(first: Sequence[Plane], second: Sequence[Plane]) -> Float:
    """Return how much steeper seams of either painting are than the same planes of the other.

    By axis, then of all axes together: ratio, 1 is no seam, and its error, float64 (4, 2). The
    error is from planes that are seams of neither: so much two paintings differ by chance.

    first, second: of each axis, by plane of the box, the mean squared difference to the plane
    before, and whether a seam of this painting is between them.
    """
    found, below = np.empty((4, 2)), np.empty(3)
    for axis, ((jump, at), (other, there)) in enumerate(zip(first, second, strict=True)):
        here, beyond, away = at & ~there, there & ~at, ~(at | there)
        below[axis] = other[here].sum() + jump[beyond].sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (jump[here].sum() + other[beyond].sum()) / below[axis]
            scatter = np.log(jump[away] / other[away]).std(ddof=1)
            found[axis] = ratio, ratio * scatter / np.sqrt(here.sum() + beyond.sum())
        below[axis] /= len(jump)  # as many voxels as a plane has
    weight = below / below.sum()
    found[3] = weight @ found[:3, 0], np.sqrt(weight**2 @ found[:3, 1] ** 2)
    return found


def measure_pairs(
    truth: Box, options: PaintOptions, measures: Measures, realizations: int, folder: Path
) -> Iterator[Float]:
    """Paint pairs with moved tiles on a truth's haloes; yield the `pair_ratios` of each.

    options: how, all but the box and the realization. What is found is kept in `folder`, so that
    the same call goes on after a stop.
    """
    grid, own = measures.grid, truth.grid_of("halo").step
    for realization, pair in enumerate(places(measures.tiling, realizations)):
        kept = folder / f"pair{realization}.npy"
        if not kept.exists():
            both = []
            for moved in pair:
                box = folder / "moved.zarr"
                make_moved(truth, box, triple(m * grid // own for m in moved))
                paint(MovedOptions(**vars(options) | _of(box, realization, moved)))
                field = at_tiles(open_field(Box.open(box, realization=realization).place), grid)
                planes = [
                    (np.roll(jump, -m), np.roll(at, -m))
                    for (jump, at), m in zip(measures.jumps(field), moved, strict=True)
                ]
                both.append(planes)
                shutil.rmtree(box)
            partial = kept.with_suffix(".partial.npy")
            np.save(partial, pair_ratios(*both))
            partial.rename(kept)
        yield np.load(kept)


def _of(box: Path, realization: int, moved: Triple) -> dict[str, Any]:
    return {"box": box, "realization": realization, "moved": moved}


def seam_numbers(pairs: Sequence[Float]) -> Numbers:
    """Return the mean of `pair_ratios` and its error: by axis, then of all axes together."""
    ratio, error = np.moveaxis(np.array(pairs), -1, 0)
    many = len(pairs)
    return {
        "ratio": ratio.mean(0),
        "error": np.sqrt((error**2).sum(0)) / many,
        "each": ratio,
        "pairs": many,
    }
