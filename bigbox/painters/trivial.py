"""The painter without a network: matter plus keyed noise, for tests of the engine and its speed.

Every voxel that it paints depends on every bit of the tile's known voxels, so that a wrong, stale
or missing overlap changes bytes. It is no model of anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bigbox.noise import Purpose, normal
from bigbox.painters.base import TileBatch, check_batch, paste_known, unknown_slices

MEAN_MK = 0.05  # T_b where the matter density is its mean
NOISE_MK = 0.02
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class TrivialPainter:
    """T_b = 0.05 mK <1+delta> over a voxel and its six faces + 0.02 mK (noise + echo of the known).

    latents: step latents per tile (as the latents method stores); seconds_per_tile: paint() sleeps
    until that much has passed for each tile, to stand for a device of that speed.
    """

    seed: int
    box_shape: tuple[int, int, int]
    realization: int = 0
    tile: int = 32
    latents: int = 0
    seconds_per_tile: float = 0.0

    name: ClassVar[str] = "trivial"
    input: ClassVar[str] = "dm"
    margin: ClassVar[int] = 1

    @property
    def fields(self) -> int:
        """T_b and the step latents."""
        return 1 + self.latents

    def identity(self) -> dict[str, Any]:
        """Everything that decides the painted bytes; the pace is no part of it."""
        return {
            "painter": self.name,
            "version": 1,
            "seed": self.seed,
            "realization": self.realization,
            "tile": self.tile,
            "box_shape": list(self.box_shape),
            "latents": self.latents,
        }

    def paint(self, batch: TileBatch) -> np.ndarray:
        """float32 (B, F, t, t, t): T_b in mK, then the step latents (unit noise plus echo)."""
        start = time.perf_counter()
        check_batch(self, batch, self.tile, channels=1)
        result = np.empty(batch.known.shape, np.float32)
        for b in range(len(batch)):
            result[b] = self._tile(batch.origin[b], batch.inputs[b, 0], batch, b)
        pause = self.seconds_per_tile * len(batch) - (time.perf_counter() - start)
        if pause > 0:
            time.sleep(pause)
        return result

    def _tile(self, origin: np.ndarray, dm: np.ndarray, batch: TileBatch, b: int) -> np.ndarray:
        t = self.tile
        painted = np.empty((self.fields, t, t, t), np.float32)
        for field in range(self.fields):
            noise = normal(
                self.seed,
                self.realization,
                Purpose.PAINT,
                field,
                origin,
                (t, t, t),
                self.box_shape,
            )
            painted[field] = noise + echo(batch.known[b, field], batch.width[b])
        inside = dm[1:-1, 1:-1, 1:-1].copy()
        for faces in (
            (dm[:-2, 1:-1, 1:-1], dm[2:, 1:-1, 1:-1]),
            (dm[1:-1, :-2, 1:-1], dm[1:-1, 2:, 1:-1]),
            (dm[1:-1, 1:-1, :-2], dm[1:-1, 1:-1, 2:]),
        ):
            inside += faces[0]
            inside += faces[1]
        painted[0] = np.float32(MEAN_MK / 7) * inside + np.float32(NOISE_MK) * painted[0]
        return paste_known(painted, batch.known[b], batch.width[b])


def echo(known: np.ndarray, width: np.ndarray) -> np.float32:
    """A number in [0, 1) that changes with any bit of the known voxels, and with their places.

    known: float32 (t, t, t); width: (3, 2). Integer arithmetic: no order of summation to depend on.
    """
    bits = np.ascontiguousarray(known).view(np.uint32).astype(np.uint64)
    bits[unknown_slices(width, known.shape[0])] = 0
    places = np.arange(1, 2 * bits.size, 2, dtype=np.uint64).reshape(bits.shape)
    bits *= places
    total = np.uint64(bits.sum(dtype=np.uint64))
    mixed = np.array([total]) * _ODD  # an array: a scalar product would warn of the overflow
    mixed ^= mixed >> np.uint64(32)
    mixed *= _ODD
    return np.float32(float(mixed[0] >> np.uint64(40)) * 2.0**-24)
