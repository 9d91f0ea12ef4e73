"""A snapshot format from outside: one file and one entry point, and bigbox knows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import bigbox
from bigbox.store.box import Box

MY_FORMAT = """
import numpy as np
from bigbox.ingest.formats import SnapshotFormat
from bigbox.ingest.headers import Header
from bigbox.ingest.snapshot import Snapshot

class TextSnapshot(Snapshot):
    def read(self, chunk, quantities):
        return {"Coordinates": np.loadtxt(self.files[0])[chunk.start : chunk.stop]}

def read(files):
    header = Header("TEXT", box=4.0, length=1.0, mass=1e10, redshift=0.5, table=(0.0, 1.0))
    return TextSnapshot(tuple(files), header, ((0, len(np.loadtxt(files[0]))),))

def recognises(path):
    return path.suffix == ".txt"

ROW = SnapshotFormat("text", "lines of x y z in Mpc/h", "particles", recognises, "my_format:read")
"""
ENTRY_POINT = "[bigbox.snapshot_formats]\ntext = my_format:ROW\n"


def test_a_format_of_another_package(tmp_path: Path) -> None:
    (tmp_path / "my_format.py").write_text(MY_FORMAT)
    package = tmp_path / "my_format-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my_format\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINT)
    places = np.array([[0.5, 0.5, 0.5], [0.5, 1.5, 3.5], [2.5, 3.5, 0.5], [2.5, 3.5, 1.0]])
    np.savetxt(tmp_path / "run.txt", places)
    path = os.pathsep.join([str(tmp_path), str(Path(bigbox.__file__).parents[1])])
    command = [sys.executable, "-m", "bigbox", "ingest", "run.txt", "box.zarr", "--grid", "4"]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120
    )
    want = np.zeros((4, 4, 4))  # a voxel's volume over the mean: 64 voxels, 4 particles
    want[0, 0, 0], want[0, 1, 3], want[2, 3, 0], want[2, 3, 1] = 16.0, 16.0, 24.0, 8.0
    box = Box.open(tmp_path / "box.zarr")
    np.testing.assert_allclose(box.array("dm")[:], want, atol=1e-4)
    assert box.redshift == 0.5 and box.box_size == (4.0,) * 3
    assert box.attributes["provenance"]["code"] == "TEXT"
