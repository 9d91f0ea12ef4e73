"""A new output field is one row and one task, added here from outside by an entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bigbox.store.box import Box
from tests.boxes import new_box

FIELD = """
import numpy as np
from bigbox.engine.shards import ShardTask
from bigbox.store.fields import Field

ROW = Field("contrast", "mK", "tb less the mean of its six neighbours", realization=True,
            task="my_field:Contrast")


class Contrast(ShardTask):
    margin = 1

    def make(self, shard):
        tb = self.read(shard)
        inside = (slice(1, -1),) * 3
        near = [np.roll(tb, step, axis)[inside] for axis in range(3) for step in (-1, 1)]
        return (tb[inside] - np.mean(near, axis=0, dtype=np.float32)).astype(np.float32)
"""


def test_a_field_from_outside(tmp_path: Path) -> None:
    (tmp_path / "my_field.py").write_text(FIELD)
    about = tmp_path / "my_field-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-field\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bigbox.fields]\ncontrast = my_field:ROW\n")
    path, _ = new_box(tmp_path, (40, 64, 72), 3)
    paint = ["-m", "bigbox", "paint", str(path), "--painter", "trivial", "--tile", "16", "--quiet"]
    more = ["--field", "contrast"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    subprocess.run([sys.executable, *paint, *more], check=True, env=environment)
    tb = Box.open(path).array("tb")[...]
    near = [np.roll(tb, step, axis) for axis in range(3) for step in (-1, 1)]
    contrast = (tb - np.mean(near, axis=0, dtype=np.float32)).astype(np.float32)
    found = Box.open(path).array("contrast")[...]
    assert found.tobytes() == contrast.tobytes() and np.abs(found).max() > 0
    run = [sys.executable, "-m", "bigbox", "status", str(path), "--json"]
    told = subprocess.run(run, check=True, env=environment, capture_output=True, text=True).stdout
    assert '"contrast_shards": 2' in told
    without = subprocess.run(
        [sys.executable, *paint], env=environment, capture_output=True, text=True
    )
    assert without.returncode == 2 and "fields = ['tb', 'contrast']" in without.stderr
