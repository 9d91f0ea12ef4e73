"""`bigbox.ingest`: a snapshot, a halo catalogue or a density grid becomes a box."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bigbox.api.cosmology import parameters_of
from bigbox.errors import BadInput
from bigbox.ingestion.ingested import Ingested

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

LOG = logging.getLogger("bigbox")
PathLike = str | Path
Paths = PathLike | Sequence[PathLike]

_OF_SNAPSHOTS = (
    *("grid", "halos", "halo_type", "gas", "gas_from", "hi_halo", "hi_draw"),
    *("uvb", "self_shielding", "smoothing", "length_unit", "mass_unit"),
    *("halo_length_unit", "halo_mass_unit"),
)
_OF_GRIDS = ("index", "empty_chunks")
_OF_HALOES = ("grid", "halo_type", "hi_halo", "hi_draw", "smoothing")  # of a catalogue alone
_OF_BOTH = ("box_size", "redshift")


def ingest(
    source: Paths | None,
    box: PathLike,
    *,
    grid: int | None = None,
    halos: Paths | None = None,
    halo_type: Literal["group", "subhalo"] | None = None,
    gas: bool = False,
    gas_from: Paths | None = None,
    hi_halo: bool = False,
    hi_draw: int | None = None,
    uvb: PathLike | None = None,
    self_shielding: bool = False,
    smoothing: float | None = None,
    box_size: float | Sequence[float] | None = None,
    redshift: float | None = None,
    length_unit: float | None = None,
    mass_unit: float | None = None,
    halo_length_unit: float | None = None,
    halo_mass_unit: float | None = None,
    index: int | None = None,
    empty_chunks: bool = False,
    cosmology: Mapping[str, float] | FLRW | None = None,
) -> Ingested:
    """Make a new box of a snapshot, a halo catalogue or a density grid.

    Parameters
    ----------
    source : A snapshot (a folder, one of its files, or all), a density grid, or "quickstart", the
        small box that comes along. None: of `halos` alone.
    box : The box to make.
    grid : Voxels on a side. None: as many as particles on a side.
    halos : The halo catalogue of the same run: gives halo, and with `hi_halo` tb.
    halo_type : "group" (None) or "subhalo".
    gas : Make tb of the snapshot's gas. gas_from: of another snapshot's.
    hi_halo : Make tb of the haloes by the HI-halo relation, a stand-in for hydrodynamics.
    hi_draw : Which draw of that relation's scatter (0).
    uvb, self_shielding : Of gas without a neutral fraction: TREECOOL file; Rahmati et al. 2013.
    smoothing : Gaussian smoothing of halo and tb, Mpc/h (0.2).
    box_size : Comoving Mpc/h, one number or three, in the place of what the source tells.
    redshift : The same.
    length_unit, mass_unit, halo_length_unit, halo_mass_unit : Mpc/h and M_sun/h per unit of the
        files, in the place of what they tell.
    index, empty_chunks : Of a density grid: which of several; chunks that are not stored are 0.
    cosmology : omega_m, omega_b, h, sigma8, n_s where the source does not tell them: a mapping, or
        a cosmology of astropy.

    Returns
    -------
    Ingested
        What was made; `IngestedSnapshot` where particles or haloes were read.

    Raises
    ------
    BadInput
        A ValueError: files, numbers or place are wrong. Nothing is left behind.
    StoppedEarly
        A RuntimeError: SIGTERM. Nothing is left behind.

    Examples
    --------
    >>> import bigbox, numpy as np
    >>> np.save("rho.npy", np.random.default_rng(0).gamma(0.5, 2.0, (32, 32, 32)))
    >>> made = bigbox.ingest("rho.npy", "rho.zarr", box_size=3.125, redshift=0)
    >>> made.shape, made.voxel
    ((32, 32, 32), 0.09765625)
    """
    asked = {
        name: value
        for name, value in locals().items()
        if name in (*_OF_SNAPSHOTS, *_OF_GRIDS, *_OF_BOTH)
        and value is not None
        and value is not False  # 0 is a number: a redshift, a smoothing, an index
    }
    for name in ("halos", "gas_from"):
        if name in asked:
            asked[name] = _paths(asked[name])
    if "box_size" in asked:
        asked["box_size"] = (
            [box_size] if isinstance(box_size, (int, float)) else list(box_size or ())
        )
    if "uvb" in asked:
        asked["uvb"] = Path(asked["uvb"])
    known, place = parameters_of(cosmology), Path(box)
    if source is None:
        done = _haloes(asked, place, known)
    else:
        names = [source] if isinstance(source, (str, Path)) else list(source)
        snapshot = _is_snapshot([str(one) for one in names], asked)
        done = (_snapshot if snapshot else _density)(names, asked, place, known)
    for line in done.notes:
        LOG.info("note: %s", line)
    for line in done.warnings:
        LOG.warning("%s", line)
    return done


def _paths(given: Paths) -> list[Path]:
    return [Path(one) for one in ([given] if isinstance(given, (str, Path)) else given)]


def _is_snapshot(source: Sequence[str], asked: Mapping[str, Any]) -> bool:
    """Return whether it is a snapshot, else a density grid. Raises BadInput."""
    from bigbox.ingestion.formats import find
    from bigbox.ingestion.sources import QUICKSTART

    if not source:
        raise BadInput("ingest: names no source; give one, or a halo catalogue alone")
    sources = [Path(name) for name in source]
    shipped = list(source) == [QUICKSTART]  # though a file or folder be called so
    row = None if shipped else find(sources, "particles", "grid")
    if row is None and not shipped and find(sources, "haloes"):
        raise BadInput(
            f"{source[0]}: is a halo catalogue: give it with --halos CATALOGUE, alone or beside "
            "its snapshot"
        )
    # Of what no format recognises, the HDF5 reader says what is wrong with several or a folder.
    snapshot = row.holds == "particles" if row else sources[0].is_dir() and not shipped
    snapshot = snapshot or len(sources) > 1
    named = (source[0], source[0].rsplit(":", 1)[0])
    there = shipped or any(Path(name).exists() for name in named)
    kind, other = ("snapshot", "density grid") if snapshot else ("density grid", "snapshot")
    wrong = _OF_GRIDS if snapshot else _OF_SNAPSHOTS
    for name in (name for name in wrong if there and name in asked):
        flag = name.replace("_", "-")
        raise BadInput(f"{source[0]}: is a {kind}; --{flag} is of a {other}")
    return snapshot


def _density(
    source: Sequence[PathLike], asked: dict[str, Any], box: Path, cosmology: dict[str, float]
) -> Ingested:
    from bigbox.ingestion.density import ingest_density

    given = {name: asked[name] for name in (*_OF_GRIDS, *_OF_BOTH) if name in asked}
    return ingest_density(str(source[0]), box, cosmology=cosmology, **given)


def _snapshot(
    source: Sequence[PathLike], asked: dict[str, Any], box: Path, cosmology: dict[str, float]
) -> Ingested:
    from bigbox.ingestion.headers import Told
    from bigbox.ingestion.particles import ingest_snapshot

    sources, given = _paths(source), {**asked}
    units = [given.pop(name, None) for name in ("length_unit", "mass_unit")]
    of_haloes = [given.pop(name, None) for name in ("halo_length_unit", "halo_mass_unit")]
    told = Told(_side(given, sources[0]), given.pop("redshift", None), *units)
    gas, gas_from = given.pop("gas", False), given.pop("gas_from", None)
    if gas and gas_from:
        raise BadInput(f"{gas_from[0]}: tb is either of the snapshot's gas or of this one's")
    given |= {"haloes": given.pop("halos", ()), "gas": gas_from or gas}
    units_of_haloes = (of_haloes[0], of_haloes[1])
    return ingest_snapshot(
        sources, box, cosmology=cosmology, told=told, halo_units=units_of_haloes, **given
    )


def _haloes(asked: dict[str, Any], box: Path, cosmology: dict[str, float]) -> Ingested:
    """Ingest a catalogue alone."""
    from bigbox.ingestion.headers import Told
    from bigbox.ingestion.particles import ingest_haloes

    given = {**asked}
    if not (halos := given.pop("halos", None)):
        raise BadInput("ingest: names neither a source nor a halo catalogue")
    units = [given.pop(name, None) for name in ("halo_length_unit", "halo_mass_unit")]
    told = Told(_side(given, halos[0]), given.pop("redshift", None), *units)
    for name in given.keys() - set(_OF_HALOES):
        raise BadInput(
            f"{halos[0]}: is a halo catalogue alone; --{name.replace('_', '-')} needs a SOURCE: "
            "bigbox ingest SOURCE BOX --halos CATALOGUE"
        )
    return ingest_haloes(halos, box, cosmology=cosmology, told=told, **given)


def _side(given: dict[str, Any], source: Path) -> float | None:
    """Take the side of a cube, Mpc/h, where it was given, from what was given."""
    sides = set(given.pop("box_size", ()))
    if len(sides) > 1:
        raise BadInput(f"{source}: is of a box that is a cube: give --box-size one number")
    return min(sides, default=None)
