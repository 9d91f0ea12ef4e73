"""The painting grid: every so many voxels of dm on each axis, where haloes and tb are painted.

    dm      0   1   2   3   4   5   6   7
    tb      0       1       2       3     step 2: voxel i is voxel 2 i of dm, of one centre

The maps are smoothed over two voxels of dm, which leaves nothing between every second one. A model
says on which grid it works. Step 1 is dm's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from bigbox.errors import BadInput
from bigbox.scheduler.grid import Triple
from bigbox.store.durable import Disk, own_name
from bigbox.store.fields import AXES, axes_of
from bigbox.store.metadata import array_metadata


@dataclass(frozen=True)
class PaintingGrid:
    """Every `step`-th voxel of a box: shape in voxels of this grid, voxel their distance, Mpc/h."""

    step: int
    shape: Triple
    voxel: float

    @classmethod
    def of(cls, shape: Triple, voxel: float, step: int) -> PaintingGrid:
        """Return the grid of a box of so many voxels of dm, of `voxel` Mpc/h. Raises BadInput."""
        for axis, n in zip(AXES, shape, strict=True):
            if n % step:
                raise BadInput(
                    f"painting grid: one voxel for {step} of dm on each axis, and the box has {n} "
                    f"on {axis}, which is no multiple of {step}; ingest with another --grid, or "
                    "use a model for every voxel"
                )
        x, y, z = (n // step for n in shape)
        return cls(step, (x, y, z), voxel * step)

    @property
    def axes(self) -> tuple[str, str, str]:
        """The names of the dimensions of arrays on this grid, and of their coordinates."""
        return axes_of(self.step)

    def attributes(self) -> dict[str, Any]:
        """Return what an array on this grid says of it, nothing for that of dm."""
        return {} if self.step == 1 else {"grid": self.step, "voxel_size": self.voxel}


def write_coordinate(disk: Disk, place: Path, name: str, centres: np.ndarray) -> None:
    """Write a coordinate; others may write the same at the same time."""
    values, count = centres.astype("<f8").tobytes(), len(centres)
    for directory in (place, place / "c"):
        disk.mkdir(directory)
    crc = int(google_crc32c.value(values)).to_bytes(4, "little")
    meta = array_metadata(
        (count,),
        (count,),
        names=(name,),
        dtype="float64",
        attributes={"units": "Mpc/h", "long_name": f"voxel centres on the {name[0]} axis"},
    )
    for path, data in ((place / "c" / "0", values + crc), (place / "zarr.json", meta)):
        disk.write_atomic(path, data, own_name(path.parent))
