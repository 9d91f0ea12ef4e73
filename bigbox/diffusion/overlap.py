"""How a tile is made to agree with the voxels that earlier tiles have painted (paper section 2.4).

    +----+-----------------------+      conditioned   the denoiser is told the known voxels and how
    |    |                       |                    wide they are; z is left alone
    | k  |      to paint         |      overwrite     the denoiser is told nothing; at every step
    | n  |                       |                    the known part of z is replaced with
    | o  |                       |                    alpha x0_known + sigma eps, one fixed eps per
    | w  |                       |                    voxel (Algorithm 1, its mask read the right
    | n  |                       |                    way round: M = 1 where known)
    |    |                       |      latents       as overwrite, with the z that the earlier tile
    +----+-----------------------+                    itself had at that step
                                        independent   nothing at all: what seams look like

Each method is two things: what the denoiser is told (`told`), and what is done to z before each
call of it (`impose`). Whatever the method, the known voxels are pasted at the end by the painter,
which the paper leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.noise import Purpose

METHODS = ("conditioned", "overwrite", "latents", "independent")


@dataclass(frozen=True)
class Known:
    """The voxels of a batch that earlier tiles have painted.

    x0: (B, t, t, t) in the denoiser's units, 0 where unknown; width: int64 numpy (B, 3, 2), voxels
    of the known slab at the low and the high face of each axis; steps: (B, T - 1, t, t, t), z of
    the steps 1 .. T - 1 (latents method only).
    """

    x0: Tensor
    width: np.ndarray
    steps: Tensor | None = None

    @classmethod
    def nothing(cls, x0: Tensor) -> Known:
        """No known voxels, for a batch shaped like x0."""
        return cls(torch.zeros_like(x0), np.zeros((len(x0), 3, 2), np.int64))

    @cached_property
    def mask(self) -> Tensor:
        """bool (B, t, t, t), true where known."""
        place = np.arange(self.x0.shape[-1])
        inside = (place >= self.width[..., :1]) & (
            place < self.x0.shape[-1] - self.width[..., 1:]
        )  # (B, 3, t)
        unknown = inside[:, 0, :, None, None] & inside[:, 1, None, :, None]
        unknown = unknown & inside[:, 2, None, None, :]
        return torch.from_numpy(~unknown).to(self.x0.device)


@dataclass(frozen=True)
class Context:
    """What a denoiser is told of a batch before the first step.

    condition: (B, C, n, n, n) the painter's input, n = t + 2 margin; known: Known.
    """

    condition: Tensor
    known: Known


def told(method: str, known: Known) -> Known:
    """The known voxels as far as the method lets the denoiser know them."""
    if method not in METHODS:
        raise BadInput(f"overlap method: {method!r} is not one of {', '.join(METHODS)}")
    return known if method == "conditioned" else Known.nothing(known.x0)


class Imposition:
    """What is done to z before a call of the denoiser; this one does nothing."""

    def __call__(self, z: Tensor, step: int) -> None:
        """Change z (B, t, t, t), at noise level `step`, in place."""

    @property
    def latents(self) -> Tensor | None:
        """(B, T - 1, t, t, t), z of the steps 1 .. T - 1 as the denoiser saw it, if kept."""
        return None


class _Overwrite(Imposition):
    """Known voxels noised to the step again, with one fixed eps."""

    def __init__(self, known: Known, schedule: Schedule, eps: Tensor) -> None:
        self.known, self.schedule, self.eps = known, schedule, eps

    def __call__(self, z: Tensor, step: int) -> None:
        noised = self.eps * float(self.schedule.sigmas[step])
        noised.add_(self.known.x0, alpha=float(self.schedule.alphas[step]))
        torch.where(self.known.mask, noised, z, out=z)


class _Latents(Imposition):
    """Known voxels as the earlier tile had them at that step, and this tile's own z kept.

    Step T needs no store: it is pure noise, which is a function of the voxel.
    """

    def __init__(self, known: Known, schedule: Schedule) -> None:
        if known.steps is None:
            raise BadInput("latents method: the step latents of the known voxels are missing")
        self.known, self.stored, self.last = known, known.steps, schedule.steps
        self.kept = torch.empty_like(known.steps)

    def __call__(self, z: Tensor, step: int) -> None:
        if step < self.last:
            torch.where(self.known.mask, self.stored[:, step - 1], z, out=z)
            self.kept[:, step - 1] = z

    @property
    def latents(self) -> Tensor:
        return self.kept


def impose(
    method: str, known: Known, schedule: Schedule, noise: Callable[[Purpose, int], Tensor]
) -> Imposition:
    """What the method does to z at every step; noise(purpose, step): (B, t, t, t)."""
    if method == "overwrite" and known.width.any():
        return _Overwrite(known, schedule, noise(Purpose.KNOWN, 0))
    if method == "latents":
        return _Latents(known, schedule)
    return Imposition()
