"""The order of (tile, step) nodes: every node once, after all that it needs, from any beginning."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.simulate import CostModel, simulate
from bigbox.scheduler.steps import StepOrder
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.together import alive_tiles, assignment_for, front_layers, together_of
from bigbox.testing.exercised import worked

STEPS = 4
shapes = st.tuples(*[st.integers(8, 30)] * 3)


class Run:
    """Some ranks that do nodes in a random order, with mail that takes a random while."""

    def __init__(self, tiling, edge, n_ranks, batch, limit, goals, begun, rng) -> None:
        together = together_of(tiling)
        assignment = assignment_for(Bricks(tiling, edge), n_ranks, STEPS, limit)
        self.near, self.rng, self.goals = together.near, rng, goals
        self.level = np.zeros(tiling.size, int) if begun is None else begun.astype(int)
        self.orders = [
            StepOrder(together, assignment, r, STEPS, batch, goals, begun) for r in range(n_ranks)
        ]
        self.mail: dict = {(a, b): deque() for a in range(n_ranks) for b in range(n_ranks)}
        for order in self.orders:
            self.post(order.rank, order.greetings)

    def post(self, rank: int, mails: list) -> None:
        for mail in mails:
            self.mail[rank, mail.to].append(mail.what)

    def go(self, nodes: int) -> int:
        """Do at most so many nodes; return how many were."""
        done = quiet = 0
        while done < nodes and any(order.remaining for order in self.orders):
            quiet += 1
            assert quiet < 400 * len(self.orders), "no rank can go on"
            rank = int(self.rng.integers(len(self.orders)))
            for sender in range(len(self.orders)):
                queue = self.mail[sender, rank]
                for _ in range(int(self.rng.integers(0, len(queue) + 1))):
                    self.orders[rank].receive(queue.popleft())
            units = self.orders[rank].next_batch(idle=True)
            if not len(units):
                continue
            for unit in units.tolist():
                tile, level = divmod(unit, STEPS)
                assert self.level[tile] == level < self.goals[tile]
                near = self.near.of([tile])[0]
                # The field of a step is kept until all that touch it are past it.
                assert set(self.level[near[near >= 0]].tolist()) <= {level, level + 1} or level == 0
            self.level[units // STEPS] += 1
            self.post(rank, self.orders[rank].done(units).mail)
            done, quiet = done + len(units), 0
        return done


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    margin=st.integers(1, 2),
    edge=st.integers(1, 2),
    ranks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.sampled_from([1, 5]),
    limit=st.sampled_from([0, 10**6]),
    stopped=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**31),
)
def test_every_node_once_also_from_where_another_run_stopped(
    shape, margin, edge, ranks, batch, limit, stopped, seed
) -> None:
    tiling, rng = Tiling(shape, 8, 2 * margin, halved=True), np.random.default_rng(seed)
    together, every = together_of(tiling), np.ones(tiling.size, bool)
    goals = together.goals(every, STEPS)
    assert (goals == STEPS).all()
    first = Run(tiling, edge, ranks[0], batch, limit, goals, None, rng)
    did = first.go(int(stopped * tiling.size * STEPS))
    begun = np.where(first.level == STEPS, STEPS - 1, first.level).astype(np.int16)
    left = together.goals(first.level < STEPS, STEPS, begun)
    assert left is not None, "states of one moment fit together"
    second = Run(tiling, edge, ranks[1], batch, limit, left, begun, rng)
    more = second.go(10**9)
    assert did + more == tiling.size * STEPS
    worked(0 < did < tiling.size * STEPS)


def test_the_goals_of_a_region() -> None:
    together = together_of(Tiling((60, 60, 60), 8, 2, halved=True))
    wanted = np.zeros(1000, bool)
    wanted[together.tiling.index([5, 5, 5])] = True
    goals = together.goals(wanted, 4).reshape(10, 10, 10)
    far = np.abs(np.indices((10, 10, 10)) - 5).max(axis=0)
    assert (goals == np.maximum(4 - far, 0)).all()


def test_what_does_not_fit_together_is_said() -> None:
    together = together_of(Tiling((24, 24, 24), 8, 2, halved=True))
    begun = np.zeros(64, np.int16)
    begun[5] = 3
    assert together.goals(np.ones(64, bool), 4, begun) is None


@pytest.mark.parametrize(("n", "ranks"), [(6, 1), (6, 3), (20, 4)])
@pytest.mark.parametrize("limit", [1, 10**9])
def test_no_more_is_alive_than_is_planned(n: int, ranks: int, limit: int) -> None:
    tiling, steps = Tiling((6 * n, 48, 48), 8, 2, halved=True), 3
    bricks = Bricks(tiling, 2)
    assignment = assignment_for(bricks, ranks, steps, limit)
    assert assignment.columns == (limit == 1 and n > front_layers(steps))
    cost = CostModel(1.0, 4, latency=0.1)
    said = simulate(tiling, 2, ranks, cost, steps=steps, limit=limit)
    assert said.peak_pending_rank <= alive_tiles(assignment, steps)
    if assignment.columns:
        assert alive_tiles(assignment, steps) < 0.8 * tiling.size / ranks or ranks > 1


def test_ranks_wait_little() -> None:
    """Two ranks of a box of 128^3, and a box of 520^3 on 8: only uneven shares cost."""
    for shape, ranks, edge, most in ((128, 2, 1, 0.005), (520, 8, 4, 0.001)):
        tiling = Tiling((shape,) * 3, 32, 6, halved=True)
        counts = Assignment(Bricks(tiling, edge), ranks).counts()
        said = simulate(tiling, edge, ranks, CostModel(0.1, 4, latency=0.005), steps=12)
        assert counts.mean() / counts.max() - most < said.efficiency
        assert said.efficiency <= counts.mean() / counts.max() + 1e-9
