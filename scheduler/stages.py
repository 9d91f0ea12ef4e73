"""Say what a tile must wait for: colours, stages, predecessors, successors, and the known slabs.

Seen along x and y, with the colour of each tile on both axes::

    y                                a tile of level 2, (1,1):
    |  (0,0) (1,0) (0,0) (1,0)          +--+--------+--+
    |  (0,1) (1,1) (0,1) (1,1)          |##|########|##|  # known: painted by tiles of a lower
    |  (0,0) (1,0) (0,0) (1,0)          |##|        |##|    colour on that axis
    +------------------------- x        |##|  owned |##|
                                        |##|        |##|
    level = sum of the three colours    |##|########|##|
                                        +--+--------+--+

A tile waits across a face when the neighbour has a lower colour on that axis. Then:

* what it finds painted is exactly the slabs across those faces, whole cross-section, and what is
  left for it to paint is a cuboid;
* each slab lies wholly inside that one face neighbour, so the six face neighbours are all that
  need be asked: the voxels of edge and corner neighbours have been pasted into them.

The paper paints in 8 stages, one per triple of parities (Mishra, Trotta & Viel 2025 (LODI),
section 2.4). Every voxel that two tiles of one level share has already been painted by a tile of a
lower level, so the 8 stages collapse into 4 levels with the same result, bit for bit. With an odd
number of tiles on a periodic axis the last tile has a third colour, and there are up to 7 levels
or 27 stages.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import Ints
from bigbox.scheduler.tiling import Tiling

COLOURINGS = ("levels", "paper")

# The 26 neighbours of a tile, as steps on x, y, z.
OFFSETS = np.array([o for o in product((-1, 0, 1), repeat=3) if o != (0, 0, 0)], np.int64)


def check_colouring(colouring: str) -> None:
    """Refuse a colouring that does not exist."""
    if colouring not in COLOURINGS:
        raise ValueError(f"colouring {colouring!r} is not known: choose {' or '.join(COLOURINGS)}")


def triples(tiling: Tiling, colouring: str = "levels") -> list[list[tuple[int, int, int]]]:
    """Return the colour triples of each stage, in order of the stages."""
    check_colouring(colouring)
    rx, ry, rz = (range(int(tiling.colours(a).max()) + 1) for a in range(3))
    ordered = sorted(product(rx, ry, rz), key=lambda t: (sum(t), t))
    if colouring == "paper":
        return [[t] for t in ordered]
    return [[t for t in ordered if sum(t) == s] for s in range(sum(ordered[-1]) + 1)]


@cache
def stage_of_triple(tiling: Tiling, colouring: str) -> NDArray[np.int64]:
    """Stage of each colour triple, int64 (3, 3, 3); -1 where the box has no such tile."""
    table = np.full((3, 3, 3), -1, np.int64)
    for s, members in enumerate(triples(tiling, colouring)):
        for t in members:
            table[t] = s
    table.setflags(write=False)
    return table


def stages(tiling: Tiling, colouring: str = "levels") -> int:
    """Return the number of stages: 4 levels, or the paper's 8; more with odd counts."""
    return len(triples(tiling, colouring))


def stage(tiling: Tiling, tiles: ArrayLike, colouring: str = "levels") -> Ints:
    """Stage of each tile: (M,) -> int64 (M,)."""
    at = np.unravel_index(np.asarray(tiles, np.int64), tiling.counts)
    triple = tuple(tiling.colours(a)[i] for a, i in enumerate(at))
    return np.asarray(stage_of_triple(tiling, colouring)[triple])


def stage_counts(tiling: Tiling, colouring: str = "levels") -> Ints:
    """Return the number of tiles in each stage, int64 (stages,), from the counts per axis alone."""
    per_axis = [np.bincount(tiling.colours(a), minlength=3) for a in range(3)]
    counts = np.einsum("i,j,k->ijk", *per_axis)
    members = triples(tiling, colouring)
    return np.array([sum(counts[t] for t in stage) for stage in members], np.int64)


def known(tiling: Tiling, tiles: ArrayLike) -> Ints:
    """Widths of the slabs painted before each tile: (M,) -> int64 (M, 3, 2) voxels, 0 if none.

    Axis by axis, side 0 low and 1 high. The same for every colouring.
    """
    at = np.unravel_index(np.asarray(tiles, np.int64), tiling.counts)
    return np.stack([tiling.known_widths(a)[i] for a, i in enumerate(at)], axis=-2)


