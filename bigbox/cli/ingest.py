"""`bigbox ingest`: a snapshot or a density grid becomes a box."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_cosmology, add_value, cosmology, count, number, whole
from bigbox.errors import BadInput
from bigbox.ingest.formats import FORMATS, find
from bigbox.ingest.ingested import Ingested, IngestedSnapshot

_TEXT = """\
Makes a new box, a zarr store with checksums, of one of three kinds of source.

A snapshot gives dm, the density of its dark matter over its mean (1 + delta, cloud-in-cell), and:
  --halos CATALOGUE   halo, the mass of its haloes in four mass bins, for training and as truth
  --gas               tb, 21 cm brightness from the neutral hydrogen of its gas; what forms stars
                      is neutral, for the rest the neutral fraction is read or, where the snapshot
                      has none (GADGET-4), that of ionisation equilibrium
  --hi-halo           tb from these haloes instead, by the HI-halo relation of Villaescusa-Navarro
                      et al. 2018: a stand-in for hydrodynamics, and labelled so
dm is the dark matter alone (particle type 1), also of a run with gas.
Box size, redshift and cosmology come from its header. SNAPSHOT is a folder, any one of the files,
or all of them, HDF5, of one of these codes:
{particles}

A halo catalogue alone (no SOURCE, but --halos CATALOGUE and --grid) gives halo; LODI paints on it.
CATALOGUE is one of
{haloes}
Box size, redshift or units that it does not tell are told by options. Subhaloes do not count where
they can be told, but with --halo-type subhalo.

A density grid gives dm alone. It is one of
{grid}
  Grids_Mcdm_...npy       a CAMELS multifield file of shape (n, N, N, N), with --index
  quickstart              the small real box that bigbox brings (12.5 Mpc/h, 128^3)
in any positive unit (CAMELS: (M_sun/h)/(Mpc/h)^3): the grid is divided by its mean.

Snapshots and grids may be far larger than memory: they are read in blocks, and the blocks in work
take at most 1 GiB together. On any error, and on SIGTERM (exit status 75), nothing is left behind;
what a killed ingest has left in the folder of BOX the next one removes. Other packages can add
formats of snapshots and grids (entry points bigbox.snapshot_formats).

example:  bigbox ingest snapdir_033 cv0.zarr --grid 256 --halos groups_033 --hi-halo
          bigbox ingest --halos out_33.list cv0.zarr --grid 256
          bigbox ingest Grids_Mcdm_IllustrisTNG_CV_256_z=0.0.npy cv0.zarr --index 0 --box-size 25
