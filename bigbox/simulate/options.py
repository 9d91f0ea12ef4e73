"""What is asked of a run, and the memory and disk that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bigbox.errors import BadInput
from bigbox.physics.cosmology import Cosmology
from bigbox.simulate.groups import LEAST
from bigbox.simulate.mesh import BYTES

START = 49.0
"""Redshift at which 2LPT hands over to the mesh."""

LINKING = 0.2
"""Linking length of the groups over the mean distance of particles."""

MESH_FACTOR, STEPS = 2, 100
"""Mesh points a particle on each axis, and steps: what two cores do in two minutes for 128^3, with
haloes of 390 particles right to a few per cent."""

PARTICLE_BYTES = 160
"""Bytes for each particle at the peak outside the mesh: the groups' search (2LPT takes half)."""

SCRATCH = 150_000_000
"""Bytes that do not grow with the run: chunks, pairs of a block of the groups' search, CAMB."""


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
    def memory(self) -> int:
        """Bytes at the peak, on top of the libraries."""
        return SCRATCH + max(
            BYTES * self.mesh**3 + 36 * self.particles, PARTICLE_BYTES * self.particles
        )

    @property
    def disk(self) -> int:
        """Bytes of the files."""
        return 28 * self.particles + 120 * self.particles // LEAST + (1 << 16)
