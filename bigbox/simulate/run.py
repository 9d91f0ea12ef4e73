"""A whole run: what is asked for, whether this machine can, and then from noise to files."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bigbox.devices import find_device
from bigbox.errors import BadInput
from bigbox.ingest.work import free_place, making, remove_stale
from bigbox.physics.cosmology import Cosmology
from bigbox.simulate import groups, initial, snapshot
from bigbox.simulate.evolve import evolve, schedule
from bigbox.simulate.linear import Growth, power_spectrum
from bigbox.simulate.mesh import BYTES, Mesh

START = 49.0
"""Redshift at which 2LPT hands over to the mesh."""

LINKING = 0.2
"""Linking length of the groups over the mean distance of particles."""

MESH_FACTOR, STEPS = 2, 100
"""Mesh points a particle on each axis, and steps: what two cores do in two minutes for 128^3, with
haloes of 390 particles right to a few per cent (tests/benchmarks/SIMULATE.md)."""

_PARTICLE_BYTES = 160
"""Bytes for each particle at the peak outside the mesh: the groups' search (2LPT takes half)."""

_SCRATCH = 150_000_000
"""Bytes that do not grow with the run: chunks, pairs of a block of the groups' search, CAMB."""


@dataclass(frozen=True)
class Options:
    """A run. Raises BadInput for what cannot be run."""

    grid: int  # particles on a side
    side: float  # of the box, comoving Mpc/h
    seed: int
    redshift: float = 0.0
    steps: int = STEPS
    mesh_factor: int = MESH_FACTOR
    cosmology: Cosmology = dataclasses.field(default_factory=Cosmology)

    def __post_init__(self) -> None:
        if self.grid < 8 or self.grid % 2:
            raise BadInput(f"grid {self.grid}: particles on a side must be an even number from 8")
        if not (math.isfinite(self.side) and self.side > 0):
            raise BadInput(f"box size {self.side} Mpc/h: must be a positive number")
        if not (math.isfinite(self.redshift) and 0 <= self.redshift < START):
            raise BadInput(
                f"redshift {self.redshift:g}: must be at least 0 and below {START:g}, where a run "
                "starts"
            )
        if self.steps < 1:
            raise BadInput(f"steps {self.steps}: must be at least 1")
        if not 1 <= self.mesh_factor <= 8:
            raise BadInput(f"mesh factor {self.mesh_factor}: must be 1 to 8")
        if self.seed < 0:
            raise BadInput(f"seed {self.seed}: must be at least 0")
        if self.cosmology.omega_lambda is not None:
            raise BadInput("cosmology: only flat ones are simulated; leave omega_lambda out")
        if not self.cosmology.omega_m <= 1:
            raise BadInput(f"cosmology: omega_m {self.cosmology.omega_m} must be at most 1")

    @property
    def particles(self) -> int:
        """In the box."""
        return self.grid**3

    @property
    def mesh(self) -> int:
        """Mesh points on a side."""
        return self.grid * self.mesh_factor

    @property
    def particle_mass(self) -> float:
        """M_sun/h."""
        return self.cosmology.matter_density * self.side**3 / self.particles

    @property
    def memory(self) -> int:
        """Bytes at the peak, on top of the libraries."""
        return _SCRATCH + max(
            BYTES * self.mesh**3 + 36 * self.particles, _PARTICLE_BYTES * self.particles
        )

    @property
    def disk(self) -> int:
        """Bytes of the files."""
        return 28 * self.particles + 120 * self.particles // groups.LEAST + (1 << 16)


@dataclass(frozen=True)
class Done:
    """What a run has made."""

    snapshot: Path
    catalogue: Path
    groups: int
    largest: float  # M_sun/h
    seconds: float


def simulate(out: Path, options: Options, device: str = "auto") -> Done:
    """Runs it and writes `out`, a new folder; raises BadInput, nothing written, where it cannot."""
    place = free_place(out)
    where = find_device(device)
    _refuse(options, place, where)
    remove_stale(place)
    began = time.monotonic()
    with making(place) as work:
        work.mkdir()
        found, facts = _run(options, where, work)
    return Done(
        out / snapshot.SNAPSHOT,
        out / snapshot.CATALOGUE,
        len(found.lengths),
        1e10 * facts.particle_mass * int(found.lengths[0]) if len(found.lengths) else 0.0,
        time.monotonic() - began,
    )


