"""Sum up every plane of voxels of a painted box in one pass: what the search for seams needs.

The box is read in blocks of whole cells (see `bigbox.analysis.seams.cells`) with a few planes
around them; nothing larger than a block and some numbers for each plane is held.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigbox.analysis.seams.cells import Block, Layers, check_shape, choose_blocks, layers_of, refuse
from bigbox.analysis.spectra.modes import Float
from bigbox.analysis.spectra.power import MEMORY
from bigbox.blockwise import map_blocks
from bigbox.scheduler.tiling import Tiling

Values = npt.NDArray[np.float32]
PointFunction = Callable[[Values], Values]

# Planes on either side of a seam that the estimate of a step looks at.
REACH = 4


class AxisPlanes:
    """Sums over the planes of one axis, all (planes, ...), over the voxels of a plane.

    mean: of the field less `offset`; square: of its square. jump, kink: squared first and third
    difference between the plane and its predecessor. texture: squared Laplacian in the plane.
    signed: the mean with the signs of the cells, (planes, 4): none, that of the second, of the
    third axis, of both. product: second moments of the cells' means in the 2 `reach` planes
    around the border before the plane.
    """

    SUMS = ("mean", "square", "jump", "kink", "texture", "signed", "product")

    def __init__(self, layers: Layers, reach: int) -> None:
        n, k = layers.length, 2 * reach
        self.layers, self.reach = layers, reach
        self.mean, self.square, self.jump, self.kink, self.texture = np.zeros((5, n))
        self.signed, self.product = np.zeros((n, 4)), np.zeros((n, k, k))


# Which axes' signs a pattern of tiles multiplies: x, y, xy, z, xz, yz, xyz.
PATTERNS = tuple(tuple(bool(i >> a & 1) for a in range(3)) for i in range(1, 8))


class TextureSums(NamedTuple):
    """Sums over the cells of the box, to compare the amplitudes of tiles of two colours.

    t is a cell's mean texture and v its volume in voxels.

    signed: sums of s v t and s v, (7, 2), s the cell's sign in each of `PATTERNS`; plain: sums of
    v t and v; squares: sums of (v t)^2, v^2 t and v^2; cells: their number.
    """

    signed: Float = np.zeros((7, 2))
    plain: Float = np.zeros(2)
    squares: Float = np.zeros(3)
    cells: int = 0


@dataclass
class Planes:
    """Sums over the planes and cells of a box; `finish` makes means over a plane's voxels of them.

    offset: taken from the field before; least, most: of the field less the offset.
    """

    axes: tuple[AxisPlanes, AxisPlanes, AxisPlanes]
    offset: float
    textures: TextureSums = TextureSums()
    least: float = np.inf
    most: float = -np.inf

    def add(self, block: Block, part: _BlockSums) -> None:
        """Add one block."""
        axes, textures, least, most = part
        self.textures = TextureSums(*map(operator.add, self.textures, textures))
        self.least, self.most = min(self.least, least), max(self.most, most)
        for axis, bounds, found in zip(self.axes, block.bounds, axes, strict=True):
            for name, value in found.items():
                getattr(axis, name)[slice(*bounds)] += value

    def finish(self, tiling: Tiling) -> None:
        """Divide by the number of voxels of a plane."""
        for i, axis in enumerate(self.axes):
            count = tiling.shape[(i + 1) % 3] * tiling.shape[(i + 2) % 3]
            for name in AxisPlanes.SUMS:
                getattr(axis, name)[...] /= count
            if not tiling.periodic[i]:
                # At open ends there is nothing to take a difference with.
                axis.jump[:1] = axis.kink[:2] = axis.kink[-1:] = np.nan
                axis.product[: axis.reach] = axis.product[-axis.reach + 1 or None :] = np.nan


# Of one block: sums by axis, of its cells, its least and largest value.
_BlockSums = tuple[list[dict[str, Float]], TextureSums, float, float]


def plane_sums(
    array: Any,
    tiling: Tiling,
    *,
    scores: PointFunction | None = None,
    memory: int = MEMORY,
    workers: int = 1,
) -> tuple[Planes, Planes]:
    """Read the box once, in blocks of whole cells, and sum up its planes.

    Return the planes of the field and those of its `scores`. Without scores both are the field's.
    With them, the field's own have no more than mean, square, jump and kink.
    """
    check_shape(array, tiling, "field")
    layers = layers_of(tiling)
    least_width = min(int(one.widths.min()) for one in layers)
    reach = max(1, min(REACH, least_width // 4))
    blocks = list(choose_blocks(tiling, layers, reach, memory, workers))
    # Any constant near the mean keeps the sums of squares exact enough.
    offset = float(np.mean(blocks[0].read(array), dtype=np.float64))
    if not np.isfinite(offset):
        refuse(array, blocks[0])

    def sums(values: Values, block: Block, whole: bool) -> _BlockSums:
        axes = [_axis_sums(values, block, axis, layers, reach, whole) for axis in range(3)]
        textures = _textures(values, block, layers, reach) if whole else TextureSums()
        return axes, textures, float(values.min()), float(values.max())

    def both_sums(block: Block) -> list[_BlockSums]:
        values = block.read(array)
        if not np.isfinite(values).all():
            refuse(array, block)
        plain = sums(np.subtract(values, offset, dtype=np.float32), block, scores is None)
        return [plain] if scores is None else [plain, sums(scores(values), block, True)]

    totals = []
    for shift in (offset,) if scores is None else (offset, 0.0):
        x, y, z = (AxisPlanes(one, reach) for one in layers)
        totals.append(Planes((x, y, z), shift))
    for block, found in zip(blocks, map_blocks(both_sums, blocks, workers=workers), strict=True):
        for total, part in zip(totals, found, strict=True):
            total.add(block, part)
    for total in totals:
        total.finish(tiling)
    return totals[0], totals[-1]


def _axis_sums(
    values: Values, block: Block, axis: int, layers: Sequence[Layers], reach: int, whole: bool
) -> dict[str, Float]:
    """Sum up the planes of one axis in a block, which has `reach` planes more all round."""
    across = tuple(a for a in range(3) if a != axis)
    inner = [slice(reach, -reach)] * 3
    n = values.shape[axis] - 2 * reach

    def cut(first: int, last: int) -> Values:
        """Planes first .. n + last of the axis, the owned voxels of the others."""
        place = list(inner)
        place[axis] = slice(reach + first, reach + n + last)
        return values[tuple(place)]

    def total(of: Values) -> Float:
        return np.asarray(of.sum(axis=across, dtype=np.float64))

    own = cut(0, 0)
    first = own - cut(-1, -1)
    found = {"mean": total(own), "square": total(own * own), "jump": total(first * first)}
    if reach > 1:
        third = cut(1, 1) - cut(-2, -2) - 3 * first
        found["kink"] = total(third * third)
        del third
    del first
    if not whole:
        return found
    found["texture"] = total(_texture(values, across, reach))
    # Means over the faces of the cells, with all the planes around: (planes, cells, cells).
    cells = np.moveaxis(block.cell_sums(cut(-reach, reach), layers, across), axis, 0)
    widths, signs = (
        [getattr(layers[a], name)[slice(*block.cells[a])] for a in across]
        for name in ("widths", "sign")
    )
    areas = np.multiply.outer(*widths)
    plain = [np.ones_like(s) for s in signs]
    weights = np.stack(
        [np.multiply.outer(*w) for w in (plain, (signs[0], plain[1]), (plain[0], signs[1]), signs)]
    )
    found["signed"] = np.einsum("xyz,pyz->xp", cells[reach : reach + n], weights)
    flat = (cells / np.sqrt(areas)).reshape(len(cells), -1)
    window = np.lib.stride_tricks.sliding_window_view(flat, 2 * reach, axis=0)[:n]
    found["product"] = np.einsum("xcj,xck->xjk", window, window, optimize=True)
    return found


def _texture(values: Values, along: Sequence[int], margin: int) -> Values:
    """Squared Laplacian along some axes, without the margin."""
    inner = [slice(margin, -margin)] * 3
    laplace: Values = values[tuple(inner)] * np.float32(-2 * len(along))
    for a in along:
        for step in (-1, 1):
            place = list(inner)
            place[a] = slice(margin + step, values.shape[a] - margin + step)
            laplace += values[tuple(place)]
    np.square(laplace, out=laplace)
    return laplace


def _textures(values: Values, block: Block, layers: Sequence[Layers], margin: int) -> TextureSums:
    """Sum up the cells of one block."""
    cells = block.cell_sums(_texture(values, (0, 1, 2), margin), layers, (0, 1, 2))
    volume, signs = np.ones(()), []
    for one, which in zip(layers, block.cells, strict=True):
        volume = np.multiply.outer(volume, one.widths[slice(*which)])
        signs.append(one.sign[slice(*which)])
    signed = np.empty((len(PATTERNS), 2))
    for row, pattern in zip(signed, PATTERNS, strict=True):
        x, y, z = (s if on else np.ones_like(s) for s, on in zip(signs, pattern, strict=True))
        row[:] = [np.einsum("xyz,x,y,z", of, x, y, z) for of in (cells, volume)]
    plain = np.array([cells.sum(), volume.sum()])
    squares = np.array([(cells**2).sum(), (cells * volume).sum(), (volume**2).sum()])
    return TextureSums(signed, plain, squares, cells.size)
