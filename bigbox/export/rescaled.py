"""Rescale T_b to the mean of another Ω_HI: what is exported is stored nowhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.blockwise import Region, map_regions, read_block, regions
from bigbox.errors import BadInput
from bigbox.physics.brightness import mean_brightness
from bigbox.physics.cosmology import Cosmology
from bigbox.store.box import Box


class Rescaled:
    """An array times a factor, as it is read; its attributes say by what."""

    def __init__(self, array: Any, factor: float, words: str) -> None:
        self._array, self.factor = array, np.float32(factor)
        self.attrs = {**dict(array.attrs), "rescaled": words}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __getitem__(self, cut: Any) -> NDArray[np.float32]:
        return np.asarray(self._array[cut], np.float32) * self.factor


def rescaled(box: Box, array: Any, omega_hi: float, memory: int) -> Rescaled:
    """Return T_b of a box with the mean that Ω_HI has at its redshift, mK; reads it once.

    Raises BadInput where its own mean is not above 0.
    """
    edges = tuple(getattr(array, "shards", None) or array.chunks)

    def total(region: Region) -> float:
        return float(read_block(array, region, box.place_of("tb")).sum(dtype=np.float64))

    parts = list(regions(array.shape, edges, 0))
    mean = sum(map_regions(total, parts, memory)) / math.prod(array.shape)
    if not mean > 0:
        raise BadInput(f"{box.place_of('tb')}: its mean is {mean:.3g} mK: nothing to rescale")
    cosmology = Cosmology.from_header(box.attributes["cosmology"])
    wanted = mean_brightness(omega_hi, box.redshift, cosmology)
    return Rescaled(
        array,
        wanted / mean,
        f"times {wanted / mean:.6g}: from the mean {mean:.6g} mK to {wanted:.6g} mK, that of "
        f"Omega_HI = {omega_hi:g} at redshift {box.redshift:g}",
    )
