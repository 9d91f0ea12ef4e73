"""Friends of friends: against all pairs, across the faces, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.simulate import groups

SIDE = 1.0


def clustered(seed: int) -> np.ndarray:
    """Clumps, some across faces and corners, threads between them, and a background; (M, 3)."""
    rng = np.random.default_rng(seed)
    centres = np.concatenate((rng.uniform(0, 1, (12, 3)), [[0, 0, 0], [0.999, 0.5, 0.001]]))
    parts = [c + 0.02 * rng.standard_normal((60, 3)) for c in centres]
    parts.append(centres[0] + np.linspace(0, 1, 80)[:, None] * (centres[1] - centres[0]))
    parts.append(rng.uniform(0, 1, (300, 3)))
    x = np.concatenate(parts).astype(np.float32) % np.float32(SIDE)
    x[x >= SIDE] = 0
    return rng.permutation(x)


def all_pairs(x: np.ndarray, length: float) -> np.ndarray:
    """Labels by looking at every pair: the lowest number of the group's particles."""
    apart = x[:, None].astype(np.float64) - x[None]
    apart -= SIDE * np.round(apart / SIDE)
    friends = (apart**2).sum(axis=-1) <= length**2
    labels = np.arange(len(x))
    while True:
        lowest = np.array([labels[row].min() for row in friends])
        if (lowest == labels).all():
            return labels
        labels = lowest


@pytest.mark.parametrize("block", [1 << 13, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_all_pairs(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "BLOCK", block)
    x, length = clustered(seed), 0.02
    labels, expected = groups.link(x, SIDE, length), all_pairs(x, length)
    both = {(int(a), int(b)) for a, b in zip(labels, expected, strict=True)}
    assert len(both) == len(set(labels.tolist())) == len(set(expected.tolist()))
    assert (np.bincount(expected) > 60).any()  # something is linked beyond one clump


def test_groups_do_not_know_where_the_box_begins() -> None:
    x, length = clustered(2), 0.02
    moved = (x + np.float32(0.37)) % np.float32(SIDE)
    sizes = [np.sort(np.bincount(groups.link(y, SIDE, length))) for y in (x, moved)]
    assert (sizes[0] == sizes[1]).all()


def test_what_is_said_of_a_group() -> None:
    x = clustered(3)
    rng = np.random.default_rng(4)
    v = rng.standard_normal(x.shape).astype(np.float32)
    potential = rng.standard_normal(len(x)).astype(np.float32)
    found = groups.find_groups(x, v, potential, SIDE, 0.02, least=20)
    labels = all_pairs(x, 0.02)
    counts = np.bincount(labels)
    assert found.lengths.tolist() == sorted(counts[counts >= 20].tolist(), reverse=True)
    assert sorted(found.order.tolist()) == list(range(len(x)))
    first = 0
    for length, place, velocity in zip(
        found.lengths, found.positions, found.velocities, strict=True
    ):
        members = found.order[first : first + length]
        first += length
        assert len(set(labels[members].tolist())) == 1
        assert (place == x[members[np.argmin(potential[members])]]).all()
        assert velocity == pytest.approx(v[members].mean(axis=0, dtype=np.float64), abs=1e-6)


def test_no_group_is_no_error() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (40, 3)).astype(np.float32)
    found = groups.find_groups(x, x, x[:, 0], SIDE, 1e-4)
    assert found.lengths.shape == (0,) and found.positions.shape == (0, 3)
    assert sorted(found.order.tolist()) == list(range(40))
