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
from bigbox.ingestion.formats import SnapshotFormat
from bigbox.ingestion.headers import Header
from bigbox.ingestion.snapshot import Snapshot

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
MY_CATALOGUE = """
import numpy as np
from bigbox.ingestion.catalogue import Catalogue
from bigbox.ingestion.formats import SnapshotFormat
from bigbox.ingestion.headers import Header

class Lines(Catalogue):
    def columns(self, chunk):
        rows = np.loadtxt(self.files[chunk.file])[chunk.start : chunk.stop]
        return rows[:, :3], rows[:, 3], None

def read(files, kind):
    header = Header("LINES", box=4.0, length=1.0, mass=1e10, redshift=0.5)
    counts = tuple(len(np.loadtxt(file)) for file in files)
    return Lines(tuple(files), header, kind, counts, "catalogue: lines")

def recognises(path):
    return path.suffix == ".halos"

ROW = SnapshotFormat("lines", "lines of x y z mass", "haloes", recognises, "my_catalogue:read")
"""
ENTRY_POINT = "[bigbox.snapshot_formats]\ntext = my_format:ROW\n"


def install(folder: Path, name: str, text: str, entry_point: str) -> None:
    """A package of one module, as pip would leave it."""
    (folder / f"{name}.py").write_text(text)
    package = folder / f"{name}-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(entry_point)


def ingest(folder: Path, *arguments: str) -> Box:
    path = os.pathsep.join([str(folder), str(Path(bigbox.__file__).parents[1])])
    command = [sys.executable, "-m", "bigbox", "ingest", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)
    return Box.open(folder / "box.zarr")


def test_a_catalogue_of_another_package(tmp_path: Path) -> None:
    entry_point = "[bigbox.snapshot_formats]\nlines = my_catalogue:ROW\n"
    install(tmp_path, "my_catalogue", MY_CATALOGUE, entry_point)
    np.savetxt(tmp_path / "run.halos", [[0.5, 0.5, 0.5, 5.0], [2.5, 3.5, 0.5, 20.0]])
    given = ["--halos", "run.halos", "box.zarr", "--grid", "4", "--smoothing", "0"]
    halo = np.asarray(ingest(tmp_path, *given).array("halo")[:])
    assert halo[0, 0, 0, 0] == np.float32(5e10) and halo[1, 2, 3, 0] == np.float32(2e11)
    assert np.count_nonzero(halo) == 2


def test_a_format_of_another_package(tmp_path: Path) -> None:
    install(tmp_path, "my_format", MY_FORMAT, ENTRY_POINT)
    places = np.array([[0.5, 0.5, 0.5], [0.5, 1.5, 3.5], [2.5, 3.5, 0.5], [2.5, 3.5, 1.0]])
    np.savetxt(tmp_path / "run.txt", places)
    box = ingest(tmp_path, "run.txt", "box.zarr", "--grid", "4")
    want = np.zeros((4, 4, 4))  # a voxel's volume over the mean: 64 voxels, 4 particles
    want[0, 0, 0], want[0, 1, 3], want[2, 3, 0], want[2, 3, 1] = 16.0, 16.0, 24.0, 8.0
    np.testing.assert_allclose(box.array("dm")[:], want, atol=1e-4)
    assert box.redshift == 0.5 and box.box_size == (4.0,) * 3
    assert box.attributes["provenance"]["code"] == "TEXT"