next:     bigbox plan cv0.zarr --ranks 4
"""

_HELP = {
    holds: "\n".join(f"  {row.help}" for row in FORMATS if row.holds == holds)
    for holds in ("particles", "grid", "haloes")
}
TEXT = _TEXT.format(**_HELP)
SUMMARY = "a snapshot or a density grid becomes a box"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = (
        "SOURCE and BOX: the files of the snapshot or density grid (see above), then the box to "
        "make, e.g. box.zarr; with --halos the box alone"
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", help=text)
    _add_snapshot_options(parser.add_argument_group("of a snapshot or a halo catalogue"))
    told = parser.add_argument_group("of either, in the place of what SOURCE tells")
    text = "side of the box in comoving Mpc/h, or three sides of a density grid"
    add_value(told, "--box-size", "L", number(0, above=True), text, nargs="+")
    text = "redshift (of a grid that tells none, nor its name: 0)"
    add_value(told, "--redshift", "Z", number(0), text)
    grid = parser.add_argument_group("of a density grid")
    add_value(grid, "--index", "I", whole(0), "which grid of a source that holds several")
    text = "chunks that SOURCE has not stored hold its fill value, as 0; else they count as lost"
    grid.add_argument("--empty-chunks", action="store_true", help=text)
    add_cosmology(parser, "cosmology, kept with the box", "where the source does not tell it")


def _add_snapshot_options(snapshot: Any) -> None:
    text = "voxels on a side (default: as many as particles on a side, as in the paper)"
    add_value(snapshot, "--grid", "N", whole(2), text)
    text = "halo catalogue, of the same run: a folder, one file, or all files"
    add_value(snapshot, "--halos", "CATALOGUE", Path, text, nargs="+")
    snapshot.add_argument(
        "--halo-type",
        choices=("group", "subhalo"),
        help="what counts as a halo: FOF groups (default; the masses of the mass bins and of the "
        "HI-halo relation are theirs) or SUBFIND subhaloes at their centres of mass, as the paper",
    )
    hydrogen = snapshot.add_mutually_exclusive_group()
    hydrogen.add_argument("--gas", action="store_true", help="tb from the gas of SNAPSHOT")
    text = (
        "tb from the gas of another snapshot: the hydrodynamical twin of an N-body SNAPSHOT, "
        "as in the paper, whose dm is that of the N-body run"
    )
    add_value(hydrogen, "--gas-from", "RUN", Path, text, nargs="+")
    text = "tb from the haloes, by the HI-halo relation"
    hydrogen.add_argument("--hi-halo", action="store_true", help=text)
    text = (
        "which draw of that relation's scatter (default 0); several draws of one simulation "
        "give a training more of it"
    )
    add_value(snapshot, "--hi-draw", "K", whole(0, 2**31), text)
    text = (
        "photo-ionisation rates for gas whose neutral fraction the snapshot does not have, in "
        "TREECOOL format (default: Faucher-Giguere et al. 2009, December 2011)"
    )
    add_value(snapshot, "--uvb", "FILE", Path, text)
    text = "such gas shields itself where it is dense (Rahmati et al. 2013)"
    snapshot.add_argument("--self-shielding", action="store_true", help=text)
    text = "comoving Mpc/h per unit of length, in the place of what the files tell (kpc/h: 1e-3)"
    add_value(snapshot, "--length-unit", "X", number(0, above=True), text)
    text = "M_sun/h per unit of mass, in the place of what the files tell"
    add_value(snapshot, "--mass-unit", "X", number(0, above=True), text)
    text = "the same of CATALOGUE, in the place of what it tells (columns: 1, Mpc/h)"
    add_value(snapshot, "--halo-length-unit", "X", number(0, above=True), text)
    text = "the same of CATALOGUE (columns: 1, M_sun/h)"
    add_value(snapshot, "--halo-mass-unit", "X", number(0, above=True), text)
    text = "Gaussian smoothing of halo and tb, Mpc/h (default 0.2, as the paper; dm has none)"
    add_value(snapshot, "--smoothing", "R", number(0), text)


_OF_SNAPSHOTS = (
    *("grid", "halos", "halo_type", "gas", "gas_from", "hi_halo", "hi_draw"),
    *("uvb", "self_shielding", "smoothing", "length_unit", "mass_unit"),
    *("halo_length_unit", "halo_mass_unit"),
)
_OF_GRIDS = ("index", "empty_chunks")
_OF_HALOES = ("grid", "halo_type", "hi_halo", "hi_draw", "smoothing")  # of a catalogue alone
_OF_BOTH = ("box_size", "redshift")


def run(options: argparse.Namespace) -> int:
    """Ingest, and say what was made and what comes next."""
    from bigbox.ingest.sources import QUICKSTART

    source, box = _source_and_box(options)
    if not source:
        return _haloes(options, box)
    sources = [Path(name) for name in source]
    shipped = source == [QUICKSTART]  # though a file or folder be called so
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
    for name in _given(options, _OF_GRIDS if snapshot else _OF_SNAPSHOTS) if there else ():
        flag = name.replace("_", "-")
        raise BadInput(f"{source[0]}: is a {kind}; --{flag} is of a {other}")
    return _snapshot(options, sources, box) if snapshot else _density(options, source[0], box)


def _source_and_box(options: argparse.Namespace) -> tuple[list[str], Path]:
    """Return what is read, nothing for a catalogue alone, and the box to make."""
    *source, box = options.paths or [None]
    if box is None and options.halos and len(options.halos) > 1:
        box = str(options.halos.pop())  # BOX stood behind --halos CATALOGUE
    if box is None or not (source or options.halos):
        raise BadInput(
            "name SOURCE and BOX, or --halos CATALOGUE and BOX (see bigbox ingest --help)"
        )
    return source, Path(box)


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Options that were given, by name; 0 is given."""
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if not (value is None or value is False)}


