"""`bigbox simulate`: a box of dark matter and haloes for those who have no snapshot at hand."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bigbox.cli.values import add_cosmology, add_value, cosmology, count, in_time, number, whole
from bigbox.errors import BadInput

if TYPE_CHECKING:
    from bigbox.simulate.options import Options

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

On any error, and on SIGTERM (exit status 75), nothing is left behind. The same seed gives the same
bytes on the same machine; on a GPU, where sums come in any order, the same up to rounding.

With --seeds, OUT holds one folder OUT/seed001 as above for each seed. With --boxes it holds boxes
to train on, OUT/seed001.zarr, with dm, haloes, and T_b by the HI-halo relation, a stand-in for
hydrodynamics; each further draw of that relation's scatter is a box of its own,
OUT/seed001_draw1.zarr. On SIGTERM what is whole stays. The same command goes on: seeds that are
there whole are not made again, and there may be more of them, or more draws. Seeds are worked on
side by side, in processes of one thread; a GPU evolves one after the other, while processes find
the haloes of those before it.

example:  bigbox simulate sim --grid 128 --box-size 12.5 --seed 1
          bigbox simulate boxes --grid 128 --box-size 12.5 --seeds 1-16 --boxes --hi-draws 2
next:     bigbox ingest sim/snapdir_000 box.zarr --grid 128 --halos sim/groups_000 --hi-halo
          bigbox train halogen boxes/*.zarr --out model
"""

SUMMARY = "a small N-body run: snapshot and haloes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    for flag, metavar, read, text in (
        ("--grid", "N", whole(8), "particles on a side, even"),
        ("--box-size", "L", number(0, above=True), "side of the box in comoving Mpc/h"),
    ):
        add_value(parser, flag, metavar, read, text, required=True)
    seed = parser.add_mutually_exclusive_group(required=True)
    add_value(seed, "--seed", "S", whole(0), "of the initial conditions")
    add_value(seed, "--seeds", "S", _seeds, "several: 1-16, or 1 2 5; see above", nargs="+")
    add_value(parser, "--redshift", "Z", number(0), "of the output (default 0)", 0.0)
    add_value(parser, "--steps", "K", whole(1), "steps (default 100)")
    text = "mesh points for each particle, on a side (default 2)"
    add_value(parser, "--mesh-factor", "F", whole(1, 8), text)
    add_value(parser, "--device", "D", str, "cpu, cuda, cuda:1 (default: a GPU if any)", "auto")
    text = (
        "threads of torch on a CPU (default 1: where others use the cores as well, two take ten "
        "times as long); the haloes are found on all cores"
    )
    add_value(parser, "--threads", "T", whole(1, 1024), text)
    several = parser.add_argument_group("with --seeds")
    several.add_argument("--boxes", action="store_true", help="boxes to train on; see above")
    text = "boxes of each seed, with as many draws of T_b (default 1)"
    add_value(several, "--hi-draws", "D", whole(1, 1000), text)
    text = "keep the snapshots that the boxes are made of"
    several.add_argument("--keep-snapshots", action="store_true", help=text)
    text = "processes (default: one for each core that memory suffices for)"
    add_value(several, "--workers", "W", whole(1, 10_000), text)
    add_cosmology(parser, "cosmology, flat, no neutrinos (default: CAMELS)", defaults=True)


def _seeds(text: str) -> range:
    """Read a seed, or the first and the last of some."""
    first, _, last = text.partition("-")
    read = whole(0)
    seeds = range(read(first), read(last or first) + 1)
    if not 0 < len(seeds) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 to 10000 seeds, as in 1-16")
    return seeds


def run(options: argparse.Namespace) -> int:
    """Simulate, and say what was made and what comes next."""
    import torch

    from bigbox.physics.cosmology import Cosmology
    from bigbox.simulate.options import Options

    given = {name: getattr(options, name) for name in ("grid", "redshift")}
    for name in ("steps", "mesh_factor"):
        if (value := getattr(options, name)) is not None:
            given[name] = value
    seed = options.seed if options.seeds is None else 0
    given["cosmology"] = Cosmology(**cosmology(options))
    asked = Options(side=options.box_size, seed=seed, **given)
    if options.seeds is not None:
        return _run_seeds(options, asked)
    for name in ("boxes", "hi_draws", "keep_snapshots", "workers"):
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise BadInput(f"--{flag} is for several seeds: give --seeds {seed} in place of --seed")
    from bigbox.simulate.run import simulate

    torch.set_num_threads(options.threads or 1)
    made = simulate(options.out, asked, options.device)
    print(
        f"{options.out}: {asked.grid}^3 particles of {asked.particle_mass:.3g} M_sun/h, "
        f"{asked.side:g} Mpc/h, z = {asked.redshift:g}, {count(made.haloes, 'halo')}, the largest "
        f"of {made.largest:.3g} M_sun/h, in {in_time(made.seconds)}"
    )
    print(
        f"next: bigbox ingest {made.snapshot.parent} box.zarr --grid {asked.grid} "
        f"--halos {made.catalogue.parent} --hi-halo"
    )
    return 0


def _run_seeds(options: argparse.Namespace, asked: Options) -> int:
    from bigbox.simulate.seeds import Series, simulate_seeds

    if options.threads:
        raise BadInput("--threads is for one seed: --seeds has processes of one thread (--workers)")
    if not options.boxes and (options.hi_draws or options.keep_snapshots):
        raise BadInput("--hi-draws and --keep-snapshots are for boxes: give --boxes, or leave them")
    series = Series(
        options.out,
        asked,
        tuple(seed for some in options.seeds for seed in some),
        draws=(options.hi_draws or 1) if options.boxes else 0,
        keep=options.keep_snapshots or not options.boxes,
    )
    began = time.monotonic()
    made = simulate_seeds(series, options.device, options.workers or 0)
    count = len(series.seeds)
    print(
        f"{options.out}: {count} seeds, {count - len(made)} of them there before, "
        f"{asked.grid}^3 particles of {asked.particle_mass:.3g} M_sun/h, {asked.side:g} Mpc/h, "
        f"z = {asked.redshift:g}, in {in_time(time.monotonic() - began)}"
    )
    if options.boxes:
        print(f"next: bigbox train halogen {options.out}/*.zarr --out model")
    else:
        first = series.snapshot(series.seeds[0])
        print(
            f"next: bigbox ingest {first}/snapdir_000 box.zarr --grid {asked.grid} "
            f"--halos {first}/groups_000 --hi-halo"
        )
    return 0
