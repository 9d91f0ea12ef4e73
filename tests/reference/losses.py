"""HALOgen's site weights and mask (eqs. 2 and 4 of its paper), LODI's running means, in loops."""

from __future__ import annotations

import numpy as np


def slow_weights(density: np.ndarray, thresholds: np.ndarray) -> list[float]:
    """Eq. 2, written out."""
    result = []
    for i in range(4):
        count = 0
        for j in range(max(0, i - 1), min(3, i + 1) + 1):
            for value in density[j].flat:
                count += value > thresholds[j]
        result.append(density[0].size / count)
    return result


def slow_mask(density: np.ndarray, thresholds: np.ndarray, weights: list[float]) -> np.ndarray:
    """Eq. 4 with the neighbour channels of the text and of fig. 3."""
    mask = np.ones_like(density)
    for i in range(4):
        for voxel in np.ndindex(density.shape[1:]):
            for j in range(max(0, i - 1), min(3, i + 1) + 1):
                if density[(j, *voxel)] > thresholds[j]:
                    mask[(i, *voxel)] = weights[i]
    return mask


def slow_balanced(
    means: dict[int, float], errors: list[float], levels: list[int], rate: float
) -> float:
    """The mean error over its level's running mean, which is `means`, and is carried on."""
    for level in set(levels):
        mine = [e for e, other in zip(errors, levels, strict=True) if other == level]
        new = sum(mine) / len(mine)
        share = rate * min(len(mine), 8) if level in means else 1.0
        means[level] = means.get(level, 0.0) * (1 - share) + new * share
    return sum(e / means[level] for e, level in zip(errors, levels, strict=True)) / len(errors)
