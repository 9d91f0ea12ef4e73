"""Slow, obvious versions of the layers, the mask, the loss and the spectra of bigbox.cosmoflow."""

from __future__ import annotations

from itertools import product
from math import floor

import numpy as np


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Periodic cross-correlation of (C, n, ...) with (out, C, e, ...), every stride-th voxel."""
    edge, space = weight.shape[-1], x.shape[1:]
    made = np.zeros((len(weight), *(n // stride for n in space)))
    for at in np.ndindex(made.shape[1:]):
        for tap in product(range(edge), repeat=len(space)):
            where = tuple(
                (a * stride + t - edge // 2) % n for a, t, n in zip(at, tap, space, strict=True)
            )
            made[(slice(None), *at)] += weight[(slice(None), slice(None), *tap)] @ x[:, *where]
        made[(slice(None), *at)] += bias
    return made


def visible(t: float, channels: int) -> int:
    """Channels that are seen: all at 0, one fewer after each C-th part of the time, one at 1."""
    return max(1, channels - floor(channels * t))


def masked(latent: np.ndarray, times: list[float]) -> np.ndarray:
    """(B, C, ...) with 0 in the channels that are not seen."""
    made = latent.copy()
    for row, t in zip(made, times, strict=True):
        row[visible(t, len(row)) :] = 0.0
    return made


def flow_loss(output: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> float:
    """Eq. 3 of the paper, per voxel."""
    errors = [
        (float(v) - (float(b) - float(a))) ** 2
        for v, a, b in zip(output.flat, x0.flat, x1.flat, strict=True)
    ]
    return sum(errors) / len(errors)


def power(field: np.ndarray, side: float) -> np.ndarray:
    """P(k) of a map by a sum over all modes of a full transform, bins around i fundamentals."""
    n = len(field)
    modes = np.fft.fft2(field) / n**2
    total, count = np.zeros(n // 2), np.zeros(n // 2)
    for i, j in product(range(n), repeat=2):
        a, b = (x if x <= n // 2 else x - n for x in (i, j))
        number = round(float(np.hypot(a, b)))
        if 1 <= number <= n // 2:
            total[number - 1] += abs(modes[i, j]) ** 2 * side**2
            count[number - 1] += 1
    return total / count


def project(positions: np.ndarray, side: float, edge: int, slabs: int) -> np.ndarray:
    """Particles of mass 1 onto maps, one particle after the other: (3 slabs, edge, edge)."""
    pixel = side / edge
    maps = np.zeros((3, slabs, edge, edge))
    for place in positions.astype(float):
        for axis in range(3):
            slab = min(int(place[axis] * slabs / side), slabs - 1)
            u = np.delete(place, axis) / pixel - 0.5
            low = np.floor(u).astype(int)
            for i, j in product((0, 1), repeat=2):
                share = abs(1 - i - (u - low)[0]) * abs(1 - j - (u - low)[1])
                maps[axis, slab, (low[0] + i) % edge, (low[1] + j) % edge] += share
    return maps.reshape(-1, edge, edge) / pixel**2
