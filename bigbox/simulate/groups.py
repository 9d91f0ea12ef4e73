"""Friends-of-friends groups in a periodic box: who is linked, and each group's place and velocity.

Pairs are searched in blocks that share a margin, so that memory is bounded; what a block has linked
it hands on as one edge a particle, and the edges of all blocks are joined in the end:

      |<---- block A ---->|
                     |<---- block B ---->|        every pair nearer than b is inside one block
                     |<-b>|
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

BLOCK = 1 << 13
"""Particles whose pairs are searched at once; each may have some hundred in a rich halo."""

LEAST = 32  # particles of the smallest group that is kept, as in GADGET-4 and CAMELS


@dataclass(frozen=True)
class Groups:
    """The groups of LEAST particles or more, the largest first; positions as the particles'."""

    lengths: NDArray[np.int32]  # (G,): particles
    positions: NDArray[np.float64]  # (G, 3): of the particle of lowest potential
    velocities: NDArray[np.float64]  # (G, 3): mean over the particles
    order: NDArray[np.int64]  # (M,): all particles, group by group, then those of no group


def find_groups(
    positions: NDArray[np.float32],
    velocities: NDArray[np.float32],
    potential: NDArray[np.float32],
    side: float,
    length: float,
    least: int = LEAST,
) -> Groups:
    """Find groups of particles of equal mass: positions, velocities (M, 3), potential (M,)."""
    labels = link(positions, side, length)
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts >= least)
    kept = kept[np.argsort(-counts[kept], kind="stable")]
    rank = np.full(len(counts), len(kept))
    rank[kept] = np.arange(len(kept))
    group = rank[labels]
    order = np.argsort(group, kind="stable")
    lengths = counts[kept]
    ends = np.cumsum(lengths)
    held = order[: ends[-1]] if len(kept) else order[:0]
    group = group[held]
    by_potential = held[np.lexsort((potential[held], group))]
    mean = [np.bincount(group, velocities[held, axis], len(kept)) / lengths for axis in range(3)]
    return Groups(
        lengths.astype(np.int32),
        positions[by_potential[ends - lengths]].astype(np.float64),
        np.stack(mean, axis=1),
        order,
    )


def link(positions: NDArray[np.float32], side: float, length: float) -> NDArray[np.int32]:
    """Return the group of each particle, int32 (M,), numbered as connected_components does.

    Particles nearer than `length` are in one group (Davis et al. 1985), across the box's faces too.
    Positions (M, 3) are in [0, side).
    """
    places, index = _with_images(positions, side, length)
    ends: list[NDArray[np.integer]] = []
    starts: list[NDArray[np.integer]] = []
    for members in _blocks(places, np.arange(len(places)), length):
        pairs = cKDTree(places[members]).query_pairs(length, output_type="ndarray")
        labels = _components(pairs[:, 0], pairs[:, 1], len(members))
        _, first = np.unique(labels, return_index=True)
        ends.append(index[members])
        starts.append(index[members[first[labels]]])
    del places, index
    return _components(np.concatenate(ends), np.concatenate(starts), len(positions))


def _with_images(
    positions: NDArray[np.float32], side: float, length: float
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Positions and their particles; those near a lower face once more beyond the upper one."""
    small = np.int32 if len(positions) < 2**31 else np.int64
    places, index = [], []
    for shift in map(np.array, product((0.0, 1.0), repeat=3)):
        near = np.flatnonzero(((positions < length) | (shift == 0)).all(axis=1)).astype(small)
        places.append(positions[near] + side * shift)
        index.append(near)
    return np.concatenate(places), np.concatenate(index)


def _blocks(
    places: NDArray[np.float64], members: NDArray[np.int64], length: float
) -> Iterator[NDArray[np.int64]]:
    """Overlapping sets of particles: every pair nearer than `length` is in one of them."""
    extent = np.ptp(places[members], axis=0) if len(members) else np.zeros(3)
    axis = int(np.argmax(extent))
    if len(members) <= BLOCK or extent[axis] <= 4 * length:
        yield members
        return
    along = places[members, axis]
    cut = np.median(along)
    yield from _blocks(places, members[along <= cut + length], length)
    yield from _blocks(places, members[along >= cut], length)


def _components(
    first: NDArray[np.integer], second: NDArray[np.integer], count: int
) -> NDArray[np.int32]:
    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    labels: NDArray[np.int32] = connected_components(edges, directed=False)[1]
    return labels
