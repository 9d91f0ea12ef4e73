"""The 48 symmetries of a cube, by which training samples are turned (paper section 2.3)."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

# An order of the axes, and which of them are then reversed.
SYMMETRIES = tuple(product(permutations(range(3)), product((False, True), repeat=3)))


def turn(field: np.ndarray, symmetry: int) -> np.ndarray:
    """A view of a field (..., n, n, n), its last three axes turned by one of 48 symmetries."""
    order, flips = SYMMETRIES[symmetry]
    lead = field.ndim - 3
    turned = field.transpose(*range(lead), *(lead + axis for axis in order))
    return turned[(..., *(slice(None, None, -1) if flip else slice(None) for flip in flips))]
