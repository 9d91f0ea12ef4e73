"""Painters without a network, of tb and of haloes, for tests of the engine and its speed.

Every voxel of tb depends on every bit of the tile's known voxels, and where it is painted from
haloes on every bit of those above it, so that a wrong, stale or missing voxel changes bytes. They
are no model of anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from bigbox.diffusion.overlap import overlap_method
from bigbox.noise import Purpose, normal
from bigbox.painters.base import (
    StepBatch,
    TileBatch,
    check_batch,
    grid_in_identity,
    paste_known,
    unknown_slices,
)
from bigbox.painters.settings import HaloSettings, PainterSettings

MEAN_MK = 0.05  # T_b where the matter density is its mean
NOISE_MK = 0.02
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class TrivialPainter:
    """T_b = 0.05 mK <1+delta> over a voxel and its six faces + 0.02 mK (noise + echo of the known).

    It can stand for a device of any speed: a GPU has 2 streams, 1 of them at full speed.
    """

    seed: int
    box_shape: tuple[int, int, int]
    realization: int = 0
    tile: int = 32
    latents: int = 0  # steps stored, as by the latents method
    steps: int = 0  # that a tile takes where all are painted together; 0: they are not
    seconds_per_tile: float = 0.0  # at least: paint() sleeps
    streams: int = 1
    full_speed_streams: int = 1
    grid: int = 1  # of dm every so many voxels are given
    most_kept: int = 0  # tiles whose inputs it keeps from step to step

    name: ClassVar[str] = "trivial"
    input: ClassVar[str] = "dm"
    margin: ClassVar[int] = 1
    channels: ClassVar[int] = 1
    batch: ClassVar[int] = 16

    @classmethod
    def from_settings(cls, settings: PainterSettings) -> Self:
        """Return the painter of these settings."""
        together = overlap_method(settings.overlap_method).together
        steps = {"steps": settings.calls if together else 0}
        return cls(latents=settings.fields - 1, **settings.of(cls) | steps)

    @property
    def fields(self) -> int:
        """T_b and the step latents."""
        return 1 + self.latents

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the painted bytes; the pace is no part of it."""
        return {
            "painter": self.name,
            "version": 1,
            "seed": self.seed,
            "realization": self.realization,
            "tile": self.tile,
            "box_shape": list(self.box_shape),
            "latents": self.latents,
            **grid_in_identity(self.grid),
            **({"steps": self.steps} if self.steps else {}),
        }

    def paint(self, batch: TileBatch) -> np.ndarray:
        """Return T_b in mK, then step latents (unit noise plus echo), float32 (B, F, t, t, t)."""
        start = time.perf_counter()
        check_batch(self, batch)
        result = np.empty(batch.known.shape, np.float32)
        for b in range(len(batch)):
            result[b] = self._tile(batch, b)
        _sleep_until(start + self.seconds_per_tile * len(batch))
        return result

    def _tile(self, batch: TileBatch, b: int) -> np.ndarray:
        painted = np.empty(batch.known.shape[1:], np.float32)
        for field in range(self.fields):
            key = (self.seed, self.realization, Purpose.PAINT, field)
            noise = normal(*key, batch.origin[b], (self.tile,) * 3, self.box_shape)
            painted[field] = noise + echo(batch.known[b, field], batch.width[b])
        painted[0] = self._signal(batch.inputs[b]) + np.float32(NOISE_MK) * painted[0]
        return paste_known(painted, batch.known[b], batch.width[b])

    def advance(self, batch: StepBatch) -> np.ndarray:
        """Return z at step - 1, T_b in mK at the last, and x0: float32 (B, 2, t, t, t).

        Both depend on every bit of the field under the tile.
        """
        start = time.perf_counter()
        check_batch(self, batch)
        result = np.empty((len(batch), 2, *batch.z.shape[1:]), np.float32)
        for row, origin, inputs, z, previous, step in zip(
            result, batch.origin, self._inputs(batch), batch.z, batch.previous, batch.step.tolist(),
            strict=True,
        ):  # fmt: skip
            key = (self.seed, self.realization, Purpose.PAINT, step)
            noise = normal(*key, origin, z.shape, self.box_shape)
            if step == self.steps:
                z, previous = noise, np.float32(0) * noise
            signal, told = self._signal(inputs), echo(z)
            row[1] = z / 4 + told
            row[0] = z / 2 + previous / 4 + noise / 4 + signal + told
            if step == 1:
                row[0] = signal + np.float32(NOISE_MK) * row[0]
        _sleep_until(start + self.seconds_per_tile * len(batch) / self.steps)
        return result

    def keep(self, tiles: int) -> range:
        """Return places for the inputs of tiles: others each time, of ranks in one process."""
        first = len(self._kept)
        self._kept.extend([np.empty(0)] * min(tiles, self.most_kept))
        return range(first, len(self._kept))

    def _inputs(self, batch: StepBatch) -> Iterator[np.ndarray]:
        """Yield the inputs of each tile, given now or kept."""
        given = range(len(batch)) if batch.given is None else batch.given.tolist()
        now = dict(zip(given, batch.inputs, strict=True))
        places = [-1] * len(batch) if batch.place is None else batch.place.tolist()
        for row, place in enumerate(places):
            if place >= 0 and row in now:
                self._kept[place] = now[row].copy()
            yield now[row] if row in now else self._kept[place]

    @cached_property
    def _kept(self) -> list[np.ndarray]:
        return []

    def _signal(self, inputs: np.ndarray) -> np.ndarray:
        return np.float32(MEAN_MK / 7) * with_faces(inputs[0])


