"""A rank of an earlier run that is still alive, without locks, races the run that replaced it.

The earlier run stops before one of its operations (as a process that is not scheduled, or whose
machine hangs), a later run starts and gets some way, then the earlier one goes on as if nothing had
happened until it notices, in the middle of the later one's work.  Only the number of the run and
the directory of files without a name keep them apart.
"""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest

from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.disks import CrashDisk, World
from tests.faults.paint import Case, Run, check_complete, make_box
from tests.faults.test_crashes import trace_of

SCHEDULES = 150


class Earlier:
    """The earlier run in a thread of its own; only one of the two runs is ever awake."""

    def __init__(self, world: World, case: Case, n_ranks: int, rng: random.Random, at: int) -> None:
        self.asleep, self.wake = threading.Event(), threading.Event()
        self.stopped: BaseException | None = None
        self.at = at
        self.arguments = (world, case, n_ranks, rng)
        self.thread = threading.Thread(target=self.main)
        self.thread.start()
        self.asleep.wait()

    def pause(self, count: int) -> None:
        if count == self.at:
            self.asleep.set()
            self.wake.wait()

    def main(self) -> None:
        world, case, n_ranks, rng = self.arguments
        run = None
        try:
            run = Run(case, n_ranks, rng, CrashDisk(world, self.pause))
            while run.step():
                pass
        except BaseException as error:
            self.stopped = error
        finally:
            if run:
                run.close()
            self.asleep.set()

    def go_on(self) -> None:
        self.wake.set()
        self.thread.join()


@pytest.mark.parametrize("n_steps", [0, 1])
def test_a_stale_rank_harms_nothing(place: Path, n_steps: int) -> None:  # noqa: F811
    shape, edge = (6, 6, 6), 1
    ended: dict[str, int] = {}
    last = len(trace_of(place / "trace", 0 if n_steps == 0 else 2))
    for number in range(SCHEDULES):
        rng = random.Random(f"{number} {n_steps}")
        root = place / "s"
        world = World(root, locks=False)
        tiling = Tiling(shape, 4, 1)
        box = make_box(root / "b.zarr", shape)
        case = Case(box, tiling, edge, n_steps=n_steps)
        early = Case(box, tiling, edge, n_steps=n_steps)
        world.arm(0, "kill", "")
        earlier = Earlier(world, early, 2, random.Random(number), rng.randint(1, last))
        # What the earlier run was told before the later one starts must not be lost.
        case.committed, case.assembled = set(early.committed), set(early.assembled)
        awake_at = rng.randint(1, last)

        def meanwhile(count: int, at: int = awake_at, other: Earlier = earlier) -> None:
            if count == at:
                other.go_on()

        run = None
        try:
            run = Run(case, rng.randint(1, 2), rng, CrashDisk(world, meanwhile))
            run.check()
            while run.step():
                pass
            run.close()
        except (BadInput, StoppedEarly, BigboxError) as error:
            # Only while both were starting may the earlier one win.
            assert run is None or not run.ranks or "taken over" in str(error), error
            if run:
                run.close()
        earlier.go_on()
        kind = type(earlier.stopped).__name__
        ended[kind] = ended.get(kind, 0) + 1
        if earlier.stopped and not isinstance(earlier.stopped, BigboxError):
            raise earlier.stopped
        # Whoever won, the next run completes it, over what the winner was told.
        final = Case(box, tiling, edge, n_steps=n_steps)
        final.committed = set(case.committed)
        world.close()
        after = Run(final, 2, rng, CrashDisk(world))
        after.check()
        while after.step():
            pass
        after.close()
        check_complete(final, with_zarr=number % 97 == 0)
        world.close()
        shutil.rmtree(root)
    print(f"\n{SCHEDULES} races; the earlier run ended with: {ended}")
    assert ended.get("StoppedEarly", 0) > SCHEDULES // 10
