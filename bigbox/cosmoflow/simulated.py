"""Make maps of dark matter where there are none: simulations over a plane of Omega_m and sigma8.

    OUT/maps.json       how they were made; the seed, Omega_m and sigma8 of each simulation
    OUT/sim0000.npy     float32 (maps, n, n), M_sun/h per (Mpc/h)^2: the slabs along x, y, z

Every box is cut into slabs on each of its axes, and a slab is projected (CAMELS has slabs of
5 Mpc/h of boxes of 25 Mpc/h, 15 maps a simulation). A map is periodic on both of its axes.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc

from bigbox import __version__
from bigbox.devices import find_device
from bigbox.errors import BadInput
from bigbox.ingest.workfolder import stoppable
from bigbox.physics.cosmology import Cosmology
from bigbox.simulate.initial import white_noise
from bigbox.simulate.linear import power_spectrum, warm
from bigbox.simulate.options import Options
from bigbox.simulate.run import check_memory, evolved, say
from bigbox.store.durable import DISK, explained

CARD = "maps.json"
UNITS = "M_sun/h per (Mpc/h)^2"


@dataclass(frozen=True)
class MapOptions:
    """Say which maps are made. Raises BadInput for what cannot be made."""

    out: Path
    simulations: int = 200
    edge: int = 64  # pixels on an edge of a map
    side: float = 25.0  # of the boxes, Mpc/h
    slabs: int = 5  # on each axis
    grid: int = 64  # particles on a side
    steps: int = 20
    mesh_factor: int = 1
    redshift: float = 0.0
    omega_m: tuple[float, float] = (0.1, 0.5)
    sigma8: tuple[float, float] = (0.6, 1.0)
    seed: int = 0  # of the first simulation
    warm: float | None = None  # mass of warm dark matter, keV

    def __post_init__(self) -> None:
        for what, good, limits in (
            (f"--simulations {self.simulations}", self.simulations >= 1, "at least 1"),
            (f"--edge {self.edge}", self.edge >= 16, "at least 16 pixels"),
            (f"--slabs {self.slabs}", 1 <= self.slabs <= self.grid, f"1 to {self.grid}"),
            (f"--warm {self.warm}", self.warm is None or self.warm > 0, "above 0 keV"),
        ):
            if not good:
                raise BadInput(f"{what}: must be {limits}")
        for name in ("omega_m", "sigma8"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise BadInput(f"--{name.replace('_', '-')} {low} {high}: lowest, then highest")
        self.simulation(0)  # refuses what no simulation can be

    def parameters(self) -> NDArray[np.float64]:
        """Return Omega_m and sigma8 of each simulation, (simulations, 2): the same for any count.

        They are the points of a scrambled Sobol sequence, so that any number of them covers the
        plane evenly.
        """
        sequence = qmc.Sobol(2, scramble=True, rng=7)
        points = sequence.random_base2(max(1, (self.simulations - 1).bit_length()))
        points = points[: self.simulations]
        low, high = np.transpose([self.omega_m, self.sigma8])
        return np.round(low + (high - low) * points, 6)

    def simulation(self, index: int) -> Options:
        """Return what is simulated."""
        omega_m, sigma8 = self.parameters()[index]
        cosmology = replace(Cosmology(), omega_m=float(omega_m), sigma8=float(sigma8))
        return Options(
            self.grid,
            self.side,
            self.seed + index,
            self.redshift,
            self.steps,
            self.mesh_factor,
            cosmology,
        )

    @property
    def common(self) -> dict[str, Any]:
        """What all calls for one folder must have in common, as JSON values."""
        known = {k: v for k, v in asdict(self).items() if k not in ("out", "simulations")}
        return json.loads(json.dumps(known))


def make_maps(options: MapOptions, device: str = "auto") -> int:
    """Make what is missing of the maps; return how many simulations were run.

    Raises BadInput where that cannot be, StoppedEarly on SIGTERM: the same command goes on.
    """
    out, where = options.out, find_device(device)
    check_memory(options.simulation(0), where)
    _begin(options)
    missing = [i for i in range(options.simulations) if not place(out, i).exists()]
    began = time.monotonic()
    with stoppable(out, "what is whole stays, the same command goes on"), explained(out):
        for done, index in enumerate(missing, 1):
            maps = simulated_maps(options, index, where)
            partial = place(out, index).with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, maps)
            DISK.replace(partial, place(out, index))
            each = (time.monotonic() - began) / done
            say(f"simulation {index}: {done} of {len(missing)}, {each:.3g} s each")
    return len(missing)


def place(out: Path, index: int) -> Path:
    """Return where the maps of a simulation are."""
    return out / f"sim{index:04d}.npy"


def simulated_maps(options: MapOptions, index: int, device: torch.device) -> NDArray[np.float32]:
    """Run a simulation and project it: (3 slabs, n, n), the slabs of x first, then y, then z."""
    asked = options.simulation(index)
    spectrum = power_spectrum(asked.cosmology, *asked.wave_numbers)
    if options.warm is not None:
        spectrum = warm(spectrum, options.warm, asked.cosmology)
    noise = white_noise(asked.grid, asked.seed, device)
    positions = evolved(asked, noise, spectrum, iter).positions
    return project(positions, asked.side, options.edge, options.slabs, asked.particle_mass)


def project(
    positions: NDArray[np.float32], side: float, edge: int, slabs: int, mass: float
) -> NDArray[np.float32]:
    """Project particles, (M, 3) in [0, side), of a periodic box onto (3 slabs, edge, edge) pixels.

    Each slab holds the particles of one range of an axis; each particle of `mass` is shared
    between the four nearest pixels (cloud in cell, pixel i from i to i + 1). Returns mass per area.
    """
    pixel = side / edge
    maps = np.zeros((3, slabs, edge, edge))
    for axis in range(3):
        slab = np.minimum((positions[:, axis] * (slabs / side)).astype(np.int64), slabs - 1)
        u = np.delete(positions, axis, axis=1).astype(np.float64) / pixel - 0.5
        low = np.floor(u).astype(np.int64)
        above = u - low
        for i, j in product((0, 1), repeat=2):
            share = np.abs(1 - i - above[:, 0]) * np.abs(1 - j - above[:, 1])
            row, column = (low[:, 0] + i) % edge, (low[:, 1] + j) % edge
            flat = (slab * edge + row) * edge + column
            maps[axis] += np.bincount(flat, share, slabs * edge**2).reshape(maps.shape[1:])
    return (maps.reshape(-1, edge, edge) * (mass / pixel**2)).astype(np.float32)


def _begin(options: MapOptions) -> None:
    """Make the folder and its card, or see that the card is of the same maps."""
    path = options.out / CARD
    table = [
        {"seed": options.seed + i, "omega_m": one[0], "sigma8": one[1]}
        for i, one in enumerate(options.parameters().tolist())
    ]
    about = {
        "field": "dm",
        "units": UNITS,
        "pixel": options.side / options.edge,
        "thickness": options.side / options.slabs,
        "redshift": options.redshift,
        "maps a simulation": 3 * options.slabs,
        "source": f"bigbox simulate {__version__}: 2LPT, particle-mesh, projected",
    }
    if path.exists():
        try:
            known = json.loads(path.read_text())["made"]
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{path}: is damaged; choose another folder, or remove it") from None
        for name, value in options.common.items():
            if known.get(name) != value:
                raise BadInput(
                    f"{options.out}: was begun with {name} {known.get(name)}, not {value}: give "
                    "the same options, or another folder"
                )
        if len(json.loads(path.read_text())["simulations"]) >= len(table):
            return
    elif options.out.exists() and any(options.out.iterdir()):
        raise BadInput(f"{options.out}: is there, and holds no {CARD}; choose another folder")
    with explained(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**about, "made": options.common, "simulations": table}, indent=1)
        DISK.write_atomic(path, text.encode())
