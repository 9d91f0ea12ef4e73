"""A denoising step of a call's tiles on a GPU as one CUDA graph, and a whole painting as T of them.

    haloes, known ─► prepare ──────────────────────► prepared
                                                        │
    z (or keyed noise) ─► network ─► x0 ─► z at step - 1, T_b at step 0
        ▲                            │      │
        └────── previous ◄───────────┴──────┘           the next step starts from these

Each tile is at a step of its own: what a step multiplies by comes from a table, a row for a tile.
What is computed is what `DiffusionPainter._advance` and `sample` compute, in another order of the
same sums: they are the reference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bigbox import noise
from bigbox.devices import capture, on_gpu, to_device, to_host
from bigbox.diffusion.overlap import Known
from bigbox.diffusion.samplers import take_step, takes_noise
from bigbox.networks.lodi import clean_estimate
from bigbox.noise import Purpose, last_word

if TYPE_CHECKING:
    from bigbox.painters.base import StepBatch, TileBatch

# Columns of the table: level, alpha and sigma of the step; what z, x0, the estimate before, and
# noise are multiplied by; whether it is the first, the last.
LEVEL, ALPHA, SIGMA, OF_Z, OF_X0, OF_PREVIOUS, OF_NOISE, BEGIN, END = range(9)
_LOCK = threading.Lock()  # kernels are chosen and graphs captured by one thread at a time


def step_table(painter: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the table by step, float32 (T + 1, 9), and the noise's words, int64 (T + 1, 2).

    A step is linear: each column is what it makes of a unit. The words are of what z becomes part
    of: noise to begin with, or fresh noise; the second where a step takes both.
    """
    schedule, (low, high) = painter.schedule, painter.gamma_ends
    table = np.zeros((painter.steps + 1, 9))
    words = np.zeros((painter.steps + 1, 2), np.int64)
    table[:, LEVEL] = (schedule.gammas - low) / (high - low)
    table[:, ALPHA], table[:, SIGMA] = schedule.alphas, schedule.sigmas
    for step in range(1, painter.steps + 1):
        z, x0, previous, fresh = torch.eye(4, dtype=torch.float64)
        begins = step == painter.steps
        stirred = takes_noise(painter.sampler, step, schedule)
        before = None if begins else previous
        made = take_step(painter.sampler, z, x0, before, fresh if stirred else None, step, schedule)
        table[step, OF_Z : OF_NOISE + 1] = made.numpy()
        table[step, BEGIN], table[step, END] = begins, step == 1
        stir = last_word(painter.realization, Purpose.ANCESTRAL, step)
        begin = last_word(painter.realization, Purpose.INITIAL, 0)
        words[step] = (begin if begins else stir), stir
    return table.astype(np.float32), words


