"""Draw boxes, tilings, windows and shares of ranks that are valid by construction, for hypothesis.

Nothing is drawn and then rejected: of an axis, the sizes that can be cut as asked are looked up in
a table, and what is drawn is one of them. Examples shrink towards two tiles, small boxes and open
edges; a box of one tile, in which nothing meets, is drawn seldom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import TypeVar

from hypothesis import strategies as st

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.grid import Triple
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.scheduler.windows import Windows

Range = tuple[int, int]  # lowest and highest, both included
PERIODIC = (True, True, True)
T = TypeVar("T")


@lru_cache(maxsize=4096)
def sizes(tile: int, overlap: int, periodic: bool, largest: int) -> dict[int, list[int]]:
    """Return the voxels of an axis, up to `largest`, that can be tiled, by the number of tiles."""
    found: dict[int, list[int]] = {}
    for n in range(tile, largest + 1):
        try:
            tiling = Tiling((n, tile, tile), tile, overlap, (periodic, False, False))
        except TilingError:
            continue
        found.setdefault(tiling.counts[0], []).append(n)
    return found


@lru_cache(maxsize=4096)
def _counts(axes: tuple[tuple[int, ...], ...], least: int, most: int) -> list[Triple]:
    """List the tiles on x, y, z with `least` to `most` in all, two first.

    A single one stands last, and often enough to be one in five.
    """
    x, y, z = axes
    found = sorted((c for c in product(x, y, z) if least <= math.prod(c) <= most), key=math.prod)
    single = found.count((1, 1, 1))
    return found[single:] + found[:single] * (1 + len(found) // 4)


def _one_of(draw: st.DrawFn, things: Sequence[T]) -> T:
    """Draw one of them; unlike `sampled_from`, a choice also of one, so that examples compare."""
    return things[draw(st.integers(0, len(things) - 1))]


@st.composite
def tilings(
    draw: st.DrawFn,
    *,
    tile: Range = (3, 9),
    overlap: Range | None = None,
    periodic: tuple[bool, bool, bool] | None = None,
    largest: int = 34,
    tiles: Range = (1, 100),
) -> Tiling:
    """Draw a tiling.

    tile, overlap: voxels of a tile, and shared by tiles (any number by default); periodic: which
    axes wrap (any mix by default); largest: most voxels on an axis; tiles: in the whole box.
    """
    side = draw(st.integers(*tile))
    low, high = overlap or (0, side)
    shared = draw(st.integers(low, min(high, (side - 1) // 2)))
    wraps = draw(st.tuples(*[st.booleans()] * 3)) if periodic is None else periodic
    tables = [sizes(side, shared, p, largest) for p in wraps]
    counts = _one_of(draw, _counts(tuple(tuple(t) for t in tables), *tiles))
    x, y, z = (_one_of(draw, t[n]) for t, n in zip(tables, counts, strict=True))
    return Tiling((x, y, z), side, shared, wraps)


def boxes(smallest: int = 1, largest: int = 9) -> st.SearchStrategy[Triple]:
    """Draw the voxels of a box on x, y, z."""
    return st.tuples(*[st.integers(smallest, largest)] * 3)


@lru_cache(maxsize=4096)
def _strides(shape: Triple, window: int, most: int) -> list[int]:
    strides = range(1, window + 1)
    return [s for s in strides if math.prod(-(-n // s) for n in shape) <= most]


@st.composite
def windows(
    draw: st.DrawFn,
    shape: Triple | None = None,
    *,
    window: Range = (2, 8),
    block: Range = (2, 6),
    most_windows: int = 1500,
) -> Windows:
    """Draw windows over a periodic box.

    shape: voxels of the box, 2 to 20 on an axis by default; window, block: voxels on an edge.
    """
    shape = draw(boxes(2, 20)) if shape is None else shape
    low, high = window
    fit = [w for w in range(low, min(high, *shape) + 1) if _strides(shape, w, most_windows)]
    side = _one_of(draw, fit)
    stride = _one_of(draw, _strides(shape, side, most_windows))
    return Windows(shape, side, stride, draw(st.integers(*block)))


@st.composite
def assignments(
    draw: st.DrawFn,
    of: st.SearchStrategy[Tiling],
    *,
    edge: Range = (1, 4),
    ranks: Range = (1, 9),
) -> Assignment:
    """Draw which rank paints which brick of a tiling; one rank at most has none.

    of: tilings, each of at least as many tiles as the fewest ranks; edge: tiles along a brick.
    """
    tiling = draw(of)
    every = [Bricks(tiling, e) for e in range(edge[0], edge[1] + 1)]
    bricks = _one_of(draw, [b for b in every if b.size >= ranks[0]])
    return Assignment(bricks, draw(st.integers(ranks[0], min(ranks[1], bricks.size + 1))))


def faults(most: int = 4) -> st.SearchStrategy[list[tuple[int, str]]]:
    """Draw faults of a `disks.World`: when, and which of its modes; one run after the other.

    When is in thousandths of the operations that a whole run has at least: the first fault strikes.
    """
    mode = st.sampled_from(["kill", "power", "full"])
    first = st.tuples(st.integers(1, 900), mode)
    others = st.lists(st.tuples(st.integers(1, 1600), mode), max_size=most - 1)
    return st.builds(lambda one, more: [one, *more], first, others)
