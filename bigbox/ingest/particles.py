"""How a snapshot, its haloes and its hydrogen become a box: sorted by brick, then deposited.

    particles ──sort──► bricks of dm ─────────CIC──────────────────────► dm    = density / mean
    haloes ────sort──► bricks of each channel ──CIC──smooth R──────────► halo  (4 channels)
    gas, or the haloes' HI ──sort──► bricks of tb ──CIC──smooth R──────► tb    = mK of HI density

The first pass reads everything once, in bounded chunks, and writes each point to the file of its
brick; the second makes one brick after the other, so that memory depends on neither the number of
particles nor the size of the box. Both run on dask. Sums are in fixed point: the box is the same to
the last bit whatever the order of the particles, and however many files they come in.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import bigbox
from bigbox.errors import BadInput
from bigbox.ingest.bricks import Bricks, sorted_bytes
from bigbox.ingest.catalogue import Catalogue, HaloType, open_catalogue
from bigbox.ingest.density import tile_warnings
from bigbox.ingest.gas import Gas, open_gas
from bigbox.ingest.passes import (
    HaloFacts,
    SnapshotIngested,
    Written,
    run_all,
    write_channels,
    write_shard,
)
from bigbox.ingest.sanity import check_haloes, check_mass, check_room
from bigbox.ingest.snapshot import DARK, GAS, Snapshot, dark_matter, open_snapshot
from bigbox.ingest.work import free_place, making, remove_stale
from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology
from bigbox.physics.hydrogen import RELATION, brightness_temperature, hi_points, mean_brightness
from bigbox.physics.mass_bins import HALO_CHANNELS, HALO_EDGES, halo_channel
from bigbox.physics.smoothing import DEFAULT_RADIUS, gaussian_kernel, reach, smooth
from bigbox.store.box import Box, field_chunks

MEMORY = 1 << 30
"""Bytes that the bricks in work may take together, beside the libraries (about 0.2 GB)."""

_SORTED = ".sorted"

TbSource = Gas | Literal["haloes"] | None
"""What tb is made of."""


def ingest_snapshot(
    snapshot: Sequence[Path],
    box: Path,
    *,
    grid: int | None = None,
    halos: Sequence[Path] = (),
    halo_type: HaloType = "group",
    gas: Sequence[Path] | bool = False,
    uvb: Path | None = None,
    self_shielding: bool = False,
    hi_halo: bool = False,
    hi_draw: int = 0,
    smoothing: float = DEFAULT_RADIUS,
    cosmology: Mapping[str, float] | None = None,
    memory: int = MEMORY,
) -> SnapshotIngested:
    """Read a snapshot into a new box of grid³ voxels: dm, and what else is asked for.

    snapshot   a folder, any one of the files, or all of them
    grid       voxels on a side; as many as particles on a side when None
    halos      the catalogue of the same run: `halo`, the mass of its haloes in four bins
    gas        `tb` from the gas: True for that of the snapshot, or the snapshot of another run of
               the same initial conditions (paths as for `snapshot`)
    uvb        photo-ionisation rates in TREECOOL format, for gas without a neutral fraction
    self_shielding  of that gas (Rahmati et al. 2013)
    hi_halo    `tb` from the haloes, by the relation of `bigbox.physics.hydrogen`
    hi_draw    which draw of its scatter: 0, 1, ... are independent
    smoothing  Mpc/h, of halo and tb (dm is never smoothed)
    cosmology  what the headers do not tell, or tell wrongly
    memory     bytes that the bricks in work may take together; at least one brick is in work

    Raises BadInput, with nothing left behind, for everything that is wrong with the files, the
    numbers or the place; and StoppedEarly, likewise, on SIGTERM.
    """
    place = free_place(box)
    remove_stale(place)
    source = open_snapshot(snapshot)
    dark_matter(source)
    catalogue = open_catalogue(halos, halo_type) if halos else None
    if hi_halo and catalogue is None:
        raise BadInput("tb from haloes (--hi-halo) needs their catalogue: give --halos CATALOGUE")
    if catalogue is not None and (wrong := source.header.difference(catalogue.header)):
        raise BadInput(f"{catalogue}: {wrong} than in {source}: a catalogue of another simulation")
    if hi_halo and gas:
        raise BadInput("tb is either of the gas (--gas) or of the haloes (--hi-halo): choose one")
    if (uvb or self_shielding) and not gas:
        raise BadInput("--uvb and --self-shielding are for the gas: give --gas, or leave them")
    h = (cosmology or {}).get("h")
    tb: TbSource = "haloes" if hi_halo else _gas(source, gas, h, uvb, self_shielding)
    voxels = _voxels(source, grid)
    run = _Run(source, catalogue, tb, voxels, smoothing, cosmology or {}, memory, hi_draw)
    run.check_disk(place.parent)
    with making(place) as work, ThreadPoolExecutor(run.workers) as pool:
        run.make(work, pool)
    return run.told(place)


def _gas(
    source: Snapshot,
    gas: Sequence[Path] | bool,
    h: float | None,
    uvb: Path | None,
    self_shielding: bool,
) -> Gas | None:
    """The gas that tb is made of; of the snapshot itself, or of its twin with hydrodynamics."""
    if not gas:
        return None
    hydro = source if gas is True else open_snapshot(gas)
    if wrong := source.header.difference(replace(hydro.header, totals=())):
        raise BadInput(f"{hydro}: {wrong} than in {source}: the gas of another simulation")
    return open_gas(hydro, h=h, table=uvb, self_shielding=self_shielding)


class _Run:
    """One ingest under way."""

    def __init__(
        self,
        source: Snapshot,
        catalogue: Catalogue | None,
        tb: TbSource,
        voxels: int,
        smoothing: float,
        cosmology: Mapping[str, float],
        memory: int,
        hi_draw: int,
    ) -> None:
        self.source = source
        self.catalogue = catalogue
        self.tb = tb
        self.one_mass = bool(source.header.table) and source.header.table[DARK] > 0
        self.shape = (voxels,) * 3
        self.voxel = source.header.box_size / voxels
        self.kernel = gaussian_kernel(smoothing, self.voxel)
        self.margin = reach(smoothing, self.voxel)
        self.smoothing = smoothing
        self.known = {**source.header.cosmology, **cosmology}
        self.cosmology = Cosmology.from_header(self.known)
        _, self.brick = field_chunks(self.shape)
        _, (_, *halo_brick) = field_chunks(self.shape, HALO_CHANNELS)
        self.halo_brick = tuple(halo_brick)
        window = math.prod(edge + 2 * self.margin + 2 for edge in self.brick)
        # A window in int64 and as float32, or twice as float32; the brick three times for zarr.
        each = 12 * window + 12 * math.prod(self.brick) + (64 << 20)
        self.workers = max(1, min(len(os.sched_getaffinity(0)), memory // each))
        self.hi_draw = hi_draw
        self.halo_facts: tuple[HaloFacts, ...] = ()
        self.dm_facts: list[Written] = []
        self.tb_facts: list[Written] = []
        self.omega_hi = 0.0
        self.tb_source = ""

    def check_disk(self, folder: Path) -> None:
        """BadInput where the box, and the sorted points beside it, have no room."""
        channels = 1 + (HALO_CHANNELS if self.catalogue else 0) + (self.tb is not None)
        sort = sorted_bytes(self.source.total(DARK), self.brick, 0, weighted=not self.one_mass)
        if isinstance(self.tb, Gas):
            gas = self.tb.snapshot.total(GAS)
            sort = max(sort, sorted_bytes(gas, self.brick, self.margin, weighted=True))
        check_room(folder, 4 * math.prod(self.shape) * channels, sort)

    def make(self, work: Path, pool: ThreadPoolExecutor) -> None:
        """All arrays of the box, into the store ``work``."""
        box = Box.create(
            work,
            self.shape,
            self.source.header.box_size,
            self.source.header.redshift,
            cosmology=self.known,
            provenance=self._provenance(),
        )
        self._make_dm(box, pool)
        if self.catalogue is not None:
            self._make_halo(box, pool, self.catalogue)
        if isinstance(self.tb, Gas):
            self._make_tb_of_gas(box, pool, self.tb)
        elif self.tb == "haloes" and self.catalogue is not None:
            self._make_tb_of_haloes(box, pool, self.catalogue)

    def _make_dm(self, box: Box, pool: ThreadPoolExecutor) -> None:
        source, folder = self.source, box.path / _SORTED
        bricks = Bricks(folder, self.shape, self.brick, 0)
        names = ("Coordinates",) if self.one_mass else ("Coordinates", "Masses")

        def sort(chunk: Any) -> None:
            data = source.read(chunk, names)
            place = source.place(chunk, data["Coordinates"], self.shape[0])
            bricks.add(place, source.mass(chunk, data.get("Masses")))

        run_all(sort, source.chunks(DARK), pool)
        if bricks.total == 0:
            raise BadInput(f"{source}: all masses of type {DARK} are 0")
        unit = source.header.table[DARK] if self.one_mass else 1.0
        check_mass(source, bricks.total * unit, self.known.get("omega_m"))
        array = box.create_array("dm", attributes={"smoothing": 0.0, "source": "particles"})
        factor = math.prod(self.shape) / bricks.total

        def write(brick: Any) -> Written:
            return write_shard(array, bricks.region(brick), bricks.deposit(brick, factor))

        self.dm_facts = run_all(write, bricks.all(), pool)
        shutil.rmtree(folder)

    def _make_halo(self, box: Box, pool: ThreadPoolExecutor, catalogue: Catalogue) -> None:
        folder, unit = box.path / _SORTED, catalogue.header.mass
        channels = [
            Bricks(folder / str(i), self.shape, self.halo_brick, self.margin)
            for i in range(HALO_CHANNELS)
        ]

        def sort(chunk: Any) -> float:
            place, mass = catalogue.read(chunk, self.shape[0])
            channel = halo_channel(mass.astype(np.float64) * unit)
            for i, bricks in enumerate(channels):
                bricks.add(place[channel == i], mass[channel == i])
            return float(mass.max(initial=0.0)) * unit

        largest = max(run_all(sort, catalogue.chunks(), pool))
        edges = [*HALO_EDGES, max(largest, HALO_EDGES[-1])]
        array = box.create_array(
            "halo",
            channels=HALO_CHANNELS,
            attributes={
                "smoothing": self.smoothing,
                "smoothing_units": "Mpc/h, standard deviation of a Gaussian",
                "mass_edges": edges,
                "mass_edges_units": "M_sun/h",
                "source": catalogue.label,
            },
        )
        factor = unit / self.voxel**3

        dm, m = box.array("dm"), self.margin

        def write(brick: Any) -> tuple[list[Written], float, float]:
            region = channels[0].region(brick)
            rough = [bricks.deposit(brick, factor) for bricks in channels]
            own = np.sum(rough, axis=0)[m : -m or None, m : -m or None, m : -m or None]
            dense = float(own[np.asarray(dm[region]) > 1].sum(dtype=np.float64))
            smoothed = [smooth(field, self.kernel) for field in rough]
            facts = write_channels(array, region, smoothed)
            return facts, dense, float(own.sum(dtype=np.float64))

        done = run_all(write, channels[0].all(), pool)
        written = [facts for facts, _, _ in done]
        check_haloes(
            f"{catalogue}",
            math.fsum(dense for _, dense, _ in done),
            math.fsum(whole for _, _, whole in done),
            sum(f.above_one for f in self.dm_facts) / math.prod(self.shape),
        )
        self.halo_facts = tuple(
            HaloFacts(
                edges[i],
                edges[i + 1],
                bricks.points,
                bricks.total * unit,
                math.fsum(brick[i].total for brick in written) * self.voxel**3,
            )
            for i, bricks in enumerate(channels)
        )
        shutil.rmtree(folder)

    def _make_tb_of_haloes(self, box: Box, pool: ThreadPoolExecutor, catalogue: Catalogue) -> None:
        header, seed = catalogue.header, catalogue.fingerprint() + (self.hi_draw << 32)
        bricks = Bricks(box.path / _SORTED, self.shape, self.brick, self.margin)

        def sort(chunk: Any) -> None:
            place, mass = catalogue.read(chunk, self.shape[0])
            heavy = np.flatnonzero(mass > 0)  # the relation's logarithm; a halo of no mass has none
            # Index by index, since a point depends on its halo's place in the catalogue.
            points, hi = hi_points(
                chunk[3] + heavy,
                place[heavy] * self.voxel,
                mass[heavy].astype(np.float64) * header.mass,
                header.redshift,
                self.cosmology,
                seed,
            )
            bricks.add(points / self.voxel, hi.astype(np.float32))

        run_all(sort, catalogue.chunks(), pool)
        self._write_tb(box, pool, bricks, 1.0, RELATION, {"hi_seed": seed})

    def _make_tb_of_gas(self, box: Box, pool: ThreadPoolExecutor, gas: Gas) -> None:
        bricks = Bricks(box.path / _SORTED, self.shape, self.brick, self.margin)

        def sort(chunk: Any) -> None:
            coordinates, hi = gas.hydrogen(chunk)
            bricks.add(gas.snapshot.place(chunk, coordinates, self.shape[0]), hi)

        run_all(sort, gas.snapshot.chunks(GAS), pool)
        self._write_tb(box, pool, bricks, gas.snapshot.header.mass, gas.label, {})

    def _write_tb(
        self,
        box: Box,
        pool: ThreadPoolExecutor,
        bricks: Bricks,
        unit: float,
        label: str,
        more: Mapping[str, Any],
    ) -> None:
        """tb of points whose weights are HI masses in units of ``unit`` M☉/h."""
        z = self.source.header.redshift
        self.tb_source = label
        self.omega_hi = bricks.total * unit / self.source.header.box_size**3 / CRITICAL_DENSITY
        array = box.create_array(
            "tb",
            attributes={
                "smoothing": self.smoothing,
                "smoothing_units": "Mpc/h, standard deviation of a Gaussian",
                "source": label,
                "omega_hi": self.omega_hi,
                **more,
            },
        )
        factor = float(brightness_temperature(unit / self.voxel**3, z, self.cosmology))

        def write(brick: Any) -> Written:
            field = smooth(bricks.deposit(brick, factor), self.kernel)
            return write_shard(array, bricks.region(brick), field)

        self.tb_facts = run_all(write, bricks.all(), pool)
        shutil.rmtree(box.path / _SORTED)

    def _provenance(self) -> dict[str, Any]:
        header = self.source.header
        return {
            "command": "bigbox ingest",
            "bigbox": bigbox.__version__,
            "snapshot": [str(p.resolve()) for p in self.source.files[:4]],
            "files": len(self.source.files),
            "code": header.code,
            "particles": self.source.total(DARK),
            "seed": header.seed,
            "halos": [str(p.resolve()) for p in self.catalogue.files[:4]] if self.catalogue else [],
        }

    def told(self, place: Path) -> SnapshotIngested:
        header, voxels = self.source.header, math.prod(self.shape)
        notes = []
        if not header.told_units:
            notes.append(
                f"{self.source}: names no units; kpc/h and 1e10 M_sun/h are taken for granted"
            )
        missing = sorted({"omega_m", "h"} - self.known.keys())
        if missing:
            notes.append(
                f"{self.source}: does not tell {', '.join(missing)}; the defaults are used"
            )
        return SnapshotIngested(
            box=place,
            source=str(self.source),
            shape=self.shape,
            box_size=header.box_size,
            redshift=header.redshift,
            particles=self.source.total(DARK),
            least=min(f.least for f in self.dm_facts),
            largest=max(f.largest for f in self.dm_facts),
            mean=math.fsum(f.total for f in self.dm_facts) / voxels,
            halo=self.halo_facts,
            tb_source=self.tb_source,
            tb_mean=math.fsum(f.total for f in self.tb_facts) / voxels,
            tb_expected=mean_brightness(self.omega_hi, header.redshift, self.cosmology),
            omega_hi=self.omega_hi,
            warnings=tile_warnings(self.shape),
            notes=tuple(notes),
        )


def _voxels(source: Snapshot, grid: int | None) -> int:
    if grid is not None:
        return grid
    side = round(source.total(DARK) ** (1 / 3))
    if side**3 != source.total(DARK):
        raise BadInput(
            f"{source}: {source.total(DARK)} particles are no cube number; give --grid, the voxels "
            "on a side"
        )
    return side