class Stepper:
    """Buffers and graphs for one thread's calls of a LodiPainter.

    graph: whether to capture; else each operation is launched by itself.
    """

    def __init__(self, painter: Any, graph: bool | None = None):
        self.painter = painter
        self.graph = on_gpu(painter.device) if graph is None else graph
        self._table, self._words = step_table(painter)
        self._two_noises = painter.sampler == "ancestral"  # its first step takes both
        batch, tile, channels = painter.tiles_per_call, (painter.tile,) * 3, painter.channels
        new = partial(torch.zeros, device=painter.device)
        self.inputs = new((batch, channels, *tile))
        self.z, self.previous, self.known = (new((batch, *tile)) for _ in range(3))
        self.mask = new((batch, *tile), dtype=torch.bool)
        self.rows = new((batch, self._table.shape[1]))
        self.words, self.corners = (
            new((2, batch), dtype=torch.int64),
            new((batch, 3), dtype=torch.int64),
        )
        self.result = new((batch, 2, *tile))
        self.prepared: Tensor = torch.empty(0)
        self._pinned: dict[str, Tensor] = {}
        with _LOCK, torch.inference_mode():
            painter.compiled_network  # noqa: B018  its kernels are chosen now
            self.prepare = self._captured(self._prepare)
            self.step = self._captured(self._step)

    @torch.inference_mode()
    def advance(self, batch: StepBatch, part: np.ndarray) -> np.ndarray:
        """Take the tiles `part` one step on: float32 (len(part), 2, t, t, t), z and x0."""
        self._give_inputs(batch, part)
        self._give("z", batch.z, part)
        self._give("previous", batch.previous, part)
        self._tell(batch.origin[part], batch.step[part])
        self.prepare()
        self.step()
        return self._taken(self.result)

    @torch.inference_mode()
    def paint(self, batch: TileBatch, part: np.ndarray, shown: bool) -> np.ndarray:
        """Paint the tiles `part` in T steps: T_b in mK, float32 (len(part), 1, t, t, t).

        shown: whether the denoiser sees the known voxels.
        """
        self._give("inputs", batch.inputs, part)
        if shown:
            tb = self.painter.model.transform("tb")
            known = Known(self.known, batch.width[part])
            self._give("known", batch.known[:, 0], part)
            self.mask.copy_(known.mask)
            self.known.copy_(torch.where(self.mask, tb.forward(self.known), 0.0))
        self.prepare()
        for step in range(self.painter.steps, 0, -1):
            self._tell(batch.origin[part], np.full(len(part), step))
            self.step()
        return self._taken(self.result[:, :1])

    def _give_inputs(self, batch: StepBatch, part: np.ndarray) -> None:
        """Fill the inputs of the tiles `part`: those given now, and those kept on the device."""
        row_of = np.full(len(batch), -1)
        given = np.arange(len(batch)) if batch.given is None else batch.given
        row_of[given] = np.arange(len(given))
        new, rows = np.flatnonzero(row_of[part] >= 0), row_of[part]
        if len(new) == len(part):
            self._give("inputs", batch.inputs, rows)
        elif len(new):
            now = to_device(batch.inputs[rows[new]], self.painter.device)
            self.inputs.index_copy_(0, self._numbers(new), now)
        if batch.place is None:
            return
        place = batch.place[part]
        if len(keep := new[place[new] >= 0]):
            keep = keep[np.unique(place[keep], return_index=True)[1]]  # `part` has copies
            now = self.inputs.index_select(0, self._numbers(keep))
            self.painter.kept.index_copy_(0, self._numbers(place[keep]), now)
        if len(old := np.flatnonzero(rows < 0)):
            kept = self.painter.kept.index_select(0, self._numbers(place[old]))
            self.inputs.index_copy_(0, self._numbers(old), kept)

    def _numbers(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.inputs.device)

    def _give(self, name: str, array: np.ndarray, part: np.ndarray) -> None:
        """Copy rows of an array to the buffer of that name, on a GPU from pinned memory."""
        target: Tensor = getattr(self, name)
        source = torch.from_numpy(np.asarray(array, np.float32))
        first, count = int(part[0]), len(np.unique(part))
        if np.array_equal(part, np.resize(np.arange(first, first + count), len(part))):
            # Rows in a row, and then copies of them: nothing is gathered here.
            source = source[first : first + count]
            if not target.is_cuda or source.is_pinned():
                target[:count].copy_(source, non_blocking=True)
                if count < len(part):
                    copies = self._numbers(np.arange(count, len(part)) % count)
                    target[count:] = target.index_select(0, copies)
                return
        if not target.is_cuda:
            target.copy_(torch.from_numpy(array[part]))
            return
        if name not in self._pinned:
            self._pinned[name] = torch.empty(target.shape, dtype=target.dtype, pin_memory=True)
        pinned = self._pinned[name]
        np.take(array, part, axis=0, out=pinned.numpy(), mode="clip")
        target.copy_(pinned, non_blocking=True)

    def _taken(self, result: Tensor) -> np.ndarray:
        """Return a copy of a result, which the next call overwrites."""
        return to_host(result if result.is_cuda else result.clone())

    def _tell(self, corners: np.ndarray, steps: np.ndarray) -> None:
        """Say where the tiles are, and their steps.

        Small arrays in pageable memory: a copy of them waits for nothing but itself.
        """
        self.rows.copy_(torch.from_numpy(self._table[steps]))
        self.words.copy_(torch.from_numpy(np.ascontiguousarray(self._words[steps].T)))
        self.corners.copy_(torch.from_numpy(np.ascontiguousarray(corners, np.int64)))

    def _prepare(self) -> None:
        painter = self.painter
        halo = painter.model.transform("halo").forward(self.inputs)
        self.prepared = painter.network.prepare(halo, self.known, self.mask)

    def _step(self) -> None:
        """Take all tiles a step on, in place, and leave z (T_b at the last step) and x0."""
        painter, row = self.painter, self.rows[:, :, None, None, None]
        fresh = self._noise(0)
        z = torch.where(row[:, BEGIN] > 0, fresh, self.z)
        if self._two_noises:
            fresh = self._noise(1)
        output = painter.compiled_network.network(z, self.rows[:, LEVEL], self.prepared).float()
        parametrisation = painter.network.size.parametrisation
        x0 = clean_estimate(parametrisation, z, output, row[:, ALPHA], row[:, SIGMA])
        x0 = torch.where(self.mask, self.known, x0)
        z = row[:, OF_Z] * z + row[:, OF_X0] * x0
        z = z + row[:, OF_PREVIOUS] * self.previous + row[:, OF_NOISE] * fresh
        tb = painter.model.transform("tb").inverse(z)
        self.z.copy_(z)
        self.previous.copy_(x0)
        self.result[:, 0] = torch.where(row[:, END] > 0, tb, z)
        self.result[:, 1] = x0

    def _noise(self, which: int) -> Tensor:
        painter, words = self.painter, self.words[which]
        if on_gpu(painter.device):
            from bigbox.noise_kernel import normals

            return normals(painter.seed, words, self.corners, painter.tile, painter.box_shape)
        drawn = []
        for word, corner in zip(words.tolist(), self.corners.numpy(), strict=True):
            purpose, step = word >> 12 & 0xF, word & 0xFFF
            key = painter.seed, painter.realization, purpose, step
            drawn.append(noise.normal(*key, corner, (painter.tile,) * 3, painter.box_shape))
        return torch.from_numpy(np.stack(drawn))

    def _captured(self, work: Callable[[], None]) -> Callable[[], Any]:
        """Return the work as a graph that replays it, or as it is."""
        if not self.graph:
            work()
            return work
        return capture(work)[0].replay
