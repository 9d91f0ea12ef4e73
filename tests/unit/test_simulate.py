"""The simulator against closed forms, against bounds, and against a replay of what it reports."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler import simulate as simulator
from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.simulate import CostModel, Report, critical_path, simulate
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.windows import Windows
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import PERIODIC, tilings

SMALL = tilings(largest=28, tiles=(1, 64))
MEETING = tilings(overlap=(1, 9), largest=28, tiles=(2, 64))
both = pytest.mark.parametrize("colouring", stages.COLOURINGS)
costs = st.builds(
    CostModel,
    seconds_per_tile=st.sampled_from((0.25, 1.0)),
    batch=st.integers(1, 6),
    latency=st.sampled_from((0.0, 0.125, 3.0)),
    fixed_per_batch=st.sampled_from((0.0, 0.5)),
    slow=st.dictionaries(st.integers(0, 3), st.sampled_from((0.5, 2.0)), max_size=2),
    filled=st.booleans(),
)


@both
@given(SMALL, st.integers(1, 3), st.integers(1, 6), costs)
@settings(max_examples=25)
def test_bounds(colouring: str, tiling: Tiling, edge: int, n_ranks: int, cost: CostModel) -> None:
    report = simulate(tiling, edge, n_ranks, cost, colouring)
    again = simulate(tiling, edge, n_ranks, cost, colouring)
    assert vars(report).keys() == vars(again).keys()
    assert all(np.array_equal(v, getattr(again, k)) for k, v in vars(report).items())
    assert report.makespan >= report.critical_path - 1e-4
    assert report.makespan >= report.busy.max()
    assert 0 < report.efficiency <= 1 + 1e-9
    assert -(-tiling.size // cost.batch) <= report.batches <= tiling.size
    assert 0 <= report.peak_pending_rank <= report.peak_pending_tiles <= tiling.size
    assert report.peak_pending_tiles <= report.peak_pending_rank * n_ranks
    assert (report.messages == 0) or n_ranks > 1
    worked(tiling.size > 1)


@both
@given(SMALL, st.integers(1, 3), st.integers(1, 6), costs)
@settings(max_examples=25)
def test_critical_path_is_the_longest_chain(
    colouring: str, tiling: Tiling, edge: int, n_ranks: int, cost: CostModel
) -> None:
    assignment = Assignment(Bricks(tiling, edge), n_ranks)
    tiles = np.arange(tiling.size)
    rank = assignment.rank_of(tiles)
    before = stages.predecessors(tiling, tiles, colouring)
    end = {}
    for t in np.argsort(stages.stage(tiling, tiles, colouring), kind="stable"):
        start = [0.0] + [
            end[u] + (cost.latency if rank[u] != rank[t] else 0.0) for u in before[t] if u >= 0
        ]
        end[t] = max(start) + cost.seconds(1, int(rank[t]))
    assert critical_path(assignment, cost, colouring) == pytest.approx(max(end.values()))
    worked(len(end) > 1)


@both
@given(MEETING, st.integers(1, 3), st.integers(1, 6), st.data())
@settings(max_examples=25)
def test_kept_tiles_against_a_replay(
    colouring: str, tiling: Tiling, edge: int, n_ranks: int, data: st.DataObject
) -> None:
    """Any order that respects the stages, batch by batch, with sets of kept tiles."""
    assignment = Assignment(Bricks(tiling, edge), n_ranks)
    tiles = np.arange(tiling.size)
    rank = assignment.rank_of(tiles)
    stage = stages.stage(tiling, tiles, colouring)
    after = [{int(u) for u in row if u >= 0} for row in stages.successors(tiling, tiles, colouring)]
    chance = data.draw(st.randoms(use_true_random=False))
    pieces = []
    for s in range(int(stage.max()) + 1):
        for r in range(n_ranks):
            members = tiles[(stage == s) & (rank == r)].tolist()
            chance.shuffle(members)
            pieces += [members[i : i + 3] for i in range(0, len(members), 3)]
    batch_of = np.empty(tiling.size, np.int32)
    painted: set[int] = set()
    total, most = 0, 0
    for number, piece in enumerate(pieces):
        batch_of[piece] = number
        # While a batch is painted, what it waits for is still kept, and it is itself.
        kept = {t for t in painted if after[t] - painted} | {t for t in piece if after[t]}
        painted |= set(piece)
        total = max(total, len(kept))
        most = max([most, *np.bincount(rank[list(kept)], minlength=n_ranks).tolist()])
    found = simulator.pending(assignment, batch_of, len(pieces), colouring)
    assert found == (total, most)
    worked(total)


def test_one_rank_is_never_idle() -> None:
    tiling = Tiling((8 * 28,) * 3)
    report = simulate(tiling, 2, 1, CostModel(0.5, 4, latency=9.0, fixed_per_batch=1.0))
    assert report.makespan == pytest.approx(report.busy[0])
    # The very last batches, of one brick, wait for one another and are not all full.
    assert 128 <= report.batches <= 130
    assert report.efficiency == pytest.approx(128 / report.batches)
    assert report.messages == 0
    assert report.critical_path == pytest.approx(4 * 3.0)


def test_one_tile_a_rank_is_the_critical_path() -> None:
    """Nothing hides the latency then: level by level, message by message."""
    tiling = Tiling((4 * 28,) * 3)
    report = simulate(tiling, 1, 64, CostModel(1.0, 1, latency=0.25))
    assert report.makespan == pytest.approx(report.critical_path) == pytest.approx(4.75)
    assert report.efficiency == pytest.approx(64 / (64 * 4.75))
    # Per axis half of the tiles are even, and each is waited for by two neighbours.
    assert report.messages == 64 * 3


def test_a_slow_rank_sets_the_pace() -> None:
    tiling = Tiling((8 * 28,) * 3)
    even = simulate(tiling, 2, 4, CostModel(1.0, 1))
    slow = simulate(tiling, 2, 4, CostModel(1.0, 1, slow={2: 3.0}))
    assert even.efficiency == pytest.approx(1.0)
    assert slow.busy[2] == pytest.approx(3 * 128)
    assert slow.makespan == pytest.approx(slow.busy[2], rel=0.05)
    assert slow.efficiency == pytest.approx(512 / (3 + 1 / 3) / slow.makespan)


def test_enough_tiles_a_rank_hide_the_latency() -> None:
    tiling = Tiling((16 * 28,) * 3)
    report: Report = simulate(tiling, 4, 8, CostModel(0.2, 1, latency=0.02))
    assert report.efficiency > 0.97


@given(
    tilings(largest=28, tiles=(1, 64), periodic=PERIODIC),
    st.integers(1, 3),
    st.integers(1, 6),
    costs,
    st.integers(1, 4),
    st.integers(2, 5),
)
@settings(max_examples=25, deadline=None)
def test_haloes_are_predicted_once_and_first(
    tiling: Tiling, edge: int, n_ranks: int, cost: CostModel, stride: int, block: int
) -> None:
    windows = Windows(tiling.shape, min(tiling.shape), min(stride, *tiling.shape), block)
    cost = replace(cost, seconds_per_window=0.25, window_batch=3)
    report = simulate(tiling, edge, n_ranks, cost, windows=windows)
    plain = simulate(tiling, edge, n_ranks, cost)
    assert report.windows == windows.size and plain.windows == 0
    assert report.busy.sum() >= windows.size * 0.25 * min([1.0, *cost.slow.values()])
    assert report.makespan >= windows.size * 0.25 / n_ranks * min([1.0, *cost.slow.values()])
    assert 0 < report.efficiency <= 1 + 1e-9
    assert 0 < report.most_open <= windows.blocks.size
    worked(report.windows)


def test_haloes_keep_all_ranks_busy() -> None:
    tiling = Tiling((256,) * 3)
    cost = CostModel(0.5, 4, latency=0.02, seconds_per_window=0.07)
    report = simulate(tiling, 2, 4, cost, windows=Windows(tiling.shape))
    assert report.efficiency > 0.95
    assert report.most_open < 400, "of 512 blocks"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(seconds_per_tile=1.0, batch=0), "batch of 0"),
        (dict(seconds_per_tile=-1.0, batch=1), "seconds_per_tile is -1.0"),
        (dict(seconds_per_tile=float("nan"), batch=1), "seconds_per_tile is nan"),
        (dict(seconds_per_tile=1.0, batch=1, latency=-2.0), "latency is -2.0"),
        (dict(seconds_per_tile=0.0, batch=1), "takes 0 seconds"),
        (dict(seconds_per_tile=1.0, batch=1, slow={3: 0.0}), "rank 3 is slow by 0.0"),
    ],
)
def test_costs_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CostModel(**arguments)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = "--shape 224 --ranks 2 4 --batch 1 --slow 1:2".split()
    assert simulator.main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ranks"] for row in rows] == [2, 4]
    assert all(0 < row["efficiency"] <= 1 and len(row["busy"]) == row["ranks"] for row in rows)
    assert simulator.main(command) == 0
    assert "512 tiles" in capsys.readouterr().out
    assert simulator.main([*command, "--halo-stride", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["windows"] == 4**3
    for wrong, words in (
        ("--shape 20 --ranks 2", "20 voxels on axis x"),
        ("--shape 224 --ranks 0", "0 ranks"),
        ("--shape 224 224 --ranks 1", "2 values"),
        ("--shape 224 --ranks 1 --slow 3", "RANK:FACTOR"),
        ("--shape 224 --ranks 2 --slow 5:2", "rank 5"),
    ):
        with pytest.raises(SystemExit) as caught:
            simulator.main(wrong.split())
        assert caught.value.code == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
