"""The policy against a slow one made of sets, and whole runs of many ranks in random order."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler import policy as policy_module
from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import assignments, tilings
from tests.reference.policy import SlowPolicy, in_flight

both = pytest.mark.parametrize("colouring", stages.COLOURINGS)
# Always numpy, or one tile at a time in plain Python.
PATHS = (0, 10**9)
SMALL = assignments(tilings(largest=28, tiles=(1, 64)))
SHARED = assignments(tilings(overlap=(1, 9), largest=28, tiles=(2, 64)), ranks=(2, 9))
# Hundreds of choices: drawn one by one, hypothesis would make most of them alike.
CHANCES = st.randoms(use_true_random=True)


def make(assignment: Assignment, rank: int, colouring: str, few: int) -> Policy:
    policy = Policy(assignment, rank, colouring)
    policy._few = few
    return policy


def shuffled(tiles: Iterable[int], chance: random.Random) -> list[int]:
    found = sorted(tiles)
    chance.shuffle(found)
    return found


@both
@pytest.mark.parametrize("few", PATHS)
@pytest.mark.parametrize("one_brick", [0, 1024])
@given(SMALL, CHANCES, st.booleans())
@settings(max_examples=25)
def test_batches_are_those_of_the_slow_policy(
    colouring: str,
    few: int,
    one_brick: int,
    assignment: Assignment,
    chance: random.Random,
    resume: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "ONE_BRICK", one_brick)
        same_batches(colouring, few, assignment, chance, resume)


def same_batches(
    colouring: str, few: int, assignment: Assignment, chance: random.Random, resume: bool
) -> None:
    rank = chance.choice(np.flatnonzero(assignment.counts()).tolist())
    fast, slow = make(assignment, rank, colouring, few), SlowPolicy(assignment, rank, colouring)
    everything = set(range(assignment.tiling.size))
    if resume:
        done = {t for t in everything if chance.random() < 0.4}
        restored = shuffled(done, chance)
        for part in (restored[::2], restored[1::2], restored[:3]):
            fast.restore(np.array(part, np.int64))
        slow.in_hand |= done
    flying: set[int] = set()
    for _ in range(100):
        event = chance.choice(("batch", "done", "arrived"))
        if event == "batch":
            k, partial = chance.randint(1, 8), chance.random() < 0.7
            batch = fast.next_batch(k, partial)
            assert batch.dtype == np.int64
            assert batch.tolist() == slow.next_batch(k, partial)
            worked(batch.size)
            flying |= set(batch.tolist())
        elif event == "done":
            some = shuffled(flying, chance)[: chance.randint(0, 8)]
            fast.done(np.array(some, np.int64))
            slow.in_hand |= set(some)
            flying -= set(some)
        else:
            others = shuffled(everything - slow.own, chance)[: chance.randint(0, 12)]
            fast.arrived(np.array(others + others[:2], np.int64))
            slow.in_hand |= set(others)
        assert fast.ready == len(slow.ready())
        assert in_flight(fast) == len(flying)
        assert fast.remaining == len(slow.own - slow.in_hand)


@both
@given(SMALL, CHANCES, st.booleans())
@settings(max_examples=25)
def test_every_tile_is_painted_once_and_after_its_predecessors(
    colouring: str, assignment: Assignment, chance: random.Random, resume: bool
) -> None:
    """Messages are late, out of order and repeated; batches finish in any order."""
    tiling = assignment.tiling
    tiles = np.arange(tiling.size)
    before = stages.predecessors(tiling, tiles, colouring)
    policies = [
        make(assignment, r, colouring, chance.choice((0, 3, 10**9)))
        for r in range(assignment.n_ranks)
    ]
    painted = np.zeros(tiling.size, int)
    if resume:
        done = tiles[[chance.random() < 0.5 for _ in tiles]]
        painted[done] = 1
        for policy in policies:
            policy.restore(done)
    flying: list[tuple[int, np.ndarray]] = []
    mail: list[tuple[int, np.ndarray]] = []
    while True:
        moves = [("batch", r) for r, p in enumerate(policies) if p.ready]
        moves += [("done", i) for i in range(len(flying))] + [("mail", i) for i in range(len(mail))]
        if not moves:
            break
        move, i = chance.choice(moves)
        if move == "batch":
            batch = policies[i].next_batch(chance.randint(1, 6), True)
            assert all(painted[u] == 1 for t in batch for u in before[t] if u >= 0)
            assert (assignment.rank_of(batch) == i).all()
            flying.append((i, batch))
        elif move == "done":
            rank, batch = flying.pop(i)
            painted[batch] += 1
            rows, readers = policies[rank].readers(batch)
            policies[rank].done(batch)
            mail += [(int(r), batch[rows[readers == r]]) for r in np.unique(readers)]
        else:
            rank, arrived = mail.pop(i) if chance.random() < 0.8 else mail[i]
            policies[rank].arrived(arrived)
    assert (painted == 1).all()
    assert all(p.remaining == in_flight(p) == p.ready == 0 for p in policies)
    worked(painted.size > 1)


@both
@given(SHARED)
@settings(max_examples=25)
def test_readers_are_the_other_ranks_of_successors(colouring: str, assignment: Assignment) -> None:
    tiling = assignment.tiling
    for rank in range(assignment.n_ranks):
        own = assignment.tiles_of(rank)
        rows, ranks = Policy(assignment, rank, colouring).readers(own)
        found = list(zip(rows.tolist(), ranks.tolist(), strict=True))
        assert len(found) == len(set(found))
        after = stages.successors(tiling, own, colouring)
        assert set(found) == {
            (i, int(r))
            for i, row in enumerate(after)
            for r in assignment.rank_of(row[row >= 0])
            if r != rank
        }
        worked(len(found))


@pytest.mark.parametrize("few", PATHS)
def test_contradictions_are_refused_and_change_nothing(few: int) -> None:
    assignment = Assignment(Bricks(Tiling((8 * 28,) * 3), 2), 4)
    policy = make(assignment, 1, "levels", few)
    batch = policy.next_batch(4, True)
    other = int(assignment.tiles_of(0)[0])
    waiting = int(np.setdiff1d(assignment.tiles_of(1), batch)[0])
    before = (policy.ready, in_flight(policy), policy.remaining)
    for tiles, words in (
        ([batch[0], batch[0]], f"tile {batch[0]} is done twice"),
        ([batch[0], other], f"tile {other} is done, but is not one of rank 1"),
        ([batch[0], waiting], f"tile {waiting} is done, but was never handed out"),
        ([512], "512"),
        ([-1], "-1"),
    ):
        with pytest.raises(ValueError, match=words):
            policy.done(tiles)
        assert (policy.ready, in_flight(policy), policy.remaining) == before
    for tiles, words in (([other, waiting], f"tile {waiting} arrived, but is"), ([512], "512")):
        with pytest.raises(ValueError, match=words):
            policy.arrived(tiles)
        assert (policy.ready, in_flight(policy), policy.remaining) == before
    with pytest.raises(ValueError, match="before the first batch"):
        policy.restore([other])
    with pytest.raises(ValueError, match=f"tile {other} is not one of rank 1"):
        policy.readers([other])
    with pytest.raises(ValueError, match="batch of 0"):
        policy.next_batch(0, True)
    policy.done(batch)
    with pytest.raises(ValueError, match=f"tile {batch[1]} is done twice"):
        policy.done(batch[1:2])
    with pytest.raises(ValueError, match="rank 4 does not exist"):
        Policy(assignment, 4)


def test_a_rank_without_tiles_has_nothing_to_do() -> None:
    assignment = Assignment(Bricks(Tiling((56,) * 3), 2), 5)
    idle = np.flatnonzero(assignment.counts() == 0).tolist()
    assert idle
    policy = Policy(assignment, idle[0])
    assert policy.remaining == policy.ready == 0
    assert policy.next_batch(4, True).size == 0
    policy.restore(np.arange(8))
    policy.arrived(np.arange(0))
