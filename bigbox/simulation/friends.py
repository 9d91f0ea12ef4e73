"""Friends of friends: which particles of a periodic box are linked, pair by pair of small cells.

Particles are sorted into cells of side b / sqrt(3): any two in one cell are nearer than the linking
length b. Only cells up to two apart can be linked beside that, and one pair nearer than b suffices:

      +---+---+---+---+---+      C   a cell
      | # | # | # | # | # |      #   its neighbours: with those of the planes beside this one, 124;
      | # | # | # | # | # |          each pair of cells is looked at once, from the one that comes
      | # | # | C | # | # |          first in the order of the cells
      | # | # | # | # | # |
      | # | # | # | # | # |
      +---+---+---+---+---+

Of each pair of cells, their first particles are looked at, and all others only where neither that
nor the cells between has linked the two. So the work is bounded however dense a halo is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from bigbox.blockwise import map_blocks, workers

CELLS = 1 << 15  # whose neighbours one thread looks for at once
PAIRS = 1 << 18  # of particles that are compared at once
THREAD_BYTES = 64_000_000  # of a thread at work, at most
SCRATCH, SPARE = 128_000_000, 40  # bytes that all threads may take, and more for each particle
FEW = 1 << 12  # pairs of particles in a pair of cells; with more, a tree of one cell is faster

Ints = NDArray[np.int64]
SmallInts = NDArray[np.signedinteger]
# Columns of cells along z that lie ahead, in planes and lines from the cell's own.
_AHEAD = [(x, y) for x, y in product((0, 1, 2), (-2, -1, 0, 1, 2)) if (x, y) > (0, 0)]


def link(
    positions: NDArray[np.float32], side: float, length: float, threads: int | None = None
) -> NDArray[np.int32]:
    """Return the group of each particle, int32 (M,), numbered by the groups' first particles.

    Particles nearer than `length` are in one group (Davis et al. 1985), across the box's faces too.
    Positions (M, 3) are in [0, side). `threads`: by default one for each core that this process may
    use, or as memory suffices for; the result does not depend on them. It takes 80 bytes for each
    particle, and those of the threads.
    """
    count = len(positions)
    if not count:
        return np.empty(0, np.int32)
    cells, cell_of, particle = _sorted(positions, side, length)
    threads = threads or workers(THREAD_BYTES, SCRATCH + SPARE * count)
    nodes = cells.count
    parts = map_blocks(cells.linked, range(0, nodes, CELLS), workers=threads)
    first, second = map(list, zip(*parts, strict=True))
    del cells, parts
    first.append(cell_of[count:])  # an image, and the particle that it is of
    second.append(cell_of[particle])
    labels = _components(np.concatenate(first), np.concatenate(second), nodes)
    return _numbered(labels[cell_of[:count]])


def _sorted(
    positions: NDArray[np.float32], side: float, length: float
) -> tuple[_Cells, SmallInts, Ints]:
    """Sort particles and images into cells: the cells, and the cell of each, particles first.

    And the particles that the images are of.
    """
    places, particle = _with_images(positions, side, length)
    per_length = 3**0.5 * (1 + 1e-9) / length  # a little smaller cells: rounding
    wide = int((side + length) * per_length) + 5  # with two cells free at both ends
    keys = np.zeros(len(places), np.int64)
    for axis in range(3):
        keys *= wide
        keys += (places[:, axis] * per_length).astype(np.int64) + 2
    order = np.argsort(keys)
    places, keys = places[order], keys[order]
    small = _ints(len(keys))
    cell_of = np.empty(len(keys), small)
    cell_of[order] = np.cumsum(np.diff(keys, prepend=-1) > 0, dtype=small) - 1
    del order
    return _Cells(keys, places, wide, length), cell_of, particle


def _with_images(
    positions: NDArray[np.float32], side: float, length: float
) -> tuple[NDArray[np.float64], Ints]:
    """Give particles near a lower face images beyond the upper one: all places, particles first.

    Images are of particles nearer to the face than `length`; and the particles that they are of.
    """
    low = positions < length
    near = np.flatnonzero(low.any(axis=1))
    low = low[near]
    shifts = np.array([s for s in product((0.0, 1.0), repeat=3) if any(s)])
    beyond = [near[low[:, shift > 0].all(axis=1)] for shift in shifts]
    places = np.empty((len(positions) + sum(map(len, beyond)), 3))
    places[: len(positions)] = positions
    particle = np.concatenate(beyond)
    moves = np.repeat(side * shifts, [len(some) for some in beyond], axis=0)
    places[len(positions) :] = positions[particle] + moves
    return places, particle


class _Cells:
    """Cells that hold places (P, 3), by their keys (x wide + y) wide + z of `wide` on a side.

    Both the keys, (P,), and the places are in the order of the keys.
    """

    def __init__(self, keys: Ints, places: NDArray[np.float64], wide: int, length: float) -> None:
        self.starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self.counts = np.diff(self.starts, append=len(keys))
        self.several = self.counts > 1
        self.count = len(self.starts)
        self.keys = np.append(keys[self.starts], np.iinfo(np.int64).max)  # and one beyond all
        self.places, self.firsts = places, places[self.starts]
        self.wide, self.length = wide, length

    def linked(self, begin: int) -> tuple[SmallInts, SmallInts]:
        """Link CELLS cells from `begin` on with those ahead; return pairs, one a cell, that do."""
        near, open_ = [], []
        for pair in self._neighbours(begin):
            first, second = pair
            close = self._close(self.firsts.take(first, axis=0), self.firsts.take(second, axis=0))
            near.append(pair.compress(close, axis=1))
            several = self.several.take(first) | self.several.take(second)
            open_.append(pair.compress(several & ~close, axis=1))
        pairs = np.concatenate(near, axis=1) - begin
        others = np.concatenate(open_, axis=1) - begin
        end = 1 + max(pairs.max(initial=0), others.max(initial=0))
        labels = _components(pairs[0], pairs[1], end)
        others = others[:, labels[others[0]] != labels[others[1]]]
        others = others[:, self._touch(others[0] + begin, others[1] + begin)]
        joined = labels[others]
        labels = _components(joined[0], joined[1], labels.max() + 1)[labels]
        lowest = _lowest(labels)[labels]
        more = np.flatnonzero(lowest != np.arange(end))
        small = _ints(self.count)
        return (more + begin).astype(small), (lowest[more] + begin).astype(small)

    def _neighbours(self, begin: int) -> Iterator[Ints]:
        """Yield pairs of cells, (2, N): those from `begin` on, and one in reach ahead of each."""
        own = np.arange(begin, min(begin + CELLS, self.count))
        keys = self.keys[own]
        yield from self._along(own, own + 1, keys + 2)
        for x, y in _AHEAD:
            lowest = keys + ((x * self.wide + y) * self.wide - 2)
            among = slice(*np.searchsorted(self.keys, (lowest[0], lowest[-1] + 5)))
            after = np.searchsorted(self.keys[among], lowest) + among.start
            yield from self._along(own, after, lowest + 4)

    def _along(self, own: Ints, after: Ints, last: Ints) -> Iterator[Ints]:
        """Yield pairs of cells with `after`, the one behind it and so on, to the key `last`."""
        while len(own):
            inside = np.flatnonzero(self.keys.take(after) <= last)
            own, after, last = own.take(inside), after.take(inside), last.take(inside)
            yield np.stack((own, after))
            after += 1

    def _touch(self, first: Ints, second: Ints) -> NDArray[np.bool_]:
        """Whether any particle of one cell is near to any of the other: (N,) of pairs of cells."""
        size = self.counts[first] * self.counts[second]
        found = np.zeros(len(size), bool)
        few = np.flatnonzero(size <= FEW)
        ends = np.cumsum(size[few])
        for some in np.split(few, np.searchsorted(ends, np.arange(PAIRS, ends[-1:].sum(), PAIRS))):
            if len(some):
                found[some] = self._any_close(first[some], second[some], size[some])
        for i in np.flatnonzero(size > FEW):
            found[i] = self._nearest_close(first[i], second[i])
        return found

    def _any_close(self, first: Ints, second: Ints, size: Ints) -> NDArray[np.bool_]:
        """Look at all pairs of particles of some pairs of cells."""
        offsets = np.cumsum(size) - size
        number = np.arange(size.sum()) - np.repeat(offsets, size)
        one, other = np.divmod(number, np.repeat(self.counts[second], size))
        one += np.repeat(self.starts[first], size)
        other += np.repeat(self.starts[second], size)
        close = self._close(self.places.take(one, axis=0), self.places.take(other, axis=0))
        return np.logical_or.reduceat(close, offsets)

    def _nearest_close(self, first: int, second: int) -> bool:
        """Look at the nearest pair of particles of two cells."""
        a, b = (
            self.places[self.starts[cell] : self.starts[cell] + self.counts[cell]]
            for cell in (first, second)
        )
        few, many = (a, b) if len(a) < len(b) else (b, a)
        apart, nearest = cKDTree(many).query(few)
        i = int(np.argmin(apart))
        return bool(self._close(few[i : i + 1], many[nearest[i : i + 1]])[0])

    def _close(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
        apart = a - b
        return np.einsum("ij,ij->i", apart, apart) <= self.length**2


def _ints(count: int) -> type[np.signedinteger]:
    """Return the smaller type of numbers below `count`."""
    return np.int32 if count < 2**31 else np.int64


def _components(
    first: NDArray[np.integer], second: NDArray[np.integer], count: int
) -> NDArray[np.int32]:
    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    labels: NDArray[np.int32] = connected_components(edges, directed=False)[1]
    return labels


def _lowest(labels: NDArray[np.int32]) -> Ints:
    """Return the first place of each label, 0 to the largest, all of which are there."""
    first = np.empty(labels.max() + 1, np.int64)
    first[labels[::-1]] = np.arange(len(labels))[::-1]  # of several, the last one is kept
    return first


def _numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give labels new numbers, in the order in which they first appear."""
    first = _lowest(labels)
    new = np.zeros(len(labels), bool)
    new[first] = True
    number = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return number[first[labels]]
