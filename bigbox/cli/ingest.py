"""`bigbox ingest`: a snapshot or a density grid becomes a box."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_command, number, whole
from bigbox.errors import BadInput

_TEXT = """\
Makes a new box, a zarr store with checksums, of one of two kinds of source.

A snapshot gives dm, the density of its dark matter over its mean (1 + delta, cloud-in-cell), and:
  --halos CATALOGUE   halo, the mass of its haloes in four mass bins, for training and as truth
  --gas               tb, 21 cm brightness from the neutral hydrogen of its gas; what forms stars
                      is neutral, for the rest the neutral fraction is read or, where the snapshot
                      has none (GADGET-4), that of ionisation equilibrium
  --hi-halo           tb from these haloes instead, by the HI-halo relation of Villaescusa-Navarro
                      et al. 2018: a stand-in for hydrodynamics, and labelled so
dm is the dark matter alone (particle type 1), also of a run with gas.
Box size, redshift and cosmology come from its header. SNAPSHOT is a folder, any one of the files,
or all of them: GADGET, AREPO (CAMELS, IllustrisTNG), GADGET-4 or SWIFT, HDF5.

A density grid gives dm alone. It is one of
  grid.npy                a numpy array of shape (nx, ny, nz)
  file.hdf5:/path/to/dm   an HDF5 data set; without :/path the only one of rank 3 or 4
  grid.zarr               a zarr array, or group.zarr:/dm
  Grids_Mcdm_...npy       a CAMELS multifield file of shape (n, N, N, N), with --index
  quickstart              the small real box that bigbox brings (12.5 Mpc/h, 128^3)
in any positive unit (CAMELS: (M_sun/h)/(Mpc/h)^3): the grid is divided by its mean.

Snapshots and grids may be far larger than memory: they are read in blocks, and the blocks in work
take at most 1 GiB together. On any error, and on SIGTERM (exit status 75), nothing is left behind;
what a killed ingest has left in the folder of BOX the next one removes.

example:  bigbox ingest snapdir_033 cv0.zarr --grid 256 --halos groups_033 --hi-halo
          bigbox ingest Grids_Mcdm_IllustrisTNG_CV_256_z=0.0.npy cv0.zarr --index 0 --box-size 25
