"""Open the simulations that models are held against: dm, haloes, and draws of T_b on them.

    TRUTH.zarr      dm, halo, tb     the first box of a simulation: its tb is draw 0
    TRUTH_1.zarr        halo, tb     further boxes with the same haloes: other draws of the HI
    CATALOGUE                        draws are made of it, by the HI-halo relation

What a perfect model would paint is another draw, so draws say what is an error and what is chance.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from bigbox.blockwise import map_blocks, read_block, regions
from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue
from bigbox.ingest.draws import brightness_of, catalogue_of, draw_of, hydrogen_of
from bigbox.store.box import Box
from bigbox.store.recorded import haloes_of, painting_of

EDGE = 128  # voxels of the blocks in which arrays are read


@dataclass
class Simulation:
    """Hold a simulation: the box with all of it, and further draws of T_b on the same haloes."""

    box: Box
    checksum: str  # crc32c of dm, haloes and T_b
    draws: list[Box] = field(default_factory=list)  # the box itself first

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self.box.path.resolve().stem


def open_truths(paths: Sequence[Path]) -> list[Simulation]:
    """Open truths, those with the same haloes as draws of one simulation. Raises BadInput."""
    found: dict[int, Simulation] = {}
    for path in paths:
        box = Box.open(path)
        if painting_of(box) is not None or haloes_of(box) is not None:
            raise BadInput(
                f"{path}: was painted by bigbox, it is no truth; give a box that was ingested with "
                "--halos and --hi-halo or --gas"
            )
        for name in ("halo", "tb"):
            box.require(name)
        haloes = _checksum(box, "halo")
        same = found.get(haloes)
        if same is None:
            box.require("dm")
            parts = [_checksum(box, "dm"), haloes, _checksum(box, "tb")]
            mine = google_crc32c.value(np.array(parts, "<u4").tobytes())
            found[haloes] = Simulation(box, f"{int(mine):08x}", [box])
            continue
        if any(box.path.samefile(other.path) for other in same.draws):
            raise BadInput(f"{path}: given twice; give other draws of the hydrogen (--hi-draw)")
        same.draws.append(box)
    names = [one.name for one in found.values()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"{', '.join(sorted(twice))}: two truths of one name; rename one of them")
    return list(found.values())


def _checksum(box: Box, name: str) -> int:
    """Return a crc32c of an array's values: of those of its blocks."""
    array = box.require(name)
    lead = (slice(None),) * (array.ndim - 3)
    parts = regions(array.shape[-3:], (EDGE,) * 3, 0)

    def one(region: Any) -> int:
        values = read_block(array, (*lead, *region), array.store_path)
        if not np.isfinite(values).all():
            raise BadInput(f"{box.path}/{name}: has voxels that are not finite; ingest it again")
        return int(google_crc32c.value(values.tobytes()))

    return int(google_crc32c.value(np.array(list(map_blocks(one, parts)), "<u4").tobytes()))


def make_draws(simulation: Simulation, files: Path, count: int, folder: Path) -> None:
    """Make further draws of the catalogue's haloes, boxes in `folder`, until there are `count`.

    Each is held in memory, about 20 bytes a voxel. One that is there already is taken. Raises
    BadInput where it is not the catalogue of which the truth's T_b was made.
    """
    box = simulation.box
    catalogue = catalogue_of(box, [files])
    taken = {draw_of(one) for one in simulation.draws}
    number = 0
    while len(simulation.draws) < count:
        if number not in taken:
            place = folder / f"{simulation.name}-draw{number}.zarr"
            if not place.exists():
                _write_draw(place, box, catalogue, number)
            simulation.draws.append(Box.open(place))
        number += 1


def _write_draw(place: Path, like: Box, catalogue: Catalogue, number: int) -> None:
    """Write a box with a draw of T_b, mK; it gets its name when it is whole."""
    partial = place.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    known = like.attributes["cosmology"]
    box = Box.create(partial, like.shape, like.box_size, like.redshift, cosmology=known)
    told: dict[str, Any] = like.array("tb").attrs.asdict()
    kept: dict[str, Any] = {
        key: told[key] for key in ("smoothing", "smoothing_units", "source") if key in told
    }
    hydrogen = hydrogen_of(like, catalogue, number)
    array = box.create_array("tb", attributes={**kept, **hydrogen.attributes})
    array[...] = brightness_of(like, hydrogen, float(told.get("smoothing", 0.0)))
    partial.rename(place)
