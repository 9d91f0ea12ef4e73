"""Friends of friends: against all pairs, across the faces, whatever the pieces, however dense."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.simulation import friends, groups
from bigbox.simulation.friends import link
from tests.reference.friends import link_in_memory

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


def numbered(labels: np.ndarray) -> np.ndarray:
    """Labels in the order of their first particles."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@pytest.fixture(params=["one piece", "many pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and pairs all at once, or a few at a time and by trees wherever there is a choice."""
    if request.param == "many pieces":
        for name, value in (("CELLS", 50), ("PAIRS", 100), ("FEW", 5)):
            monkeypatch.setattr(friends, name, value)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("length", [0.002, 0.02, 0.05, 0.3, 1.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_all_pairs(seed: int, length: float) -> None:
    x = clustered(seed)
    expected = numbered(all_pairs(x, length))
    assert (link(x, SIDE, length) == expected).all()
    assert (np.bincount(expected) > 60).any() or length < 0.02  # linked beyond one clump


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("spread", [0.3, 0.05, 0.01])
def test_groups_are_those_of_a_tree_of_the_whole_box(spread: float) -> None:
    """Clumps of all densities, up to hundreds of particles in a cell."""
    rng = np.random.default_rng(6)
    centres = rng.uniform(0, 1, (40, 3))
    width = spread * 10 ** rng.uniform(-2, 0, 40)
    x = centres[:, None] + width[:, None, None] * rng.standard_normal((40, 300, 3))
    x = np.concatenate((x.reshape(-1, 3), rng.uniform(0, 1, (4000, 3)))).astype(np.float32) % 1
    x = rng.permutation(np.where(x >= SIDE, np.float32(0), x))
    expected = link_in_memory(x, SIDE, 0.01)
    assert (link(x, SIDE, 0.01, threads=1) == expected).all()
    assert (link(x, SIDE, 0.01, threads=3) == expected).all()
    assert np.bincount(expected).max() > 100


def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of particles are compared, call by call."""
    calls: list[int] = []
    close = friends._Cells._close

    def counted(cells: friends._Cells, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        calls.append(len(a))
        return close(cells, a, b)

    monkeypatch.setattr(friends._Cells, "_close", counted)
    return calls


def test_a_halo_within_one_linking_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 5e9 pairs."""
    rng = np.random.default_rng(7)
    halo = 0.999 + 0.009 * rng.uniform(-0.5, 0.5, (100_000, 3)) / 3**0.5
    x = np.concatenate((halo % 1, rng.uniform(0.1, 0.9, (1000, 3)))).astype(np.float32)
    calls = compared(monkeypatch)
    labels = link(x, SIDE, 0.01)
    assert (labels[:100_000] == 0).all()
    assert (labels[100_000:] > 0).all()
    assert sum(calls) < 1000


@pytest.mark.parametrize("bridge", [False, True])
def test_dense_clumps_just_apart(bridge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring cells that are full, and no pair near, or one of 4e8."""
    rng = np.random.default_rng(8)
    balls = rng.standard_normal((2, 20_000, 3))
    balls *= 0.001 / np.linalg.norm(balls, axis=-1, keepdims=True)
    x = np.concatenate((balls[0] + 0.5, balls[1] + [0.5121, 0.5, 0.5])).astype(np.float32)
    if bridge:
        x[[3, -3]] = [0.501, 0.5, 0.5], [0.5109, 0.5, 0.5]
    calls = compared(monkeypatch)
    labels = link(x, SIDE, 0.01)
    assert (labels == (0 if bridge else np.repeat([0, 1], 20_000))).all()
    assert sum(calls) < 1e6


def test_groups_do_not_know_where_the_box_begins() -> None:
    x, length = clustered(2), 0.02
    moved = (x + np.float32(0.37)) % np.float32(SIDE)
    sizes = [np.sort(np.bincount(link(y, SIDE, length))) for y in (x, moved)]
    assert (sizes[0] == sizes[1]).all()


def test_few_particles_and_one_place() -> None:
    assert link(np.empty((0, 3), np.float32), SIDE, 0.1).shape == (0,)
    assert link(np.zeros((1, 3), np.float32), SIDE, 0.1).tolist() == [0]
    assert link(np.zeros((5, 3), np.float32), SIDE, 0.1).tolist() == [0] * 5


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
