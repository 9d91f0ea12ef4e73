"""How a snapshot, its haloes and its hydrogen become a box: sorted by brick, then deposited.

    particles ──sort──► bricks of dm ─────────CIC──────────────────────► dm    = density / mean
    haloes ────sort──► bricks of each channel ──CIC──smooth R──────────► halo  (4 channels)
    gas, or the haloes' HI ──sort──► bricks of tb ──CIC──smooth R──────► tb    = mK of HI density

The first pass reads everything once, in bounded chunks, and writes each point to the file of its
brick. The second makes one brick after the other, so that memory depends on neither the number of
particles nor the size of the box. Both run on dask. Sums are in fixed point: the box is the same to
the last bit whatever the order of the particles, and however many files they come in.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import bigbox
from bigbox.blockwise import map_blocks
from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, HaloType, open_catalogue
from bigbox.ingest.gas import Gas, open_gas
from bigbox.ingest.ingested import HaloChannel, IngestedSnapshot
from bigbox.ingest.sanity import check_haloes, check_mass, tile_warnings
from bigbox.ingest.shards import MEMORY, Sums, shard_grid, workers, write_shard
from bigbox.ingest.snapshot import DARK, GAS, Chunk, Snapshot, check_dark_matter
from bigbox.ingest.sorted_points import SortedPoints, sorted_bytes
from bigbox.ingest.sources import open_snapshot
from bigbox.ingest.workfolder import check_room, making, new_place
from bigbox.physics.brightness import brightness_temperature, mean_brightness
from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology
from bigbox.physics.hi_halo import RELATION, hi_points
from bigbox.physics.mass_bins import HALO_CHANNELS, HALO_EDGES, halo_channel
from bigbox.physics.smoothing import DEFAULT_RADIUS, gaussian_kernel, smooth
from bigbox.store.box import Box

_SORTED = ".sorted"

TbSource = Gas | Literal["haloes"] | None
"""What tb is made of."""

Points = tuple[NDArray[np.float64], NDArray[np.float32] | None]
"""Places in voxels (M, 3), and weights (M,) or None for 1 each."""


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
    memory: int = MEMORY,
) -> IngestedSnapshot:
    """Read a snapshot into a new box of grid³ voxels: dm, and what else is asked for.

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
    memory : bytes that the bricks in work may take together. At least one is in work.

    Raises
    ------
    BadInput
        For whatever is wrong with the files, the numbers or the place. Nothing is left behind.
    StoppedEarly
        On SIGTERM. Nothing is left behind.
    """
    place = new_place(box)
    source = open_snapshot(snapshot)
    check_dark_matter(source)
    catalogue = open_catalogue(haloes, halo_type) if haloes else None
    if hi_halo and catalogue is None:
        raise BadInput("tb from haloes (--hi-halo) needs their catalogue: give --halos CATALOGUE")
    if catalogue is not None and (wrong := source.header.difference(catalogue.header)):
        raise BadInput(f"{catalogue}: {wrong} than in {source}: a catalogue of another simulation")
    if hi_halo and gas:
        raise BadInput("tb is either of the gas (--gas) or of the haloes (--hi-halo): choose one")
    if (uvb or self_shielding) and not gas:
        raise BadInput("--uvb and --self-shielding are for the gas: give --gas, or leave them")
    tb: TbSource = "haloes" if hi_halo else None
    if gas:
        hydro = source if gas is True else open_snapshot(gas)
        if wrong := source.header.difference(replace(hydro.header, totals=())):
            raise BadInput(f"{hydro}: {wrong} than in {source}: the gas of another simulation")
        h = (cosmology or {}).get("h")
        tb = open_gas(hydro, h=h, table=uvb, self_shielding=self_shielding)
    run = _Ingest(
        source, catalogue, tb, _voxels(source, grid), smoothing, cosmology or {}, memory, hi_draw
    )
    run.check_disk(place)
    with making(place) as folder:
        run.make(folder)
    return run.result(place)


@dataclass
class _Ingest:
    """One ingest under way."""

    source: Snapshot
    catalogue: Catalogue | None
    tb: TbSource
    voxels: int  # on a side
    smoothing: float
    given: Mapping[str, float]  # of the cosmology
    memory: int
    hi_draw: int

    dm_sums: Sums = Sums(0.0, 0.0, 0.0, 0)
    tb_sums: Sums = Sums(0.0, 0.0, 0.0, 0)
    halo_channels: tuple[HaloChannel, ...] = ()
    omega_hi: float = 0.0
    tb_source: str = ""

    def __post_init__(self) -> None:
        header = self.source.header
        self.one_mass = bool(header.table) and header.table[DARK] > 0
        self.shape = (self.voxels,) * 3
        self.voxel = header.box_size / self.voxels
        self.kernel = gaussian_kernel(self.smoothing, self.voxel)
        self.margin = len(self.kernel) // 2
        self.smoothed = {
            "smoothing": self.smoothing,
            "smoothing_units": "Mpc/h, standard deviation of a Gaussian",
        }
        self.known = {**header.cosmology, **self.given}
        self.cosmology = Cosmology.from_header(self.known)
        self.bricks = shard_grid(self.shape)
        brick = [int(axis.length.max()) for axis in self.bricks.axes]
        window = math.prod(edge + 2 * self.margin + 2 for edge in brick)
        # A window in int64 and as float32, or twice as float32; the brick three times for zarr.
        self.workers = workers(12 * (window + math.prod(brick)) + (64 << 20), self.memory)

    def check_disk(self, place: Path) -> None:
        """Raise BadInput where the box, and the sorted points beside it, have no room."""
        arrays = 1 + (HALO_CHANNELS if self.catalogue else 0) + (self.tb is not None)
        sort = sorted_bytes(self.source.total(DARK), self.bricks, 0, weighted=not self.one_mass)
        if isinstance(self.tb, Gas):
            gas = self.tb.snapshot.total(GAS)
            sort = max(sort, sorted_bytes(gas, self.bricks, self.margin, weighted=True))
        check_room(place, "the box needs", 4 * math.prod(self.shape) * arrays, sort)

    def make(self, folder: Path) -> None:
        """Make all arrays of the box, in the store `folder`."""
        header = self.source.header
        box = Box.create(
            folder,
            self.shape,
            header.box_size,
            header.redshift,
            cosmology=self.known,
            provenance=self._provenance(),
        )
        self._make_dm(box)
        if self.catalogue is not None:
            self._make_halo(box, self.catalogue)
        if isinstance(self.tb, Gas):
            self._make_tb_of_gas(box, self.tb)
        elif self.tb == "haloes" and self.catalogue is not None:
            self._make_tb_of_haloes(box, self.catalogue)

    def _map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(map_blocks(function, items, workers=self.workers))

    def _sorted(
        self, box: Box, margin: int, chunks: Iterable[Any], read: Callable[[Any], Points]
    ) -> SortedPoints:
        """First pass: what is read from each chunk, sorted by brick."""
        points = SortedPoints(box.path / _SORTED, self.bricks, margin)
        self._map(lambda chunk: points.add(*read(chunk)), chunks)
        return points

    def _write(
        self, box: Box, name: str, points: SortedPoints, factor: float, attributes: dict[str, Any]
    ) -> Sums:
        """Second pass: brick by brick, with a weight of 1 in one voxel worth `factor`."""
        array = box.create_array(name, attributes=attributes)

        def make(brick: int) -> Sums:
            field = points.deposit(brick, factor)
            if points.margin:
                field = smooth(field, self.kernel)
            write_shard(array, self.bricks.slices(brick), field)
            return Sums.of(field)

        sums = Sums.all(self._map(make, range(self.bricks.size)))
        shutil.rmtree(points.folder)
        return sums

    def _make_dm(self, box: Box) -> None:
        source, header = self.source, self.source.header
        names = ("Coordinates",) if self.one_mass else ("Coordinates", "Masses")

        def read(chunk: Chunk) -> Points:
            data = source.read(chunk, names)
            place = source.place(chunk, data["Coordinates"], self.voxels)
            return place, source.mass(chunk, data.get("Masses"))

        points = self._sorted(box, 0, source.chunks(DARK), read)
        if points.total == 0:
            raise BadInput(f"{source}: all masses of type {DARK} are 0")
        unit = header.table[DARK] if self.one_mass else 1.0
        check_mass(source, points.total * unit, self.known.get("omega_m"))
        factor = math.prod(self.shape) / points.total
        attributes = {"smoothing": 0.0, "source": "particles"}
        self.dm_sums = self._write(box, "dm", points, factor, attributes)

    def _make_halo(self, box: Box, catalogue: Catalogue) -> None:
        folder, unit, m = box.path / _SORTED, catalogue.header.mass, self.margin
        bricks = shard_grid(self.shape, HALO_CHANNELS)
        channels = [SortedPoints(folder / str(i), bricks, m) for i in range(HALO_CHANNELS)]

        def sort(chunk: Any) -> float:
            place, mass = catalogue.read(chunk, self.voxels)
            channel = halo_channel(mass.astype(np.float64) * unit)
            for i, points in enumerate(channels):
                points.add(place[channel == i], mass[channel == i])
            return float(mass.max(initial=0.0)) * unit

        largest = max(self._map(sort, catalogue.chunks()))
        edges = [*HALO_EDGES, max(largest, HALO_EDGES[-1])]
        array = box.create_array(
            "halo",
            channels=HALO_CHANNELS,
            attributes={
                **self.smoothed,
                "mass_edges": edges,
                "mass_edges_units": "M_sun/h",
                "source": catalogue.label,
            },
        )
        dm, factor = box.array("dm"), unit / self.voxel**3

        def make(brick: int) -> tuple[list[Sums], float, float]:
            region = bricks.slices(brick)
            rough = [points.deposit(brick, factor) for points in channels]
            own = np.sum(rough, axis=0)[m : -m or None, m : -m or None, m : -m or None]
            dense = float(own[np.asarray(dm[region]) > 1].sum(dtype=np.float64))
            smoothed = np.stack([smooth(field, self.kernel) for field in rough])
            write_shard(array, region, smoothed)
            return [Sums.of(field) for field in smoothed], dense, float(own.sum(dtype=np.float64))

        sums, dense, whole = zip(*self._map(make, range(bricks.size)), strict=True)
        volume = self.dm_sums.above_one / math.prod(self.shape)
        check_haloes(f"{catalogue}", math.fsum(dense), math.fsum(whole), volume)
        self.halo_channels = tuple(
            HaloChannel(
                edges[i],
                edges[i + 1],
                points.points,
                points.total * unit,
                math.fsum(brick[i].total for brick in sums) * self.voxel**3,
            )
            for i, points in enumerate(channels)
        )
        shutil.rmtree(folder)

    def _make_tb_of_haloes(self, box: Box, catalogue: Catalogue) -> None:
        header, seed = catalogue.header, catalogue.fingerprint() + (self.hi_draw << 32)

        def read(chunk: Any) -> Points:
            place, mass = catalogue.read(chunk, self.voxels)
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
            return points / self.voxel, hi.astype(np.float32)

        points = self._sorted(box, self.margin, catalogue.chunks(), read)
        self._write_tb(box, points, 1.0, RELATION, {"hi_seed": seed})

    def _make_tb_of_gas(self, box: Box, gas: Gas) -> None:
        def read(chunk: Chunk) -> Points:
            coordinates, hi = gas.hydrogen(chunk)
            return gas.snapshot.place(chunk, coordinates, self.voxels), hi

        points = self._sorted(box, self.margin, gas.snapshot.chunks(GAS), read)
        self._write_tb(box, points, gas.snapshot.header.mass, gas.label, {})

    def _write_tb(
        self, box: Box, points: SortedPoints, unit: float, label: str, more: Mapping[str, Any]
    ) -> None:
        """Write tb of points whose weights are HI masses in units of `unit` M☉/h."""
        header = self.source.header
        self.tb_source = label
        self.omega_hi = points.total * unit / header.box_size**3 / CRITICAL_DENSITY
        factor = brightness_temperature(unit / self.voxel**3, header.redshift, self.cosmology)
        attributes = {**self.smoothed, "source": label, "omega_hi": self.omega_hi, **more}
        self.tb_sums = self._write(box, "tb", points, factor, attributes)

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

    def result(self, place: Path) -> IngestedSnapshot:
        """Return what was done."""
        source, header, voxels = self.source, self.source.header, math.prod(self.shape)
        notes = []
        if not header.has_units:
            notes.append(f"{source}: names no units; kpc/h and 1e10 M_sun/h are taken for granted")
        if missing := sorted({"omega_m", "h"} - self.known.keys()):
            notes.append(f"{source}: does not tell {', '.join(missing)}; the defaults are used")
        return IngestedSnapshot(
            box=place,
            source=str(source),
            shape=self.shape,
            box_size=(header.box_size,) * 3,
            redshift=header.redshift,
            particles=source.total(DARK),
            least=self.dm_sums.least,
            largest=self.dm_sums.largest,
            mean=self.dm_sums.total / voxels,
            halo=self.halo_channels,
            tb_source=self.tb_source,
            tb_mean=self.tb_sums.total / voxels,
            tb_expected=mean_brightness(self.omega_hi, header.redshift, self.cosmology),
            omega_hi=self.omega_hi,
            warnings=tile_warnings(self.shape),
            notes=tuple(notes),
        )


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
