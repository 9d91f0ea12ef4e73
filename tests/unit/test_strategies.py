"""What the strategies draw is valid, within what was asked for, and shrinks to something small."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import PERIODIC, assignments, sizes, tilings, windows


def test_sizes_by_hand() -> None:
    assert sizes(4, 1, True, 13) == {2: [6], 3: [9], 4: [12]}
    assert sizes(4, 1, False, 8) == {1: [4], 2: [7]}


@pytest.mark.parametrize("periodic", [True, False])
def test_sizes_are_all_that_can_be_tiled(periodic: bool) -> None:
    fit = {n for some in sizes(7, 2, periodic, 40).values() for n in some}
    for n in range(1, 41):
        try:
            Tiling((7, n, 7), 7, 2, (False, periodic, False))
        except TilingError:
            assert n not in fit
        else:
            assert n in fit


@given(tilings(tile=(4, 6), overlap=(1, 9), periodic=(True, False, True), tiles=(5, 30)))
def test_tilings_are_within_what_was_asked_for(tiling: Tiling) -> None:
    assert 4 <= tiling.tile <= 6 and tiling.overlap >= 1 and max(tiling.shape) <= 34
    assert tiling.periodic == (True, False, True) and 5 <= tiling.size <= 30
    worked()


@given(st.data())
def test_windows_are_within_what_was_asked_for(data: st.DataObject) -> None:
    tiling = data.draw(tilings(tile=(4, 9), periodic=PERIODIC))
    found = data.draw(windows(tiling.shape, window=(3, 6), block=(2, 3), most_windows=500))
    assert found.shape == tiling.shape and found.size <= 500
    assert 3 <= found.window <= 6 and 2 <= found.block <= 3
    worked()


@given(assignments(tilings(tiles=(3, 40)), edge=(1, 3), ranks=(3, 6)))
def test_at_most_one_rank_has_nothing(assignment: Assignment) -> None:
    assert 3 <= assignment.n_ranks <= 6 and assignment.bricks.edge <= 3
    assert assignment.n_ranks <= assignment.bricks.size + 1
    worked()


def failure_of(wrong: Callable[[Tiling], bool]) -> str:
    """The smallest tiling of which this holds, as hypothesis shows it."""

    # One in two hundred tilings has one tile: five hundred examples miss it now and then.
    @settings(database=None, max_examples=10_000)
    @given(tilings())
    def never(tiling: Tiling) -> None:
        assert not wrong(tiling)

    with pytest.raises(AssertionError) as failure:
        never()
    return "".join(failure.value.__notes__)


def test_examples_shrink_to_two_small_tiles() -> None:
    shown = failure_of(lambda tiling: True)
    assert "shape=(3, 3, 5)" in shown and "periodic=(False, False, False)" in shown


def test_one_tile_is_drawn_too() -> None:
    assert "periodic=(False, False, False)" in failure_of(lambda tiling: tiling.size == 1)
