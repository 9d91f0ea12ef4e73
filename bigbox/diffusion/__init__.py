"""Denoising: the noise schedule, the samplers, and what a tile is made to know of its neighbours.

    schedule.py   how noisy the tile is at each step
    samplers.py   one denoising step, and the loop over the steps
    overlap.py    how the voxels of earlier tiles enter: told to the denoiser, or put into its input

A sampler and an overlap method are chosen independently. A network plugs in as a Denoiser: one
method, denoise(z, step) -> estimate of the clean tile, made for a Context (condition, known).
"""

from __future__ import annotations

from bigbox.diffusion.overlap import Context, Imposition, Known, impose, told
from bigbox.diffusion.samplers import Denoiser, sample
from bigbox.diffusion.schedule import Schedule

__all__ = ["Context", "Denoiser", "Imposition", "Known", "Schedule", "impose", "sample", "told"]
