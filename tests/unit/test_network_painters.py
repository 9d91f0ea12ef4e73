"""The painters that carry trained networks: their bits, and what the network is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.errors import BadInput
from bigbox.networks.model import load_model
from bigbox.painters import TileBatch, make_painter
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.lodi import LodiPainter
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from tests.benchmarks import reference
from tests.models import write_model

T = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def painter(model: Path) -> LodiPainter:
    torch.set_num_threads(1)
    return LodiPainter(seed=5, box_shape=(128, 128, 128), steps=3, model=load_model(model, "lodi"))


@pytest.fixture(scope="module")
def batch() -> TileBatch:
    """Six tiles with haloes; some with known slabs."""
    rng = np.random.default_rng(2)
    width = np.zeros((6, 3, 2), dtype=np.int64)
    width[1, 0, 0] = 4
    width[2] = [[4, 5], [0, 6], [4, 4]]
    width[5, 2, 1] = 7
    known = np.zeros((6, 1, T, T, T), dtype=np.float32)
    for b in range(6):
        low, high = width[b, :, 0], T - width[b, :, 1]
        known[b] = 10 ** rng.normal(-1.5, 0.5, (T, T, T))
        known[(b, 0, *(slice(int(a), int(z)) for a, z in zip(low, high, strict=True)))] = 0.0
    halo = 10 ** rng.normal(10, 1, (6, 4, T, T, T)).astype(np.float32)
    tiles = np.array([0, 3, 7, 20, 30, 60])
    origin = np.array([[0, 0, 0], [0, 0, 76], [0, 25, 51], [0, 102, 0], [25, 25, 0], [51, 51, 0]])
    return TileBatch(tiles, origin, halo, known, width)


def part(batch: TileBatch, which: list[int]) -> TileBatch:
    return TileBatch(
        *(a[which] for a in (batch.tiles, batch.origin, batch.inputs, batch.known, batch.width))
    )


def test_bits_depend_on_nothing_but_the_tile(painter: LodiPainter, batch: TileBatch) -> None:
    whole = painter.paint(batch)
    assert np.isfinite(whole).all() and (whole >= 0).all()
    assert whole.std() > 0
    for which in ([0], [5, 2], [1, 2, 3, 4, 5], [4, 0, 5, 1, 2, 3]):
        assert painter.paint(part(batch, which)).tobytes() == whole[which].tobytes()
    beside = replace(painter, threads=2)
    assert beside.paint(batch).tobytes() == whole.tobytes()


def test_known_voxels_come_back_and_are_told(painter: LodiPainter, batch: TileBatch) -> None:
    painter = replace(painter, overlap_method="conditioned")
    painted = painter.paint(batch)
    inside = batch.known > 0
    assert painted[inside].tobytes() == batch.known[inside].tobytes()
    other = part(batch, list(range(6)))
    other.known = np.where(inside, batch.known * 2, 0).astype(np.float32)
    again = painter.paint(other)
    changed = (painted != again) & ~inside
    assert changed[1].any() and changed[2].any() and changed[5].any()
    assert not changed[[0, 3, 4]].any()


@pytest.mark.parametrize("method", ["overwrite", "latents"])
def test_the_papers_methods_paint_too(painter: LodiPainter, batch: TileBatch, method: str) -> None:
    theirs = replace(painter, overlap_method=method, sampler="ancestral")
    told = part(batch, [0, 1])
    told.known = np.repeat(told.known, theirs.fields, axis=1)
    painted = theirs.paint(told)
    assert painted.shape[1] == (3 if method == "latents" else 1)
    assert np.isfinite(painted).all()


def test_realization_and_seed_change_the_noise(painter: LodiPainter, batch: TileBatch) -> None:
    one = part(batch, [3])
    first = painter.paint(one)
    assert (replace(painter, realization=1).paint(one) != first).any()
    assert (replace(painter, seed=6).paint(one) != first).any()
    assert painter.identity() != replace(painter, realization=1).identity()


def test_float64_agrees_with_the_fast_path(painter: LodiPainter, batch: TileBatch) -> None:
    """The fast precision against the same network and noise in float64."""
    exact = replace(painter)
    exact.__dict__["dtype"] = torch.float64
    fast, slow = painter.paint(batch), exact.paint(batch)
    logs = [np.log10(field + 5e-3) for field in (fast, slow)]
    assert np.sqrt(np.mean((logs[0] - logs[1]) ** 2)) < 0.05 * logs[1].std()


def test_haloes_of_windows_are_smoothed_inside(model: Path) -> None:
    """A window with its margin gives what the smoothed box around it would give."""
    painter = HalogenPainter(load_model(model, "halogen"))
    rng = np.random.default_rng(8)
    dm = rng.lognormal(0, 1, (96, 96, 96)).astype(np.float32)
    m = painter.margin
    window = dm[4 : 4 + 64 + 2 * m, :, :][:, 2 : 2 + 64 + 2 * m, :][:, :, : 64 + 2 * m]
    predicted = painter.predict(window[None])
    smoothed = smooth_periodic(dm, gaussian_kernel(0.2, 12.5 / 128))
    inner = smoothed[4 + m : 68 + m, 2 + m : 66 + m, m : 64 + m]
    bare = replace(painter)
    bare.__dict__["_kernel"] = np.ones(1)
    assert predicted.tobytes() == bare.predict(inner[None]).tobytes()
    both = painter.predict(np.stack([window, window[::-1]]))
    assert both[0].tobytes() == predicted[0].tobytes()


def test_a_box_of_windows_is_periodic(model: Path) -> None:
    painter = HalogenPainter(load_model(model, "halogen"), stride=32)
    dm = np.random.default_rng(9).lognormal(0, 1, (64, 64, 64)).astype(np.float32)
    halo = paint_haloes(painter, dm)
    turned = paint_haloes(painter, np.roll(dm, 32, axis=1))
    np.testing.assert_allclose(np.roll(halo, 32, axis=2), turned, rtol=1e-5)
    assert ((halo == 0) | (halo >= 10**9.5 * 0.999)).all()


def test_what_the_network_cannot_do_is_refused(model: Path) -> None:
    with pytest.raises(BadInput, match="tile 28, the network paints 32"):
        make_painter("lodi", seed=0, box_shape=(64, 64, 64), tile=28, model=model)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [1, 2])
def test_the_reference_to_beat_paints_the_same_haloes(
    tmp_path: Path, grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/benchmarks/reference.py, written without the painters, in float32."""
    monkeypatch.setattr(reference, "STRIDE", 32)  # 8 windows, not 64
    model = write_model(tmp_path / "model", grid=grid)
    halogen = load_model(model, "halogen")
    dm = np.random.default_rng(10).lognormal(0, 1, (64, 64, 64)).astype(np.float32)
    n = 64 // grid
    painter = HalogenPainter(halogen, window=n, stride=32, weighting="flat")
    painter.__dict__["dtype"] = torch.float32
    ours, plain = paint_haloes(painter, dm), reference.haloes(halogen, dm)
    assert plain.shape == (4, n, n, n)
    np.testing.assert_allclose(plain, ours, rtol=1e-3)
    assert (plain > 0).any()
    tb = reference.brightness(load_model(model, "lodi"), plain[:, :32, :32, :32], 0, steps=4)
    assert tb.shape == (32, 32, 32) and np.isfinite(tb).all()
