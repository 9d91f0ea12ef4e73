"""A whole run: whether this machine can, and then from noise to files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigbox.devices import find_device
from bigbox.errors import BadInput
from bigbox.ingestion.workfolder import check_room, making, new_place
from bigbox.progress import say
from bigbox.progress import shown as shown_steps
from bigbox.simulation import snapshot
from bigbox.simulation.evolve import Step, evolve
from bigbox.simulation.groups import Groups, find_groups
from bigbox.simulation.initial import linear_field, start, white_noise
from bigbox.simulation.linear import Growth, Spectrum, power_spectrum
from bigbox.simulation.mesh import kind_for
from bigbox.simulation.options import LINKING, START, Options


@dataclass(frozen=True)
class Simulated:
    """What a run has made."""

    snapshot: Path
    catalogue: Path
    haloes: int
    largest: float  # M_sun/h
    seconds: float


def simulate(out: Path, options: Options, device: str = "auto") -> Simulated:
    """Run a simulation and write `out`, a new folder. BadInput, nothing written, if impossible."""
    place = new_place(out)
    where = find_device(device)
    check_room(place, "the files need", options.disk)
    check_memory(options, where)
    began = time.monotonic()
    with making(place) as folder:
        say("initial conditions")
        end = evolved(options, white_noise(options.grid, options.seed, where))
        say("friends of friends")
        haloes = write(folder, options, end)
    return Simulated(
        out / snapshot.SNAPSHOT,
        out / snapshot.CATALOGUE,
        len(haloes.lengths),
        options.particle_mass * int(max(haloes.lengths, default=0)),
        time.monotonic() - began,
    )


def write(folder: Path, options: Options, end: Evolved, threads: int | None = None) -> Groups:
    """Find the haloes and write a new folder of snapshot and catalogue."""
    folder.mkdir()
    haloes = end.groups(options, threads)
    snapshot.write(folder, options, end.positions, end.velocities, haloes)
    return haloes


def check_memory(options: Options, device: torch.device) -> None:
    """Raise BadInput where the run does not fit the memory of the device, or that of the CPU."""
    needs = [("memory", options.memory, psutil.virtual_memory().available)]
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        needs = [
            ("the GPU's memory", options.gpu_memory, free),
            ("memory", options.groups_memory, psutil.virtual_memory().available),
        ]
    for what, need, free in needs:
        if need > free:
            raise BadInput(
                f"{options.particles} particles on a mesh of {options.mesh}^3 need "
                f"{need / 1e9:.1f} GB of {what}, {free / 1e9:.1f} GB are free: choose a "
                f"smaller --grid ({options.grid}) or --mesh-factor ({options.mesh_factor})"
            )


@dataclass(frozen=True)
class Evolved:
    """Particles at the end of a run; row i is grid point i of the initial conditions."""

    positions: NDArray[np.float32]  # (M, 3), Mpc/h, in [0, side)
    velocities: NDArray[np.float32]  # (M, 3), peculiar, km/s
    potential: NDArray[np.float32]  # (M,), lowest where a halo is deepest

    def groups(self, options: Options, threads: int | None = None) -> Groups:
        """Find the haloes, on so many threads (default: all cores that this process may use)."""
        length = LINKING * options.side / options.grid
        return find_groups(
            *(self.positions, self.velocities, self.potential, options.side, length),
            threads=threads,
        )


def evolved(
    options: Options,
    noise: Tensor,
    spectrum: Spectrum | None = None,
    shown: Callable[[Sequence[Step]], Iterable[Step]] | None = None,
) -> Evolved:
    """Evolve white noise (`white_noise`; used up) on its device to the asked redshift.

    `spectrum`: k and P, by default `power_spectrum` of the options. `shown`: as for `evolve`, by
    default a bar or lines.
    """
    side = options.side
    growth = Growth(options.cosmology.omega_m)
    # Equal steps in the scale factor: late times, with haloes, need them.
    times = np.linspace(1 / (1 + START), options.scale, options.steps + 1)
    spectrum = spectrum or power_spectrum(options.cosmology, *options.wave_numbers)
    field = linear_field(noise, side, spectrum)
    positions, momenta = start(field, side, growth, times[0])
    del noise, field
    mesh = kind_for(positions.device)(options.mesh, side, positions.device)
    evolve(
        positions, momenta, mesh, growth, times, shown or (lambda steps: shown_steps(steps, "step"))
    )
    potential = mesh.at(mesh.potential(positions), positions)[0].cpu().numpy()
    del mesh
    x = positions.t().contiguous().cpu().numpy()
    del positions
    x[x >= side] = 0.0
    v = (momenta * (100 / times[-1])).t().contiguous().cpu().numpy()
    return Evolved(x, v, potential)
