"""Random regions of a box, each painted by itself on real ranks: the bytes of the whole box.

    python -m tests.launch.regions                      ten of 256^3, both overlap methods
    python -m tests.launch.regions --grid 96 --regions 3 --seed 2

Each region is painted in a box of its own that has only dm, on 1 to 4 ranks, in batches of 1 to 16.
The last one is then completed to the whole box. Steps are few (--steps), so that a region does not
depend on all of the box.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bigbox.scheduler.region import Region
from bigbox.store.box import Box
from bigbox.store.recorded import painting_of
from tests.launch.conftest import Launcher, launchers
from tests.launch.test_kills import new_box

METHODS = ("joint", "conditioned")


def options_of(painter: str, method: str, steps: int) -> tuple[str, ...]:
    """Return how a box is painted."""
    how = ("--painter", painter, "--overlap-method", method, "--steps", str(steps))
    return (*how, "--seed", "11", "--quiet")


def regions_of(grid: int, count: int, seed: int) -> list[Region]:
    """Return so many random regions: corners anywhere, sides of one voxel to half the box."""
    rng = np.random.default_rng(seed)
    low, extent = rng.integers(0, grid, (count, 3)), rng.integers(1, grid // 2, (count, 3))
    return [Region(tuple(a), tuple(b)) for a, b in zip(low.tolist(), extent.tolist(), strict=True)]


def cut(tb: np.ndarray, region: Region) -> np.ndarray:
    """Return the voxels of a region, which wraps round the box."""
    axes = zip(region.low, region.extent, tb.shape, strict=True)
    return tb[np.ix_(*((low + np.arange(extent)) % n for low, extent, n in axes))]


def paint_regions(
    launcher: Launcher, folder: Path, grid: int, count: int, seed: int, options: tuple[str, ...]
) -> Iterator[str]:
    """Paint the whole, then each region; yield a line for each."""
    whole, rng = new_box(folder / "whole.zarr", grid), np.random.default_rng(seed)
    launcher.run(2, "paint", whole, *options)
    truth = Box.open(whole).array("tb")[...]
    for number, region in enumerate(regions_of(grid, count, seed)):
        path = new_box(folder / f"region{number}.zarr", grid)
        ends = zip(region.low, region.extent, strict=True)
        text = ",".join(f"{low}:{low + extent}" for low, extent in ends)
        ranks, batch = int(rng.integers(1, 5)), str(rng.choice([1, 4, 16]))
        began = time.monotonic()
        launcher.run(ranks, "paint", path, *options, f"--region={text}", "--batch", batch)
        tb = Box.open(path).array("tb")[...]
        assert cut(tb, region).tobytes() == cut(truth, region).tobytes(), text
        there = ~np.isnan(tb)
        assert tb[there].tobytes() == truth[there].tobytes(), text
        found = painting_of(Box.open(path))
        assert found is not None
        done, all_tiles = int(found.state.done[0].sum()), found.layout.tiling.size
        assert done < all_tiles, text
        yield (
            f"{text}: {region.voxels / grid**3:.4f} of the box, {done} of {all_tiles} tiles, on"
            f" {ranks} ranks, the bytes of the whole; {time.monotonic() - began:.0f} s"
        )
        if number + 1 == count:
            launcher.run(2, "paint", path, *options)
            assert Box.open(path).array("tb")[...].tobytes() == truth.tobytes()
            yield "and the rest of this box after it: the bytes of the whole"
        shutil.rmtree(path)


def main(arguments: list[str] | None = None) -> None:
    """Paint the regions that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--grid", type=int, default=256, help="voxels on a side (256)")
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--painter", default="gaussian", help="gaussian (exact), or trivial")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    given = parser.parse_args(arguments)
    for method in given.methods:
        options = options_of(given.painter, method, given.steps)
        print(f"{method}, {given.grid}^3, {given.regions} regions, seed {given.seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            each = (given.grid, given.regions, given.seed, options)
            for line in paint_regions(launchers()[0], Path(folder), *each):
                print(line, flush=True)


if __name__ == "__main__":
    main()
