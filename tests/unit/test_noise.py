"""Noise: the generator's known answers, windows of one endless field, the same bits everywhere."""

from __future__ import annotations

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox import noise
from bigbox.errors import BadInput
from bigbox.noise import MASK, Purpose, normal, philox
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import boxes
from tests.reference.noise import slow_philox

# Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    k = tuple(words(key))
    assert slow_philox(k, tuple(words(counter))) == words(answer)  # type: ignore[arg-type]
    for kind in (np.array, torch.tensor):
        arrays = tuple(kind([c]) for c in words(counter))
        assert [int(w[0]) for w in philox(k, arrays)] == words(answer)  # type: ignore[arg-type]


def test_every_voxel_against_the_slow_reference() -> None:
    seed, realization, purpose, step, box = 0xFEDCBA9876543210, 513, 3, 77, (9, 7, 10)
    field = normal(seed, realization, purpose, step, (0, 0, 0), box, box)
    exact = NormalDist()
    for x, y, z in product(*map(range, box)):
        counter = (z // 4, y, x, realization << 16 | purpose << 12 | step)
        word = slow_philox((seed & MASK, seed >> 32), counter)[z % 4]
        assert field[x, y, z] == pytest.approx(exact.inv_cdf((word + 0.5) / 2**32), rel=3e-7)


def test_gaussian_over_its_whole_range() -> None:
    ends = np.concatenate([np.arange(3000), 2**32 - 1 - np.arange(3000)])
    values = np.concatenate([ends, np.linspace(0, 2**32 - 1, 50_001).astype(np.int64)])
    exact = NormalDist()
    expected = np.array([exact.inv_cdf((i + 0.5) / 2**32) for i in values.tolist()])
    assert np.allclose(noise.gaussian(values), expected, rtol=2e-7, atol=1e-9)
    assert np.array_equal(noise.gaussian(MASK - values), -noise.gaussian(values))


@settings(max_examples=40, deadline=None)
@given(
    boxes(1, 13),
    st.tuples(*[st.integers(-20, 40)] * 3),
    boxes(1, 17),
)
def test_a_window_is_a_piece_of_one_periodic_field(
    box: tuple[int, int, int], origin: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    whole = normal(1, 2, 3, 4, (0, 0, 0), box, box)
    window = normal(1, 2, 3, 4, origin, shape, box)
    places = [(o + np.arange(n)) % b for o, n, b in zip(origin, shape, box, strict=True)]
    assert np.array_equal(window, whole[np.ix_(*places)])
    worked(window.size)


DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("box", [(64, 64, 64), (61, 50, 47)])
def test_torch_gives_the_same_bits(device: str, box: tuple[int, int, int]) -> None:
    origins = np.array([[0, 0, 0], [50, 3, 45], [28, 46, 33]])
    expected = normal(2**64 - 1, 65535, Purpose.KNOWN, 4095, origins, (16, 12, 19), box)
    given_back = normal(
        2**64 - 1, 65535, Purpose.KNOWN, 4095, origins, (16, 12, 19), box, torch.device(device)
    )
    assert given_back.dtype == torch.float32
    assert np.array_equal(expected, given_back.cpu().numpy())
    x, y, z = ((origins[:, a, None] + np.arange(n)) % box[a] for a, n in enumerate((16, 12, 19)))
    word = 65535 << 16 | int(Purpose.KNOWN) << 12 | 4095
    on_device = noise._normal_torch(2**64 - 1, word, x, y, *noise._blocks(z), device)
    assert np.array_equal(expected, on_device.cpu().numpy())


def test_a_batch_is_its_tiles() -> None:
    origins = np.array([[0, 0, 0], [5, 60, 62], [1, 2, 3]])
    batch = normal(7, 0, 0, 0, origins, (8, 8, 8), (64, 64, 64))
    for origin, tile in zip(origins, batch, strict=True):
        assert np.array_equal(tile, normal(7, 0, 0, 0, origin, (8, 8, 8), (64, 64, 64)))


def test_standard_normal_and_white() -> None:
    field = normal(3, 0, 0, 0, (0, 0, 0), (64, 64, 64), (64, 64, 64)).astype(np.float64)
    n = field.size
    assert abs(field.mean()) < 4 / np.sqrt(n)
    assert abs((field**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((field**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((field**4).mean() - 3) < 4 * np.sqrt(96 / n)
    for axis, lag in product(range(3), (1, 2, 3, 4)):
        assert abs((field * np.roll(field, lag, axis)).mean()) < 4.5 / np.sqrt(n)


def test_every_part_of_the_key_matters() -> None:
    base = {"seed": 5, "realization": 1, "purpose": 1, "step": 1}
    changes = [
        {},
        {"seed": 6},
        {"seed": 5 + 2**32},
        {"seed": 5 + 2**63},
        {"realization": 0},
        {"realization": 2},
        {"purpose": 0},
        {"purpose": 2},
        {"step": 0},
        {"step": 2},
    ]
    fields = [
        normal(**{**base, **change}, origin=(0, 0, 0), shape=(32,) * 3, box_shape=(32,) * 3).ravel()
        for change in changes
    ]
    correlation = np.corrcoef(np.array(fields, np.float64)) - np.eye(len(fields))
    assert abs(correlation).max() < 5 / np.sqrt(32**3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed: -1"),
        ({"seed": 2**64}, "seed: 18446744073709551616"),
        ({"realization": 65536}, "realization: 65536"),
        ({"purpose": 16}, "purpose: 16"),
        ({"step": 4096}, "step: 4096"),
        ({"box_shape": (8, 0, 8)}, "box shape"),
    ],
)
def test_what_does_not_fit_the_counter_is_refused(change: dict, words: str) -> None:
    good = {"seed": 0, "realization": 0, "purpose": 0, "step": 0, "box_shape": (8, 8, 8)}
    with pytest.raises(BadInput, match=words):
        normal(**{**good, **change}, origin=(0, 0, 0), shape=(4, 4, 4))
