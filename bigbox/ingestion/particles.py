"""Ingest a snapshot, with its haloes and its hydrogen, or a halo catalogue alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.ingestion.arrays import Making
from bigbox.ingestion.catalogue import HaloType
from bigbox.ingestion.headers import Told
from bigbox.ingestion.hydrogen import Hydrogen, of_gas, of_haloes
from bigbox.ingestion.ingested import IngestedSnapshot
from bigbox.ingestion.shards import MEMORY
from bigbox.ingestion.snapshot import (
    DARK,
    Snapshot,
    check_dark_matter,
)
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.ingestion.workfolder import making, new_place
from bigbox.physics.cosmology import Cosmology
from bigbox.physics.smoothing import DEFAULT_RADIUS

_NOTHING = Told()
_USUAL_VOXEL = 25 / 256  # Mpc/h, of the paper and of the networks that come along


def ingest_snapshot(
    snapshot: Sequence[Path],
    box: Path,
    *,
    grid: int | None = None,
    haloes: Sequence[Path] = (),
    halo_type: HaloType = "group",
    gas: Sequence[Path] | bool = False,
    uvb: Path | None = None,
    self_shielding: bool = False,
    hi_halo: bool = False,
    hi_draw: int = 0,
    smoothing: float = DEFAULT_RADIUS,
    cosmology: Mapping[str, float] | None = None,
    told: Told = _NOTHING,
    halo_units: tuple[float | None, float | None] = (None, None),
    memory: int = MEMORY,
) -> IngestedSnapshot:
    """Read a snapshot into a new box of grid³ voxels: dm, and what else is asked for.

    Raises BadInput for whatever is wrong with the files, the numbers or the place, StoppedEarly on
    SIGTERM. Nothing is left behind then.

    Parameters
    ----------
    snapshot : a folder, any one of the files, or all of them.
    grid : voxels on a side; None: as many as particles on a side.
    haloes : the catalogue of the same run, for `halo`, the mass of its haloes in four bins.
    gas : of which `tb` is made: True for that of the snapshot, or the snapshot of another run of
        the same initial conditions (paths as for `snapshot`).
    uvb : photo-ionisation rates in TREECOOL format, for gas without a neutral fraction.
    self_shielding : of that gas (Rahmati et al. 2013).
    hi_halo : make `tb` of the haloes, by the relation of `bigbox.physics.hi_halo`.
    hi_draw : which draw of its scatter: 0, 1, ... are independent.
    smoothing : Mpc/h, of halo and tb. dm is never smoothed.
    cosmology : what the headers do not tell, or tell wrongly.
    told : box size, redshift and units in the place of the headers'.
    halo_units : Mpc/h and M☉/h per unit of the catalogue, in the place of what it tells.
    memory : bytes that the bricks in work may take together. At least one is in work.
    """
    place = new_place(box)
    source = open_snapshot(snapshot, told)
    check_dark_matter(source)
    known = {**source.header.cosmology, **(cosmology or {})}
    of_catalogue = replace(told, length=halo_units[0], mass=halo_units[1])
    catalogue = open_catalogue(haloes, halo_type, of_catalogue, source.header) if haloes else None
    if hi_halo and catalogue is None:
        raise BadInput("tb from haloes (--hi-halo) needs their catalogue: give --halos CATALOGUE")
    if catalogue is not None and (wrong := source.header.difference(catalogue.header)):
        raise BadInput(f"{catalogue}: {wrong} than in {source}: a catalogue of another simulation")
    if hi_halo and gas:
        raise BadInput("tb is either of the gas (--gas) or of the haloes (--hi-halo): choose one")
    if (uvb or self_shielding) and not gas:
        raise BadInput("--uvb and --self-shielding are for the gas: give --gas, or leave them")
    tb: Hydrogen | None = None
    if hi_halo and catalogue is not None:
        tb = of_haloes(catalogue, Cosmology.from_header(known), hi_draw)
    if gas:
        hydro = source if gas is True else open_snapshot(gas, told)
        if wrong := source.header.difference(replace(hydro.header, totals=())):
            raise BadInput(f"{hydro}: {wrong} than in {source}: the gas of another simulation")
        h = (cosmology or {}).get("h")
        tb = of_gas(hydro, h=h, table=uvb, self_shielding=self_shielding)
    voxels = _voxels(source, grid)
    return _made(
        place, Making(source.header, source, catalogue, tb, voxels, smoothing, known, memory)
    )


def ingest_haloes(
    haloes: Sequence[Path],
    box: Path,
    *,
    grid: int | None = None,
    halo_type: HaloType = "group",
    hi_halo: bool = False,
    hi_draw: int = 0,
    smoothing: float = DEFAULT_RADIUS,
    cosmology: Mapping[str, float] | None = None,
    told: Told = _NOTHING,
    memory: int = MEMORY,
) -> IngestedSnapshot:
    """Read a halo catalogue alone into a new box: halo, and tb of them where asked for; no dm.

    grid: voxels on a side, always needed; the others, and what is raised, as in `ingest_snapshot`.
    """
    place = new_place(box)
    catalogue = open_catalogue(haloes, halo_type, told)
    header = catalogue.header
    known = {**header.cosmology, **(cosmology or {})}
    if grid is None:
        usual = round(header.box_size / _USUAL_VOXEL)
        raise BadInput(
            f"{catalogue}: give --grid, the voxels on a side; the networks that come along are for "
            f"voxels of {_USUAL_VOXEL:.3f} Mpc/h (--grid {usual})"
        )
    tb = of_haloes(catalogue, Cosmology.from_header(known), hi_draw) if hi_halo else None
    return _made(place, Making(header, None, catalogue, tb, grid, smoothing, known, memory))


def _made(place: Path, run: Making) -> IngestedSnapshot:
    run.check_disk(place)
    with making(place) as folder:
        return replace(run.make(folder), box=place)


def _voxels(source: Snapshot, grid: int | None) -> int:
    if grid is not None:
        return grid
    side = round(math.cbrt(source.total(DARK)))
    if side**3 != source.total(DARK):
        raise BadInput(
            f"{source}: {source.total(DARK)} particles are no cube number; give --grid, the voxels "
            "on a side"
        )
    return side
