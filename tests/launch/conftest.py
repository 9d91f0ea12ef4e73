"""Real launchers for the MPI tests: the one beside this Python, and Open MPI's where it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bigbox.store.box import Box


@dataclass(frozen=True)
class Launcher:
    """An mpirun and the Python whose mpi4py belongs to it; module: what stands for `bigbox`."""

    name: str
    mpirun: str
    python: str
    module: str = "bigbox"

    def command(self, ranks: int, *arguments: str | Path) -> list[str]:
        """The command line of `bigbox ARGUMENTS` on this many ranks."""
        return self._command(ranks, self.module, *arguments)

    def _command(self, ranks: int, module: str, *arguments: str | Path) -> list[str]:
        python = [self.python, "-m", module, *map(str, arguments)]
        if ranks == 1:
            return python
        extra = ["--oversubscribe", "--allow-run-as-root"] if self.name == "openmpi" else []
        return [self.mpirun, *extra, "-n", str(ranks), *python]

    def run(self, ranks: int, *arguments: str | Path, ok: int = 0) -> str:
        """Runs it to its end, checks the exit status, returns stderr."""
        return _ended(self.command(ranks, *arguments), ok)

    def run_all(self, ranks: int, commands: list[list[str]], folder: Path) -> None:
        """Runs several to their end in the same ranks: a start takes longer than a small box."""
        told = folder / "commands.json"
        told.write_text(json.dumps(commands))
        _ended(self._command(ranks, "tests.launch.one_after_another", told), 0)


def _ended(command: list[str], ok: int) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == ok, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stderr


def launchers() -> list[Launcher]:
    """MPICH or whatever stands beside this Python, and Open MPI if BIGBOX_OPENMPI names its bin."""
    here = Path(sys.executable).parent / "mpirun"
    first = str(here) if here.exists() else (shutil.which("mpirun") or "")
    found = [Launcher("mpirun", first, sys.executable)] if first else []
    if bin_dir := os.environ.get("BIGBOX_OPENMPI"):
        found.append(Launcher("openmpi", f"{bin_dir}/mpirun", f"{bin_dir}/python"))
    return found


@pytest.fixture(scope="session")
def mpirun() -> Launcher:
    found = launchers()
    if not found:
        pytest.skip("no mpirun: deploy/test.sh installs one")
    return found[0]


@pytest.fixture(scope="session")
def openmpi() -> Launcher:
    found = [one for one in launchers() if one.name == "openmpi"]
    if not found:
        pytest.skip("BIGBOX_OPENMPI does not name an Open MPI: deploy/test.sh installs one")
    return found[0]


def lognormal_density(n: int, seed: int = 5) -> np.ndarray:
    """A positive, structured 1+δ of mean 1, float32 (n, n, n)."""
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(n)
    k2 = k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.fft.rfftfreq(n)[None, None] ** 2
    modes = np.fft.rfftn(rng.standard_normal((n, n, n))) * np.exp(-k2 * 200)
    g = np.fft.irfftn(modes, (n, n, n), axes=(0, 1, 2))
    density = np.exp(g / g.std())
    return (density / density.mean()).astype(np.float32)


@pytest.fixture
def make_box(tmp_path: Path):
    """Makes a fresh box of n³ voxels with a density; returns its path."""

    def make(n: int, name: str = "box.zarr") -> Path:
        path = tmp_path / name
        box = Box.create(path, (n,) * 3, box_size=n * 12.5 / 128, redshift=0.0)
        box.create_array("dm")[...] = lognormal_density(n)
        return path

    return make


def painted(path: Path) -> bytes:
    """The bytes of T_b of a painted box."""
    return Box.open(path).array("tb")[...].tobytes()


def halo_bytes(path: Path) -> bytes:
    """The bytes of the haloes of a box."""
    return Box.open(path).array("halo")[...].tobytes()