@dataclass(frozen=True)
class TrivialOnHaloes(TrivialPainter):
    """The same from haloes: T_b = 0.05 mK x a number in [0, 1) made of the bits of the channels."""

    name: ClassVar[str] = "trivial-halo"
    input: ClassVar[str] = "halo"
    margin: ClassVar[int] = 0
    channels: ClassVar[int] = 4

    def _signal(self, inputs: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(inputs).view(np.uint32).astype(np.uint64)
        mixed = np.zeros(bits.shape[1:], np.uint64)
        for channel in bits:
            mixed = (mixed ^ channel) * _ODD
            mixed ^= mixed >> np.uint64(29)
        share = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return np.float32(MEAN_MK) * share


@dataclass(frozen=True)
class TrivialHaloes:
    """log10 rho_h = 8.8 + <1+delta> / 4 of a voxel and its faces, 3 at most, + 0.1 channel + slope.

    The slope runs through the window, steeper in z than in x, so that windows do not agree.
    """

    stride: int = 16
    batch: int = 4
    window: int = 64
    seconds_per_window: float = 0.0  # at least: predict() sleeps
    taper: int = 1  # weights rise from 1 to this towards the window's middle
    grid: int = 1  # of dm every so many voxels are taken, each with its faces

    name: ClassVar[str] = "trivial-halo"
    margin: ClassVar[int] = 1
    channels: ClassVar[int] = 4

    @classmethod
    def from_settings(cls, settings: HaloSettings) -> Self:
        """Return the painter of these settings."""
        return cls(**settings.of(cls))

    @property
    def weights(self) -> np.ndarray:
        """int64 (window,)."""
        place = np.arange(self.window)
        return np.minimum(np.minimum(place, place[::-1]) + 1, self.taper).astype(np.int64)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the haloes' bytes."""
        return {
            "painter": self.name,
            "version": 1,
            "window": self.window,
            "stride": self.stride,
            "taper": self.taper,
            **grid_in_identity(self.grid),
        }

    def attributes(self) -> dict[str, Any]:
        """Return attributes of the halo array."""
        return {"source": "trivial painter: no model of anything"}

    def predict(self, dm: np.ndarray) -> np.ndarray:
        """Return log10 of rho_h in (M_sun/h) / (Mpc/h)^3, float32 (B, 4, w, w, w)."""
        start = time.perf_counter()
        steps = np.arange(self.window, dtype=np.float32) / np.float32(self.window)
        slope = (steps[:, None, None] + 2 * steps[:, None] + 3 * steps) / np.float32(8)
        found = np.empty((len(dm), self.channels, *(self.window,) * 3), np.float32)
        for row, inputs in zip(found, dm, strict=True):
            total = with_faces(inputs)[(slice(None, None, self.grid),) * 3]
            density = np.minimum(total / np.float32(28), np.float32(3))
            for channel in range(self.channels):
                row[channel] = np.float32(8.8) + density + slope + np.float32(0.1 * channel)
        _sleep_until(start + self.seconds_per_window * len(dm))
        return found


def _sleep_until(end: float) -> None:
    time.sleep(max(0.0, end - time.perf_counter()))


def with_faces(dm: np.ndarray) -> np.ndarray:
    """Return the sum of each voxel and its six neighbours: (n + 2,)^3 -> (n,)^3."""
    inside, faces = (slice(1, -1),) * 3, (slice(None, -2), slice(2, None))
    total = dm[inside].copy()
    for axis in range(3):
        for face in faces:
            total += dm[(*inside[:axis], face, *inside[axis + 1 :])]
    return total


def echo(known: np.ndarray, width: np.ndarray | None = None) -> np.float32:
    """Return a number in [0, 1) that changes with any bit of the known voxels and their places.

    known: float32 (t, t, t); width: (3, 2), None where all are known. Integer arithmetic: no order
    of summation to depend on.
    """
    bits = np.ascontiguousarray(known).view(np.uint32).astype(np.uint64)
    if width is not None:
        bits[unknown_slices(width, known.shape[0])] = 0
    places = np.arange(1, 2 * bits.size, 2, dtype=np.uint64).reshape(bits.shape)
    bits *= places
    total = np.uint64(bits.sum(dtype=np.uint64))
    mixed = np.array([total]) * _ODD  # an array: a scalar product would warn of the overflow
    mixed ^= mixed >> np.uint64(32)
    mixed *= _ODD
    return np.float32(float(mixed[0] >> np.uint64(40)) * 2.0**-24)
