"""Haloes that HALOgen predicts for LODI's training are those that it would paint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.networks.halogen import Halogen
from bigbox.networks.model import load_model, save_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.training.predicted import predict_haloes
from tests.models import HALOGEN, card

WINDOW, STRIDE = 16, 12


@pytest.mark.parametrize("grid", [1, 2])
def test_they_are_those_of_the_painter(
    tmp_path: Path, grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On each of the painting grids between one another: that which a moved box would have."""
    torch.set_num_threads(1)
    monkeypatch.setattr("bigbox.painters.network.fast_dtype", lambda device: torch.float32)
    torch.manual_seed(1)
    network = Halogen(HALOGEN).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    save_model(tmp_path, "halogen", network, card(HALOGEN, grid=grid), torch.float32)
    n = 20 * grid
    dm = np.random.default_rng(grid).lognormal(0, 1, (n, n, n)).astype(np.float32)
    model = load_model(tmp_path, "halogen")
    kernel = gaussian_kernel(model.card["smoothing"], model.card["voxel_size"])
    smoothed = torch.from_numpy(smooth_periodic(dm, kernel))
    halo = model.transform("halo")
    found = predict_haloes(
        model.network,
        model.transform("dm").forward(smoothed),
        halo.std,
        halo.mean,
        WINDOW,
        STRIDE,
        grid,
    ).numpy()
    painter = HalogenPainter(load_model(tmp_path, "halogen"), window=WINDOW, stride=STRIDE)
    assert painter.grid == grid
    for first in [(0, 0, 0), (1, 0, 1)][:grid]:
        moved = np.roll(dm, [-at for at in first], axis=(0, 1, 2))
        wanted = paint_haloes(replace(painter), moved)
        mine = found[:, *(slice(at, None, grid) for at in first)]
        # At the cut, rounding decides whether there is a halo.
        away = abs(np.where(wanted > 0, wanted, mine) / 10**9.5 - 1) > 1e-3
        assert away.mean() > 0.9 and 0.05 < (wanted > 0).mean() < 0.95
        np.testing.assert_allclose(mine[away], wanted[away], rtol=1e-3)
