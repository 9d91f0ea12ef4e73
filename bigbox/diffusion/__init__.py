"""Denoising: the noise schedule, the samplers, and what a tile is made to know of its neighbours.

    schedule.py   how noisy the tile is at each step
    samplers.py   one denoising step, and the loop over the steps
    overlap/      how the voxels of earlier tiles enter: one module for each method

A sampler and an overlap method are chosen independently. A network plugs in as a Denoiser: one
method, denoise(z, step) -> estimate of the clean tile.
"""
