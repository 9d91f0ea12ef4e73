"""`bigbox decompress` on 1, 2 and 4 ranks, and killed on the way: the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from bigbox.store.box import Box
from tests.launch.conftest import Launcher
from tests.launch.test_kills import kill, ranks_of

N = 64


@pytest.mark.slow
def test_the_same_bytes_for_any_number_of_ranks(mpirun: Launcher, tmp_path: Path) -> None:
    box = Box.create(tmp_path / "box.zarr", (N,) * 3, 12.5 / 128 * N, 0.0)
    density = np.random.default_rng(3).gamma(0.3, 1 / 0.3, (N,) * 3)
    box.create_array("dm")[:] = density.astype(np.float32)
    small = tmp_path / "small"
    mpirun.run(1, "compress", box.path, small)
    told = ("decompress", small)

    def decoded(name: str) -> bytes:
        return Box.open(tmp_path / name).array("dm")[:].tobytes()

    mpirun.run(1, *told, tmp_path / "one.zarr", "--steps", "2")
    wanted = decoded("one.zarr")
    mpirun.run(4, *told, tmp_path / "four.zarr", "--steps", "2", "--batch", "3")
    assert decoded("four.zarr") == wanted

    killed = tmp_path / "killed.zarr"
    for _ in range(5):  # the box is small: it may have been whole before it was killed
        shutil.rmtree(killed, ignore_errors=True)
        run = subprocess.Popen(mpirun.command(2, *told, killed, "--steps", "2", "--batch", "1"))
        while run.poll() is None and not list((killed / "ledger" / "records").glob("*")):
            time.sleep(0.01)
        if run.poll() is None:
            for one in ranks_of(psutil.Process(run.pid)):
                kill(one)
        run.wait()
        if (killed / "ledger").exists():
            break
    assert (killed / "ledger").exists()
    mpirun.run(2, *told, killed, "--steps", "2")
    assert decoded("killed.zarr") == wanted
