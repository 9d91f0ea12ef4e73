"""The bispectrum by its definition, triangle by triangle."""

from __future__ import annotations

import itertools

import numpy as np


def slow_bispectrum(field: np.ndarray, size: float, k: tuple, width: float) -> tuple[float, int]:
    """Every pair of modes and the one that closes the triangle."""
    n = len(field)
    modes = np.fft.fftn(field) / field.size
    step = 2 * np.pi / size
    index = [i for i in itertools.product(range(-(n // 2) + 1, n // 2), repeat=3) if any(i)]
    shells = [
        [i for i in index if abs(np.sqrt(sum(c * c for c in i)) * step - side) < width / 2]
        for side in k
    ]
    third = set(shells[2])
    total, count = 0j, 0
    for a in shells[0]:
        for b in shells[1]:
            c = (-a[0] - b[0], -a[1] - b[1], -a[2] - b[2])
            if c in third:
                total += modes[a] * modes[b] * modes[c]
                count += 1
    return float((size**6 * total / max(count, 1)).real), count
