"""Friends-of-friends groups in a periodic box: each group's particles, place and velocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigbox.simulation.friends import link

LEAST = 32  # particles of the smallest group that is kept, as in GADGET-4 and CAMELS


@dataclass(frozen=True)
class Groups:
    """The groups of LEAST particles or more, the largest first; positions as the particles'."""

    lengths: NDArray[np.int32]  # (G,): particles
    positions: NDArray[np.float64]  # (G, 3): of the particle of lowest potential
    velocities: NDArray[np.float64]  # (G, 3): mean over the particles
    order: NDArray[np.int64]  # (M,): all particles, group by group, then those of no group


def find_groups(
    positions: NDArray[np.float32],
    velocities: NDArray[np.float32],
    potential: NDArray[np.float32],
    side: float,
    length: float,
    least: int = LEAST,
    threads: int | None = None,
) -> Groups:
    """Find groups of particles of equal mass: positions, velocities (M, 3), potential (M,).

    `threads`: by default the cores that this process may use; the groups do not depend on them.
    """
    labels = link(positions, side, length, threads)
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts >= least)
    kept = kept[np.argsort(-counts[kept], kind="stable")]
    rank = np.full(len(counts), len(kept))
    rank[kept] = np.arange(len(kept))
    group = rank[labels]
    order = np.argsort(group, kind="stable")
    lengths = counts[kept]
    ends = np.cumsum(lengths)
    held = order[: ends[-1]] if len(kept) else order[:0]
    group = group[held]
    by_potential = held[np.lexsort((potential[held], group))]
    mean = [np.bincount(group, velocities[held, axis], len(kept)) / lengths for axis in range(3)]
    return Groups(
        lengths.astype(np.int32),
        positions[by_potential[ends - lengths]].astype(np.float64),
        np.stack(mean, axis=1),
        order,
    )
