"""What all diffusion painters share: a batch of tiles from noise to T_b, whatever the denoiser.

    known T_b (mK) ──► units of the denoiser ──► sample (diffusion/) ──► T_b (mK), known pasted back

A painter says, by its `frame`, which units its denoiser works in, and makes the denoiser. The
Gaussian painter's is exact (the oracle), LODI's is a trained network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from bigbox.diffusion import Context, Denoiser, Known, Schedule, impose, sample, told
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.noise import Purpose, normal
from bigbox.painters.base import TileBatch, check_batch, paste_known
from bigbox.painters.calls import own_stream, to_device


class Frame(Protocol):
    """The units of a denoiser for some tiles, and the denoiser itself."""

    def normalise(self, brightness: Tensor) -> Tensor:
        """T_b in mK (B, t, t, t) to the denoiser's units, a new tensor."""
        ...

    def brightness(self, x: Tensor) -> Tensor:
        """The inverse: mK; may use x as its own."""
        ...

    def denoiser(self, context: Context, schedule: Schedule) -> Denoiser: ...


@dataclass(frozen=True)
class DiffusionPainter(ABC):
    """See make_painter for the arguments.

    threads: calls side by side on a CPU, of one batch or several, with one thread each: OpenMP's
    barriers within a call cost more than they bring, and very much more on a machine that is busy
    with other work.
    """

    seed: int
    box_shape: tuple[int, int, int]
    realization: int = 0
    tile: int = 32
    overlap_method: str = "conditioned"
    sampler: str = DEFAULT_SAMPLER
    steps: int = DEFAULT_STEPS[DEFAULT_SAMPLER]
    device: str = "cpu"
    threads: int = 1
    schedule: Schedule = field(init=False)

    name: ClassVar[str]
    input: ClassVar[str]
    margin: ClassVar[int]
    channels: ClassVar[int]
    inner: ClassVar[dict[str, int]]  # `together` on a CPU, and at most on a GPU

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", Schedule(self.steps, **self._schedule_ends()))

    @abstractmethod
    def _schedule_ends(self) -> dict[str, Any]:
        """The schedule but for its number of steps."""

    @abstractmethod
    def frame(self, condition: Tensor) -> Frame:
        """The units for tiles of this input, (B, C, n, n, n)."""

    @abstractmethod
    def _own_identity(self) -> dict[str, Any]:
        """What decides the bytes beside what is common to all."""

    @property
    def fields(self) -> int:
        """T_b, and in the latents method z of the steps 1 .. T - 1 (step T is keyed noise)."""
        return self.steps if self.overlap_method == "latents" else 1

    @property
    def together(self) -> int:
        """Tiles that go through the denoiser in one call. Filled up with copies where there are
        fewer, because the kernels that a library picks, hence the bits, depend on the number."""
        return self.inner[torch.device(self.device).type]

    @property
    def batch(self) -> int:
        """Enough that a batch is long beside what the engine does for it."""
        return max(16, self.together)

    @property
    def parallel(self) -> int:
        """A batch for each thread, so that none waits for the slowest."""
        return self.threads if torch.device(self.device).type == "cpu" else 1

    @property
    def at_once(self) -> int:
        """On a GPU two: while one computes, the voxels of the other come and go."""
        return 2 if torch.device(self.device).type == "cuda" else self.parallel

    def identity(self) -> dict[str, Any]:
        """Everything that decides the painted bytes, as JSON values."""
        return {
            "painter": self.name,
            "version": 4,
            "seed": self.seed,
            "realization": self.realization,
            "tile": self.tile,
            "box_shape": list(self.box_shape),
            "overlap_method": self.overlap_method,
            "sampler": self.sampler,
            "schedule": self.schedule.as_dict(),
            "device": device_name(self.device),
            "together": self.together,
            **self._own_identity(),
        }

    def paint(self, batch: TileBatch) -> np.ndarray:
        """float32 (B, F, t, t, t): T_b in mK, then the step latents in the denoiser's units."""
        check_batch(self, batch, self.tile, channels=self.channels)
        result = np.empty(batch.known.shape, np.float32)

        def some(first: int) -> None:
            part = np.arange(first, min(first + self.together, len(batch)))
            with own_stream(self.device):
                painted = self._paint(batch, np.resize(part, self.together))
            for slot, b in enumerate(part):
                result[b] = paste_known(painted[slot], batch.known[b], batch.width[b])

        side_by_side(self._pool, some, range(0, len(batch), self.together))
        return result

    @cached_property
    def _pool(self) -> ThreadPoolExecutor | None:
        return thread_pool(self.threads, self.device)

    @torch.inference_mode()
    def _paint(self, batch: TileBatch, part: np.ndarray) -> np.ndarray:
        """The tiles `part` of the batch, float32 (len(part), F, t, t, t), nothing pasted yet."""
        condition = self._tensor(batch.inputs[part])
        fields = self._tensor(batch.known[part])
        frame = self.frame(condition)
        x0 = frame.normalise(fields[:, 0]).contiguous()
        known = Known(x0, batch.width[part], fields[:, 1:] if self.fields > 1 else None)
        x0.masked_fill_(~known.mask, 0.0)

        def noise(purpose: Purpose, step: int) -> Tensor:
            drawn = normal(
                self.seed,
                self.realization,
                purpose,
                step,
                batch.origin[part],
                (self.tile,) * 3,
                self.box_shape,
                self.device,
            )
            return drawn.to(x0.dtype)

        context = Context(condition, told(self.overlap_method, known))
        imposition = impose(self.overlap_method, known, self.schedule, noise)
        denoiser = frame.denoiser(context, self.schedule)
        painted = sample(denoiser, self.schedule, self.sampler, noise, imposition)
        brightness = frame.brightness(painted)[:, None]
        latents = imposition.latents
        result = brightness if latents is None else torch.cat([brightness, latents], dim=1)
        return result.float().cpu().numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return to_device(array, self.device)


def device_name(device: str) -> str:
    """The kind of device: bytes are promised for one kind only."""
    where = torch.device(device)
    return torch.cuda.get_device_name(where) if where.type == "cuda" else where.type


def thread_pool(threads: int, device: str) -> ThreadPoolExecutor | None:
    """Threads of one torch thread each, for work side by side on a CPU; none where one will do."""
    if threads == 1 or torch.device(device).type != "cpu":
        return None
    return ThreadPoolExecutor(threads, "tile", torch.set_num_threads, (1,))


def side_by_side(pool: ThreadPoolExecutor | None, work: Any, items: Any) -> None:
    """work(item) for every item, on the pool's threads if there is one."""
    if pool is not None:
        list(pool.map(work, items))
    else:
        for item in items:
            work(item)