next:     bigbox plan cv0.zarr --ranks 4
"""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands, "ingest", summary="a snapshot or a density grid becomes a box", text=_TEXT
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="+", help="the snapshot or density grid; see above"
    )
    parser.add_argument("box", metavar="BOX", type=Path, help="the box to make, e.g. box.zarr")
    snapshot = parser.add_argument_group("of a snapshot")
    snapshot.add_argument(
        "--grid",
        type=whole(2),
        metavar="N",
        help="voxels on a side (default: as many as particles on a side, as in the paper)",
    )
    snapshot.add_argument(
        "--halos",
        type=Path,
        nargs="+",
        metavar="CATALOGUE",
        help="halo catalogue of the same run (FOF/SUBFIND): a folder, one file, or all files",
    )
    snapshot.add_argument(
        "--halo-type",
        choices=("group", "subhalo"),
        help="what counts as a halo: FOF groups (default; the masses of the mass bins and of the "
        "HI-halo relation are theirs) or SUBFIND subhaloes at their centres of mass, as the paper",
    )
    hydrogen = snapshot.add_mutually_exclusive_group()
    hydrogen.add_argument("--gas", action="store_true", help="tb from the gas of SNAPSHOT")
    hydrogen.add_argument(
        "--gas-from",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="tb from the gas of another snapshot: the hydrodynamical twin of an N-body SNAPSHOT, "
        "as in the paper, whose dm is that of the N-body run",
    )
    hydrogen.add_argument(
        "--hi-halo", action="store_true", help="tb from the haloes, by the HI-halo relation"
    )
    snapshot.add_argument(
        "--hi-draw",
        type=whole(0, 2**31),
        metavar="K",
        help="which draw of that relation's scatter (default 0); several draws of one simulation "
        "give a training more of it",
    )
    snapshot.add_argument(
        "--uvb",
        type=Path,
        metavar="FILE",
        help="photo-ionisation rates for gas whose neutral fraction the snapshot does not have, in "
        "TREECOOL format (default: Faucher-Giguere et al. 2009, December 2011)",
    )
    snapshot.add_argument(
        "--self-shielding",
        action="store_true",
        help="such gas shields itself where it is dense (Rahmati et al. 2013)",
    )
    snapshot.add_argument(
        "--smoothing",
        type=number(0),
        metavar="R",
        help="Gaussian smoothing of halo and tb, Mpc/h (default 0.2, as the paper; dm has none)",
    )
    grid = parser.add_argument_group("of a density grid")
    grid.add_argument(
        "--box-size",
        type=number(0, above=True),
        nargs="+",
        metavar="L",
        help="side of the box in comoving Mpc/h, or three sides; required unless SOURCE tells it "
        "(its attribute box_size, with box_size_units Mpc/h)",
    )
    grid.add_argument("--redshift", type=number(0), metavar="Z", help="redshift (default 0)")
    grid.add_argument(
        "--index", type=whole(0), metavar="I", help="which grid of a source that holds several"
    )
    cosmology = parser.add_argument_group(
        "cosmology, kept with the box", "where the source does not tell it"
    )
    for flag, text in (
        ("--omega-m", "matter density over critical, today"),
        ("--omega-b", "baryon density over critical, today"),
        ("--h", "H0 / (100 km/s/Mpc)"),
        ("--sigma8", "amplitude of the linear power spectrum at 8 Mpc/h"),
        ("--n-s", "slope of the primordial power spectrum"),
    ):
        cosmology.add_argument(flag, type=number(0, above=True), metavar="X", help=text)
    parser.set_defaults(run=run)


_OF_SNAPSHOTS = (
    *("grid", "halos", "halo_type", "gas", "gas_from", "hi_halo", "hi_draw"),
    *("uvb", "self_shielding", "smoothing"),
)
_OF_GRIDS = ("box_size", "redshift", "index")


def run(options: argparse.Namespace) -> int:
    """Does it, and says what was made and what comes next."""
    from bigbox.ingest.density import COSMOLOGY

    told = {name: getattr(options, name) for name in COSMOLOGY}
    cosmology = {name: value for name, value in told.items() if value is not None}
    snapshot = _is_snapshot(options.source)
    for name in _OF_GRIDS if snapshot else _OF_SNAPSHOTS:
        if getattr(options, name) not in (None, False) and _is_there(options.source[0]):
            kind, other = ("snapshot", "density grid") if snapshot else ("density grid", "snapshot")
            raise BadInput(
                f"{options.source[0]}: is a {kind}; --{name.replace('_', '-')} is of a {other}"
            )
    return _snapshot(options, cosmology) if snapshot else _density(options, cosmology)


def _is_snapshot(sources: list[str]) -> bool:
    """Whether SOURCE is a snapshot: several files, a folder but no zarr store, or its content."""
    from bigbox.ingest.hdf5 import SUFFIXES, has_header
    from bigbox.ingest.sources import QUICKSTART

    if sources == [QUICKSTART]:  # the shipped grid, though a folder be called so
        return False
    path = Path(sources[0])
    if path.is_dir():
        return not any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))
    return len(sources) > 1 or (path.suffix in SUFFIXES and path.is_file() and has_header(path))


def _is_there(source: str) -> bool:
    """Whether SOURCE exists; what does not is told by whoever opens it."""
    from bigbox.ingest.sources import QUICKSTART

    names = (source, source.rsplit(":", 1)[0])
    return source == QUICKSTART or any(Path(name).exists() for name in names)


def _density(options: argparse.Namespace, cosmology: dict[str, float]) -> int:
    from bigbox.ingest.density import ingest

    done = ingest(
        options.source[0],
        options.box,
        box_size=None if options.box_size is None else tuple(options.box_size),
        redshift=options.redshift,
        cosmology=cosmology,
        index=options.index,
    )
    _say(options.box, done.shape, done.box_size, done.redshift, done.notes, done.warnings)
    print(
        f"1 + delta from {done.least / done.mean:.3g} to {done.largest / done.mean:.3g} "
        f"(mean of the source {done.mean:.6g})"
    )
    print(f"next: bigbox plan {options.box}")
    return 0


def _snapshot(options: argparse.Namespace, cosmology: dict[str, float]) -> int:
    from bigbox.ingest.particles import ingest_snapshot
    from bigbox.physics.hydrogen import omega_hi_observed
    from bigbox.physics.smoothing import DEFAULT_RADIUS

    done = ingest_snapshot(
        [Path(source) for source in options.source],
        options.box,
        grid=options.grid,
        halos=options.halos or (),
        halo_type=options.halo_type or "group",
        gas=options.gas_from or options.gas,
        uvb=options.uvb,
        self_shielding=options.self_shielding,
        hi_halo=options.hi_halo,
        hi_draw=options.hi_draw or 0,
        smoothing=DEFAULT_RADIUS if options.smoothing is None else options.smoothing,
        cosmology=cosmology,
    )
    sides = (done.box_size,) * 3
    _say(options.box, done.shape, sides, done.redshift, done.notes, done.warnings)
    print(
        f"dm: {done.particles} particles; 1 + delta from {done.least:.3g} to {done.largest:.3g}, "
        f"mean {done.mean:.7f}"
    )
    for channel in done.halo:
        upper = f"to {channel.upper:.3g} M_sun/h" if channel.haloes else "M_sun/h and above"
        print(
            f"halo: {channel.lower:.3g} {upper}: {channel.haloes} haloes, mass {channel.mass:.7g} "
            f"M_sun/h in the catalogue, {channel.mass_in_array:.7g} in halo"
        )
    if done.tb_source:
        print(f"tb: {done.tb_source}")
        print(
            f"tb: mean {done.tb_mean:.5g} mK, {done.tb_expected:.5g} mK expected of Omega_HI "
            f"{done.omega_hi:.4g}; observed at z = {done.redshift:.2g}: Omega_HI about "
            f"{omega_hi_observed(done.redshift):.1g} (Crighton et al. 2015)"
        )
    print(f"next: bigbox plan {options.box}")
    return 0


def _say(
    box: Path,
    shape: tuple[int, ...],
    sides: tuple[float, ...],
    redshift: float,
    notes: tuple[str, ...],
    warnings: tuple[str, ...],
) -> None:
    for note in notes:
        print(f"bigbox: note: {note}", file=sys.stderr)
    for warning in warnings:
        print(f"bigbox: warning: {warning}", file=sys.stderr)
    print(
        f"{box}: {' x '.join(map(str, shape))} voxels, "
        f"{' x '.join(f'{side:g}' for side in sides)} Mpc/h, z = {redshift:g}, "
        f"voxel {sides[0] / shape[0]:.4g} Mpc/h"
    )
