"""Decode: flow matching as a painter of tiles, told the latents of a box.

    latents by voxel ──masked at t──► LocalVelocity(x_t, t) ──► v ──► x_1 = x_t + (1 - t) v

The path x_t = t x_1 + (1 - t) x_0 is that of a diffusion, z = alpha x_1 + sigma x_0, up to the
length of (t, 1 - t). So the samplers, the noise and the joint engine are those of all diffusion
painters: a step asks for the estimate of x_1 that goes with v. The masks are those of the time at
which v is asked for.

At the end each cell is given the mean density that the box had, so that the power spectrum is right
on scales above a cell, however well the network is trained:

    tile    ..|cccc|cccc|cccc|..      a cell that has a voxel of a tile's core lies in the tile: a
    core       |<-------->|           margin of CELL - 1 voxels does for that

What comes out is a draw of the field given its latents, not the field: what the latents do not tell
is made up, and another seed makes up something else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bigbox.cosmoflow.compressed import Compressed
from bigbox.cosmoflow.local import CELL, LocalFlow
from bigbox.cosmoflow.solvers import flow_times
from bigbox.devices import on_gpu
from bigbox.diffusion.schedule import STRAIGHT_PATH, Schedule
from bigbox.errors import BadInput
from bigbox.networks.model import Model
from bigbox.painters.base import StepBatch, TileBatch
from bigbox.painters.diffusion import DenoiserUnits, DiffusionPainter

TILE = 32
# As those of the exact denoiser (bigbox/diffusion/schedule.py). No condition is as smooth as its
# field, so that less noise is needed at first, and a voxel is never known to less than 2 %.
SCHEDULES: dict[str, dict[str, Any]] = {
    "dpmpp-sde": {"gamma_min": -7.0, "gamma_max": 7.0, "skew": 0.4, "to_zero": True},
    "dpmpp": {"gamma_min": -7.0, "gamma_max": 8.0, "skew": 0.5, "to_zero": True},
    "ancestral": {"gamma_min": -9.0, "gamma_max": 8.0, "skew": 0.0, "to_zero": False},
    **STRAIGHT_PATH,
}


@dataclass(frozen=True)
class Told:
    """What some tiles are told."""

    latents: Tensor  # (B, C, t, t, t), the learned ones by voxel
    mass: Tensor  # (B, t, t, t), the mean density of the cell that a voxel is in
    offset: np.ndarray  # int64 (B, 3), voxels of a tile's first cell that are not in the tile

    def conserve(self, density: Tensor) -> Tensor:
        """Return the density (B, t, t, t) with each whole cell's mean as it is told."""
        found = torch.empty_like(density)
        for one, told, first, to in zip(
            density, self.mass, self.offset.tolist(), found, strict=True
        ):
            # Zeros to whole cells; the last axis comes first.
            sides = [side for a in reversed(first) for side in (a, -(a + TILE) % CELL)]
            means = functional.avg_pool3d(functional.pad(one, sides)[None, None], CELL)[0, 0]
            for axis, a in enumerate(first):
                at = (torch.arange(TILE, device=one.device) + a) // CELL
                means = means.index_select(axis, at)
            to[:] = torch.where(means > 0, one * (told / means.clamp(min=1e-20)), told)
        return found


@dataclass(frozen=True)
class FlowDenoiser:
    """The velocity network for one batch of tiles, as an estimate of the clean tile."""

    painter: LatentPainter
    latents: Tensor  # (B, C, t, t, t)

    def denoise(self, z: Tensor, step: int | np.ndarray) -> Tensor:
        """Return x_1 = x_t + (1 - t) v, (B, t, t, t)."""
        times = np.broadcast_to(np.atleast_1d(self.painter.times[step]), (len(z),))
        time = torch.from_numpy(times.astype(np.float32)).to(z.device)
        by = time[:, None, None, None]
        x = z * (by**2 + (1 - by) ** 2).sqrt()
        return x + (1 - by) * self.painter.flow.velocity(x, time, self.latents)


@dataclass(frozen=True)
class LatentPainter(DiffusionPainter):
    """Paints a field from its latents; see PainterSettings for the other arguments."""

    model: Model = field(kw_only=True)
    latents: Compressed = field(kw_only=True)

    name: ClassVar[str] = "cosmoflow"
    input: ClassVar[str] = ""  # latents are coarser than any array of the box: it reads them itself
    margin: ClassVar[int] = 0
    channels: ClassVar[int] = 0
    TILES_PER_CALL: ClassVar[dict[str, int]] = {"cpu": 4, "cuda": 64}

    def __post_init__(self) -> None:
        if self.tile != TILE:
            raise BadInput(
                f"cosmoflow painter: tile {self.tile}, the network paints {TILE}³ voxels"
            )

    @cached_property
    def schedule(self) -> Schedule:
        """The noise levels."""
        return Schedule(self.steps, **SCHEDULES[self.sampler])

    @cached_property
    def times(self) -> np.ndarray:
        """float64 (steps + 1,): the flow's time by step, 1 at step 0."""
        return flow_times(self.schedule)

    @cached_property
    def flow(self) -> LocalFlow:
        """The networks, on the device."""
        network = self.model.network.to(self.device)
        assert isinstance(network, LocalFlow)
        return network

    def _own_identity(self) -> dict[str, Any]:
        return {
            "model": self.model.sha256,
            "latents": self.latents.attributes["latent_sha256"],
        }

    def attributes(self) -> dict[str, Any]:
        """Return what dm says of itself."""
        return {"smoothing": 0.0, "source": "decompressed: a draw of the field given its latents"}

    def _advance(self, batch: StepBatch, part: np.ndarray) -> np.ndarray:
        # Convolutions of one voxel have other last bits on two threads than on one.
        if not on_gpu(self.device) and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        return super()._advance(batch, part)

    def condition(self, batch: TileBatch | StepBatch, part: np.ndarray) -> Told:
        """Return what is told of tiles."""
        cells, corners, told = TILE // CELL + 1, batch.origin[part], []
        for corner in corners.tolist():
            under = self.latents.read([c // CELL for c in corner], (cells,) * 3)
            for axis, first in enumerate(corner, start=1):
                under = under.take((np.arange(TILE) + first % CELL) // CELL, axis)
            told.append(under)
        latents = self._tensor(np.stack(told))
        floor = self.flow.encoder.transform.floor
        return Told(latents[:, 1:], floor * (10.0 ** latents[:, 0] - 1.0), corners % CELL)

    def units(self, condition: Told) -> DenoiserUnits:
        """Return the logarithm's units of tiles."""
        transform = self.flow.encoder.transform
        return DenoiserUnits(
            normalise=transform.forward,
            brightness=lambda x: condition.conserve(transform.inverse(x)),
            denoiser=lambda known: FlowDenoiser(self, condition.latents),
        )
