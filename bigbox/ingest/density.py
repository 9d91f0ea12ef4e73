"""How a density grid becomes a box: two passes over its blocks, out of core, on dask.

    source ──pass 1──► first bad voxel, sum ──► mean ──pass 2──► dm = density / mean, shard by shard

A block is one shard of ``dm`` (at most 256^3 voxels), so every shard has one writer and is written
once and whole. The sum is taken in float64 block by block and added exactly (``math.fsum``), so the
mean does not depend on the number of workers. The box is written beside its place and renamed: it
is there whole, or not at all; what a killed ingest has left there, the next one removes.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import bigbox
from bigbox.errors import BadInput
from bigbox.ingest.sources import GridSource, Region, open_source
from bigbox.ingest.work import free_place, making, remove_stale
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.store.box import CUBIC_TOLERANCE, Box, field_chunks

MEMORY = 1 << 30
"""Bytes that the blocks in work may take together, beside the libraries (about 0.2 GB)."""

COSMOLOGY = ("omega_m", "omega_b", "h", "sigma8", "n_s")


@dataclass(frozen=True)
class Ingested:
    """What an ingest did. ``mean``, ``least``, ``largest``: of the source, in its own unit."""

    box: Path
    source: str
    shape: tuple[int, int, int]
    box_size: tuple[float, float, float]  # Mpc/h
    redshift: float
    mean: float
    least: float
    largest: float
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was taken for granted


@dataclass(frozen=True)
class _BlockFacts:
    total: float
    least: float
    largest: float
    bad: int = -1  # C-order index in the box of the first voxel that is no density
    value: float = 0.0


@dataclass(frozen=True)
class _Request:
    source: GridSource
    box_size: tuple[float, float, float]
    redshift: float
    cosmology: dict[str, float] = field(default_factory=dict)


def ingest(
    source: str,
    box: Path,
    *,
    box_size: tuple[float, ...] | None = None,
    redshift: float | None = None,
    cosmology: Mapping[str, float] | None = None,
    index: int | None = None,
    memory: int = MEMORY,
) -> Ingested:
    """Read a density grid into a new box, whose ``dm`` is the density over its mean (1 + delta).

    source     a path, ``path:/data/set`` or ``quickstart``; any positive unit
    box_size   Mpc/h, one number or one per axis; the source's own attribute when None, refused
               where its attribute box_size_units is another unit
    redshift   the source's own attribute when None, else 0
    index      which grid of a source of shape (n, nx, ny, nz)
    memory     bytes that the blocks in work may take together; at least one block is in work

    Raises BadInput, with nothing left behind, for everything that is wrong with the source, the
    numbers or the place; and StoppedEarly, likewise, on SIGTERM.
    """
    place = free_place(box)
    remove_stale(place)
    request = _request(open_source(source, index), box_size, redshift, cosmology)
    shape = request.source.shape
    need = 4 * math.prod(shape)
    free = shutil.disk_usage(place.parent).free
    if need > free:
        raise BadInput(
            f"{place}: dm needs {need / 1e9:.1f} GB and {place.parent} has {free / 1e9:.1f} GB "
            "free: choose another folder or make room"
        )
    with making(place) as work:
        facts = _write(request, work, memory)
    return Ingested(
        box=place,
        source=str(request.source),
        shape=shape,
        box_size=request.box_size,
        redshift=request.redshift,
        mean=facts.total / math.prod(shape),
        least=facts.least,
        largest=facts.largest,
        warnings=tile_warnings(shape),
        notes=_notes(request, box_size),
    )


def _request(
    source: GridSource,
    box_size: tuple[float, ...] | None,
    redshift: float | None,
    cosmology: Mapping[str, float] | None,
) -> _Request:
    known = source.attributes
    if box_size is None:
        if "box_size" not in known:
            raise BadInput(f"{source}: does not tell its box size; give --box-size in Mpc/h")
        units = known.get("box_size_units")
        if units is not None and not _is_mpc_over_h(str(units)):
            raise BadInput(
                f"{source}: its box_size {known['box_size']} is in {units!r}, a box is in comoving "
                "Mpc/h; give --box-size in Mpc/h"
            )
        box_size = tuple(np.atleast_1d(known["box_size"]).astype(float).tolist())
    sides = _sides(source, box_size)
    z = float(known.get("redshift", 0.0) if redshift is None else redshift)
    if not (math.isfinite(z) and z >= 0):
        raise BadInput(f"redshift {z} must be a number of at least 0")
    told = {name: float(known[name]) for name in COSMOLOGY if name in known}
    told |= {name: float(value) for name, value in (cosmology or {}).items()}
    for name, value in told.items():
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"cosmology: {name} {value} must be a positive number")
    return _Request(source, sides, z, told)


def _is_mpc_over_h(units: str) -> bool:
    """Whether a unit is comoving Mpc/h, as people write it: "Mpc/h, comoving"."""
    return re.sub(r"comoving|[\s,()]", "", units) in ("Mpc/h", "cMpc/h")


def _notes(request: _Request, told: tuple[float, ...] | None) -> tuple[str, ...]:
    if told is not None or "box_size_units" in request.source.attributes:
        return ()
    sides = " x ".join(f"{side:g}" for side in request.box_size)
    return (
        f"box size {sides} is taken from {request.source} as comoving Mpc/h, because it names no "
        "unit (box_size_units); if it is another, ingest again with --box-size",
    )


def _sides(source: GridSource, box_size: tuple[float, ...]) -> tuple[float, float, float]:
    if len(box_size) not in (1, 3):
        raise BadInput(f"--box-size takes one number or three (Mpc/h), not {len(box_size)}")
    sides = box_size * 3 if len(box_size) == 1 else box_size
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise BadInput(f"box size {' '.join(f'{s:g}' for s in box_size)} must be positive (Mpc/h)")
    voxel = [side / n for side, n in zip(sides, source.shape, strict=True)]
    if max(voxel) > min(voxel) * (1 + CUBIC_TOLERANCE):
        fits = " ".join(f"{n * voxel[0]:g}" for n in source.shape)
        raise BadInput(
            f"{source}: voxels of {voxel[0]:.5g} x {voxel[1]:.5g} x {voxel[2]:.5g} Mpc/h are not "
            f"cubic; cubic would be, for example, --box-size {fits}"
        )
    return (sides[0], sides[1], sides[2])


def _write(request: _Request, work: Path, memory: int) -> _BlockFacts:
    """Both passes, into the store ``work``; the facts of the whole grid."""
    import dask

    source = request.source
    _, block = field_chunks(source.shape)
    regions = _regions(source.shape, block)
    workers = _workers(source, block, memory)
    # With a pool of our own no block is still being written when an error leaves this function.
    with ThreadPoolExecutor(workers) as pool:
        survey = [dask.delayed(_survey)(source, region) for region in regions]
        facts = _whole(source, dask.compute(*survey, pool=pool))
        mean = facts.total / math.prod(source.shape)
        box = Box.create(
            work,
            source.shape,
            request.box_size,
            request.redshift,
            cosmology=request.cosmology,
            provenance=_provenance(source, mean),
        )
        dm = box.create_array("dm")
        copy = [dask.delayed(_copy)(source, dm, region, mean) for region in regions]
        dask.compute(*copy, pool=pool)
    return facts


def _regions(shape: tuple[int, ...], block: tuple[int, ...]) -> list[Region]:
    axes = (
        [slice(i, min(i + edge, n)) for i in range(0, n, edge)]
        for n, edge in zip(shape, block, strict=True)
    )
    return list(itertools.product(*axes))


def _workers(source: GridSource, block: tuple[int, ...], memory: int) -> int:
    """Blocks in work at once: each is held as read, as float32, and encoded (twice) by zarr."""
    each = math.prod(block) * (source.dtype.itemsize + 3 * 4) + source.chunk_bytes
    return max(1, min(len(os.sched_getaffinity(0)), memory // each))


def _survey(source: GridSource, region: Region) -> _BlockFacts:
    """The sum of a block and the first of its voxels that cannot be a density."""
    density = source.read(region)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(density.sum(dtype=np.float64))
    least, largest = float(density.min()), float(density.max())
    if math.isfinite(total) and math.isfinite(least) and math.isfinite(largest) and least >= 0:
        return _BlockFacts(total, least, largest)
    bad = ~(np.isfinite(density) & (density >= 0))
    if not bad.any():
        raise BadInput(f"{source}: the sum of the densities overflows; give them in a larger unit")
    local = np.unravel_index(int(np.argmax(bad)), density.shape)
    voxel = tuple(int(i) + cut.start for i, cut in zip(local, region, strict=True))
    return _BlockFacts(
        total, least, largest, int(np.ravel_multi_index(voxel, source.shape)), float(density[local])
    )


def _whole(source: GridSource, blocks: tuple[_BlockFacts, ...]) -> _BlockFacts:
    """The facts of the grid; BadInput names the first voxel, in C order, that is no density."""
    bad = min((f for f in blocks if f.bad >= 0), key=lambda f: f.bad, default=None)
    if bad is not None:
        voxel = tuple(int(i) for i in np.unravel_index(bad.bad, source.shape))
        why = "is negative" if bad.value < 0 and math.isfinite(bad.value) else "is not finite"
        hint = "; if this is delta, give 1 + delta" if -1 <= bad.value < 0 else ""
        raise BadInput(f"{source}: voxel {voxel} has density {bad.value:g}, which {why}{hint}")
    total = math.fsum(f.total for f in blocks)
    if total == 0:
        raise BadInput(f"{source}: every voxel has density 0, so there is nothing to normalise by")
    return _BlockFacts(total, min(f.least for f in blocks), max(f.largest for f in blocks))


def _copy(source: GridSource, dm: Any, region: Region, mean: float) -> None:
    """One block of 1 + delta into its shards; the division is in float64, rounded once."""
    density = source.read(region)
    over_mean = np.empty(density.shape, np.float32)
    np.divide(density, np.float64(mean), out=over_mean, casting="unsafe", dtype=np.float64)
    del density
    dm[region] = over_mean


def _provenance(source: GridSource, mean: float) -> dict[str, Any]:
    return {
        "command": "bigbox ingest",
        "bigbox": bigbox.__version__,
        "source": str(source.path.resolve()),
        "dataset": source.dataset,
        "index": source.index,
        "dtype": str(source.dtype),
        "mean_density_of_source": mean,
        "attributes_of_source": source.attributes,
    }


def tile_warnings(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """What a user should know of a box that the default tile does not fit into."""
    try:
        Tiling(shape)
    except TilingError as error:
        tile = _tile_for(shape)
        smaller = f"paint it with a smaller tile (--tile {tile}) or " if tile else ""
        return (f"{error}; {smaller}ingest a finer grid",)
    return ()


def _tile_for(shape: tuple[int, int, int]) -> int:
    """The tile with which painting such a small box costs least; 0 where none can be laid."""
    costs = {}
    for tile in range(min(*shape, Tiling.tile), 1, -1):
        try:
            costs[tile] = Tiling(shape, tile).size * tile**3
        except TilingError:
            continue
    return min(costs, key=lambda tile: costs[tile], default=0)
