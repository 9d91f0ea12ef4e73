"""The whole engine on many ranks, killed at any write, fsync, rename or message, and resumed.

Store, ledger, policy, loop and messages are the real ones, in one process and a seeded order (see
`tests.faults.ranks`); `tests.faults.disk` states what a kill and a power loss may do.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.engine import loop
from bigbox.errors import BadInput
from bigbox.painters.trivial import TrivialPainter
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.store.box import Box
from bigbox.store.status import status
from tests.faults.disk import CrashDisk, Killed, World
from tests.faults.ranks import paint_in_process
from tests.unit.test_engine import reference

TILE = 4


@pytest.fixture
def place() -> Iterator[Path]:
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield root
    shutil.rmtree(root)


def density(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(7).lognormal(size=shape).astype(np.float32)


@lru_cache(maxsize=256)
def truth(tiling: Tiling, latents: int) -> bytes:
    painter = TrivialPainter(seed=1, box_shape=tiling.shape, tile=TILE, latents=latents)
    return reference(density(tiling.shape), tiling, painter, "levels").tobytes()


class Story:
    """One painting, its runs, and the operations (of the disk and of the messages) so far."""

    def __init__(self, root: Path, tiling: Tiling, edge: int, latents: int, seed: int) -> None:
        self.world = World(root)
        self.path = root / "box.zarr"
        self.tiling, self.edge, self.latents = tiling, edge, latents
        self.rng = random.Random(seed)
        box = Box.create(self.path, tiling.shape, [float(n) for n in tiling.shape], 0.0)
        box.create_array("dm")[...] = density(tiling.shape)
        self.painter = TrivialPainter(seed=1, box_shape=tiling.shape, tile=TILE, latents=latents)

    def run(self, at: int, mode: str, n_ranks: int = 0) -> bool:
        """A run with a fault at operation `at` (0: none); whether it came to its end."""
        rng, world = self.rng, self.world
        world.arm(at, mode, rng.choice(["before", "half", "after"]))
        disk = CrashDisk(world)

        def on_message() -> None:
            disk._point("pass", "engine/message", lambda: None)

        try:
            paint_in_process(
                self.path,
                self.painter,
                self.tiling,
                self.edge,
                n_ranks=n_ranks or rng.randint(1, 4),
                batch=rng.choice([1, 2, 5]),
                rng=np.random.default_rng(rng.randrange(2**32)),
                disk=disk,
                colouring=rng.choice(["levels", "paper"]),
                on_message=on_message,
                overlap_bytes=rng.choice([0, 500, 1 << 20]),
                tb_edges=(4, 2),
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
        for run in status(Box.open(self.path))["runs"]:
            in_flight = (1 + loop.COMMITS_WAITING) * run["n_ranks"] * limit
            assert run["tiles_begun"] - run["tiles"] <= in_flight


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(*[st.integers(5, 13)] * 3),
    edge=st.sampled_from([1, 2]),
    latents=st.sampled_from([0, 0, 1]),
    faults=st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from(["kill", "power", "full"])), max_size=4
    ),
    seed=st.integers(0, 2**31),
)
def test_any_box_any_ranks_any_faults(shape, edge, latents, faults, seed) -> None:
    try:
        tiling = Tiling(shape, TILE, 1)
    except TilingError:
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        story = Story(Path(folder) / "s", tiling, edge, latents, seed)
        for at, mode in faults:
            story.run(at, mode)
        assert story.run(0, "kill"), "the last run has no fault"
        story.check(limit=5)


def test_every_message_may_be_the_last(place: Path) -> None:
    """A kill or a power loss at every operation of one painting on three ranks."""
    tiling = Tiling((6, 9, 6), TILE, 1)
    first = Story(place / "trace", tiling, 1, 0, seed=5)
    assert first.run(0, "kill", n_ranks=3)
    operations = list(first.world.trace)
    assert any(label.startswith("pass") for label in operations)
    for at in range(1, len(operations) + 1):
        story = Story(place / "s", tiling, 1, 0, seed=5)
        assert not story.run(at, ["kill", "power"][at % 2], n_ranks=3)
        assert story.run(0, "kill")
        story.check(limit=5)
        shutil.rmtree(place / "s")
