"""A region on real ranks has the bytes of the whole box; ten of 256^3: `tests.launch.regions`."""

from __future__ import annotations

from pathlib import Path

from tests.launch.conftest import Launcher
from tests.launch.regions import options_of, paint_regions


def test_a_region_and_then_the_rest(mpirun: Launcher, tmp_path: Path) -> None:
    options = options_of("gaussian", "joint", 2)
    lines = list(paint_regions(mpirun, tmp_path, 96, 1, 2, options))
    assert "4 of 64 tiles" in lines[0] and len(lines) == 2
