"""Find the data that bigbox ships, one small real dark-matter box and trained networks, and caches.

``gadget4_L12.5_N128_z0_dm.hdf5``: data set ``dm``, 1 + delta on 128^3 voxels, float32, of a
12.5 Mpc/h GADGET-4 run at z = 0. The attributes of the data set tell its provenance.

``model/``: HALOgen and LODI, weights and cards. A card tells what they were trained on, and how
well they do.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path


def default_model() -> Path:
    """Return the folder of the networks that `bigbox paint` uses where no other are given."""
    return Path(str(files(__name__) / "model"))


def quickstart_grid() -> Path:
    """Return the path of the shipped density grid."""
    return Path(str(files(__name__) / "gadget4_L12.5_N128_z0_dm.hdf5"))


def cache_folder() -> Path:
    """Return this user's cache folder of bigbox: what was measured on the machine."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "bigbox"
