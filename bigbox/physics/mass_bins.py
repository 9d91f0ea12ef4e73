"""The mass bins of the halo channels (paper §2.1.1, eq. 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

HALO_EDGES = (3e10, 1e11, 5e11, 1e12)
"""Lower edge of each channel, M☉/h. The last channel is open: its upper edge is the largest halo.

The paper prints M☉; CAMELS catalogues and the paper's other masses are in M☉/h, and so are these.
"""

HALO_CHANNELS = len(HALO_EDGES)


def halo_channel(masses: ArrayLike) -> NDArray[np.int64]:
    """Return the channel of each halo mass (M☉/h): 0 .. 3, or -1 below the first edge."""
    return np.searchsorted(HALO_EDGES, np.asarray(masses, np.float64), side="right") - 1
