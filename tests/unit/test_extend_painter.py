"""A painter of another package: one module with a class and a row, and one entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bigbox.store.box import Box

MODULE = """
import numpy as np
from bigbox.painters.base import paste_known
from bigbox.painters.registry import PainterRow, TileMemory

print("imported")
ROW = PainterRow("copper", painter="my_painter:Copper", input="dm", needs_torch=False,
                 memory=TileMemory(channels=1), seconds_per_tile=0.5, seconds_per_call=0.0)

class Copper:
    name, input, margin, fields, batch = "copper", "dm", 0, 1, 8
    streams = full_speed_streams = 1

    @classmethod
    def from_settings(cls, settings):
        painter = cls()
        painter.seed = settings.seed
        return painter

    def identity(self):
        return {"painter": self.name, "seed": self.seed}

    def paint(self, batch):
        tiles = zip(self.seed * batch.inputs, batch.known, batch.width)
        return np.stack([paste_known(*tile) for tile in tiles])
"""


def test_a_painter_from_outside(tmp_path: Path) -> None:
    (tmp_path / "my_painter.py").write_text(MODULE)
    (tmp_path / "my_painter-1.dist-info").mkdir()
    entry = "[bigbox.painters]\ncopper = my_painter:ROW\n"
    (tmp_path / "my_painter-1.dist-info" / "entry_points.txt").write_text(entry)
    box = Box.create(tmp_path / "b.zarr", (64, 64, 64), 6.25, 0.0)
    box.create_array("dm")[...] = dm = np.random.default_rng(1).random(box.shape, np.float32)

    def bigbox(*command: str) -> str:
        path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        words = [sys.executable, "-m", "bigbox", *command]
        return subprocess.run(words, env=os.environ | path, check=True, stdout=-1, text=True).stdout

    said = bigbox("paint", "--help")
    assert "trivial-halo,copper}" in said and "imported" not in said
    assert "at 0.5 s a tile" in bigbox("plan", str(box.path), "--painter", "copper")
    bigbox("paint", str(box.path), "--painter", "copper", "--seed", "3", "--quiet")
    assert box.array("tb")[...].tobytes() == (3 * dm).tobytes()
