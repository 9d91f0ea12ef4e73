"""How a density grid becomes a box: two passes over its blocks, out of core, on dask.

    source ──pass 1──► first bad voxel, sum ──► mean ──pass 2──► dm = density / mean, shard by shard

A block is one shard of ``dm`` (at most 256^3 voxels), so every shard has one writer and is written
once and whole. The sum is taken in float64 block by block and added exactly (``math.fsum``), so the
mean does not depend on the number of workers. The box is written beside its place and renamed: it
is there whole, or not at all. What a killed ingest has left there, the next one removes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bigbox
from bigbox.blockwise import map_blocks, workers
from bigbox.errors import BadInput
from bigbox.ingestion.ingested import Ingested
from bigbox.ingestion.sanity import (
    empty_warnings,
    name_warnings,
    odd_voxel,
    redshift_in_name,
    tile_warnings,
)
from bigbox.ingestion.shards import MEMORY, Sums, shard_grid
from bigbox.ingestion.sources import GridSource, open_source
from bigbox.ingestion.workfolder import check_room, making, new_place
from bigbox.physics.cosmology import PARAMETERS, Cosmology
from bigbox.scheduler.grid import Grid, Slices
from bigbox.store.box import Box
from bigbox.store.geometry import CUBIC_TOLERANCE


def ingest_density(
    source: str,
    box: Path,
    *,
    box_size: Sequence[float] | None = None,
    redshift: float | None = None,
    cosmology: Mapping[str, float] | None = None,
    index: int | None = None,
    empty_chunks: bool = False,
    memory: int = MEMORY,
) -> Ingested:
    """Read a density grid into a new box, whose ``dm`` is the density over its mean (1 + delta).

    Raises BadInput for whatever is wrong with the source, the numbers or the place, StoppedEarly on
    SIGTERM. Nothing is left behind then.

    Parameters
    ----------
    source : a path, ``path:/data/set`` or ``quickstart``; any positive unit.
    box_size : Mpc/h, one number or one per axis. None: the source's own attribute, refused where
        its attribute box_size_units is another unit.
    redshift : None: the source's own attribute, else that in its name (z=2.0), else 0.
    index : which grid of a source of shape (n, nx, ny, nz).
    empty_chunks : chunks that the source has not stored hold its fill value; else it is refused.
    memory : bytes that the blocks in work may take together. At least one is in work.
    """
    place = new_place(box)
    grid = open_source(source, index, empty_chunks=empty_chunks)
    sides, notes = _sides(grid, box_size)
    known = grid.attributes
    z, of_name = _redshift(grid, redshift)
    if not (math.isfinite(z) and z >= 0):
        raise BadInput(f"redshift {z} must be a number of at least 0")
    parameters = {name: known[name] for name in PARAMETERS if name in known} | {**(cosmology or {})}
    parameters = {name: float(value) for name, value in parameters.items()}
    Cosmology.from_header(parameters)
    voxels = math.prod(grid.shape)
    check_room(place, "dm needs", 4 * voxels)
    with making(place) as folder:
        blocks = shard_grid(grid.shape)
        threads = workers(_block_bytes(grid, blocks), memory)
        sums = _survey(grid, blocks, threads)
        mean = sums.total / voxels
        provenance = {
            "command": "bigbox ingest",
            "bigbox": bigbox.__version__,
            "source": str(grid.path.resolve()),
            "dataset": grid.dataset,
            "index": grid.index,
            "dtype": str(grid.dtype),
            "mean_density_of_source": mean,
            "attributes_of_source": known,
        }
        made = Box.create(folder, grid.shape, sides, z, parameters, provenance)
        dm = made.create_array("dm")
        regions = map(blocks.slices, range(blocks.size))
        for _ in map_blocks(lambda cut: _copy(grid, dm, cut, mean), regions, workers=threads):
            pass
        made.consolidate()
    return Ingested(
        box=place,
        source=str(grid),
        shape=grid.shape,
        box_size=sides,
        redshift=z,
        mean=mean,
        least=sums.least,
        largest=sums.largest,
        warnings=(
            *empty_warnings(grid, sums.empty / voxels),
            *odd_voxel(sides[0] / grid.shape[0]),
            *tile_warnings(grid.shape),
        ),
        notes=(*grid.notes, *notes, *of_name),
    )


def _sides(
    source: GridSource, given: Sequence[float] | None
) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    """Sides of the box, Mpc/h, and what was taken for granted."""
    known = source.attributes
    units = known.get("box_size_units")
    if given is None and "box_size" not in known:
        raise BadInput(f"{source}: does not tell its box size; give --box-size in Mpc/h")
    # As people write it: "Mpc/h, comoving".
    plain = re.sub(r"comoving|[\s,()]", "", str(units))
    if given is None and units is not None and plain not in ("Mpc/h", "cMpc/h"):
        raise BadInput(
            f"{source}: its box_size {known['box_size']} is in {units!r}, a box is in comoving "
            "Mpc/h; give --box-size in Mpc/h"
        )
    sides = np.atleast_1d(known["box_size"] if given is None else given).astype(float).tolist()
    if len(sides) not in (1, 3):
        raise BadInput(f"--box-size takes one number or three (Mpc/h), not {len(sides)}")
    x, y, z = sides * 3 if len(sides) == 1 else sides
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise BadInput(f"box size {' '.join(f'{s:g}' for s in sides)} must be positive (Mpc/h)")
    voxel = [side / n for side, n in zip((x, y, z), source.shape, strict=True)]
    if max(voxel) > min(voxel) * (1 + CUBIC_TOLERANCE):
        fits = " ".join(f"{n * voxel[0]:g}" for n in source.shape)
        raise BadInput(
            f"{source}: voxels of {voxel[0]:.5g} x {voxel[1]:.5g} x {voxel[2]:.5g} Mpc/h are not "
            f"cubic; cubic would be, for example, --box-size {fits}"
        )
    note = (
        f"box size {x:g} x {y:g} x {z:g} is taken from {source} as comoving Mpc/h, because it "
        "names no unit (box_size_units); if it is another, ingest again with --box-size"
    )
    return (x, y, z), (note,) if given is None and units is None else ()


def _redshift(source: GridSource, given: float | None) -> tuple[float, tuple[str, ...]]:
    """Redshift of the box: as given, of the source's attribute, of its name; and what is odd."""
    if given is not None:
        return given, ()
    if "redshift" in source.attributes:
        z = float(source.attributes["redshift"])
        return z, name_warnings(source.path, z)
    named = redshift_in_name(source.path)
    if named is None:
        return 0.0, ()
    return named, (f"redshift {named:g} is taken from the name of {source.path}",)


