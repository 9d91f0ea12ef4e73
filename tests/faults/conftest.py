"""Where the fault tests paint, and what."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store.box import Box
from tests.boxes import scratch
from tests.faults.damaged import HALOES, N


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one."""
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def painted() -> Iterator[Path]:
    """A box whose haloes and tb are painted."""
    with scratch() as folder:
        path = folder / "painted.zarr"
        box = Box.create(path, (N, N, N), float(N), 0.0)
        matter = np.random.default_rng(3).lognormal(size=(N, N, N))
        box.create_array("dm")[...] = matter.astype(np.float32)
        assert main(["paint", str(path), *HALOES]) == 0
        yield path


@pytest.fixture
def box(painted: Path, place: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(painted, place / "box.zarr")
