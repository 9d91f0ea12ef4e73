"""Where the fault tests paint, and what."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigbox.cli import main
from tests.boxes import new_box, scratch
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
        path, _ = new_box(folder, (N, N, N), seed=3)
        assert main(["paint", str(path), *HALOES]) == 0
        yield path


@pytest.fixture
def box(painted: Path, place: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(painted, place / "box.zarr")