def _density(options: argparse.Namespace, source: str, box: Path) -> int:
    from bigbox.ingest.density import ingest_density

    given = _given(options, (*_OF_GRIDS, *_OF_BOTH))
    done = ingest_density(source, box, cosmology=cosmology(options), **given)
    _say(box, done)
    print(
        f"1 + delta from {done.least / done.mean:.3g} to {done.largest / done.mean:.3g} "
        f"(mean of the source {done.mean:.6g})"
    )
    print(f"next: bigbox plan {box}")
    return 0


def _snapshot(options: argparse.Namespace, sources: list[Path], box: Path) -> int:
    from bigbox.ingest.headers import Told
    from bigbox.ingest.particles import ingest_snapshot

    given = _given(options, _OF_SNAPSHOTS)
    units = (given.pop(name, None) for name in ("length_unit", "mass_unit"))
    of_haloes = (given.pop(name, None) for name in ("halo_length_unit", "halo_mass_unit"))
    given["told"] = Told(_side(options, sources[0]), options.redshift, *units)
    given |= {"haloes": given.pop("halos", ()), "gas": given.pop("gas_from", options.gas)}
    done = ingest_snapshot(
        sources, box, cosmology=cosmology(options), halo_units=tuple(of_haloes), **given
    )
    _say(box, done)
    print(
        f"dm: {done.particles} particles; 1 + delta from {done.least:.3g} to {done.largest:.3g}, "
        f"mean {done.mean:.7f}"
    )
    return _say_haloes(box, done)


def _haloes(options: argparse.Namespace, box: Path) -> int:
    """Ingest a catalogue alone."""
    from bigbox.ingest.headers import Told
    from bigbox.ingest.particles import ingest_haloes

    given = _given(options, (*_OF_SNAPSHOTS, *_OF_GRIDS))
    halos = given.pop("halos")
    units = [given.pop(name, None) for name in ("halo_length_unit", "halo_mass_unit")]
    for name in given.keys() - set(_OF_HALOES):
        raise BadInput(
            f"{halos[0]}: is a halo catalogue alone; --{name.replace('_', '-')} needs a SOURCE: "
            "bigbox ingest SOURCE BOX --halos CATALOGUE"
        )
    told = Told(_side(options, halos[0]), options.redshift, *units)
    done = ingest_haloes(halos, box, cosmology=cosmology(options), told=told, **given)
    _say(box, done)
    return _say_haloes(box, done)


def _side(options: argparse.Namespace, source: Path) -> float | None:
    """Return the side of a cube, Mpc/h, where it was given."""
    sides = set(options.box_size or ())
    if len(sides) > 1:
        raise BadInput(f"{source}: is of a box that is a cube: give --box-size one number")
    return min(sides, default=None)


def _say_haloes(box: Path, done: IngestedSnapshot) -> int:
    from bigbox.physics.brightness import observed_omega_hi

    for channel in done.halo:
        upper = f"to {channel.upper:.3g} M_sun/h" if channel.haloes else "M_sun/h and above"
        print(
            f"halo: {channel.lower:.3g} {upper}: {count(channel.haloes, 'halo')}, mass "
            f"{channel.mass:.7g} M_sun/h in the catalogue, {channel.mass_in_array:.7g} in halo"
        )
    if done.tb_source:
        print(f"tb: {done.tb_source}")
        print(
            f"tb: mean {done.tb_mean:.5g} mK, {done.tb_expected:.5g} mK expected of Omega_HI "
            f"{done.omega_hi:.4g}; observed at z = {done.redshift:.2g}: Omega_HI about "
            f"{observed_omega_hi(done.redshift):.1g} (Crighton et al. 2015)"
        )
    print(f"next: bigbox plan {box}")
    return 0


def _say(box: Path, done: Ingested) -> None:
    for kind, lines in (("note", done.notes), ("warning", done.warnings)):
        for line in lines:
            print(f"bigbox: {kind}: {line}", file=sys.stderr)
    print(
        f"{box}: {' x '.join(map(str, done.shape))} voxels, "
        f"{' x '.join(f'{side:g}' for side in done.box_size)} Mpc/h, z = {done.redshift:g}, "
        f"voxel {done.box_size[0] / done.shape[0]:.4g} Mpc/h"
    )
