"""Friends of friends by every pair of a KD-tree of the whole box, in memory without bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


def link_in_memory(positions: NDArray, side: float, length: float) -> NDArray[np.int32]:
    """The group of each particle, numbered by the groups' first particles."""
    pairs = cKDTree(positions.astype(np.float64), boxsize=side).query_pairs(
        length, output_type="ndarray"
    )
    count = len(positions)
    edges = coo_array((np.ones(len(pairs), np.int8), tuple(pairs.T)), shape=(count, count))
    return connected_components(edges, directed=False)[1]
