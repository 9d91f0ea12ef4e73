"""The paper's recipe, written straightforwardly: what the speed of bigbox is measured against.

Mishra, Trotta & Viel 2025 (LODI), sections 2.1.1 and 2.4, with the networks that bigbox ships:
HALOgen in windows 16 voxels apart, flat average; LODI in eight stages by the parity of a tile's
place, each begun when the one before is done, 50 ancestral steps, the known voxels noised again at
every step (Algorithm 1) and pasted at the end; eager float32; everything in memory, stored at the
end. It uses the networks and nothing else of bigbox. It paints the voxels that the networks are
for: of dm, smoothed with all its voxels, every second one on each axis where a card's grid is 2.

LODI needs an even number of tiles on an axis. They overlap by 4 voxels where there are 56 m painted
voxels, and elsewhere by more.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import Tensor

from bigbox.networks.model import Model, load_model
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic

WINDOW, STRIDE, TILE, OVERLAP, STEPS = 64, 16, 32, 4, 50
GAMMA = (-9.0, 8.0)  # ends of the linear schedule
BATCH = 4


@torch.inference_mode()
def haloes(model: Model, dm: np.ndarray) -> np.ndarray:
    """rho_h (4, N, N, N) of a periodic box of 1 + delta, N painted voxels on an axis."""
    kernel = gaussian_kernel(model.card["smoothing"], model.card["voxel_size"])
    every = (slice(None, None, model.card.get("grid", 1)),) * 3
    smoothed = np.ascontiguousarray(smooth_periodic(dm, kernel)[every])
    x = model.transform("dm").forward(torch.from_numpy(smoothed))
    n = len(smoothed)
    window = min(WINDOW, n - n % 8)  # three poolings
    total, count = np.zeros((4, n, n, n), np.float32), np.zeros((n, n, n), np.float32)
    for corner in itertools.product(range(0, n, STRIDE), repeat=3):
        place = np.ix_(*((c + np.arange(window)) % n for c in corner))
        predicted = model.network(x[place][None, None])[0].numpy()
        total[(slice(None), *place)] += predicted
        count[place] += 1
    halo = model.transform("halo")
    logs = total / count * halo.std + halo.mean
    return np.where(logs >= 9.5, 10**logs, 0.0).astype(np.float32)


@torch.inference_mode()
def brightness(model: Model, halo: np.ndarray, seed: int, steps: int = STEPS) -> np.ndarray:
    """T_b (N, N, N), mK, on haloes (4, N, N, N)."""
    n = halo.shape[1]
    count = 2 * -(-n // (2 * (TILE - OVERLAP)))  # even, as the eight stages need
    starts = [n * i // count for i in range(count)]
    condition = model.transform("halo").forward(torch.from_numpy(halo))
    painted, known = torch.zeros(n, n, n), torch.zeros(n, n, n)
    generator = torch.Generator().manual_seed(seed)
    for parity in itertools.product((0, 1), repeat=3):
        stage = list(itertools.product(*(range(p, count, 2) for p in parity)))
        for first in range(0, len(stage), BATCH):
            tiles = stage[first : first + BATCH]
            places = [np.ix_(*((starts[i] + np.arange(TILE)) % n for i in t)) for t in tiles]
            x0 = torch.stack([painted[place] for place in places])
            mask = torch.stack([known[place] for place in places])
            told = torch.stack([condition[(slice(None), *place)] for place in places])
            made = sample(model, told, x0, mask, generator, steps)
            made = mask * x0 + (1 - mask) * made
            for place, tile in zip(places, made, strict=True):
                painted[place] = tile
                known[place] = 1.0
    return np.asarray(model.transform("tb").inverse(painted))


def sample(
    model: Model,
    condition: Tensor,
    x0: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    steps: int,
) -> Tensor:
    """Ancestral sampling (eq. 14) of tiles whose known voxels are x0 where mask is 1."""
    network, (low, high) = model.network, model.card["gamma"]
    nothing = torch.zeros_like(x0)
    z = torch.randn(x0.shape, generator=generator)
    eps_known = torch.randn(x0.shape, generator=generator)
    gammas = torch.linspace(*GAMMA, steps + 1, dtype=torch.float64)
    for step in range(steps, 0, -1):
        gamma_t, gamma_s = gammas[step], gammas[step - 1]
        alpha_t, sigma_t = (torch.sigmoid(g).sqrt() for g in (-gamma_t, gamma_t))
        alpha_s, sigma_s = (torch.sigmoid(g).sqrt() for g in (-gamma_s, gamma_s))
        z = (mask * (alpha_t * x0 + sigma_t * eps_known) + (1 - mask) * z).float()
        level = torch.full((len(z),), float((gamma_t - low) / (high - low)))
        v = network(z, level, network.prepare(condition, nothing, nothing))
        eps = sigma_t * z + alpha_t * v
        c = -torch.expm1(gamma_s - gamma_t)
        z = alpha_s / alpha_t * (z - c * sigma_t * eps)
        if step > 1:
            z = z + sigma_s * c.sqrt() * torch.randn(x0.shape, generator=generator)
        else:
            z = z / alpha_s
        z = z.float()
    return z


def paint(
    folder: Path, dm: np.ndarray, out: Path, seed: int = 0, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Haloes and T_b of a box, at its painted voxels, from its dark matter; T_b goes to `out`."""
    halo = haloes(load_model(folder, "halogen"), dm)
    tb = brightness(load_model(folder, "lodi"), halo, seed, steps)
    zarr.save(str(out), tb)
    return halo, tb
