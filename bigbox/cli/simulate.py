"""`bigbox simulate`: a box of dark matter and haloes for those who have no snapshot at hand."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigbox.cli.values import add_cosmology, add_value, cosmology, in_time, number, whole

TEXT = """\
Runs a small dark-matter simulation: Gaussian initial conditions from CAMB's linear power spectrum,
second-order displacements (2LPT) at z = 49, a particle-mesh run to the asked redshift, and
friends-of-friends haloes (linking length 0.2, 32 particles or more).

OUT is a new folder with two files that `bigbox ingest` reads like any other run's:
  snapdir_000/snapshot_000.hdf5         a snapshot as GADGET-4 writes it
  groups_000/fof_subhalo_tab_000.hdf5   its catalogue of haloes: mass, velocity, and the place of
                                        lowest potential; no subhaloes

How far it is right: the force is that of point masses beyond three mesh cells and is softened
below, where haloes are too wide. Against a TreePM run (GADGET-4) of the same initial conditions, at
the resolution of CAMELS (128^3 in 12.5 Mpc/h, where a cell is 49 kpc/h), by default:
  matter power      within 1.5 % to k = 9 h/Mpc, 4 % too low at 17, 8 % at 26
  haloes            of 390 particles (3e10 M_sun/h) and more: 0.95 as many; masses 1.5 % too low at
                    the small end, 3.5 % too high at the large one; half are within 28 kpc/h
  below             fewer (0.84 of those of 130 to 390 particles) and 6 % too light
Inside of 100 kpc/h, density profiles are not to be trusted. --mesh-factor 3 costs twice as much: it
finds 1.01 as many haloes and 0.94 of the smaller ones, 0 to 3 % too heavy, half within 16 kpc/h,
and power 2.5 % higher than that run's at 9 h/Mpc.

On a CPU that others use as well, one thread (OMP_NUM_THREADS=1) is faster than several. On any
error, and on SIGTERM (exit status 75), nothing is left behind. The same seed gives the same bytes
on the same machine; on a GPU, where sums come in any order, the same up to rounding.

example:  bigbox simulate sim --grid 128 --box-size 12.5 --seed 1
next:     bigbox ingest sim/snapdir_000 box.zarr --grid 128 --halos sim/groups_000 --hi-halo
"""

SUMMARY = "a small N-body run: snapshot and haloes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    for flag, metavar, read, text in (
        ("--grid", "N", whole(8), "particles on a side, even"),
        ("--box-size", "L", number(0, above=True), "side of the box in comoving Mpc/h"),
        ("--seed", "S", whole(0), "of the initial conditions"),
    ):
        add_value(parser, flag, metavar, read, text, required=True)
    add_value(parser, "--redshift", "Z", number(0), "of the output (default 0)", 0.0)
    add_value(parser, "--steps", "K", whole(1), "steps (default 100)")
    text = "mesh points for each particle, on a side (default 2)"
    add_value(parser, "--mesh-factor", "F", whole(1, 8), text)
    add_value(parser, "--device", "D", str, "cpu, cuda, cuda:1 (default: a GPU if any)", "auto")
    add_cosmology(parser, "cosmology, flat, no neutrinos (default: CAMELS)", defaults=True)


def run(options: argparse.Namespace) -> int:
    """Simulate, and say what was made and what comes next."""
    from bigbox.physics.cosmology import Cosmology
    from bigbox.simulate.options import Options
    from bigbox.simulate.run import simulate

    given = {name: getattr(options, name) for name in ("grid", "seed", "redshift")}
    for name in ("steps", "mesh_factor"):
        if (value := getattr(options, name)) is not None:
            given[name] = value
    asked = Options(side=options.box_size, cosmology=Cosmology(**cosmology(options)), **given)
    made = simulate(options.out, asked, options.device)
    print(
        f"{options.out}: {asked.grid}^3 particles of {asked.particle_mass:.3g} M_sun/h, "
        f"{asked.side:g} Mpc/h, z = {asked.redshift:g}, {made.haloes} haloes, the largest of "
        f"{made.largest:.3g} M_sun/h, in {in_time(made.seconds)}"
    )
    print(
        f"next: bigbox ingest {made.snapshot.parent} box.zarr --grid {asked.grid} "
        f"--halos {made.catalogue.parent} --hi-halo"
    )
    return 0
