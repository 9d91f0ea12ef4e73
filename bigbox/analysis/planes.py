"""One pass over a painted box: what the seam diagnostics need of every plane of voxels.

The owner of a voxel is decided axis by axis (see `scheduler.tiling`), so on each axis the box falls
into layers, each owned by one row of tiles, and the owned voxels of a tile are a cuboid, a cell::

    x       0              32       56             88       112
            |      0       |   1    |      2       |   3    |        layers of the x axis
            ^ seam         ^ seam   ^ seam         ^ seam            first plane of a layer

    cells   +--------------+--------+   of y, z: the face of a cell is what one tile
            |              |        |   contributes to a plane; its mean is taken there
            +--------------+--------+

The box is read in blocks of whole cells with a few planes around them; nothing larger than a block
and some numbers for each plane is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from bigbox.errors import BadInput
from scheduler.tiling import Tiling

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEMORY = 1 << 30

# Planes on either side of a seam that the estimate of a step looks at.
REACH = 4

# Bytes of a block in work for each voxel: itself as read and as float32, and three differences.
_BYTES = 28

# Normal scores: their range and steps; the cut-outs that are sampled, per axis, and their edge.
SCORE_LIMIT, SCORE_STEP = 4.5, 1 / 64
SAMPLES, SAMPLE_EDGE = 3, 32


@dataclass(frozen=True)
class Layers:
    """The layers of one axis. starts: first plane of each; sign: +1, or -1 for odd colours.

    seams: planes whose predecessor has another owner; on a periodic axis 0 is one of them.
    """

    starts: Ints
    length: int
    sign: Float
    seams: Ints

    @classmethod
    def of(cls, tiling: Tiling, axis: int) -> Layers:
        """The layers of one axis of a tiling."""
        n = tiling.shape[axis]
        line = np.zeros((n, 3), np.int64)
        line[:, axis] = np.arange(n)
        owner = tiling.coords(tiling.owner(line))[:, axis]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        colour = tiling.colours(axis)[owner[starts]]
        periodic = tiling.periodic[axis] and len(starts) > 1
        return cls(starts, n, np.where(colour % 2, -1.0, 1.0), starts if periodic else starts[1:])

    @property
    def widths(self) -> Ints:
        """Planes of each layer."""
        return np.diff(self.starts, append=self.length)

    def groups(self, longest: int) -> list[tuple[int, int]]:
        """Runs of whole layers, (first, past the last), of at most `longest` planes, or of one."""
        found, first = [], 0
        ends = np.append(self.starts[1:], self.length)
        for i in range(len(self.starts)):
            if i > first and ends[i] - self.starts[first] > longest:
                found.append((first, i))
                first = i
        return [*found, (first, len(self.starts))]


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


@dataclass(frozen=True)
class Scores:
    """The function that makes a field Gaussian point by point: value to normal score.

    A field that is statistically the same everywhere stays so, and no longer do a few bright
    voxels decide what the mean of a plane is. values: ascending; scores: of them.
    """

    values: Float
    scores: Float

    @classmethod
    def of(cls, sample: npt.NDArray[Any]) -> Scores:
        """From a sample of the field's values."""
        scores = np.linspace(-SCORE_LIMIT, SCORE_LIMIT, 1 + int(2 * SCORE_LIMIT / SCORE_STEP))
        values, first = np.unique(np.quantile(sample, ndtr(scores)), return_index=True)
        return cls(np.asarray(values, np.float64), scores[first])

    def __call__(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The scores of values; beyond the sample's range, those of its ends."""
        return np.interp(values, self.values, self.scores).astype(np.float32)


def sample_values(array: Any, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Values of a few small cut-outs spread over the box, as many as there are."""
    starts = [
        np.unique(np.linspace(0, max(0, n - SAMPLE_EDGE), SAMPLES).astype(int)) for n in shape
    ]
    return np.concatenate(
        [
            np.asarray(
                array[x : x + SAMPLE_EDGE, y : y + SAMPLE_EDGE, z : z + SAMPLE_EDGE], np.float32
            ).ravel()
            for x, y, z in itertools.product(*starts)
        ]
    )


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
        _refuse(array, blocks[0])

    def sums(values: npt.NDArray[np.float32], block: Block, whole: bool) -> _Sums:
        low, high = float(values.min()), float(values.max())
        axes = [_axis_sums(values, block, axis, layers, reach, whole) for axis in range(3)]
        return _Sums(axes, _gains(values, block, layers, reach) if whole else Gains(), low, high)

    def one(block: Block) -> list[_Sums]:
        values = block.read(array)
        if not np.isfinite(values).all():
            _refuse(array, block)
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


def all_layers(tiling: Tiling) -> tuple[Layers, Layers, Layers]:
    """The layers of the three axes."""
    return Layers.of(tiling, 0), Layers.of(tiling, 1), Layers.of(tiling, 2)


def each(work: Any, blocks: Sequence[Block], workers: int) -> Iterator[tuple[Block, Any]]:
    """Work on each block on dask's threads, a few at a time; results come in order."""
    at_once = 8 * workers
    scheduler = "synchronous" if workers == 1 else "threads"
    for first in range(0, len(blocks), at_once):
        part = blocks[first : first + at_once]
        tasks = [dask.delayed(work, pure=False)(block) for block in part]
        done = dask.compute(*tasks, scheduler=scheduler, num_workers=workers)
        yield from zip(part, done, strict=True)


@dataclass(frozen=True)
class Block:
    """Whole cells of the box, [first, last) on each axis, and `margin` voxels around them."""

    cells: tuple[tuple[int, int], ...]
    bounds: tuple[tuple[int, int], ...]
    margin: int
    shape: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]

    def read(self, array: Any) -> npt.NDArray[np.float32]:
        """The block with its margin: wrapped round periodic axes, repeated at open ends."""
        pieces: list[list[slice]] = []
        pad = []
        for (low, high), n, wraps in zip(self.bounds, self.shape, self.periodic, strict=True):
            first, last = low - self.margin, high + self.margin
            before, after = (0, 0) if wraps else (max(0, -first), max(0, last - n))
            pad.append((before, after))
            pieces.append(list(_runs(first + before, last - after, n)))
        parts = [
            [[np.asarray(array[x, y, z], np.float32) for z in pieces[2]] for y in pieces[1]]
            for x in pieces[0]
        ]
        block = _joined(parts)
        return np.pad(block, pad, mode="edge") if any(p != (0, 0) for p in pad) else block


def _joined(parts: list[list[list[npt.NDArray[np.float32]]]]) -> npt.NDArray[np.float32]:
    if len(parts) == len(parts[0]) == len(parts[0][0]) == 1:
        return parts[0][0][0]
    return np.block(parts)


def _runs(first: int, last: int, n: int) -> Iterator[slice]:
    """[first, last) cut at multiples of n, each piece moved into [0, n)."""
    while first < last:
        at = first % n
        take = min(n - at, last - first)
        yield slice(at, at + take)
        first += take


class Blocks:
    """How the box is cut into blocks of whole cells."""

    @staticmethod
    def choose(
        tiling: Tiling, layers: Sequence[Layers], margin: int, memory: int, workers: int
    ) -> Iterator[Block]:
        """The largest blocks that fit; raises BadInput where not even single cells do."""
        edge = int((memory / workers / _BYTES) ** (1 / 3)) - 2 * margin
        least = max(int(one.widths.max()) for one in layers)
        if edge < least:
            need = workers * _BYTES * (least + 2 * margin) ** 3
            raise BadInput(
                f"{memory / 2**20:.0f} MiB for {workers} workers is too little to look for seams,"
                f" it needs {need / 2**20:.0f} MiB"
            )
        for cells in itertools.product(*(one.groups(edge) for one in layers)):
            bounds = tuple(
                (
                    int(one.starts[low]),
                    int(one.starts[high]) if high < len(one.starts) else one.length,
                )
                for (low, high), one in zip(cells, layers, strict=True)
            )
            yield Block(cells, bounds, margin, tiling.shape, tiling.periodic)


def check_shape(array: Any, tiling: Tiling, name: str) -> None:
    """Raises BadInput where an array is not of the tiling's shape."""
    shape = tuple(int(n) for n in array.shape)
    if shape != tiling.shape:
        raise BadInput(f"{name}: has shape {shape}, the tiling is of a box of {tiling.shape}")


def _refuse(array: Any, block: Block) -> None:
    values = np.asarray(array[tuple(slice(*b) for b in block.bounds)])
    bad = np.argwhere(~np.isfinite(values))
    where = bad[0] + [b[0] for b in block.bounds] if len(bad) else [b[0] for b in block.bounds]
    raise BadInput(
        f"field: voxel {tuple(int(i) for i in where)} is not finite; paint or repair it first"
    )
