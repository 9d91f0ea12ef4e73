"""The whole engine on many ranks, killed at any write, fsync, rename or message, and resumed.

Store, ledger, policy, loop and messages are the real ones, in one process and a seeded order (see
`bigbox.testing.ranks`); `bigbox.testing.disks` states what a kill and a power loss may do.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.engine.task import Task
from bigbox.errors import BadInput
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.status import status
from bigbox.testing.disks import CrashDisk, Killed, World
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialPainter
from bigbox.testing.ranks import LIMITS, paint_in_process, spec_of
from bigbox.testing.strategies import PERIODIC, faults, tilings
from tests.boxes import scratch
from tests.reference.joint import paint_jointly
from tests.reference.painting import paint_by_stages


def density(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(7).lognormal(size=shape).astype(np.float32)


def painter_of(tiling: Tiling, latents: int) -> TrivialPainter:
    steps = STEPS if tiling.halved else 0
    shape, tile = tiling.shape, tiling.tile
    return TrivialPainter(seed=1, box_shape=shape, tile=tile, latents=latents, steps=steps)


@lru_cache(maxsize=256)
def truth(tiling: Tiling, latents: int) -> bytes:
    painter, dm = painter_of(tiling, latents), density(tiling.shape)
    if tiling.halved:
        return paint_jointly(dm, tiling, painter).tobytes()
    return paint_by_stages(dm, tiling, painter, "levels").tobytes()


class Story:
    """One painting, its runs, and the operations (of the disk and of the messages) so far."""

    def __init__(self, root: Path, tiling: Tiling, edge: int, latents: int, seed: int) -> None:
        self.world = World(root)
        self.path = root / "box.zarr"
        self.tiling, self.edge, self.latents = tiling, edge, latents
        self.rng = random.Random(seed)
        box = Box.create(self.path, tiling.shape, [float(n) for n in tiling.shape], 0.0)
        box.create_array("dm")[...] = density(tiling.shape)
        self.painter = painter_of(tiling, latents)

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
                    self.edge,
                    batch=rng.choice([1, 2, 5]),
                    colouring=rng.choice(["levels", "paper"]),
                    edges=(4, 2),
                ),
                n_ranks=n_ranks or rng.randint(1, 4),
                rng=np.random.default_rng(rng.randrange(2**32)),
                disk=disk,
                on_message=on_message,
                limits=replace(
                    LIMITS,
                    overlap_bytes=rng.choice([0, 500, 1 << 20]),
                    latent_bytes=rng.choice([0, 9000, 1 << 20]),
                    seconds_between_saves=rng.choice([0, 1e9, 1e9]),
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

    def check(self, limit: int) -> None:
        """T_b is that of the reference; no run lost more than what it had in flight."""
        assert Box.open(self.path).array("tb")[...].tobytes() == truth(self.tiling, self.latents)
        if self.tiling.halved:  # nothing of a tile is safe before its last step
            return
        for run in status(Box.open(self.path))["runs"]:
            in_flight = (1 + Task.stores_waiting) * run["n_ranks"] * limit
            assert run["tiles_begun"] - run["tiles"] <= in_flight


STEPS = 3
any_faults = given(
    tiling=tilings(tile=(4, 6), overlap=(1, 2), periodic=PERIODIC, largest=13, tiles=(1, 36)),
    edge=st.integers(1, 2),
    latents=st.sampled_from([0, 0, 1]),
    faults=faults(),
    seed=st.integers(0, 2**31),
)


def survive(tiling: Tiling, edge: int, latents: int, faults: list, seed: int) -> None:
    operations = (90 + 11 * tiling.size) * (1 + latents / 3)
    if tiling.halved:
        operations = 60 + 6 * tiling.size * STEPS
    with scratch() as folder:
        story = Story(folder / "s", tiling, edge, latents, seed)
        struck = [not story.run(1 + int(at * operations / 1000), mode) for at, mode in faults]
        assert story.run(0, "kill"), "the last run has no fault"
        story.check(limit=5)
        worked(any(struck))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@any_faults
def test_a_few_boxes_any_ranks_any_faults(tiling, edge, latents, faults, seed) -> None:
    survive(tiling, edge, latents, faults, seed)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@any_faults
def test_any_box_any_ranks_any_faults(tiling, edge, latents, faults, seed) -> None:
    survive(tiling, edge, latents, faults, seed)


joint_faults = given(
    shape=st.tuples(*[st.integers(6, 13)] * 3),
    margin=st.integers(1, 2),
    edge=st.integers(1, 2),
    faults=faults(),
    seed=st.integers(0, 2**31),
)


def survive_together(shape, margin: int, edge: int, faults: list, seed: int) -> None:
    tiling = Tiling(shape, 6, 2 * margin, halved=True)
    survive(tiling, edge, 0, faults, seed)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@joint_faults
def test_a_few_boxes_painted_together(shape, margin, edge, faults, seed) -> None:
    survive_together(shape, margin, edge, faults, seed)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@joint_faults
def test_any_box_painted_together(shape, margin, edge, faults, seed) -> None:
    survive_together(shape, margin, edge, faults, seed)


@pytest.mark.slow
@pytest.mark.parametrize("tiling", [Tiling((6, 9, 6), 4, 1), Tiling((8, 6, 6), 6, 2, halved=True)])
def test_every_message_may_be_the_last(place: Path, tiling: Tiling) -> None:
    """A kill or a power loss at every third operation of one painting on three ranks.

    At every one with BIGBOX_EVERY=1.
    """
    first = Story(place / "trace", tiling, 1, 0, seed=5)
    assert first.run(0, "kill", n_ranks=3)
    operations = list(first.world.trace)
    assert any(label.startswith("pass") for label in operations)
    for at in range(1, len(operations) + 1, 1 if os.environ.get("BIGBOX_EVERY") else 3):
        story = Story(place / "s", tiling, 1, 0, seed=5)
        assert not story.run(at, ["kill", "power"][at % 2], n_ranks=3)
        assert story.run(0, "kill")
        story.check(limit=5)
        shutil.rmtree(place / "s")
