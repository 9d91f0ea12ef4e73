"""Every tile lies in one slot of one brick of one rank, and ranks share the tiles evenly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigbox.scheduler.bricks import Assignment, Bricks, default_edge, hilbert
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import tilings


@given(tilings(), st.integers(1, 5))
def test_bricks_and_slots_against_the_definition(tiling: Tiling, edge: int) -> None:
    bricks = Bricks(tiling, edge)
    tiles = np.arange(tiling.size)
    brick, slot = bricks.of_tile(tiles), bricks.slot(tiles)
    for t, at in zip(tiles, np.ndindex(*tiling.counts), strict=True):
        coarse, fine = zip(*(divmod(i, edge) for i in at), strict=True)
        assert brick[t] == np.ravel_multi_index(coarse, bricks.counts)
        assert slot[t] == np.ravel_multi_index(fine, (edge,) * 3)
    members = [bricks.tiles(b) for b in range(bricks.size)]
    assert sorted(np.concatenate(members).tolist()) == tiles.tolist()
    np.testing.assert_array_equal(bricks.tile_counts(), [len(m) for m in members])
    for b, m in enumerate(members):
        assert (brick[m] == b).all() and (np.diff(slot[m]) > 0).all()
    worked(tiling.size > 1)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_curve_visits_every_cell_by_steps_to_a_face_neighbour(bits: int) -> None:
    cells = np.array(list(np.ndindex(*(2**bits,) * 3)))
    place = hilbert(cells, bits)
    assert sorted(place.tolist()) == list(range(8**bits))
    walk = cells[np.argsort(place)]
    assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()


@given(tilings(), st.integers(1, 5), st.integers(1, 40))
def test_every_tile_has_one_rank_and_shares_are_equal_to_one_brick(
    tiling: Tiling, edge: int, n_ranks: int
) -> None:
    assignment = Assignment(Bricks(tiling, edge), n_ranks)
    tiles = np.arange(tiling.size)
    rank_of = assignment.rank_of(tiles)
    seen: list[int] = []
    for rank in range(n_ranks):
        own = assignment.tiles_of(rank)
        assert sorted(own.tolist()) == tiles[rank_of == rank].tolist()
        assert assignment.counts()[rank] == len(own)
        assert (np.diff(assignment.address(own)) > 0).all()
        seen += own.tolist()
    assert sorted(seen) == tiles.tolist()
    # Runs of the curve: the rank never falls along it.
    assert (np.diff(assignment.brick_rank[assignment.bricks.curve]) >= 0).all()
    largest = assignment.bricks.tile_counts().max()
    assert (np.abs(assignment.counts() - tiling.size / n_ranks) <= largest).all()
    worked(len(seen) > 1)


@given(tilings(), st.integers(1, 5), st.integers(1, 40))
def test_addresses(tiling: Tiling, edge: int, n_ranks: int) -> None:
    assignment = Assignment(Bricks(tiling, edge), n_ranks)
    bricks = assignment.bricks
    curve = bricks.curve.tolist()
    for t in range(tiling.size):
        place = curve.index(int(bricks.of_tile([t])[0]))
        assert assignment.address([t])[0] == place * edge**3 + bricks.slot([t])[0]
        assert assignment.starts[assignment.rank_of([t])[0]] <= place
    worked(tiling.size > 1)


@pytest.mark.parametrize(
    ("tiles", "edge"), [(1, 1), (3, 1), (4, 1), (7, 2), (8, 2), (13, 4), (25, 8), (366, 8)]
)
def test_default_edge(tiles: int, edge: int) -> None:
    tiling = Tiling((32 + 28 * (tiles - 1), 32, 32), periodic=(False,) * 3)
    assert tiling.counts == (tiles, 1, 1)
    assert default_edge(tiling) == edge


@given(tilings(), st.integers(1, 40))
def test_default_edge_shares_out_evenly(tiling: Tiling, n_ranks: int) -> None:
    edge = default_edge(tiling, n_ranks)
    counts = Assignment(Bricks(tiling, edge), n_ranks).counts()
    assert edge == 1 or counts.max() <= 1.05 * tiling.size / n_ranks
    worked(tiling.size > 1)


def test_the_largest_box_on_64_ranks_is_shared_evenly() -> None:
    assignment = Assignment(Bricks(Tiling((10240,) * 3), 8), 64)
    counts = assignment.counts()
    assert counts.sum() == 49_027_896
    assert counts.max() - counts.min() <= 2 * 512


def test_refusals() -> None:
    tiling = Tiling((64,) * 3)
    with pytest.raises(ValueError, match="edge of 0"):
        Bricks(tiling, 0)
    with pytest.raises(ValueError, match="0 ranks"):
        Assignment(Bricks(tiling, 1), 0)
