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

import itertools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bigbox
from bigbox.cosmology import CRITICAL_DENSITY, Cosmology
from bigbox.errors import BadInput
from bigbox.halos import HALO_CHANNELS, HALO_EDGES, halo_channel
from bigbox.hydrogen import RELATION, brightness_temperature, hi_points
from bigbox.ingest.bricks import Bricks
from bigbox.ingest.catalogue import Catalogue, HaloType, open_catalogue
from bigbox.ingest.density import tile_warnings
from bigbox.ingest.snapshot import DARK, GAS, Snapshot, dark_matter, open_snapshot
from bigbox.ingest.work import free_place, making, remove_stale
from bigbox.smoothing import DEFAULT_RADIUS, gaussian_kernel, reach, smooth
from bigbox.store.box import Box, field_chunks

MEMORY = 1 << 30
"""Bytes that the bricks in work may take together, beside the libraries (about 0.2 GB)."""

TASKS = 1024
"""Tasks given to dask at once: its graph must not grow with the snapshot."""

_SORTED = ".sorted"


@dataclass(frozen=True)
class HaloFacts:
    """One channel: haloes in it and their mass, M☉/h, by the catalogue and in the array."""

    least: float
    largest: float
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
    omega_hi: float = 0.0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def ingest_snapshot(
    snapshot: Sequence[Path],
    box: Path,
    *,
    grid: int | None = None,
    halos: Sequence[Path] = (),
    halo_type: HaloType = "group",
    hi_halo: bool = False,
    smoothing: float = DEFAULT_RADIUS,
    cosmology: Mapping[str, float] | None = None,
    memory: int = MEMORY,
) -> SnapshotIngested:
    """Read a snapshot into a new box of grid³ voxels: dm, and what else is asked for.

    snapshot   a folder, any one of the files, or all of them
    grid       voxels on a side; as many as particles on a side when None
    halos      the catalogue of the same run: `halo`, the mass of its haloes in four bins
    hi_halo    `tb` from the haloes, by the relation of `bigbox.hydrogen`
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
    run = _Run(source, catalogue, _voxels(source, grid), smoothing, cosmology or {}, memory)
    run.check_disk(place.parent, hi_halo)
    with making(place) as work, ThreadPoolExecutor(run.workers) as pool:
        run.make(work, pool, hi_halo)
    return run.told(place)


class _Run:
    """One ingest under way."""

    def __init__(
        self,
        source: Snapshot,
        catalogue: Catalogue | None,
        voxels: int,
        smoothing: float,
        cosmology: Mapping[str, float],
        memory: int,
    ) -> None:
        self.source = source
        self.catalogue = catalogue
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
        self.halo_facts: tuple[HaloFacts, ...] = ()
        self.dm_facts: list[_Written] = []
        self.tb_facts: list[_Written] = []
        self.omega_hi = 0.0
        self.tb_source = ""

    def check_disk(self, folder: Path, tb: bool) -> None:
        channels = 1 + (HALO_CHANNELS if self.catalogue else 0) + tb
        arrays = 4 * math.prod(self.shape) * channels
        # Only dm has more points than voxels; on the surfaces of bricks some are there twice.
        sort = 12 * self.source.total(DARK) * (1 + 6 / min(self.brick))
        free = shutil.disk_usage(folder).free
        if arrays + sort > free:
            raise BadInput(
                f"{folder}: the box needs {arrays / 1e9:.1f} GB, and {sort / 1e9:.1f} GB while it "
                f"is made, but {free / 1e9:.1f} GB are free: choose another folder or make room"
            )

    def make(self, work: Path, pool: ThreadPoolExecutor, tb: bool) -> None:
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
        if tb:
            assert self.catalogue is not None
            self._make_tb_of_haloes(box, pool, self.catalogue)

    def _make_dm(self, box: Box, pool: ThreadPoolExecutor) -> None:
        source, folder = self.source, box.path / _SORTED
        bricks = Bricks(folder, self.shape, self.brick, 0)
        one_mass = bool(source.header.table) and source.header.table[DARK] > 0
        names = ("Coordinates",) if one_mass else ("Coordinates", "Masses")

        def sort(chunk: Any) -> None:
            data = source.read(chunk, names)
            place = source.place(chunk, data["Coordinates"], self.shape[0])
            bricks.add(place, source.mass(chunk, data.get("Masses")))

        _run(sort, source.chunks(DARK), pool)
        if bricks.total == 0:
            raise BadInput(f"{source}: all masses of type {DARK} are 0")
        self._check_mass(bricks.total * (source.header.table[DARK] if one_mass else 1.0))
        array = box.create_array("dm", attributes={"smoothing": 0.0, "source": "particles"})
        factor = math.prod(self.shape) / bricks.total

        def write(brick: Any) -> _Written:
            return _write(array, bricks.region(brick), bricks.deposit(brick, factor))

        self.dm_facts = _run(write, bricks.all(), pool)
        shutil.rmtree(folder)

    def _check_mass(self, mass: float) -> None:
        """BadInput where the particles' mass (code units) is not that of such a box."""
        header, omega_m = self.source.header, self.known.get("omega_m")
        if omega_m is None:
            return
        omega = mass * header.mass / header.box_size**3 / CRITICAL_DENSITY
        # With baryons of their own the dark matter is what they leave, at least a half.
        least = 0.5 if self.source.total(GAS) else 0.95
        if not least * omega_m <= omega <= 1.05 * omega_m:
            raise BadInput(
                f"{self.source}: its dark matter in a box of {header.box_size:g} Mpc/h has density "
                f"{omega:.4g} over critical, but Omega_m is {omega_m:g}: units other than "
                f"{header.length:g} Mpc/h and {header.mass:g} M_sun/h, or part of the particles"
            )

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

        largest = max(_run(sort, catalogue.chunks(), pool))
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

        def write(brick: Any) -> list[_Written]:
            return _write_channels(
                array,
                channels[0].region(brick),
                [smooth(bricks.deposit(brick, factor), self.kernel) for bricks in channels],
            )

        written = _run(write, channels[0].all(), pool)
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
        header, seed = catalogue.header, catalogue.fingerprint()
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

        _run(sort, catalogue.chunks(), pool)
        self._write_tb(box, pool, bricks, 1.0, RELATION, {"hi_seed": seed})

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

        def write(brick: Any) -> _Written:
            field = smooth(bricks.deposit(brick, factor), self.kernel)
            return _write(array, bricks.region(brick), field)

        self.tb_facts = _run(write, bricks.all(), pool)
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
            omega_hi=self.omega_hi,
            warnings=tile_warnings(self.shape),
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class _Written:
    total: float
    least: float
    largest: float


def _facts(values: Any) -> _Written:
    return _Written(float(values.sum(dtype=np.float64)), float(values.min()), float(values.max()))


def _write(array: Any, region: Any, values: Any) -> _Written:
    """One whole shard of a 3-D array."""
    array[region] = values
    return _facts(values)


def _write_channels(array: Any, region: Any, values: list[Any]) -> list[_Written]:
    """One whole shard of a 4-D array, all channels."""
    array[(slice(None), *region)] = np.stack(values)
    return [_facts(channel) for channel in values]


def _run(task: Callable[[Any], Any], items: Iterable[Any], pool: ThreadPoolExecutor) -> list[Any]:
    """The results of a task for every item, on dask, a bounded number at a time."""
    import dask

    results: list[Any] = []
    todo = iter(items)
    while batch := list(itertools.islice(todo, TASKS)):
        results += dask.compute(
            *(dask.delayed(task, pure=False)(item) for item in batch), pool=pool
        )
    return results


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