def awaited_across_faces(tiling: Tiling, tiles: ArrayLike) -> Ints:
    """Return the tile that a slab at each face is known to: (M,) -> int64 (M, 3, 2), -1 if none.

    Where two tiles close a ring, the one waits across both faces of the other.
    """
    at = np.unravel_index(np.asarray(tiles, np.int64), tiling.counts)
    shared = np.stack([np.stack(tiling.widths(a), -1)[i] for a, i in enumerate(at)], axis=-2)
    # Neighbours never have one colour: of the two, one finds the slab painted.
    owed = (shared > 0) & (known(tiling, tiles) == 0)
    return np.where(owed, tiling.neighbours(tiles), -1)


@cache
def overlapping(tiling: Tiling, axis: int) -> NDArray[np.bool_]:
    """Whether a tile shares voxels with the tile at step -1, 0, +1 on one axis: bool (n, 3).

    Where two tiles close a ring, both steps lead to the same tile; the one that does not wrap round
    is kept, so that no tile is counted twice, and the step back is always the opposite one.
    """
    low, high = (width > 0 for width in tiling.widths(axis))
    if tiling.periodic[axis] and tiling.counts[axis] == 2:
        low, high = (low | high) & ((False, True), (True, False))
    table = np.stack([low, np.ones_like(low), high], axis=-1)
    table.setflags(write=False)
    return table


@cache
def face_shifts(tiling: Tiling, axis: int, forward: bool) -> Ints:
    """Return the step of the index on one axis to the tile that is waited for: int64 (n, 2).

    Across the low and the high face, 0 where there is none; `forward`: to the tile that waits.
    """
    colour, here = tiling.colours(axis), np.arange(tiling.counts[axis])[:, None]
    there = (here + (-1, 1)) % len(colour)
    order = colour[there] > colour[here] if forward else colour[there] < colour[here]
    shifts = np.where(order & overlapping(tiling, axis)[:, [0, 2]], there - here, 0)
    shifts.setflags(write=False)
    return shifts


@cache
def _followers(tiling: Tiling, axis: int) -> NDArray[np.uint8]:
    """`followers` on one axis, uint8 (n,)."""
    colour, steps = tiling.colours(axis), face_shifts(tiling, axis, True)
    longest = np.zeros(len(colour), np.uint8)
    for c in (1, 0):  # colour 2 is waited for by none
        here = np.flatnonzero(colour == c)
        behind = 1 + longest[here[:, None] + steps[here]]
        longest[here] = np.where(steps[here] != 0, behind, 0).max(axis=1)
    longest.setflags(write=False)
    return longest


def followers(tiling: Tiling, tiles: ArrayLike) -> NDArray[np.uint8]:
    """Tiles in the longest chain that waits behind each, of "levels": (M,) -> uint8 (M,), 0 to 6.

    A tile waits across faces only, so a chain is one on each axis, one after the other.
    """
    at = np.unravel_index(np.asarray(tiles, np.int64), tiling.counts)
    found = [_followers(tiling, a)[i] for a, i in enumerate(at)]
    return np.sum(found, axis=0, dtype=np.uint8)


def _related(tiling: Tiling, tiles: ArrayLike, colouring: str, *, forward: bool) -> Ints:
    """Tiles in a waiting relation, one column per direction: (M,) -> int64 (M, 6 or 26), -1 none.

    Columns of "levels" are the faces x low, x high, y low ... z high; those of "paper" are
    `OFFSETS`. `forward` gives who waits for the tile, else for whom it waits.
    """
    check_colouring(colouring)
    tiles = np.asarray(tiles, np.int64)
    at = np.unravel_index(tiles, tiling.counts)
    if colouring == "levels":
        shift = np.concatenate(
            [face_shifts(tiling, a, forward)[i] * tiling.strides[a] for a, i in enumerate(at)],
            axis=-1,
        )
        return np.where(shift != 0, tiles[..., None] + shift, -1)
    near, meets = np.zeros((), np.int64), np.ones((), bool)
    for a, i in enumerate(at):
        there = (i[..., None] + OFFSETS[:, a]) % tiling.counts[a]
        near = near + there * tiling.strides[a]
        meets = meets & overlapping(tiling, a)[i][..., OFFSETS[:, a] + 1]
    theirs = stage(tiling, near, colouring)
    mine = stage(tiling, tiles, colouring)[..., None]
    order = theirs > mine if forward else theirs < mine
    return np.where(meets & order, near, -1)


def predecessors(tiling: Tiling, tiles: ArrayLike, colouring: str = "levels") -> Ints:
    """Return the tiles each tile waits for: (M,) -> int64 (M, P), -1 in unused columns, none twice.

    "levels": P = 6, the face neighbours whose slab is known to the tile. "paper": P = 26, every
    tile of an earlier stage that shares a voxel.
    """
    return _related(tiling, tiles, colouring, forward=False)


def successors(tiling: Tiling, tiles: ArrayLike, colouring: str = "levels") -> Ints:
    """Return the tiles that wait for each tile: the inverse of `predecessors`, same layout."""
    return _related(tiling, tiles, colouring, forward=True)
