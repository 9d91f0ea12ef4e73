"""Any sequence of commands, some of them killed, against a model of what a box must hold.

BIGBOX_MACHINE_STEPS and BIGBOX_MACHINE_RUNS make it longer: 100 steps is what was run by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bigbox.store.box import realization_path
from tests.boxes import scratch
from tests.faults.commands import KILLED, Commands, Fault

STEPS = int(os.environ.get("BIGBOX_MACHINE_STEPS", "20"))
RUNS = int(os.environ.get("BIGBOX_MACHINE_RUNS", "2"))
N = 32
PAINT = ("--painter", "trivial", "--tile", "16", "--steps", "2", "--quiet")
REGION = "0:16,0:16,0:16"

_realizations = st.sampled_from([0, 3])
_seeds = st.sampled_from([1, 2])


class World:
    """A folder, a density grid, and what each painting of it is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.grid = folder, folder / "density.npy"
        values = np.random.default_rng(0).lognormal(size=(N,) * 3).astype(np.float32)
        np.save(self.grid, values / values.mean())

    def ingest(self, box: Path) -> tuple[str, ...]:
        return ("ingest", str(self.grid), str(box), "--box-size", "4", "--redshift", "0")

    @cache  # noqa: B019  it lives as long as the test
    def truth(self, seed: int, realization: int) -> bytes:
        box = self.folder / f"truth-{seed}-{realization}.zarr"
        commands = Commands(box)
        assert commands.run(*self.ingest(box)).status == 0
        more = ("--seed", seed, "--realization", realization)
        assert commands.run("paint", box, *PAINT, *more).status == 0
        return tb(box, realization).tobytes()


def tb(box: Path, realization: int) -> np.ndarray:
    return zarr.open_array(realization_path(box, realization) / "tb", mode="r")[...]


class Box(RuleBasedStateMachine):
    """What commands do to a box; `painted` is the model: seed by realization, None of unknown."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.world.folder))
        self.box = self.folder / "box.zarr"
        self.commands = Commands(self.box)
        self.there = False
        self.painted: dict[int, int] = {}  # seed of the tiles that there are
        self.whole: set[int] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def run(self, *arguments: object, status: int, fault: Fault | None = None) -> str:
        ended = self.commands.run(*arguments, fault=fault)
        assert ended.status == status, f"{arguments}: {ended.status}: {ended.said}"
        assert "Traceback" not in ended.said
        return ended.said

    def paint(self, realization: int, seed: int, *more: object) -> tuple[object, ...]:
        about = ("--realization", realization, "--seed", seed)
        return ("paint", self.box, *PAINT, *about, *more)

    def other(self, realization: int, seed: int) -> bool:
        """Whether tiles of another seed are there, so that painting is refused."""
        return self.painted.get(realization, seed) != seed

    def look(self, realization: int) -> dict[str, object]:
        said = self.run("status", self.box, "--realization", realization, "--json", status=0)
        return json.loads(said)

    @rule()
    def ingest(self) -> None:
        said = self.run(*self.world.ingest(self.box), status=2 if self.there else 0)
        assert not self.there or "exists" in said
        self.there = True

    @rule(at=st.integers(1, 40))
    def ingest_is_killed(self, at: int) -> None:
        if self.there:
            return
        ended = self.commands.run(*self.world.ingest(self.box), fault=Fault(kill_at=at))
        assert ended.status in (0, KILLED), ended.said
        self.there = (self.box / "zarr.json").exists()
        if self.there:  # it has its name only when it is whole
            self.run("verify", self.box, status=0)

    @rule(realization=_realizations, seed=_seeds)
    def paint_it(self, realization: int, seed: int) -> None:
        refused = not self.there or self.other(realization, seed)
        before = self.painted.get(realization)
        said = self.run(*self.paint(realization, seed), status=2 if refused else 0)
        if refused:
            assert said.count("\n") == 1 and self.painted.get(realization) == before
            return
        self.painted[realization] = seed
        self.whole.add(realization)

    @rule(realization=_realizations, seed=_seeds, at=st.integers(1, 350))
    def paint_is_killed(self, realization: int, seed: int, at: int) -> None:
        command = self.paint(realization, seed)
        ended = self.commands.run(*command, fault=Fault(kill_at=at))
        if not self.there or self.other(realization, seed):
            assert ended.status in (2, KILLED), ended.said
            return
        assert ended.status in (0, KILLED), ended.said
        if ended.status == 0:
            self.whole.add(realization)
        self._see(realization, seed)

    def _see(self, realization: int, seed: int) -> None:
        """Whether a command that was killed came as far as to a tile, only the ledger knows."""
        if not realization_path(self.box, realization).exists():
            return
        if self.look(realization).get("tiles_done"):
            self.painted[realization] = seed

    @rule(realization=_realizations, seed=_seeds)
    def paint_a_region(self, realization: int, seed: int) -> None:
        refused = not self.there or self.other(realization, seed)
        command = self.paint(realization, seed, "--region", REGION)
        self.run(*command, status=2 if refused else 0)
        if not refused:
            self.painted[realization] = seed
            part = tb(self.box, realization)[:16, :16, :16]
            whole = np.frombuffer(self.world.truth(seed, realization), np.float32)
            assert np.array_equal(part, whole.reshape(N, N, N)[:16, :16, :16])

    @rule(realization=_realizations, seed=_seeds, at=st.integers(0, 350))
    def discard(self, realization: int, seed: int, at: int) -> None:
        """Give up what is painted, for another seed; some are killed (at > 200), then go on."""
        if not self.there:
            return
        command = self.paint(realization, seed, "--discard")
        if at > 200:
            ended = self.commands.run(*command, fault=Fault(kill_at=at - 200))
            assert ended.status in (0, KILLED), ended.said
        self.run(*command, status=0)
        self.painted[realization] = seed
        self.whole.add(realization)

    @rule(realization=_realizations)
    def clean(self, realization: int) -> None:
        if realization in self.whole:
            self.run("clean", self.box, "--realization", realization, status=0)
            assert not (realization_path(self.box, realization) / "latents").exists()

    @rule(realization=_realizations)
    def verify(self, realization: int) -> None:
        if self.there and (realization in self.painted or realization == 0):
            self.run("verify", self.box, "--realization", realization, status=0)

    @invariant()
    def what_is_whole_is_right(self) -> None:
        for realization in self.whole:
            wanted = self.world.truth(self.painted[realization], realization)
            assert tb(self.box, realization).tobytes() == wanted, realization


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_commands_in_any_order() -> None:
    with scratch() as folder:
        Box.world = World(folder)
        run_state_machine_as_test(
            Box,
            settings=settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=True,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
