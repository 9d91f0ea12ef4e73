"""Measure the one-point distribution of a field or its logarithm, with moments, out of core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.modes import Float, ascending
from bigbox.analysis.spectra.power import MEMORY
from bigbox.blockwise import map_blocks, workers
from bigbox.errors import BadInput

# Voxels of a block, and the bytes it takes as float64 with its powers.
EDGE = 128
_BYTES = 24 * EDGE**3


@dataclass(frozen=True)
class Distribution:
    """Histogram and moments of the values of a field, or of its log10.

    edges: (n + 1,); pdf: (n,) probability per unit of the edges, over the voxels that have a value;
    counts: int64 (n,). below, above: voxels outside the edges; without: voxels that have no
    logarithm (<= 0). skewness, kurtosis: of the standardised value, 0 for a Gaussian.
    """

    edges: Float
    pdf: Float
    counts: npt.NDArray[np.int64]
    mean: float
    variance: float
    skewness: float
    kurtosis: float
    least: float
    most: float
    voxels: int
    without: int
    below: int
    above: int


def distribution(
    array: Any, *, bins: int | npt.ArrayLike = 100, log: bool = False, memory: int = MEMORY
) -> Distribution:
    """Return the distribution of an array of any shape: numpy, zarr or dask, in two passes.

    bins: a number of equal bins from the least to the largest value, or ascending edges. log: of
    log10 of the values, those <= 0 counted apart. memory: bytes that the blocks in work may take.
    Raise BadInput where values are not finite, or none is positive with log.
    """
    lazy = array
    if not isinstance(array, dask.array.Array):
        lazy = dask.array.from_array(array, chunks=EDGE, meta=np.empty(0, np.float32))
    blocks = list(lazy.to_delayed().ravel())
    threads = workers(_BYTES, memory)

    def first(values: npt.NDArray[Any]) -> tuple[int, float, float, float]:
        kept = _kept(values, log)
        total = float(kept.sum()) if np.isfinite(values).all() else math.nan
        least, most = kept.min(initial=math.inf), kept.max(initial=-math.inf)
        return len(kept), total, float(least), float(most)

    counted, totals, lows, highs = zip(*map_blocks(first, blocks, workers=threads), strict=True)
    count = sum(counted)
    if not math.isfinite(sum(totals)):
        raise BadInput("field: some voxels are not finite; paint or repair them first")
    if count == 0:
        raise BadInput("field: no voxel is positive: it has no logarithm; take it without log")
    mean, least, most = math.fsum(totals) / count, min(lows), max(highs)
    if np.ndim(bins):
        edges = ascending(bins, "values")
    else:
        edges = np.histogram_bin_edges([least, most], int(bins))  # type: ignore[arg-type]

    def second(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], Float, int]:
        kept = _kept(values, log)
        d = kept - mean
        # Products: a power of 3 or 4 costs numpy ten times as much.
        d2 = d * d
        powers = np.array([d2.sum(), (d2 * d).sum(), (d2 * d2).sum()])
        return np.histogram(kept, edges)[0], powers, int((kept < edges[0]).sum())

    parts = list(map_blocks(second, blocks, workers=threads))
    counts = np.sum([p[0] for p in parts], axis=0).astype(np.int64)
    m2, m3, m4 = np.sum([p[1] for p in parts], axis=0) / count
    below = sum(p[2] for p in parts)
    return Distribution(
        edges=edges,
        pdf=counts / (count * np.diff(edges)),
        counts=counts,
        mean=mean,
        variance=float(m2),
        skewness=float(m3 / m2**1.5) if m2 > 0 else math.nan,
        kurtosis=float(m4 / m2**2 - 3) if m2 > 0 else math.nan,
        least=least,
        most=most,
        voxels=count,
        without=lazy.size - count,
        below=below,
        above=count - below - int(counts.sum()),
    )


def _kept(values: npt.NDArray[Any], log: bool) -> Float:
    flat = np.asarray(values, np.float64).ravel()
    return np.log10(flat[flat > 0]) if log else flat
