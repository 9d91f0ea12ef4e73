"""Draw T_b of a truth's haloes again: what a perfect model would paint.

    TRUTH/tb  hi_seed = fingerprint of the catalogue + draw << 32
    CATALOGUE ──HI-halo relation, draw 0, 1, ...──► points ──CIC, smoothing──► T_b  (N, N, N), mK

A draw is made in memory, about 20 bytes a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue
from bigbox.ingest.cic import PLACE, deposit_fixed, fixed_exponent
from bigbox.ingest.headers import Told
from bigbox.ingest.hydrogen import Hydrogen, of_haloes
from bigbox.ingest.sources import open_catalogue
from bigbox.physics.brightness import brightness_temperature
from bigbox.physics.cosmology import Cosmology
from bigbox.physics.hi_halo import RELATION, SCATTER
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.store.box import Box

BYTES = 20  # a voxel, of memory that a draw takes
MOST_STEPS = (1 << 32) - 1  # that a place of a draw may have on an axis
MEAN_DRAW = (1 << 32) - 1  # the draw whose points `mean_brightness` takes


def is_drawn(box: Box) -> bool:
    """Return whether a box's tb was made by the HI-halo relation, so that it can be drawn again."""
    attributes = box.array("tb").attrs.asdict() if box.has("tb") else {}
    return attributes.get("source") == RELATION and "hi_seed" in attributes


def draw_of(box: Box) -> int:
    """Return which draw of its haloes a box's tb is."""
    seed: Any = box.array("tb").attrs.get("hi_seed", 0)
    return int(seed) >> 32


def catalogue_of(box: Box, files: Sequence[Path] = ()) -> Catalogue:
    """Open the catalogue that a box's tb was made of: these files, or those that the box names.

    Raises BadInput where it is not there, is another one, or where the box is too large to draw.
    """
    if box.shape[0] * PLACE > MOST_STEPS:
        raise BadInput(
            f"{box.path}: {box.shape[0]} voxels on a side; draws of a catalogue are made in memory "
            f"for boxes of at most {MOST_STEPS // PLACE}: give them as boxes (bigbox ingest "
            "--hi-draw)"
        )
    provenance: Any = box.attributes.get("provenance") or {}
    # Any one of a catalogue's files names all.
    places = list(files) or [Path(one) for one in provenance.get("halos", ())[:1]]
    if not places:
        raise BadInput(f"{box.path}: does not name its halo catalogue: give --halos CATALOGUE")
    halo = box.array("halo").attrs.asdict() if box.has("halo") else {}
    kind = "subhalo" if "SUBFIND" in str(halo.get("source", "")) else "group"
    told = Told(box.box_size[0], box.redshift)
    found = open_catalogue(places, kind, told)  # type: ignore[arg-type]
    seed: Any = box.array("tb").attrs.get("hi_seed")
    if seed is None or int(seed) & 0xFFFFFFFF != found.fingerprint():
        raise BadInput(
            f"{found}: tb of {box.path} was not made of these haloes; give the catalogue that "
            "it was ingested with, with --hi-halo, or draws of it as boxes"
        )
    return found


def hydrogen_of(box: Box, catalogue: Catalogue, draw: int, scatter: float = SCATTER) -> Hydrogen:
    """Return the HI of a draw, of a box's haloes."""
    cosmology = Cosmology.from_header(box.attributes["cosmology"])
    return of_haloes(catalogue, cosmology, draw, scatter)


def drawn(box: Box, catalogue: Catalogue, draw: int) -> NDArray[np.float32]:
    """Return T_b of a draw on the grid of a box, mK, smoothed as the box's own."""
    return brightness_of(box, hydrogen_of(box, catalogue, draw), _smoothing(box))


def mean_brightness(box: Box, catalogue: Catalogue) -> NDArray[np.float32]:
    """Return T_b where every halo has the HI mass that the relation gives on average, mK."""
    return brightness_of(box, hydrogen_of(box, catalogue, MEAN_DRAW, 0.0), _smoothing(box))


def _smoothing(box: Box) -> float:
    told: Any = box.array("tb").attrs.get("smoothing", 0.0)
    return float(told)


def brightness_of(like: Box, hydrogen: Hydrogen, smoothing: float) -> NDArray[np.float32]:
    """Return T_b of points of HI on the grid of a cubic box, mK, float32 (N, N, N), in memory."""
    n, voxel = like.shape[0], like.voxel
    total = np.zeros((n + 1,) * 3, np.int64)  # the last planes are the first ones, periodic
    heaviest, many = 0.0, 0
    for chunk in hydrogen.chunks():
        mass = _weighted(hydrogen, chunk, n)[1]
        heaviest, many = max(heaviest, float(mass.max(initial=0.0))), many + len(mass)
    exponent = fixed_exponent(many, heaviest)
    for chunk in hydrogen.chunks():
        place, mass = _weighted(hydrogen, chunk, n)
        steps = np.rint((place - 0.5) % n * PLACE).astype(np.int64) % (n * PLACE)
        deposit_fixed(total, steps.astype(np.uint32), mass.astype(np.float64), exponent)
    for axis in range(3):
        whole = np.moveaxis(total, axis, 0)
        whole[0] += whole[n]
    density = (total[:n, :n, :n] * (2.0**-exponent * hydrogen.unit / voxel**3)).astype(np.float32)
    smoothed = smooth_periodic(density, gaussian_kernel(smoothing, voxel))
    cosmology = Cosmology.from_header(like.attributes["cosmology"])
    return np.asarray(brightness_temperature(smoothed, like.redshift, cosmology), np.float32)


def _weighted(hydrogen: Hydrogen, chunk: Any, voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places of points in voxels, and their HI masses."""
    place, mass = hydrogen.points(chunk, voxels)
    return place, np.ones(len(place), np.float32) if mass is None else mass
