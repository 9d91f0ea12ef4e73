"""Windows, blocks, gates and orders against whole arrays of voxels, built the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.meeting import Gate, Meeting
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.scheduler.window_order import WindowOrder, WindowRow, WindowsDone
from bigbox.scheduler.windows import Windows
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import PERIODIC, tilings, windows
from tests.reference.windows import block_map, voxels


@st.composite
def windowed_tilings(draw: st.DrawFn) -> tuple[Windows, Tiling]:
    """Draw windows and tiles of the same box."""
    small = tilings(tile=(2, 5), periodic=PERIODIC, largest=20, tiles=(1, 216))
    tiling = draw(small)
    return draw(windows(tiling.shape)), tiling


@settings(deadline=None, max_examples=60)
@given(windows())
def test_origins_are_even_and_every_voxel_is_covered(windows: Windows) -> None:
    for axis, n in enumerate(windows.shape):
        origins = windows.axes[axis].first
        strides = np.diff(np.append(origins, origins[0] + n))
        assert origins[0] == 0 and strides.max() <= windows.stride
        assert strides.max() - strides.min() <= 1
        weights = np.arange(1, windows.window + 1)
        slow = np.zeros(n, np.int64)
        for origin in origins:
            for at, weight in enumerate(weights):
                slow[(origin + at) % n] += weight
        assert np.array_equal(windows.coverage(axis, weights), slow) and slow.min() > 0
    worked(windows.size > 1)


@settings(deadline=None, max_examples=40)
@given(windows(), st.randoms(use_true_random=False))
def test_a_window_meets_its_blocks(windows: Windows, rng) -> None:
    blocks = block_map(windows)
    window = rng.randrange(windows.size)
    mask = voxels(windows, window)
    found = windows.meeting.of(window)[0]
    assert sorted(found[found >= 0]) == sorted(set(blocks[mask]))
    # The pieces lay out the window on the blocks, each voxel once.
    laid = np.zeros(windows.shape, np.int64)
    inside = np.zeros((windows.window,) * 3, np.int64)
    for block, here, there in windows.meeting.pieces(window):
        assert [s.stop - s.start for s in here] == [s.stop - s.start for s in there]
        low = windows.blocks.origin(block)
        at = [slice(o + s.start, o + s.stop) for o, s in zip(low.tolist(), there, strict=True)]
        assert (blocks[tuple(at)] == block).all()
        laid[tuple(at)] += 1
        inside[here] += 1
    assert (inside == 1).all()
    assert np.array_equal(laid, mask)
    worked(laid.sum())


@settings(deadline=None, max_examples=30)
@given(windows(), st.integers(0, 2**31))
def test_a_block_is_touched_and_left(windows: Windows, seed: int) -> None:
    table = windows.meeting.of(np.arange(windows.size))
    touching = np.bincount(table[table >= 0], minlength=windows.blocks.size)
    assert np.array_equal(windows.meeting.inverse.degree(np.arange(windows.blocks.size)), touching)
    final = np.random.default_rng(seed).random(windows.blocks.size) < 0.7
    left = ((table >= 0) & ~final[table]).any(axis=1).sum()
    assert windows.left(final) == left
    for block in range(windows.blocks.size):
        assert np.prod(windows.blocks.extent(block)) == (block_map(windows) == block).sum()
    worked(touching.sum())


@settings(deadline=None, max_examples=40)
@given(
    windowed_tilings(),
    st.integers(1, 4),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.5]),
    st.integers(0, 2**31),
)
def test_every_window_has_one_rank(
    case: tuple[Windows, Tiling], ranks: int, edge: int, share_final: float, seed: int
) -> None:
    windows, tiling = case
    assignment = Assignment(Bricks(tiling, edge), ranks)
    rng = np.random.default_rng(seed)
    table = windows.meeting.of(np.arange(windows.size))
    # Slow: whether a block waits for a window, bool (windows, blocks).
    waits = np.zeros((windows.size, windows.blocks.size), bool)
    for window, row in enumerate(table):
        waits[window, row[row >= 0]] = True
    final = rng.random(windows.blocks.size) < share_final
    final[rng.integers(len(final))] = False
    some = np.flatnonzero(~final & (rng.random(len(final)) < seed % 2))
    included = np.zeros((len(some), windows.most_per_block), bool)
    for row, block in enumerate(some.tolist()):
        over = np.flatnonzero(waits[:, block])
        chosen = over[rng.random(len(over)) < 0.8]
        column = (table[chosen] == block).argmax(axis=1)
        included[row, windows.meeting.places(chosen)[np.arange(len(chosen)), column]] = True
        assert included[row].sum() == len(chosen), "windows of a block have ordinals of their own"
        waits[chosen, block] = False
    waits[:, final] = False
    done = WindowsDone(windows, final, some, included)
    assert done.left() == waits.any(axis=1).sum()
    assert np.array_equal(done.count(some), included.sum(axis=1))
    seen = []
    for rank in range(ranks):
        order = WindowOrder(windows, assignment, rank, 1, 3, done)
        row = WindowRow(windows, assignment, rank, done)
        mine = []
        while len(batch := order.next_batch(False)):
            mine += batch.tolist()
            assert order.remaining == order.total - len(mine) + order.blocks_left
        assert np.array_equal(np.concatenate([*row.parts(), []]), mine)
        seen += mine
        if not done.anything:
            assert len(mine) in (windows.size // ranks, -(-windows.size // ranks))
        # What the rank has still to add to each block.
        blocks, counts = row.contributions()
        dense = np.zeros(windows.blocks.size, np.int64)
        dense[blocks] = counts
        assert np.array_equal(dense, waits[mine].sum(axis=0))
    assert sorted(seen) == np.flatnonzero(waits.any(axis=1)).tolist()
    worked(len(seen))


def test_nothing_is_left_where_every_block_is_final() -> None:
    windows = Windows((12, 16, 8), 6, 3, 4)
    assignment = Assignment(Bricks(Tiling(windows.shape, 4, 0), 1), 2)
    final = np.ones(windows.blocks.size, bool)
    done = WindowsDone(windows, final)
    assert done.left() == 0
    for rank in range(2):
        order = WindowOrder(windows, assignment, rank, 1, 3, done)
        assert order.remaining == order.total == 0 and not len(order.next_batch(False))
        assert not len(WindowRow(windows, assignment, rank, done).contributions()[0])


@settings(deadline=None, max_examples=40)
@given(windowed_tilings(), st.integers(0, 2), st.integers(0, 2**31))
def test_a_tile_opens_with_the_last_block_under_it(
    case: tuple[Windows, Tiling], margin: int, seed: int
) -> None:
    windows, tiling = case
    blocks = block_map(windows)
    under = []
    for tile in range(tiling.size):
        reach = np.arange(tiling.tile + 2 * margin) - margin
        origin = tiling.origin([tile])[0]
        at = [(o + reach) % n for o, n in zip(origin, windows.shape, strict=True)]
        under.append(set(blocks[np.ix_(*at)].ravel().tolist()))
    rng = np.random.default_rng(seed)
    final = rng.random(windows.blocks.size) < 0.3
    final[rng.integers(len(final))] = False
    meeting = Meeting(tiling.grown(margin), windows.blocks)
    gate = Gate(meeting, np.arange(tiling.size), lambda parts: final[parts])
    done = set(np.flatnonzero(final).tolist())
    tiles = np.arange(tiling.size)
    assert gate.is_open(tiles).tolist() == [u <= done for u in under]
    for block in rng.permutation(np.flatnonzero(~final)).tolist():
        done.add(block)
        opened = gate.open([block]).tolist()
        assert opened == [t for t in tiles.tolist() if block in under[t] and under[t] <= done]
    assert gate.is_open(tiles).all()
    assert not len(gate.open(np.empty(0, np.int64)))
    worked((~final).sum())


def test_wrong_geometry_is_refused() -> None:
    with pytest.raises(TilingError, match="box is 60 voxels on axis y, less than a window of 64"):
        Windows((64, 60, 64))
    with pytest.raises(TilingError, match="stride of 65: a stride must be 1 to 64"):
        Windows((128,) * 3, stride=65)
    with pytest.raises(TilingError, match="stride of 0"):
        Windows((128,) * 3, stride=0)
    with pytest.raises(TilingError, match="block is 0 voxels"):
        Windows((128,) * 3, block=0)


def test_a_great_box_is_planned_at_once() -> None:
    windows = Windows((10240,) * 3)
    tiling = Tiling(windows.shape)
    assignment = Assignment(Bricks(tiling, 8), 64)
    order = WindowOrder(windows, assignment, 5, 8, 8)
    row = WindowRow(windows, assignment, 5, order.done_before)
    assert windows.size == 640**3 and order.total == windows.size // 64
    first = order.next_batch(False)
    near = np.abs(windows.origin(first) - windows.origin(first[:1])).max()
    assert near <= 64, "the windows of a batch lie side by side"
    blocks, counts = row.contributions()
    assert counts.max() == 5**3 and len(blocks) < 1.5 * windows.blocks.size / 64


@pytest.mark.parametrize("colouring", ["levels", "paper"])
@pytest.mark.parametrize("few", [True, False])
def test_gated_tiles_are_ready_when_they_are_opened(
    colouring: str, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigbox.scheduler.policy.FEW", 99 * few)
    tiling = Tiling((12, 15, 18), 6, 1)
    assignment = Assignment(Bricks(tiling, 1), 1)
    gated, plain = (Policy(assignment, 0, colouring, gated=g) for g in (True, False))
    rng = np.random.default_rng(1)
    assert gated.ready == 0 and plain.ready > 0
    painted: set[int] = set()
    opened: set[int] = set()
    while gated.remaining:
        some = rng.choice(tiling.size, 5)
        gated.opened(some)
        gated.opened(some)  # named again: no effect
        opened |= set(some.tolist())
        batch = gated.next_batch(4, partial=True)
        assert set(batch.tolist()) <= opened - painted
        painted |= set(batch.tolist())
        gated.done(batch)
    # Opened from the start, the order is that of a policy without a gate.
    again = Policy(assignment, 0, colouring, gated=True)
    again.opened(np.arange(tiling.size))
    while plain.remaining:
        batch = plain.next_batch(3, partial=True)
        assert np.array_equal(batch, again.next_batch(3, partial=True))
        plain.done(batch)
        again.done(batch)


@given(shape=st.tuples(*[st.integers(8, 40)] * 3), margin=st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_pieces_are_those_of_the_axes(shape: tuple[int, int, int], margin: int) -> None:
    tiling = Tiling(shape, 8, 2 * margin, halved=True)
    meeting = Meeting(tiling, tiling.owned_grid)
    for most in (0, 1 << 16):  # kept, and made again each time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bigbox.scheduler.meeting.MOST_CUTS", most)
            for item in range(tiling.size):
                at = tiling.coords(item).tolist()
                rows = [axis.rows[i] for axis, i in zip(meeting.axes, at, strict=True)]
                slow = [tuple(zip(*parts, strict=True)) for parts in itertools.product(*rows)]
                found = [
                    (tuple(tiling.coords(other).tolist()), here, there)
                    for other, here, there in meeting.pieces(item)
                ]
                assert found == slow
    worked(tiling.size > 1)
