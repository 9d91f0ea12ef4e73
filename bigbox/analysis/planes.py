"""One pass over a painted box: what the seam diagnostics need of every plane of voxels.

The box is read in blocks of whole cells (see `bigbox.analysis.cells`) with a few planes around
them; nothing larger than a block and some numbers for each plane is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.analysis.cells import (
    Block,
    Blocks,
    Float,
    Layers,
    all_layers,
    check_shape,
    each,
    refuse,
)
from bigbox.analysis.scores import Scores
from bigbox.scheduler.tiling import Tiling

MEMORY = 1 << 30

# Planes on either side of a seam that the estimate of a step looks at.
REACH = 4


@dataclass
class AxisPlanes:
    """Sums over the planes of one axis, all (planes, ...), over the voxels of a plane.

    mean: of the field less `offset`; square: of its square. jump, kink: squared first and third
    difference between the plane and its predecessor. texture: squared Laplacian in the plane.
    signed: the mean with the signs of the cells, (planes, 4): none, that of the second, of the
    third axis, of both. product: second moments of the cells' means in the 2 `reach` planes
    around the border before the plane.
    """

    layers: Layers
    reach: int
    mean: Float = field(init=False)
    square: Float = field(init=False)
    jump: Float = field(init=False)
    kink: Float = field(init=False)
    texture: Float = field(init=False)
    signed: Float = field(init=False)
    product: Float = field(init=False)

    def __post_init__(self) -> None:
        n, k = self.layers.length, 2 * self.reach
        for name in ("mean", "square", "jump", "kink", "texture"):
            setattr(self, name, np.zeros(n))
        self.signed, self.product = np.zeros((n, 4)), np.zeros((n, k, k))


# Which axes' signs a pattern of tiles multiplies: x, y, xy, z, xz, yz, xyz.
PATTERNS = tuple(tuple(bool(i >> a & 1) for a in range(3)) for i in range(1, 8))


@dataclass
class Gains:
    """Sums over the cells of the box, for the question whether tiles of odd colour have another
    amplitude; t is a cell's mean texture and v its volume in voxels.

    signed: sums of s v t and s v, (7, 2), s the cell's sign in each of `PATTERNS`; plain: sums of
    v t and v; squares: sums of (v t)^2, v^2 t and v^2; cells: their number.
    """

    signed: Float = field(default_factory=lambda: np.zeros((7, 2)))
    plain: Float = field(default_factory=lambda: np.zeros(2))
    squares: Float = field(default_factory=lambda: np.zeros(3))
    cells: int = 0

    def add(self, other: Gains) -> None:
        """Add the cells of another block."""
        self.signed += other.signed
        self.plain += other.plain
        self.squares += other.squares
        self.cells += other.cells


@dataclass(frozen=True)
class Planes:
    """What `measure` found. Sums have become means over the voxels of a plane."""

    axes: tuple[AxisPlanes, AxisPlanes, AxisPlanes]
    gains: Gains
    offset: float
    least: float
    most: float


def measure(
    array: Any,
    tiling: Tiling,
    *,
    scores: Scores | None = None,
    memory: int = MEMORY,
    workers: int | None = None,
) -> tuple[Planes, Planes]:
    """Read the box once, in blocks of whole cells, and sum up its planes.

    The planes of the field and those of its `scores`; without scores both are the field's. With
    them, the field's own have no more than mean, square, jump and kink.
    """
    check_shape(array, tiling, "field")
    threads = workers or 1
    layers = all_layers(tiling)
    least_width = min(int(one.widths.min()) for one in layers)
    reach = max(1, min(REACH, least_width // 4))
    blocks = list(Blocks.choose(tiling, layers, reach, memory, threads))
    # Any constant near the mean keeps the sums of squares exact enough.
    offset = float(np.mean(blocks[0].read(array), dtype=np.float64))
    if not np.isfinite(offset):
        refuse(array, blocks[0])

    def sums(values: npt.NDArray[np.float32], block: Block, whole: bool) -> _Sums:
        low, high = float(values.min()), float(values.max())
        axes = [_axis_sums(values, block, axis, layers, reach, whole) for axis in range(3)]
        return _Sums(axes, _gains(values, block, layers, reach) if whole else Gains(), low, high)

    def one(block: Block) -> list[_Sums]:
        values = block.read(array)
        if not np.isfinite(values).all():
            refuse(array, block)
        plain = sums(np.subtract(values, offset, dtype=np.float32), block, scores is None)
        return [plain] if scores is None else [plain, sums(scores(values), block, True)]

    totals = [_Total(tiling, layers, reach) for _ in range(1 if scores is None else 2)]
    for block, found in each(one, blocks, threads):
        for total, part in zip(totals, found, strict=True):
            total.add(block, part)
    planes = [t.planes(tiling, o) for t, o in zip(totals, (offset, 0.0), strict=False)]
    return planes[0], planes[-1]


@dataclass(frozen=True)
class _Sums:
    """What one block adds: sums by axis, its cells, its least and largest value."""

    axes: list[dict[str, Float]]
    gains: Gains
    least: float
    most: float


class _Total:
    """The blocks' sums, added up."""

    def __init__(self, tiling: Tiling, layers: Sequence[Layers], reach: int) -> None:
        x, y, z = (AxisPlanes(one, reach) for one in layers)
        self.axes, self.gains = (x, y, z), Gains()
        self.least, self.most = np.inf, -np.inf

    def add(self, block: Block, part: _Sums) -> None:
        """Add one block."""
        self.gains.add(part.gains)
        self.least, self.most = min(self.least, part.least), max(self.most, part.most)
        for axis, bounds, found in zip(self.axes, block.bounds, part.axes, strict=True):
            for name, value in found.items():
                getattr(axis, name)[slice(*bounds)] += value

    def planes(self, tiling: Tiling, offset: float) -> Planes:
        """Sums become means over the voxels of a plane."""
        for i, axis in enumerate(self.axes):
            count = tiling.shape[(i + 1) % 3] * tiling.shape[(i + 2) % 3]
            for name in ("mean", "square", "jump", "kink", "texture", "signed", "product"):
                getattr(axis, name)[...] /= count
            if not tiling.periodic[i]:
                _forget_ends(axis, axis.reach)
        return Planes(self.axes, self.gains, offset, offset + self.least, offset + self.most)


