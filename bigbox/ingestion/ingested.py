"""What an ingest did, for the one who asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What an ingest did.

    Of a density grid, mean, least and largest are those of the source, in its own unit. Of a
    snapshot they are those of 1 + delta.
    """

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

    @property
    def voxel(self) -> float:
        """Side of a voxel, Mpc/h."""
        return self.box_size[0] / self.shape[0]


@dataclass(frozen=True)
class HaloChannel:
    """One channel: haloes in it and their mass, M☉/h, by the catalogue and in the array."""

    lower: float
    upper: float
    haloes: int
    mass: float
    mass_in_array: float


@dataclass(frozen=True, kw_only=True)
class IngestedSnapshot(Ingested):
    """What an ingest of a snapshot did."""

    particles: int
    halo: tuple[HaloChannel, ...] = ()
    tb_source: str = ""
    tb_mean: float = 0.0  # mK, of the array
    tb_expected: float = 0.0  # mK, of Omega_HI
    omega_hi: float = 0.0
