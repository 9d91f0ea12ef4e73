"""`bigbox simulate` against a TreePM run: matter power, halo masses, and how much both agree.

    python -m tests.benchmarks.simulate [phases] [--runs 2x100 3x150]   mesh factor x steps
    python -m tests.benchmarks.simulate seeds [OUT ..]                  runs that are there, or 1..5
    python -m tests.benchmarks.simulate speed [--grid 192 --mesh-factor 3 --device cuda]

`phases` starts from the very phases of the TreePM run (GADGET-4, ../shared/data), so that its
ratios have no scatter of initial conditions; `seeds` takes others, as a user does, and has error
bars. Both skip where there is no such run. `speed` tells where the time of one run goes, on a CPU
or a GPU. Each writes its section of SIMULATE.md, beside this file.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import cleandoc
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bigbox.devices import device_name, find_device
from bigbox.simulation.initial import linear_field, start, white_noise
from bigbox.simulation.linear import Growth, power_spectrum
from bigbox.simulation.mesh import gradient, kind_for
from bigbox.simulation.options import Options
from bigbox.simulation.run import evolved, simulate
from bigbox.simulation.snapshot import CATALOGUE, SNAPSHOT
from tests.benchmarks.ngenic import modes
from tests.benchmarks.spectra import table, write
from tests.reference.cic import density_contrast
from tests.reference.spectra import pair_in_memory, power_in_memory

TREEPM = Path(__file__).resolve().parents[3] / "shared" / "data" / "gadget4_L12.5_N128"
GRID, SIDE, SEED = 128, 12.5, 12501  # of that run
VOXELS = 256  # of the densities whose power is compared
EDGES = np.array([0.4, 0.9, 1.5, 2.5, 4, 6, 8, 10, 14, 20, 30])  # h/Mpc
MASSES = np.array([1e10, 3e10, 1e11, 3e11, 1e12, 1e13])  # M_sun/h
NEAR = 0.15  # Mpc/h between a halo and its match


@dataclass(frozen=True)
class Run:
    """Density (1 + delta) on VOXELS^3; places (Mpc/h) and masses (M_sun/h) of the haloes."""

    density: NDArray[np.float32]
    places: NDArray[np.float64]
    masses: NDArray[np.float64]


def read(snapshot: Path, catalogue: Path) -> Run:
    """A run from its folders or files."""
    densities = _all(snapshot, "PartType1/Coordinates")
    places, masses = _all(catalogue, "Group/GroupPos"), _all(catalogue, "Group/GroupMass")
    return Run(_density(densities / 1e3), places / 1e3 % SIDE, 1e10 * masses.astype(float))


def phases(options: argparse.Namespace) -> str:
    """The phases of the TreePM run: ratios to it, mode by mode and halo by halo.

    TreePM's own time steps are loose, and its softening is 7 kpc/h: which of the two is right where
    they differ by a few per cent at k > 10 h/Mpc is not told by this.
    """
    tree = read(TREEPM / "snapdir_000", TREEPM / "groups_000")
    # N-GenIC's modes have unit variance, those of white noise on a grid N^3.
    white = torch.from_numpy((modes(GRID, SEED) * GRID**1.5).astype(np.complex64))
    spectra, haloes = [], []
    for text in options.runs or ("2x100",):
        factor, steps = map(int, text.split("x"))
        asked = Options(GRID, SIDE, SEED, steps=steps, mesh_factor=factor)
        began, cpu = time.perf_counter(), time.process_time()
        end = evolved(asked, white.clone())
        groups = end.groups(asked)
        cost = f"{time.perf_counter() - began:.0f} s", f"{time.process_time() - cpu:.0f} s"
        mesh = Run(
            _density(end.positions),
            groups.positions % SIDE,
            groups.lengths * asked.particle_mass,
        )
        both = pair_in_memory(mesh.density, tree.density, SIDE, edges=EDGES)
        ratio = both.first.power / both.second.power
        spectra.append((text, "P / P(TreePM)", *(f"{v:.3f}" for v in ratio)))
        spectra.append(("", "r", *(f"{v:.4f}" for v in both.correlation)))
        haloes += [(text, *line) for line in _haloes(mesh, tree)]
        haloes[-1] = (*haloes[-1][:-2], *cost)
    k = both.first.k
    return "\n\n".join(
        (
            table(("run", "k, h/Mpc", *(f"{v:.2g}" for v in k)), spectra),
            table(("run", "haloes", *_bins(), "wall", "CPU"), haloes),
        )
    )


def _haloes(mesh: Run, tree: Run) -> list[tuple[str, ...]]:
    """Numbers per bin of mass, and masses and distances of the matches of the TreePM haloes."""
    finder = cKDTree(mesh.places, boxsize=SIDE)
    matches = []
    for place, mass in zip(tree.places, tree.masses, strict=True):
        near = finder.query_ball_point(place, NEAR)
        if near:
            best = near[int(np.argmin(abs(np.log(mesh.masses[near] / mass))))]
            apart = (mesh.places[best] - place + SIDE / 2) % SIDE - SIDE / 2
            matches.append((mesh.masses[best] / mass, float(np.linalg.norm(apart))))
        else:
            matches.append((np.nan, np.nan))
    ratio, apart = np.array(matches).T
    inside = np.digitize(tree.masses, MASSES)
    chosen = [inside == i + 1 for i in range(len(MASSES))]
    count, of_tree = _count(mesh.masses), _count(tree.masses)
    return [
        ("N", *map(str, count), "", ""),
        ("N of TreePM", *map(str, of_tree), "", ""),
        ("matched", *(f"{np.isfinite(ratio[c]).mean():.2f}" if c.any() else "" for c in chosen))
        + ("", ""),
        ("mass / TreePM, median", *(_median(ratio[c], "{:.3f}") for c in chosen), "", ""),
        ("apart, kpc/h, median", *(_median(1e3 * apart[c], "{:.0f}") for c in chosen), "", ""),
    ]


def seeds(options: argparse.Namespace) -> str:
    """Other seeds, as a user runs them: mean and standard error of the mean, over TreePM's one box.

    The chance of TreePM's own box is in every ratio: at low k, and where haloes are few, that is
    what is seen.
    """
    tree = read(TREEPM / "snapdir_000", TREEPM / "groups_000")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        places = [Path(p) for p in options.out]
        for seed in range(1, 6) if not places else ():
            places.append(Path(scratch) / f"s{seed}")
            simulate(places[-1], Options(GRID, SIDE, seed))
        runs = [read(p / SNAPSHOT, p / CATALOGUE) for p in places]
    of_tree = power_in_memory(tree.density, SIDE, edges=EDGES)
    ratios = [power_in_memory(r.density, SIDE, edges=EDGES).power / of_tree.power for r in runs]
    counts = [_count(r.masses) for r in runs]
    chance = np.sqrt(2 / of_tree.modes)
    return f"{len(runs)} seeds.\n\n" + "\n\n".join(
        (
            table(
                ("k, h/Mpc", *(f"{v:.2g}" for v in of_tree.k)),
                [
                    ("P / P(TreePM)", *_mean(ratios, 3)),
                    ("Gaussian chance of one box", *(f"{v:.3f}" for v in chance)),
                ],
            ),
            table(
                ("M_sun/h", *_bins()),
                [
                    ("haloes", *_mean(counts, 1)),
                    ("TreePM", *(f"{v} ± {max(v, 1) ** 0.5:.0f}" for v in _count(tree.masses))),
                ],
            ),
        )
    )


def speed(options: argparse.Namespace) -> str:
    """Where the time of one run goes: the parts of a step, the whole, and friends of friends."""
    device = find_device(options.device)
    asked = Options(options.grid, SIDE * options.grid / GRID, 1, mesh_factor=options.mesh_factor)
    power_spectrum(asked.cosmology, *asked.wave_numbers)  # CAMB's seconds are not counted
    rows = [(name, *took) for name, took in _parts(asked, device)]
    noise, ends = white_noise(asked.grid, 1, device), []
    took = _timed(device, lambda: ends.append(evolved(asked, noise)), 1)
    rows.append((f"{asked.steps} steps, and all before", *took))
    for threads in (1, 2):
        took = _timed(device, partial(ends[0].groups, asked, threads), 1)
        rows.append((f"friends of friends, threads: {threads}", *took))
    head = f"{asked.grid}^3 particles, a mesh of {asked.mesh}^3, on {device_name(str(device))}"
    if device.type == "cuda":
        most = torch.cuda.max_memory_reserved(device)
        head += f"; GPU memory: {most / 1e9:.2f} GB reserved, {asked.gpu_memory / 1e9:.2f} GB said"
    return f"{head}.\n\n" + table(("part", "s", "CPU, s"), rows)


def _parts(asked: Options, device: torch.device) -> Iterator[tuple[str, tuple[str, str]]]:
    """Parts of a step and what they take; of particles that linear theory moved to today."""
    noise = partial(white_noise, asked.grid, 1, device)
    spectrum = power_spectrum(asked.cosmology, *asked.wave_numbers)
    growth = Growth(asked.cosmology.omega_m)

    def begin() -> tuple[torch.Tensor, torch.Tensor]:
        return start(linear_field(noise(), asked.side, spectrum), asked.side, growth, 1.0)

    yield "white noise", _timed(device, noise)
    yield "white noise and initial conditions", _timed(device, begin)
    x, p = begin()
    mesh = kind_for(device)(asked.mesh, asked.side, device)
    out = torch.empty((*[asked.mesh] * 3, 3), device=device)
    yield "deposit", _timed(device, partial(mesh.density, x))
    yield "deposit and potential", _timed(device, partial(mesh.potential, x))
    phi = mesh.potential(x).clone()
    yield "gradient", _timed(device, partial(gradient, phi, out, mesh.planes))
    yield "gather", _timed(device, partial(mesh.at, out, x))
    yield "a whole kick", _timed(device, partial(mesh.kick, p, x, 0.0))


def _timed(device: torch.device, part: Callable[[], object], times: int = 3) -> tuple[str, str]:
    """Seconds of the fastest of some calls, and seconds of this process in it."""
    took = []
    for _ in range(times):
        began, cpu = time.perf_counter(), time.process_time()
        part()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append((time.perf_counter() - began, time.process_time() - cpu))
    return tuple(f"{seconds:.4g}" for seconds in min(took))


def _all(place: Path, name: str) -> NDArray:
    parts = []
    for path in sorted(place.glob("*.hdf5")) if place.is_dir() else [place]:
        with h5py.File(path) as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


def _density(places: NDArray) -> NDArray[np.float32]:
    return density_contrast(iter([places]), (VOXELS,) * 3, SIDE).astype(np.float32)


def _count(masses: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.histogram(masses, np.append(MASSES, np.inf))[0]


def _bins() -> list[str]:
    ends = [f"{low:.0e} .. {high:.0e}" for low, high in zip(MASSES, MASSES[1:], strict=False)]
    return [text.replace("e+", "e") for text in (*ends, f"> {MASSES[-1]:.0e}")]


def _median(values: NDArray[np.float64], form: str) -> str:
    good = values[np.isfinite(values)]
    return form.format(np.median(good)) if len(good) else ""


def _mean(values: Sequence[NDArray], digits: int) -> list[str]:
    mean = np.mean(values, axis=0)
    error = np.std(values, axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0 * mean
    return [f"{m:.{digits}f} ± {e:.{digits}f}" for m, e in zip(mean, error, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = {f.__name__: f for f in (phases, seeds, speed)}
    parser.add_argument("task", nargs="?", choices=tasks, default="phases")
    parser.add_argument("out", nargs="*", help="seeds: folders that bigbox simulate has made")
    parser.add_argument("--runs", nargs="+", metavar="FxK", help="phases: mesh factor x steps")
    parser.add_argument("--grid", type=int, default=GRID, help="speed: particles on a side")
    parser.add_argument("--mesh-factor", type=int, default=2, help="speed")
    parser.add_argument("--device", default="auto", help="speed")
    parser.add_argument("--scratch", default=None)
    parser.add_argument("--markdown", type=Path, default=Path(__file__).with_name("SIMULATE.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task != "speed" and not TREEPM.is_dir():
        print(f"skipped: the TreePM run is not at {TREEPM}")
        return
    began, load = time.perf_counter(), os.getloadavg()[0]
    task = tasks[options.task]
    text = task(options)
    print(text)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    doc = f"{cleandoc(task.__doc__ or '')} {os.cpu_count()} cores, threads: "
    doc += f"{torch.get_num_threads()}, load of others before: {load:.1f}, "
    doc += f"{time.perf_counter() - began:.0f} s, {peak:.1f} GB."
    command = "seeds OUT .." if options.out else " ".join(sys.argv[1:])
    if not options.markdown.exists():
        options.markdown.write_text("# bigbox simulate, measured against a TreePM run\n")
    write(
        options.markdown, options.task, doc, text, f"python -m tests.benchmarks.simulate {command}"
    )


if __name__ == "__main__":
    main()