def _forget_ends(axis: AxisPlanes, reach: int) -> None:
    """At the open ends of an axis there is nothing to take a difference with."""
    axis.jump[:1] = axis.kink[:2] = axis.kink[-1:] = np.nan
    axis.product[:reach] = axis.product[-reach + 1 or None :] = np.nan


def _axis_sums(
    values: npt.NDArray[np.float32],
    block: Block,
    axis: int,
    layers: Sequence[Layers],
    reach: int,
    whole: bool,
) -> dict[str, Float]:
    """Sums over the planes of one axis in one block, which has `reach` planes more all round."""
    across = tuple(a for a in range(3) if a != axis)
    inner = [slice(reach, -reach)] * 3
    n = values.shape[axis] - 2 * reach

    def cut(first: int, last: int) -> npt.NDArray[np.float32]:
        """Planes first .. n + last of the axis, the owned voxels of the others."""
        place = list(inner)
        place[axis] = slice(reach + first, reach + n + last)
        return values[tuple(place)]

    def total(of: npt.NDArray[np.float32]) -> Float:
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
    cells = cut(-reach, reach).astype(np.float64)
    for a in across:
        starts = layers[a].starts[slice(*block.cells[a])]
        cells = np.add.reduceat(cells, starts - starts[0], axis=a)
    cells = np.moveaxis(cells, axis, 0)
    widths, signs = (
        [getattr(layers[a], name)[slice(*block.cells[a])] for a in across]
        for name in ("widths", "sign")
    )
    areas = np.multiply.outer(*widths)
    weights = np.stack(
        [
            np.ones_like(areas),
            np.broadcast_to(signs[0][:, None], areas.shape),
            np.broadcast_to(signs[1], areas.shape),
            np.multiply.outer(signs[0], signs[1]),
        ]
    )
    found["signed"] = np.einsum("xyz,pyz->xp", cells[reach : reach + n], weights)
    flat = (cells / np.sqrt(areas)).reshape(len(cells), -1)
    window = np.lib.stride_tricks.sliding_window_view(flat, 2 * reach, axis=0)[:n]
    found["product"] = np.einsum("xcj,xck->xjk", window, window, optimize=True)
    return found


def _texture(
    values: npt.NDArray[np.float32], along: Sequence[int], margin: int
) -> npt.NDArray[np.float32]:
    """Squared Laplacian along some axes, without the margin."""
    inner = [slice(margin, -margin)] * 3
    laplace = values[tuple(inner)] * np.float32(-2 * len(along))
    for a in along:
        for step in (-1, 1):
            place = list(inner)
            place[a] = slice(margin + step, values.shape[a] - margin + step)
            laplace += values[tuple(place)]
    return np.square(laplace, out=laplace)


def _gains(
    values: npt.NDArray[np.float32], block: Block, layers: Sequence[Layers], margin: int
) -> Gains:
    """The sums of `Gains` over the cells of one block."""
    cells: Float = _texture(values, (0, 1, 2), margin).astype(np.float64)
    volume, signs = np.ones(()), []
    for a in range(3):
        which = slice(*block.cells[a])
        starts = layers[a].starts[which]
        cells = np.add.reduceat(cells, starts - starts[0], axis=a)
        volume = np.multiply.outer(volume, layers[a].widths[which])
        signs.append(layers[a].sign[which])
    found = Gains(cells=cells.size)
    for row, pattern in zip(found.signed, PATTERNS, strict=True):
        x, y, z = (s if on else np.ones_like(s) for s, on in zip(signs, pattern, strict=True))
        row[:] = [np.einsum("xyz,x,y,z", of, x, y, z) for of in (cells, volume)]
    found.plain[:] = cells.sum(), volume.sum()
    found.squares[:] = (cells**2).sum(), (cells * volume).sum(), (volume**2).sum()
    return found
