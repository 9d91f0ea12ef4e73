"""Known slabs, stages and waiting tiles, each against painting the box tile by tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from bigbox.scheduler import stages
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import tilings
from tests.reference.tilings import cover, longest_chains, paint_in_order, voxels
from tests.reference.tilings import level as level_of
from tests.reference.tilings import owned as cuboid

MEETING = tilings(overlap=(1, 9), tiles=(2, 100))
both = pytest.mark.parametrize("colouring", stages.COLOURINGS)


def slabs(tiling: Tiling, tile: int) -> np.ndarray:
    """The known voxels of a tile by its slabs, bool (tile, tile, tile)."""
    mask = np.zeros((tiling.tile,) * 3, bool)
    for axis, (low, high) in enumerate(stages.known(tiling, np.array([tile]))[0]):
        side = np.moveaxis(mask, axis, 0)
        side[:low] = True
        side[tiling.tile - high :] = True
    return mask


@both
@given(tilings())
def test_known_slabs_are_what_earlier_stages_painted(colouring: str, tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    first, found = paint_in_order(tiling, stages.stage(tiling, tiles, colouring))
    for t in tiles:
        mask = slabs(tiling, t)
        np.testing.assert_array_equal(found[t] >= 0, mask)
        # What is left is the owned cuboid.
        owned = np.zeros_like(mask)
        owned[cuboid(tiling, t)] = True
        np.testing.assert_array_equal(owned, ~mask)
        assert owned.any()
    at = np.stack(np.meshgrid(*map(np.arange, tiling.shape), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(tiling.owner(at.reshape(-1, 3)), first.ravel())
    worked(tiling.size > 1)


@both
@given(tilings())
def test_tiles_of_one_stage_share_nothing_that_is_new(colouring: str, tiling: Tiling) -> None:
    """The paper's stages share no voxel at all; levels only voxels painted by lower levels."""
    stage = stages.stage(tiling, np.arange(tiling.size), colouring)
    for s in range(stages.stages(tiling, colouring)):
        times = np.zeros(tiling.shape, int)
        for t in np.flatnonzero(stage == s):
            mesh = voxels(tiling, t)
            times[mesh] += 1 if colouring == "paper" else ~slabs(tiling, t)
        assert times.max() == 1
    worked(tiling.size > 1)


@given(MEETING)
def test_each_slab_lies_in_the_face_neighbour_that_is_waited_for(tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    near, width = tiling.neighbours(tiles), stages.known(tiling, tiles)
    for t in tiles:
        box = np.zeros(tiling.shape, bool)
        waited = set(stages.predecessors(tiling, tiles[t : t + 1])[0].tolist()) - {-1}
        assert waited == set(near[t][width[t] > 0].tolist())
        for axis in range(3):
            for side in range(2):
                w = width[t, axis, side]
                if w == 0:
                    continue
                box[:] = False
                box[voxels(tiling, near[t, axis, side])] = True
                seen = np.moveaxis(box[voxels(tiling, t)], axis, 0)
                assert seen[:w].all() if side == 0 else seen[tiling.tile - w :].all()
                worked()


@both
@given(tilings())
def test_predecessors_are_earlier_overlapping_tiles(colouring: str, tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    stage = stages.stage(tiling, tiles, colouring)
    before = stages.predecessors(tiling, tiles, colouring)
    after = stages.successors(tiling, tiles, colouring)
    touching = cover(tiling)
    faces = [set(row.ravel().tolist()) for row in tiling.neighbours(tiles)]
    forward: set[tuple[int, int]] = set()
    backward: set[tuple[int, int]] = set()
    for t in tiles:
        row = [int(u) for u in before[t] if u >= 0]
        assert len(row) == len(set(row))
        expected = {u for u in touching[t] if stage[u] < stage[t]}
        if colouring == "levels":
            expected &= faces[t]
        assert set(row) == expected
        backward |= {(u, int(t)) for u in row}
        row = [int(u) for u in after[t] if u >= 0]
        assert len(row) == len(set(row))
        forward |= {(int(t), u) for u in row}
    assert forward == backward
    worked(len(forward))


@given(MEETING)
def test_waiting_for_faces_is_waiting_for_every_earlier_painter(tiling: Tiling) -> None:
    """Edge and corner neighbours of a lower level are reached through the face neighbours."""
    tiles = np.arange(tiling.size)
    level = level_of(tiling, tiles)
    before = stages.predecessors(tiling, tiles)
    _, found = paint_in_order(tiling, level)
    reached: list[set[int]] = [set()] * tiling.size
    for t in np.argsort(level, kind="stable"):
        row = {int(u) for u in before[t] if u >= 0}
        reached[t] = row.union(*(reached[u] for u in row))
        earlier = set(np.unique(found[t]).tolist()) - {-1}
        assert earlier <= reached[t]
        worked(len(earlier))


@given(MEETING)
def test_followers_are_the_longest_chain_that_waits(tiling: Tiling) -> None:
    found = stages.followers(tiling, np.arange(tiling.size))
    np.testing.assert_array_equal(found, longest_chains(tiling))
    worked(found.any())


@both
@given(tilings())
def test_stage_counts(colouring: str, tiling: Tiling) -> None:
    stage = stages.stage(tiling, np.arange(tiling.size), colouring)
    n = stages.stages(tiling, colouring)
    np.testing.assert_array_equal(
        stages.stage_counts(tiling, colouring), np.bincount(stage, minlength=n)
    )
    assert (stages.stage_counts(tiling, colouring) > 0).all()
    worked(n > 1)


@given(tilings())
def test_the_papers_stages_refine_the_levels(tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    order = np.argsort(stages.stage(tiling, tiles, "paper"), kind="stable")
    level = level_of(tiling, tiles)[order].astype(int)
    assert (np.diff(level) >= 0).all()
    worked(level.any())


def test_the_papers_stages() -> None:
    """Mishra, Trotta & Viel 2025 (LODI), section 2.4: 125, then 3 x 100, 3 x 80 and 64 tiles."""
    tiling = Tiling((256,) * 3, periodic=(False,) * 3)
    assert stages.stage_counts(tiling, "paper").tolist() == [125, 100, 100, 100, 80, 80, 80, 64]
    assert stages.stage_counts(tiling, "levels").tolist() == [125, 300, 240, 64]


def test_odd_rings_have_a_third_colour() -> None:
    tiling = Tiling((9 * 28,) * 3)
    assert tiling.counts == (9, 9, 9)
    assert stages.stages(tiling, "levels") == 7
    assert stages.stages(tiling, "paper") == 27


def test_an_unknown_colouring_is_refused() -> None:
    with pytest.raises(ValueError, match="'rainbow'.*levels or paper"):
        stages.stages(Tiling((64,) * 3), "rainbow")


@given(tilings())
def test_slabs_are_awaited_where_the_neighbour_knows_them(tiling: Tiling) -> None:
    tiles = np.arange(tiling.size)
    near, known = tiling.neighbours(tiles), stages.known(tiling, tiles)
    awaited = stages.awaited_across_faces(tiling, tiles)
    for tile, axis, side in np.ndindex(awaited.shape):
        there = near[tile, axis, side]
        knows = there >= 0 and known[there, axis, 1 - side] > 0
        assert awaited[tile, axis, side] == (there if knows else -1)
    worked(tiling.size > 1)