@dataclass(frozen=True)
class Evolved:
    """Particles at the end of a run; row i is grid point i of the initial conditions."""

    positions: NDArray[np.float32]  # (M, 3), Mpc/h, in [0, side)
    velocities: NDArray[np.float32]  # (M, 3), peculiar, km/s
    potential: NDArray[np.float32]  # (M,), lowest where a halo is deepest

    def groups(self, options: Options) -> groups.Groups:
        """The haloes."""
        length = LINKING * options.side / options.grid
        return groups.find(self.positions, self.velocities, self.potential, options.side, length)


def evolved(options: Options, noise: Tensor) -> Evolved:
    """From white noise (`initial.white_noise`; used up), on its device, to the asked redshift."""
    side = options.side
    growth = Growth(options.cosmology.omega_m)
    times = schedule(1 / (1 + START), 1 / (1 + options.redshift), options.steps)
    corner = 2 * math.pi * options.grid / side  # the largest |k| is sqrt(3)/2 of it
    field = initial.linear_field(noise, side, power_spectrum(options.cosmology, 1e-3, corner))
    positions, momenta = initial.start(field, side, growth, times[0])
    del noise, field
    mesh = Mesh(options.mesh, side, positions.device)
    with _Progress(options.steps) as progress:
        evolve(positions, momenta, mesh, growth, times, progress)
    potential = mesh.at(mesh.potential(positions), positions)[0].cpu().numpy()
    del mesh
    x = positions.t().contiguous().cpu().numpy()
    del positions
    x[x >= side] = 0.0
    v = (momenta * (100 / times[-1])).t().contiguous().cpu().numpy()
    return Evolved(x, v, potential)


def _run(
    options: Options, device: torch.device, folder: Path
) -> tuple[groups.Groups, snapshot.Facts]:
    _say("initial conditions")
    end = evolved(options, initial.white_noise(options.grid, options.seed, device))
    _say("friends of friends")
    found = end.groups(options)
    facts = snapshot.Facts(
        options.cosmology,
        options.side,
        options.grid,
        options.redshift,
        options.seed,
        options.particle_mass / 1e10,
        {
            "SimulationCode": "bigbox simulate: 2LPT, particle-mesh, friends of friends",
            "TimeBegin": 1 / (1 + START),
            "TimeMax": 1 / (1 + options.redshift),
            "MeshSize": options.mesh,
            "MeshCell": 1e3 * options.side / options.mesh,
            "Steps": options.steps,
            "LinkingLength": LINKING,
        },
    )
    snapshot.write(folder, facts, end.positions, end.velocities, found)
    return found, facts


def _refuse(options: Options, place: Path, device: torch.device) -> None:
    """BadInput where memory or disk are too small."""
    free = shutil.disk_usage(place.parent).free
    if options.disk > free:
        raise BadInput(
            f"{place}: the files need {options.disk / 1e9:.1f} GB and {place.parent} has "
            f"{free / 1e9:.1f} GB free: choose another folder or make room"
        )
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    if options.memory > free:
        raise BadInput(
            f"{options.particles} particles on a mesh of {options.mesh}^3 need "
            f"{options.memory / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: choose a "
            f"smaller --grid ({options.grid}) or --mesh-factor ({options.mesh_factor})"
        )


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


class _Progress:
    """Steps done, seconds a step, time left: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int, every: float = 10.0) -> None:
        self._total, self._every = total, every
        self._began = self._last = time.monotonic()
        self._bar = tqdm(total=total, unit="step", disable=not sys.stderr.isatty())

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, step: int) -> None:
        self._bar.update(1)
        now = time.monotonic()
        if self._bar.disable and now - self._last >= self._every:
            self._last = now
            each = (now - self._began) / (step + 1)
            left = tqdm.format_interval(int(each * (self._total - step - 1)))
            _say(f"{step + 1}/{self._total} steps, {each:.2g} s each, {left} left")
