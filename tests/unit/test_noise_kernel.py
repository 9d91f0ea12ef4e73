"""The noise of a GPU in one kernel has the bits of numpy's; without a GPU by the interpreter."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed on this machine")

from bigbox.noise import Purpose, last_word, normal  # noqa: E402
from bigbox.noise_kernel import normals  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**64 - 1])
def test_same_bits(seed: int) -> None:
    """Tiles of steps of their own, some of which wrap round a box whose sides are no multiple."""
    box, corners = (100, 51, 70), np.array([[0, 0, 0], [90, 40, 60], [3, 50, 69]])
    told = [(0, Purpose.INITIAL, 0), (9, Purpose.ANCESTRAL, 3), (65535, Purpose.ANCESTRAL, 4095)]
    words = torch.tensor([last_word(*each) for each in told], device=DEVICE)
    made = normals(seed, words, torch.from_numpy(corners).to(DEVICE), 16, box).cpu().numpy()
    for each, corner, found in zip(told, corners, made, strict=True):
        realization, purpose, step = each
        wanted = normal(seed, realization, purpose, step, corner, (16, 16, 16), box)
        assert found.tobytes() == wanted.tobytes()
    assert np.abs(made).max() > 2.5  # both ranges of the formula are taken
