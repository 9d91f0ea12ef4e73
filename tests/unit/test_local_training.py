"""Training of the 3-D model: windows, latents by voxel, and going on from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from bigbox.cosmoflow.local import CELL, LocalSize, LocalVelocity, spread
from bigbox.cosmoflow.local_training import WINDOW, LocalRecipe, LocalTraining, Windows

TINY = LocalSize(channels=2, encoder=4, widths=(8, 8), embedding=16, bypass=1)


def test_latents_by_voxel() -> None:
    """The slow reference: voxel by voxel."""
    latents = torch.randn(1, 2, 3, 3, 3)
    offset = (1, 3, 0)
    found = spread(latents, offset, 8)
    for at in np.ndindex(8, 8, 8):
        i, j, k = ((a + first) // CELL for a, first in zip(at, offset, strict=True))
        assert torch.equal(found[(0, slice(None), *at)], latents[0, :, i, j, k])


def test_windows_are_of_the_periodic_field_turned() -> None:
    field = np.arange(24.0**3, dtype=np.float32).reshape((24,) * 3)
    found, offset = Windows([field], 0).draw(3)
    assert found.shape == (3, 1, *(WINDOW,) * 3)
    assert offset.min() >= 0 and offset.max() < CELL
    # A period along an axis of the window is a period of the box along some axis of its own.
    assert np.array_equal(found[:, :, :-24], found[:, :, 24:])
    assert set(np.unique(found)) <= set(field.ravel().tolist())


def test_an_untrained_velocity_is_that_of_white_noise() -> None:
    velocity = LocalVelocity(TINY)
    torch.nn.init.zeros_(velocity.filters.weight)
    torch.nn.init.zeros_(velocity.filters.bias)
    x, t = torch.randn(2, 8, 8, 8), torch.tensor([0.25, 0.75])
    with torch.inference_mode():
        found = velocity(x, t, torch.randn(2, 2, 8, 8, 8))
    best = (2 * t - 1) / (t**2 + (1 - t) ** 2)  # regression of x1 - x0 on x_t
    assert torch.allclose(found, best[:, None, None, None] * x, atol=1e-6)


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    field = np.random.default_rng(0).gamma(0.5, 2.0, (32,) * 3).astype(np.float32)
    recipe = LocalRecipe(batch=2, seconds=1e-3)
    first = LocalTraining([field], tmp_path, recipe, TINY, held_out=[field])
    first.run()
    assert first.step == 1  # the time is spent after any step
    longer = LocalTraining([field], tmp_path, LocalRecipe(batch=2, seconds=first.spent + 1e-3))
    assert longer.step == 1 and longer.flow.size == TINY
    for mine, other in zip(longer.flow.parameters(), first.flow.parameters(), strict=True):
        assert torch.equal(mine, other)
    longer.run()
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["velocity"]) for line in lines)
