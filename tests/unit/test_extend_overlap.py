"""An overlap method of another package: one class, and one entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bigbox.store.box import Box
from bigbox.store.recorded import painting_of

MODULE = '''
from bigbox.diffusion.overlap import OverlapMethod
from bigbox.noise import Purpose

print("imported")

class Mine(OverlapMethod):
    """The LODI paper's Algorithm 1, written anew."""

    help = "as overwrite"

    def before_step(self, z, step):
        alpha, sigma = float(self.schedule.alphas[step]), float(self.schedule.sigmas[step])
        noised = (self.noise(Purpose.KNOWN, 0) * sigma).add_(self.known.x0, alpha=alpha)
        z[self.known.mask] = noised[self.known.mask]
'''


def test_an_overlap_method_from_outside(tmp_path: Path) -> None:
    (tmp_path / "my_method.py").write_text(MODULE)
    (tmp_path / "my_method-1.dist-info").mkdir()
    entry = tmp_path / "my_method-1.dist-info" / "entry_points.txt"
    entry.write_text("[bigbox.overlap_methods]\nmine = my_method:Mine\n")
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def bigbox(*command: str) -> str:
        words = [sys.executable, "-m", "bigbox", *command]
        return subprocess.run(words, env=os.environ | path, check=True, stdout=-1, text=True).stdout

    said = bigbox("paint", "--help")
    assert "overwrite,mine}" in said and "imported" not in said
    dm = np.random.default_rng(1).gamma(0.5, 2.0, (64, 64, 64)).astype(np.float32)
    brightness = []
    for method in ("overwrite", "mine", "conditioned"):
        box = Box.create(tmp_path / f"{method}.zarr", dm.shape, 6.25, 0.0)
        box.create_array("dm")[...] = dm
        how = ("--painter", "gaussian", "--steps", "3", "--device", "cpu", "--quiet")
        bigbox("paint", str(box.path), "--overlap-method", method, *how)
        found = painting_of(box)
        assert found is not None and found.identity["overlap_method"] == method
        brightness.append(box.array("tb")[...].tobytes())
    overwrite, mine, conditioned = brightness
    assert mine == overwrite != conditioned
