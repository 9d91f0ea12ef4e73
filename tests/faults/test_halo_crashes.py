"""Painting with haloes, killed at any write, fsync, rename or message, and resumed.

As `tests.faults.test_engine_crashes`, with windows, sums, messages about them, and two ledgers.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bigbox.errors import BadInput
from bigbox.scheduler.grid import triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.haloes import HaloReader
from bigbox.store.layouts import HaloLayout
from bigbox.store.recorded import haloes_of, painting_of
from bigbox.store.status import status
from bigbox.store.verify import verify
from bigbox.testing.disks import CrashDisk, Killed, World
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialHaloes, TrivialOnHaloes
from bigbox.testing.ranks import LIMITS, paint_in_process, spec_of
from bigbox.testing.strategies import PERIODIC, faults, tilings
from tests.boxes import scratch
from tests.reference.haloes import averaged
from tests.reference.painting import paint_by_stages

SUMS = 8 * 4 * 3**3  # bytes of the sums of a block
MODES = ("kill", "power", "full")


def density(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(7).lognormal(size=shape).astype(np.float32)


def fine(tiling: Tiling, grid: int) -> tuple[int, int, int]:
    """Voxels of dm."""
    return triple(grid * n for n in tiling.shape)


@lru_cache(maxsize=64)
def truth(tiling: Tiling, grid: int) -> tuple[np.ndarray, bytes]:
    """Haloes of the whole box, and the bytes of tb."""
    halo = averaged(density(fine(tiling, grid)), TrivialHaloes(stride=3, window=4, grid=grid))
    painter = TrivialOnHaloes(seed=1, box_shape=tiling.shape, tile=tiling.tile)
    return halo, paint_by_stages(halo, tiling, painter, "levels").tobytes()


class Story:
    """One box, its runs, and the operations (of the disk and of the messages) so far."""

    def __init__(self, root: Path, tiling: Tiling, seed: int, grid: int = 1) -> None:
        self.world = World(root)
        self.path = root / "box.zarr"
        self.tiling, self.grid, shape = tiling, grid, fine(tiling, grid)
        self.rng = random.Random(seed)
        box = Box.create(self.path, shape, [float(n) for n in shape], 0.0)
        box.create_array("dm")[...] = density(shape)
        on = {"box_shape": tiling.shape, "tile": tiling.tile, "grid": grid}
        self.painter = TrivialOnHaloes(seed=1, **on)
        self.truth, self.tb = truth(self.tiling, grid)

    def run(self, at: int, mode: str, n_ranks: int = 0) -> bool:
        """A run with a fault at operation `at` (0: none); whether it came to its end."""
        rng, world = self.rng, self.world
        world.arm(at, mode, rng.choice(["before", "half", "after"]))
        disk = CrashDisk(world)

        def on_message() -> None:
            disk.crash_point("pass", "engine/message", lambda: None)

        try:
            paint_in_process(
                self.path,
                spec_of(
                    self.painter,
                    self.tiling,
                    1,
                    batch=rng.choice([1, 2, 5]),
                    edges=(4, 2),
                    haloes=TrivialHaloes(
                        stride=3, window=4, batch=rng.choice([1, 2, 5]), grid=self.grid
                    ),
                    block=3,
                    shard_edge=2 if n_ranks else rng.choice([1, 2]),
                ),
                n_ranks=n_ranks or rng.randint(1, 4),
                rng=np.random.default_rng(rng.randrange(2**32)),
                disk=disk,
                on_message=on_message,
                limits=replace(
                    LIMITS,
                    seconds_between_saves=0.0 if n_ranks else rng.choice([0.0, 1e9]),
                    sum_bytes=8 * SUMS if n_ranks else rng.choice([0, SUMS << 10]),
                ),
            )
            return True
        except Killed:
            world.after(rng)
        except BadInput as error:
            assert mode == "full" and "free space" in str(error)
        finally:
            world.close()
        return False

    def check(self) -> None:
        """Both arrays are those of the references, and every record stands for what is there."""
        box = Box.open(self.path)
        assert box.array("halo")[...].tobytes() == self.truth.tobytes()
        assert box.array("tb")[...].tobytes() == self.tb
        if self.rng.random() < 0.2:  # a seeded few: it reads everything
            for found in (haloes_of(box), painting_of(box)):
                assert found and verify(found, repair=False).complete
        assert not HaloLayout.ledger(box).shortfalls(), "what was sealed was durable"

    def done_are_right(self) -> None:
        """What the ledger takes for done reads as it should, also behind a torn tail."""
        box = Box.open(self.path)
        found = haloes_of(box)
        if found is None:
            return
        blocks = found.layout.windows.blocks
        reader = HaloReader(box, found.reader(), 1 << 20)
        for block in np.flatnonzero(found.state.done[0]).tolist():
            low, size = blocks.origin(block).tolist(), blocks.extent(block)
            at = (slice(None), *blocks.slices(block))
            assert np.array_equal(reader.read(low, size), self.truth[at]), f"block {block}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_kind_of_operation_may_be_the_last(place: Path) -> None:
    """A fault at operations of one painting on two ranks, and a run to the end.

    Of each kind of operation the first few, and some of the rest.
    """
    tiling = Tiling((12, 6, 6), 4, 1)
    first = Story(place / "trace", tiling, seed=5)
    assert first.run(0, "kill", n_ranks=2)
    first.check()
    operations = list(first.world.trace)
    assert {"write sums", "fsync sums", "rename sums", "write halo", "fsync halo"} <= {
        label.replace("temporary dat", "sums") for label in operations
    }
    seen = Counter[str]()
    for at, label in enumerate(operations, start=1):
        seen[label] += 1
        if seen[label] > 6 and seen[label] % 5:
            continue
        mode = MODES[seen[label] % 3]
        story = Story(place / "s", tiling, seed=5)
        try:
            assert not story.run(at, mode, n_ranks=2) or mode == "full"
            story.done_are_right()
            assert story.run(0, "kill")
            story.check()
        except Exception as error:
            what = f"{mode} at operation {at} of {len(operations)}, {label}"
            raise AssertionError(f"{what}: {error}") from error
        shutil.rmtree(place / "s")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    tiling=tilings(tile=(4, 5), overlap=(1, 1), periodic=PERIODIC, largest=12, tiles=(1, 27)),
    faults=faults(),
    grid=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_any_ranks_any_faults(tiling, faults, grid, seed) -> None:
    operations = 200 + 24 * tiling.size
    with scratch() as folder:
        story = Story(folder / "s", tiling, seed, grid)
        struck = False
        for at, mode in faults:
            struck |= not story.run(1 + at * operations // 1000, mode)
            story.done_are_right()
        assert story.run(0, "kill"), "the last run has no fault"
        story.check()
        runs = status(Box.open(story.path))["haloes"]["runs"]
        assert all(run["windows_begun"] <= run["windows"] for run in runs if run["kind"] == "halo")
        worked(struck)
