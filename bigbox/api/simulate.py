"""`bigbox.simulate`: small dark-matter simulations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.api.cosmology import parameters_of
from bigbox.errors import BadInput

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

PathLike = str | Path


@dataclass(frozen=True)
class Run:
    """A simulation that `simulate` made: a snapshot and its catalogue."""

    out: Path
    snapshot: Path  # its folder
    catalogue: Path  # its folder
    grid: int  # particles on a side
    box_size: float  # Mpc/h
    redshift: float
    particle_mass: float  # M_sun/h
    haloes: int
    largest: float  # M_sun/h
    seconds: float


@dataclass(frozen=True)
class Runs:
    """Simulations of several seeds."""

    out: Path
    seeds: tuple[int, ...]
    made: tuple[int, ...]  # seeds that this call worked on; the others were there
    snapshots: tuple[Path, ...]  # folders, where they are kept
    boxes: tuple[Path, ...]  # to train on, where they were asked for
    grid: int
    box_size: float  # Mpc/h
    redshift: float
    particle_mass: float  # M_sun/h
    seconds: float


def simulate(
    out: PathLike,
    *,
    grid: int,
    box_size: float,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    redshift: float = 0.0,
    steps: int | None = None,
    mesh_factor: int | None = None,
    cosmology: Mapping[str, float] | FLRW | None = None,
    device: str = "auto",
    threads: int | None = None,
    boxes: bool = False,
    hi_draws: int | None = None,
    keep_snapshots: bool = False,
    workers: int | None = None,
) -> Run | Runs:
    """Run a particle-mesh simulation and find its haloes, for those who have no snapshot.

    Needs camb: pip install 'bigbox[simulate]'. `bigbox simulate --help` says how far it is right.

    Parameters
    ----------
    out : A new folder.
    grid : Particles on a side, even.
    box_size : Side of the box, comoving Mpc/h.
    seed : Of the initial conditions; or seeds, several, side by side.
    redshift : Of the output.
    steps, mesh_factor : Steps (100); mesh points for each particle on a side (2).
    cosmology : omega_m, omega_b, h, sigma8, n_s: a mapping, or a flat cosmology of astropy. None:
        CAMELS'.
    device, threads : "cpu", "cuda"; threads of torch for one seed (1).
    boxes, hi_draws, keep_snapshots, workers : Of several seeds: boxes to train on, as many with
        each draw of T_b, the snapshots as well, and in how many processes.

    Returns
    -------
    Run or Runs
        Of one seed, or of several.

    Raises
    ------
    BadInput
        A ValueError: what cannot be run. Nothing is written.
    MissingPackage
        An ImportError: camb is not installed.
    StoppedEarly
        A RuntimeError: SIGTERM. Of several seeds what is whole stays.

    Examples
    --------
    >>> import bigbox
    >>> run = bigbox.simulate("sim", grid=32, box_size=3.125, seed=1)  # doctest: +SKIP
    >>> bigbox.ingest(run.snapshot, "sim.zarr", halos=run.catalogue)  # doctest: +SKIP
    """
    from bigbox.physics.cosmology import Cosmology
    from bigbox.simulation.options import Options

    if (seed is None) == (seeds is None):
        raise BadInput("simulate: give a seed, or several seeds, and not both")
    given: dict[str, Any] = {"steps": steps, "mesh_factor": mesh_factor}
    given = {name: value for name, value in given.items() if value is not None}
    known = Cosmology(**parameters_of(cosmology))
    asked = Options(grid, box_size, seed or 0, redshift, cosmology=known, **given)
    if seeds is not None:
        if threads:
            raise BadInput(
                "--threads is for one seed: --seeds has processes of one thread (--workers)"
            )
        if not boxes and (hi_draws or keep_snapshots):
            raise BadInput(
                "--hi-draws and --keep-snapshots are for boxes: give --boxes, or leave them"
            )
        draws = (hi_draws or 1) if boxes else 0
        keep = keep_snapshots or not boxes
        return _several(Path(out), asked, tuple(seeds), draws, keep, device, workers or 0)
    several = {"boxes": boxes, "hi_draws": hi_draws}
    several |= {"keep_snapshots": keep_snapshots, "workers": workers}
    for name in (name for name, value in several.items() if value):
        flag = name.replace("_", "-")
        raise BadInput(f"--{flag} is for several seeds: give --seeds {seed} in place of --seed")
    return _one(Path(out), asked, device, threads or 1)


def _one(out: Path, asked: Any, device: str, threads: int) -> Run:
    import torch

    from bigbox.simulation.run import simulate as run

    torch.set_num_threads(threads)
    made = run(out, asked, device)
    return Run(
        out,
        made.snapshot.parent,
        made.catalogue.parent,
        asked.grid,
        asked.side,
        asked.redshift,
        asked.particle_mass,
        made.haloes,
        made.largest,
        made.seconds,
    )


def _several(
    out: Path,
    asked: Any,
    seeds: tuple[int, ...],
    draws: int,
    keep: bool,
    device: str,
    workers: int,
) -> Runs:
    from bigbox.simulation.seeds import Series, simulate_seeds

    series, began = Series(out, asked, seeds, draws=draws, keep=keep), time.monotonic()
    made = simulate_seeds(series, device, workers)
    return Runs(
        out,
        seeds,
        tuple(made),
        tuple(series.snapshot(one) / "snapdir_000" for one in seeds) if keep else (),
        tuple(path for one in seeds for path in series.boxes(one)),
        asked.grid,
        asked.side,
        asked.redshift,
        asked.particle_mass,
        time.monotonic() - began,
    )
