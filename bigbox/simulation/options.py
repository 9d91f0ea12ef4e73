"""What is asked of a run, and the memory and disk that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bigbox.errors import BadInput
from bigbox.physics.cosmology import Cosmology
from bigbox.simulation.groups import LEAST
from bigbox.simulation.mesh import Mesh, WholeMesh

START = 49.0  # redshift at which 2LPT hands over to the mesh
LINKING = 0.2  # linking length of the groups over the mean distance of particles
# Mesh points a particle on each axis, and steps: what two cores do in two minutes for 128^3, with
# haloes of 390 particles right to a few per cent.
MESH_FACTOR, STEPS = 2, 100
# Bytes for each particle at the peak outside the mesh: what has come of it (28), and friends of
# friends (80, and 40 for its threads); 2LPT takes less.
PARTICLE_BYTES = 150
# Bytes that do not grow with the run: chunks, friends of friends, CAMB.
SCRATCH = 150_000_000


@dataclass(frozen=True)
class Options:
    """What is asked of a run. Raises BadInput for what cannot be run."""

    grid: int  # particles on a side
    side: float  # of the box, comoving Mpc/h
    seed: int
    redshift: float = 0.0
    steps: int = STEPS
    mesh_factor: int = MESH_FACTOR
    cosmology: Cosmology = field(default_factory=Cosmology)

    def __post_init__(self) -> None:
        grid, side, z, omega_m = self.grid, self.side, self.redshift, self.cosmology.omega_m
        even = grid >= 8 and grid % 2 == 0
        limit = f"at least 0 and below {START:g}, where a run starts"
        for what, good, limits in (
            (f"grid {grid}: particles on a side", even, "an even number from 8"),
            (f"box size {side} Mpc/h:", math.isfinite(side) and side > 0, "a positive number"),
            (f"redshift {z:g}:", 0 <= z < START, limit),
            (f"steps {self.steps}:", self.steps >= 1, "at least 1"),
            (f"mesh factor {self.mesh_factor}:", 1 <= self.mesh_factor <= 8, "1 to 8"),
            (f"seed {self.seed}:", self.seed >= 0, "at least 0"),
            (f"cosmology: omega_m {omega_m}", omega_m <= 1, "at most 1"),
        ):
            if not good:
                raise BadInput(f"{what} must be {limits}")
        if self.cosmology.omega_lambda is not None:
            raise BadInput("cosmology: only flat ones are simulated; leave omega_lambda out")

    @property
    def particles(self) -> int:
        """Particles in the box."""
        return self.grid**3

    @property
    def mesh(self) -> int:
        """Mesh points on a side."""
        return self.grid * self.mesh_factor

    @property
    def particle_mass(self) -> float:
        """Mass of a particle, M_sun/h."""
        return self.cosmology.matter_density * self.side**3 / self.particles

    @property
    def scale(self) -> float:
        """Scale factor of the output."""
        return 1 / (1 + self.redshift)

    @property
    def wave_numbers(self) -> tuple[float, float]:
        """Wave numbers in h/Mpc between which the power spectrum is asked for."""
        return 1e-3, 2 * math.pi * self.grid / self.side  # the largest |k| is sqrt(3)/2 of it

    @property
    def memory(self) -> int:
        """Bytes at the peak on top of the libraries, of a run on a CPU."""
        mesh = Mesh.point_bytes * self.mesh**3 + 36 * self.particles
        return max(SCRATCH + mesh, self.groups_memory)

    @property
    def groups_memory(self) -> int:
        """Bytes of these that stay in the memory of the CPU where a GPU runs the rest."""
        return SCRATCH + PARTICLE_BYTES * self.particles

    @property
    def gpu_memory(self) -> int:
        """Bytes at the peak on a GPU."""
        at_once = WholeMesh.chunk_bytes * min(WholeMesh.chunk, self.particles)
        return WholeMesh.point_bytes * self.mesh**3 + 36 * self.particles + at_once

    @property
    def disk(self) -> int:
        """Bytes of the files."""
        return 28 * self.particles + 120 * self.particles // LEAST + (1 << 16)