def _block_bytes(source: GridSource, blocks: Grid) -> int:
    """Bytes of a block in work: as read, as float32, and encoded (twice) by zarr."""
    voxels = math.prod(blocks.extent(0))
    return voxels * (source.dtype.itemsize + 3 * 4) + source.chunk_bytes


def _survey(source: GridSource, blocks: Grid, threads: int) -> Sums:
    """First pass. BadInput names the first voxel, in C order, that is no density."""
    regions = map(blocks.slices, range(blocks.size))
    found = list(map_blocks(lambda cut: _survey_block(source, cut), regions, workers=threads))
    voxel, value = min((bad for _, bad in found if bad is not None), default=((), 0.0))
    if voxel:
        why = "is negative" if value < 0 and math.isfinite(value) else "is not finite"
        hint = "; if this is delta, give 1 + delta" if -1 <= value < 0 else ""
        raise BadInput(f"{source}: voxel {voxel} has density {value:g}, which {why}{hint}")
    sums = Sums.all([sums for sums, _ in found])
    if sums.total == 0:
        raise BadInput(f"{source}: every voxel has density 0, so there is nothing to normalise by")
    return sums


def _survey_block(
    source: GridSource, region: Slices
) -> tuple[Sums, tuple[tuple[int, ...], float] | None]:
    """Return a block's sums, and the first of its voxels that is no density with its value."""
    density = source.read(region)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = Sums.of(density)
    if np.isfinite([sums.total, sums.least, sums.largest]).all() and sums.least >= 0:
        return sums, None
    bad = ~(np.isfinite(density) & (density >= 0))
    if not bad.any():
        raise BadInput(f"{source}: the sum of the densities overflows; give them in a larger unit")
    local = np.unravel_index(int(np.argmax(bad)), density.shape)
    voxel = tuple(int(i) + cut.start for i, cut in zip(local, region, strict=True))
    return sums, (voxel, float(density[local]))


def _copy(source: GridSource, dm: Any, region: Slices, mean: float) -> None:
    """Second pass: a block of 1 + delta, divided in float64 and rounded once."""
    density = source.read(region)
    over_mean = np.empty(density.shape, np.float32)
    np.divide(density, np.float64(mean), out=over_mean, casting="unsafe", dtype=np.float64)
    del density
    dm[region] = over_mean
