"""Every voxel is covered and has one owner; strides, overlaps and neighbours are what they say."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import sizes, tilings
from tests.reference.tilings import owned, voxels


@given(tilings())
def test_tiles_cover_the_box_with_at_least_the_overlap_asked_for(tiling: Tiling) -> None:
    for axis, n in enumerate(tiling.shape):
        start, (low, high) = tiling.origins(axis), tiling.widths(axis)
        count = tiling.counts[axis]
        covered = {int(v) for o in start for v in (o + np.arange(tiling.tile)) % n}
        assert covered == set(range(n))
        assert start[0] == 0 and (np.diff(start) > 0).all() and start[-1] < n
        strides = np.diff(np.append(start, n) if tiling.periodic[axis] else start)
        assert strides.size == 0 or strides.max() - strides.min() <= 1
        for i in range(count):
            here = {int(v) for v in (start[i] + np.arange(tiling.tile)) % n}
            for side, width in ((-1, low[i]), (1, high[i])):
                j = i + side
                if not tiling.periodic[axis] and not 0 <= j < count:
                    assert width == 0
                    continue
                edge = range(width) if side < 0 else range(tiling.tile - width, tiling.tile)
                shared = {int(start[i] + e) % n for e in edge}
                there = {int(v) for v in (start[j % count] + np.arange(tiling.tile)) % n}
                assert shared <= here & there
                assert width >= tiling.overlap and 2 * width < tiling.tile
                if not (tiling.periodic[axis] and count == 2):
                    assert shared == here & there
                worked()


@given(tilings(tiles=(9, 100)))  # so that an axis has more than two
def test_no_fewer_tiles_would_do(tiling: Tiling) -> None:
    stride = tiling.tile - tiling.overlap
    for axis, n in enumerate(tiling.shape):
        fewer = tiling.counts[axis] - 1
        if tiling.periodic[axis]:
            assert fewer == 1 or -(-n // fewer) > stride
            worked(fewer > 1)
        elif fewer > 1:
            assert -(-(n - tiling.tile) // (fewer - 1)) > stride
            worked()


@given(tilings())
def test_every_voxel_has_one_owner_and_owned_voxels_are_a_cuboid(tiling: Tiling) -> None:
    times = np.zeros(tiling.shape, int)
    owner = np.full(tiling.shape, -1)
    for t in range(tiling.size):
        part = tuple(
            i.ravel()[s].reshape([-1 if a == b else 1 for b in range(3)])
            for a, (i, s) in enumerate(zip(voxels(tiling, t), owned(tiling, t), strict=True))
        )
        times[part] += 1
        owner[part] = t
    assert (times == 1).all()
    at = np.stack(np.meshgrid(*map(np.arange, tiling.shape), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(tiling.owner(at.reshape(-1, 3)), owner.ravel())
    worked(tiling.size > 1)


@given(tilings())
def test_indices_and_coordinates_are_inverse(tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    at = tiling.coords(tiles)
    np.testing.assert_array_equal(tiling.index(at), tiles)
    np.testing.assert_array_equal(at, list(np.ndindex(*tiling.counts)))
    worked(tiling.size > 1)


@given(tilings())
def test_neighbours_are_mutual_and_end_at_open_edges(tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    at, near = tiling.coords(tiles), tiling.neighbours(tiles)
    for t in tiles:
        for axis in range(3):
            for side, step in enumerate((-1, 1)):
                there = at[t].copy()
                there[axis] += step
                n = tiling.counts[axis]
                if not tiling.periodic[axis] and not 0 <= there[axis] < n:
                    assert near[t, axis, side] == -1
                    continue
                there[axis] %= n
                u = near[t, axis, side]
                np.testing.assert_array_equal(at[u], there)
                assert near[u, axis, 1 - side] == t
                worked()


@given(tilings())
def test_json_round_trip(tiling: Tiling) -> None:
    again = Tiling.from_dict(json.loads(json.dumps(tiling.as_dict())))
    assert again == tiling and hash(again) == hash(tiling)
    assert f"{tiling.size:,} tiles" in tiling.describe()
    worked()


@st.composite
def misfits(draw: st.DrawFn) -> tuple[int, int, int, bool]:
    """Draw tile, overlap, voxels of an axis and whether it wraps, where no tiling is."""
    tile, periodic = draw(st.integers(2, 12)), draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        wrong = st.integers(-2, -1) | st.integers(-(-tile // 2), 12)
        return tile, draw(wrong), draw(st.integers(1, 60)), periodic
    overlap = draw(st.integers(0, (tile - 1) // 2))
    fit = {n for some in sizes(tile, overlap, periodic, 60).values() for n in some}
    return tile, overlap, draw(st.sampled_from(sorted(set(range(1, 61)) - fit))), periodic


@given(misfits(), st.integers(0, 2))
@settings(max_examples=300)
def test_a_refusal_names_the_axis_and_sizes_that_work(
    misfit: tuple[int, int, int, bool], axis: int
) -> None:
    tile, overlap, n, periodic = misfit
    shape = [tile] * 3
    shape[axis] = n
    edges = [False] * 3
    edges[axis] = periodic
    with pytest.raises(TilingError) as refusal:
        Tiling(tuple(shape), tile, overlap, tuple(edges))
    message = str(refusal.value)
    assert "\n" not in message
    worked()
    if overlap < 0 or 2 * overlap >= tile:
        assert str(overlap) in message
        return
    assert f"{n} voxels on axis {'xyz'[axis]}" in message
    found = [int(word) for word in re.findall(r"\d+", message.split("that work")[1])]
    assert 1 <= len(found) <= 2
    for size in found:
        shape[axis] = size
        Tiling(tuple(shape), tile, overlap, tuple(edges))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(shape=(64, 20, 64)), ["axis y", "20 voxels", "32", "34"]),
        (dict(shape=(64, 64, 64), overlap=16), ["overlap of 16", "32", "at most 15"]),
        (dict(shape=(64, 64, 64), overlap=-1), ["overlap is -1"]),
        (dict(shape=(64, 64)), ["2 values", "three"]),
        (dict(shape=(64, 64, 64), tile=1), ["tile is 1"]),
        (dict(shape=(64, 64, 33)), ["axis z", "33 voxels", "overlap by 16", "34"]),
    ],
)
def test_refusals(arguments: dict, words: list[str]) -> None:
    with pytest.raises(TilingError) as caught:
        Tiling(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_the_largest_box_is_arithmetic() -> None:
    tiling = Tiling((10240,) * 3)
    assert tiling.counts == (366, 366, 366)
    assert tiling.size == 49_027_896
    low, _ = tiling.widths(0)
    assert low.min() == 4 and low.max() == 5


def test_the_papers_box() -> None:
    """Mishra, Trotta & Viel 2025 (LODI), section 2.4: 729 tiles at stride 28 cover 256 voxels."""
    tiling = Tiling((256,) * 3, periodic=(False,) * 3)
    assert tiling.size == 729
    np.testing.assert_array_equal(tiling.origins(0), np.arange(9) * 28)
