"""What all diffusion painters share: a batch of tiles from noise to T_b, whatever the denoiser.

    known T_b (mK) ──► units of the denoiser ──► sample (diffusion/) ──► T_b (mK), known pasted back

A painter says which units its denoiser works in, and makes the denoiser. The Gaussian painter's is
exact (the oracle), LODI's is a trained network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bigbox.devices import device_name, on_gpu, own_stream, side_by_side, thread_pool, to_device
from bigbox.diffusion.overlap import Known, OverlapMethod, overlap_method
from bigbox.diffusion.samplers import Denoiser, check_sampler, sample, take_step, takes_noise
from bigbox.diffusion.schedule import Schedule
from bigbox.names import DEFAULT_OVERLAP_METHOD, DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.noise import Purpose, normal
from bigbox.painters.base import (
    StepBatch,
    TileBatch,
    check_batch,
    empty_array,
    grid_in_identity,
    paste_known,
)
from bigbox.painters.settings import PainterSettings


@dataclass(frozen=True)
class DenoiserUnits:
    """The units of a denoiser for some tiles, and the denoiser itself."""

    normalise: Callable[[Tensor], Tensor]  # T_b in mK (B, t, t, t) to these units, a new tensor
    brightness: Callable[[Tensor], Tensor]  # the inverse, which may use its tensor as its own
    denoiser: Callable[[Known], Denoiser]  # of these tiles, shown these known voxels


@dataclass(frozen=True)
class DiffusionPainter(ABC):
    """See `bigbox.painters.settings.PainterSettings` for the arguments.

    Each of the threads of a CPU makes calls of its own: OpenMP's barriers within a call cost more
    than they bring, and very much more on a machine that is busy with other work.
    """

    seed: int
    box_shape: tuple[int, int, int]
    realization: int = 0
    tile: int = 32
    overlap_method: str = DEFAULT_OVERLAP_METHOD
    sampler: str = DEFAULT_SAMPLER
    steps: int = DEFAULT_STEPS[DEFAULT_SAMPLER]
    device: str = "cpu"
    threads: int = 1

    name: ClassVar[str]
    input: ClassVar[str]
    margin: ClassVar[int]
    channels: ClassVar[int]
    TILES_PER_CALL: ClassVar[dict[str, int]]  # on a CPU, and at most on a GPU

    @classmethod
    def from_settings(cls, settings: PainterSettings, **own: Any) -> Self:
        """Return the painter of these settings; own: fields that only this painter has."""
        return cls(**settings.of(cls) | {"steps": settings.calls} | own)

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The noise levels, of `steps` calls."""

    @abstractmethod
    def units(self, condition: Any) -> DenoiserUnits:
        """Return the units for tiles of this condition: (B, C, n, n, n), but of who says else."""

    @abstractmethod
    def _own_identity(self) -> dict[str, Any]:
        """Return what decides the bytes beside what is common to all."""

    @property
    def grid(self) -> int:
        """Voxels of dm on an axis for one of a tile."""
        return 1

    @cached_property
    def method(self) -> type[OverlapMethod]:
        """The class of `overlap_method`."""
        return overlap_method(self.overlap_method)

    @property
    def fields(self) -> int:
        """T_b, and z of the steps 1 .. T - 1 where the method stores it (step T is keyed noise)."""
        return self.steps if self.method.stores_latents else 1

    @property
    def tiles_per_call(self) -> int:
        """Tiles in one call of the denoiser, filled up with copies: the number decides bits."""
        return self.TILES_PER_CALL[torch.device(self.device).type]

    @property
    def batch(self) -> int:
        """Enough that a batch is long beside what the engine does for it."""
        return max(16, self.tiles_per_call)

    @property
    def full_speed_streams(self) -> int:
        """A batch for each thread, so that none waits for the slowest."""
        return self.threads if torch.device(self.device).type == "cpu" else 1

    @property
    def streams(self) -> int:
        """On a GPU two: while one computes, the voxels of the other come and go."""
        return 2 if on_gpu(self.device) else self.full_speed_streams

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the painted bytes, as JSON values."""
        return {
            "painter": self.name,
            "version": 5,
            "seed": self.seed,
            "realization": self.realization,
            "tile": self.tile,
            "box_shape": list(self.box_shape),
            **grid_in_identity(self.grid),
            "overlap_method": self.overlap_method,
            "sampler": self.sampler,
            "schedule": asdict(self.schedule),
            "device": device_name(self.device),
            "together": self.tiles_per_call,
            **self._own_identity(),
        }

    def paint(self, batch: TileBatch) -> np.ndarray:
        """Return T_b in mK, then step latents in the denoiser's units, float32 (B, F, t, t, t)."""
        check_batch(self, batch)
        result = np.empty(batch.known.shape, np.float32)
        for b, painted in self._calls(self._paint, batch):
            result[b] = paste_known(painted, batch.known[b], batch.width[b])
        return result

    def advance(self, batch: StepBatch) -> np.ndarray:
        """Return z at step - 1, T_b in mK where that is 0, and x0: float32 (B, 2, t, t, t)."""
        check_batch(self, batch)
        check_sampler(self.sampler, self.schedule)
        if len(batch) <= self.tiles_per_call:
            return self._one_call(self._advance, batch)[: len(batch)]
        result = np.empty((len(batch), 2, *batch.z.shape[1:]), np.float32)
        for b, advanced in self._calls(self._advance, batch):
            result[b] = advanced
        return result

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a float32 array for a batch: for a GPU of pinned memory, which torch keeps."""
        if not on_gpu(self.device):
            return empty_array(shape)
        with torch.cuda.device(torch.device(self.device)):
            return torch.empty(shape, pin_memory=True).numpy()

    def _calls(
        self, work: Callable[[Any, np.ndarray], np.ndarray], batch: TileBatch | StepBatch
    ) -> list[tuple[int, np.ndarray]]:
        """Return what `work` makes of each tile, `tiles_per_call` at a time."""
        found: list[tuple[int, np.ndarray]] = []

        def one_call(first: int) -> None:
            made = self._one_call(work, batch, first)
            found.extend(zip(range(first, len(batch)), made, strict=False))

        side_by_side(self._pool, one_call, range(0, len(batch), self.tiles_per_call))
        return found

    def _one_call(
        self,
        work: Callable[[Any, np.ndarray], np.ndarray],
        batch: TileBatch | StepBatch,
        first: int = 0,
    ) -> np.ndarray:
        """Return what `work` makes of `tiles_per_call` tiles from the first, copies if need be."""
        part = np.arange(first, min(first + self.tiles_per_call, len(batch)))
        with own_stream(self.device):
            return work(batch, np.resize(part, self.tiles_per_call))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor | None:
        return thread_pool(self.threads, self.device)

    @torch.inference_mode()
    def _paint(self, batch: TileBatch, part: np.ndarray) -> np.ndarray:
        """Return the tiles `part`, float32 (len(part), F, t, t, t), nothing pasted yet."""
        units = self.units(self.condition(batch, part))
        values = self._tensor(batch.known[part])
        x0 = units.normalise(values[:, 0]).contiguous()
        known = Known(x0, batch.width[part], values[:, 1:] if self.fields > 1 else None)
        x0.masked_fill_(~known.mask, 0.0)

        noise = partial(self._noise, batch.origin[part], x0.dtype)
        method = self.method(known, self.schedule, noise)
        painted = sample(
            units.denoiser(method.shown()), self.schedule, self.sampler, noise, method.before_step
        )
        result = units.brightness(painted)[:, None]
        if method.latents is not None:
            result = torch.cat([result, method.latents], dim=1)
        return result.float().cpu().numpy()

    @torch.inference_mode()
    def _advance(self, batch: StepBatch, part: np.ndarray) -> np.ndarray:
        """Take the tiles `part` one step on: float32 (len(part), 2, t, t, t)."""
        units = self.units(self.condition(batch, part))
        z, previous = self._tensor(batch.z[part]), self._tensor(batch.previous[part])
        steps, origin = batch.step[part], batch.origin[part]
        if len(begun := np.flatnonzero(steps == self.steps)):
            z[begun] = self._noise(origin[begun], z.dtype, Purpose.INITIAL, 0)
        x0 = units.denoiser(Known.nothing(z)).denoise(z, steps)
        for step in np.unique(steps).tolist():
            rows = np.flatnonzero(steps == step)
            noise = None
            if takes_noise(self.sampler, step, self.schedule):
                noise = self._noise(origin[rows], z.dtype, Purpose.ANCESTRAL, step)
            before = previous[rows] if step < self.steps else None
            z[rows] = take_step(self.sampler, z[rows], x0[rows], before, noise, step, self.schedule)
        if len(ended := np.flatnonzero(steps == 1)):
            z[ended] = units.brightness(z.clone())[ended]
        return torch.stack([z, x0], dim=1).float().cpu().numpy()

    def condition(self, batch: TileBatch | StepBatch, part: np.ndarray) -> Any:
        """Return what `units` takes of the tiles `part`: their inputs (B, C, n, n, n), or more."""
        return self._tensor(batch.inputs[part])

    def _noise(self, origin: np.ndarray, dtype: torch.dtype, purpose: Purpose, step: int) -> Tensor:
        """Return normals of tiles by their voxels, (B, t, t, t)."""
        key, edges = (self.seed, self.realization, purpose, step), (self.tile,) * 3
        drawn: Tensor = normal(*key, origin, edges, self.box_shape, self.device)
        return drawn.to(dtype)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return to_device(array, self.device)
