"""The passes of an ingest on dask, the shards they write, and what is told of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TASKS = 1024
"""Tasks given to dask at once: its graph must not grow with the snapshot."""


@dataclass(frozen=True)
class HaloFacts:
    """One channel: haloes in it and their mass, M☉/h, by the catalogue and in the array."""

    lower: float
    upper: float
    haloes: int
    mass: float
    mass_in_array: float


@dataclass(frozen=True)
class SnapshotIngested:
    """What an ingest of a snapshot did."""

    box: Path
    source: str
    shape: tuple[int, int, int]
    box_size: float  # Mpc/h
    redshift: float
    particles: int
    least: float  # of 1 + delta
    largest: float
    mean: float
    halo: tuple[HaloFacts, ...] = ()
    tb_source: str = ""
    tb_mean: float = 0.0  # mK, of the array
    tb_expected: float = 0.0  # mK, of Omega_HI
    omega_hi: float = 0.0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A shard's values: their sum, extremes, and how many are above one."""

    total: float
    least: float
    largest: float
    above_one: int


def run_all(
    task: Callable[[Any], Any], items: Iterable[Any], pool: ThreadPoolExecutor
) -> list[Any]:
    """The results of a task for every item, on dask, a bounded number at a time."""
    import dask

    results: list[Any] = []
    todo = iter(items)
    while batch := list(itertools.islice(todo, TASKS)):
        results += dask.compute(
            *(dask.delayed(task, pure=False)(item) for item in batch), pool=pool
        )
    return results


def write_shard(array: Any, region: Any, values: Any) -> Written:
    """One whole shard of a 3-D array."""
    array[region] = values
    return _facts(values)


def write_channels(array: Any, region: Any, values: list[Any]) -> list[Written]:
    """One whole shard of a 4-D array, all channels."""
    array[(slice(None), *region)] = np.stack(values)
    return [_facts(channel) for channel in values]


def _facts(values: Any) -> Written:
    return Written(
        float(values.sum(dtype=np.float64)),
        float(values.min()),
        float(values.max()),
        int(np.count_nonzero(values > 1)),
    )
