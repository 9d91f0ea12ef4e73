"""How points become the arrays of a box: sorted by brick, then deposited.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bigbox
from bigbox.blockwise import map_blocks, workers
from bigbox.errors import BadInput
from bigbox.ingestion.catalogue import Catalogue
from bigbox.ingestion.headers import Header
from bigbox.ingestion.hydrogen import Hydrogen
from bigbox.ingestion.ingested import HaloChannel, IngestedSnapshot
from bigbox.ingestion.sanity import (
    Spread,
    check_extent,
    check_halo_mass,
    check_haloes,
    check_mass,
    empty_warnings,
    halo_warnings,
    name_warnings,
    odd_voxel,
    tile_warnings,
)
from bigbox.ingestion.shards import Sums, shard_grid
from bigbox.ingestion.snapshot import (
    DARK,
    Chunk,
    Points,
    Snapshot,
    lighter_matter,
)
from bigbox.ingestion.sorted_points import SortedPoints, sorted_bytes
from bigbox.ingestion.workfolder import check_room
from bigbox.physics.brightness import brightness_temperature, mean_brightness
from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology
from bigbox.physics.mass_bins import HALO_CHANNELS, HALO_EDGES, halo_channel
from bigbox.physics.smoothing import gaussian_kernel, smooth
from bigbox.scheduler.grid import Slices
from bigbox.store.box import Box

_SORTED = ".sorted"


@dataclass
class Making:
    """One ingest under way: of a snapshot, of a catalogue, or of both."""

    header: Header  # of the run
    source: Snapshot | None
    catalogue: Catalogue | None
    tb: Hydrogen | None
    voxels: int  # on a side
    smoothing: float
    known: Mapping[str, float]  # of the cosmology
    memory: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape = (self.voxels,) * 3
        self.voxel = self.header.box_size / self.voxels
        self.kernel = gaussian_kernel(self.smoothing, self.voxel)
        self.margin = len(self.kernel) // 2
        self.smoothed = {
            "smoothing": self.smoothing,
            "smoothing_units": "Mpc/h, standard deviation of a Gaussian",
        }
        brick = shard_grid(self.shape).extent(0)
        window = math.prod(edge + 2 * self.margin + 2 for edge in brick)
        # A window in int64 and as float32, or twice as float32; the brick three times for zarr.
        self.workers = workers(12 * (window + math.prod(brick)) + (64 << 20), self.memory)

    def check_disk(self, place: Path) -> None:
        """Raise BadInput where the box, and the sorted points beside it, have no room."""
        source, bricks, sort = self.source, shard_grid(self.shape), 0.0
        made = (source, self.tb, *[self.catalogue] * HALO_CHANNELS)
        arrays = sum(one is not None for one in made)
        if source is not None:
            weighted = not source.one_mass(DARK)
            sort = sorted_bytes(source.total(DARK), bricks, 0, weighted=weighted)
        if self.tb is not None:
            sort = max(sort, sorted_bytes(self.tb.count, bricks, self.margin, weighted=True))
        check_room(place, "the box needs", 4 * self.voxels**3 * arrays, sort)

    def make(self, folder: Path) -> IngestedSnapshot:
        """Make all arrays of the box, in the store `folder`."""
        source, header, halo = self.source, self.header, self.catalogue
        files = {} if source is None else _provenance(source)
        box = Box.create(
            folder,
            self.shape,
            header.box_size,
            header.redshift,
            cosmology=self.known,
            provenance={
                "command": "bigbox ingest",
                "bigbox": bigbox.__version__,
                **files,
                "code": header.code,
                "seed": header.seed,
                "halos": [str(p.resolve()) for p in halo.files[:4]] if halo else [],
            },
        )
        self._say_what_is_granted()
        dm = None if source is None else self._make_dm(box, source)
        channels = () if halo is None else self._make_halo(box, halo, dm)
        made = {} if self.tb is None else self._make_tb(box, self.tb)
        self.warnings += odd_voxel(self.voxel)
        box.consolidate()
        return IngestedSnapshot(
            box=box.path,
            source=str(source or halo),
            shape=self.shape,
            box_size=(header.box_size,) * 3,
            redshift=header.redshift,
            particles=0 if source is None else source.total(DARK),
            least=0.0 if dm is None else dm.least,
            largest=0.0 if dm is None else dm.largest,
            mean=0.0 if dm is None else dm.total / self.voxels**3,
            halo=channels,
            **made,
            warnings=(*self.warnings, *tile_warnings(self.shape)),
            notes=tuple(self.notes),
        )

    def _say_what_is_granted(self) -> None:
        for one in (self.source, self.catalogue):
            if one is not None and not one.header.has_units:
                length, mass = one.header.length, one.header.mass
                self.notes.append(
                    f"{one}: names no units; {length:g} Mpc/h and {mass:g} M_sun/h are taken for "
                    "granted"
                )
        if missing := sorted({"omega_m", "h"} - self.known.keys()):
            self.notes.append(
                f"{self.source or self.catalogue}: does not tell {', '.join(missing)}; the "
                "defaults are used"
            )

    def _sorted(
        self,
        box: Box,
        chunks: Iterable[Chunk],
        read: Callable[[Chunk], Sequence[Points]],
        margin: int,
        channels: int | None = None,
    ) -> list[SortedPoints]:
        """First pass: what is read of each chunk, for every channel, sorted by brick."""
        bricks = shard_grid(self.shape, channels)
        folder = box.path / _SORTED
        found = [SortedPoints(folder / str(i), bricks, margin) for i in range(channels or 1)]

        def sort(chunk: Chunk) -> None:
            for channel, points in zip(found, read(chunk), strict=True):
                channel.add(*points)

        for _ in map_blocks(sort, chunks, workers=self.workers):
            pass
        return found

    def _written(
        self,
        box: Box,
        name: str,
        channels: Sequence[SortedPoints],
        factor: float,
        attributes: Mapping[str, Any],
        look: Callable[[Slices, list[NDArray[np.float32]]], Any] = lambda region, rough: None,
    ) -> tuple[list[Sums], list[Any]]:
        """Second pass: brick by brick, with a weight of 1 in one voxel worth `factor`.

        Returns the sums of each channel, and what `look` says of the bricks before smoothing.
        """
        count, bricks = len(channels), channels[0].bricks
        array = box.create_array(name, channels=count if count > 1 else None, attributes=attributes)

        def make(brick: int) -> tuple[list[Sums], Any]:
            region = bricks.slices(brick)
            fields = [points.deposit(brick, factor) for points in channels]
            seen = look(region, fields)
            if channels[0].margin:
                fields = [smooth(field, self.kernel) for field in fields]
            array[(..., *region)] = np.stack(fields) if count > 1 else fields[0]
            return [Sums.of(field) for field in fields], seen

        made = list(map_blocks(make, range(bricks.size), workers=self.workers))
        shutil.rmtree(box.path / _SORTED)
        sums, seen = zip(*made, strict=True)
        return [Sums.all(of_channel) for of_channel in zip(*sums, strict=True)], list(seen)

    def _make_dm(self, box: Box, source: Snapshot) -> Sums:
        n, spread = self.voxels, Spread()

        def read(chunk: Chunk) -> list[Points]:
            points = source.points(chunk, n)[0]
            spread.note(points[0])
            return [points]

        (points,) = self._sorted(box, source.chunks(DARK), read, 0)
        if points.total == 0:
            raise BadInput(f"{source}: all masses of type {DARK} are 0")
        check_extent(source, "particles", source.header, spread, n)
        unit = source.one_mass(DARK) or 1.0
        others, notes = lighter_matter(source)
        of_omega_m = 0.0 if source.header.code == "SWIFT" else others  # SWIFT's is without them
        total, omega_m = points.total * unit, self.known.get("omega_m")
        self.warnings += check_mass(source, total, omega_m, of_omega_m)
        factor = n**3 / points.total
        attributes = {"smoothing": 0.0, "source": "particles"}
        sums = self._written(box, "dm", [points], factor, attributes)[0][0]
        self.notes += notes
        self.warnings += spread.said(source, "particles")
        self.warnings += empty_warnings(source, sums.empty / n**3)
        self.warnings += name_warnings(source.files[0], source.header.redshift)
        return sums

    def _make_halo(
        self, box: Box, catalogue: Catalogue, dm: Sums | None
    ) -> tuple[HaloChannel, ...]:
        unit, spread = catalogue.header.mass, Spread()
        density = None if dm is None else box.array("dm")
        weights: list[tuple[float, float]] = []  # sum and heaviest of each chunk
        own = (slice(self.margin, -self.margin or None),) * 3

        def read(chunk: Chunk) -> list[Points]:
            place, mass = catalogue.read(chunk, self.voxels)
            spread.note(place)
            weights.append((float(mass.sum(dtype=np.float64)), float(mass.max(initial=0))))
            channel = halo_channel(mass.astype(np.float64) * unit)
            return [(place[channel == i], mass[channel == i]) for i in range(HALO_CHANNELS)]

        def in_dense(region: Slices, rough: list[NDArray[np.float32]]) -> tuple[float, float]:
            if density is None:
                return 0.0, 0.0
            mass = np.sum(rough, axis=0)[own]
            dense = mass[np.asarray(density[region]) > 1]
            return float(dense.sum(dtype=np.float64)), float(mass.sum(dtype=np.float64))

        channels = self._sorted(box, catalogue.chunks(), read, self.margin, HALO_CHANNELS)
        check_extent(catalogue, "haloes", catalogue.header, spread, self.voxels)
        whole = math.fsum(total for total, _ in weights) * unit
        heaviest = max((most for _, most in weights), default=0.0) * unit
        matter = self.known.get("omega_m", 1.0) * CRITICAL_DENSITY * self.header.box_size**3
        check_halo_mass(catalogue, whole, matter, unit)
        self.warnings += halo_warnings(catalogue, heaviest, HALO_EDGES[0])
        self.warnings += spread.said(catalogue, "haloes")
        self.notes += catalogue.said()
        self.warnings += name_warnings(catalogue.files[0], self.header.redshift)
        edges = [*HALO_EDGES, max(channels[-1].heaviest * unit, HALO_EDGES[-1])]
        attributes = {
            **self.smoothed,
            "mass_edges": edges,
            "mass_edges_units": "M_sun/h",
            "source": catalogue.label,
        }
        factor = unit / self.voxel**3
        sums, seen = self._written(box, "halo", channels, factor, attributes, in_dense)
        if dm is not None:
            dense, of_all = map(math.fsum, zip(*seen, strict=True))
            check_haloes(f"{catalogue}", dense, of_all, dm.above_one / self.voxels**3)
        return tuple(
            HaloChannel(lower, upper, c.points, c.total * unit, s.total * self.voxel**3)
            for lower, upper, c, s in zip(edges[:-1], edges[1:], channels, sums, strict=True)
        )

    def _make_tb(self, box: Box, tb: Hydrogen) -> dict[str, Any]:
        """Make tb; return what an IngestedSnapshot says of it."""
        header, cosmology = self.header, Cosmology.from_header(self.known)
        n, margin = self.voxels, self.margin
        (points,) = self._sorted(box, tb.chunks(), lambda chunk: [tb.points(chunk, n)], margin)
        omega_hi = points.total * tb.unit / header.box_size**3 / CRITICAL_DENSITY
        factor = brightness_temperature(tb.unit / self.voxel**3, header.redshift, cosmology)
        attributes = {**self.smoothed, "source": tb.label, "omega_hi": omega_hi, **tb.attributes}
        ((sums,), _) = self._written(box, "tb", [points], factor, attributes)
        return {
            "tb_source": tb.label,
            "tb_mean": sums.total / self.voxels**3,
            "tb_expected": mean_brightness(omega_hi, header.redshift, cosmology),
            "omega_hi": omega_hi,
        }


def _provenance(source: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": [str(p.resolve()) for p in source.files[:4]],
        "files": len(source.files),
        "particles": source.total(DARK),
    }
