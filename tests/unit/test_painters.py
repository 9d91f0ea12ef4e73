"""Painters: the exact law of the Gaussian one, and what every painter promises about bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.diffusion.overlap import Known
from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.extensions import load
from bigbox.painters import Painter, TileBatch, make_painter, stand_in
from bigbox.painters import gaussian as oracle
from bigbox.painters.base import unknown_slices
from bigbox.painters.gaussian import GaussianDenoiser, GaussianPainter
from bigbox.painters.registry import ROWS, PainterRow
from bigbox.scheduler.tiling import Tiling
from bigbox.testing.exercised import worked
from bigbox.testing.painters import echo
from tests.benchmarks.oracle import DEFAULT, METHODS, markdown, measure, summary
from tests.reference.gaussian import axis_covariance, axis_power, true_power

BOX = (40, 40, 40)
KINDS: dict[str, dict[str, Any]] = {
    "trivial": {"name": "trivial"},
    "trivial latents": {"name": "trivial", "overlap_method": "latents", "steps": 4},
    "conditioned dpmpp": {"name": "gaussian", "sampler": "dpmpp", "steps": 4},
    "conditioned dpmpp-sde": {"name": "gaussian", "sampler": "dpmpp-sde", "steps": 4},
    "conditioned ancestral": {"name": "gaussian", "sampler": "ancestral", "steps": 4},
    "overwrite dpmpp": {
        "name": "gaussian",
        "overlap_method": "overwrite",
        "sampler": "dpmpp",
        "steps": 4,
    },
    "latents ancestral": {
        "name": "gaussian",
        "overlap_method": "latents",
        "sampler": "ancestral",
        "steps": 4,
    },
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiles of 8^3 are too small for two threads to help."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def painter_of(kind: str, tile: int, seed: int = 11) -> Painter:
    return make_painter(seed=seed, box_shape=BOX, tile=tile, **KINDS[kind])


def batch_for(painter: Painter, tile: int, size: int, seed: int = 0) -> TileBatch:
    """Random tiles with random slabs (every face known or not, 2 or 3 voxels wide)."""
    draw = np.random.default_rng(seed)
    width = draw.integers(0, 2, (size, 3, 2)) * draw.integers(2, 4, (size, 3, 2))
    width[0] = 0
    known = draw.normal(0.05, 0.02, (size, painter.fields, tile, tile, tile)).astype(np.float32)
    for b in range(size):
        known[(b, slice(None), *unknown_slices(width[b], tile))] = 0
    edge = tile + 2 * painter.margin
    return TileBatch(
        tiles=np.arange(size),
        origin=draw.integers(0, BOX[0], (size, 3)),
        inputs=draw.gamma(1.0, 1.0, (size, 1, edge, edge, edge)).astype(np.float32),
        known=known,
        width=width,
    )


def pick(batch: TileBatch, chosen: np.ndarray) -> TileBatch:
    return TileBatch(
        batch.tiles[chosen],
        batch.origin[chosen],
        batch.inputs[chosen],
        batch.known[chosen],
        batch.width[chosen],
    )


# What every painter promises.


@pytest.mark.parametrize(
    ("kind", "tile"), [*product(KINDS, (8, 32)), ("conditioned dpmpp", 11), ("trivial", 11)]
)
def test_bytes_do_not_depend_on_batch_slot_companions_or_threads(kind: str, tile: int) -> None:
    painter = painter_of(kind, tile)
    size = 16 if tile < 32 else 4
    batch = batch_for(painter, tile, size)
    whole = painter.paint(batch)
    assert whole.dtype == np.float32
    assert whole.shape == batch.known.shape
    order = np.random.default_rng(1).permutation(size)
    for n_threads, step in ((1, 1), (1, 4), (2, 16)):
        torch.set_num_threads(n_threads)
        for first in range(0, size, step):
            chosen = order[first : first + step]
            assert np.array_equal(painter.paint(pick(batch, chosen)), whole[chosen])
    if isinstance(painter, GaussianPainter):
        assert np.array_equal(replace(painter, threads=3).paint(batch), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_known_voxels_come_back_bit_for_bit(kind: str) -> None:
    painter = painter_of(kind, 8)
    batch = batch_for(painter, 8, 6)
    batch.known[batch.known > 0.08] = -0.0  # a bit pattern that arithmetic would not keep
    painted = painter.paint(batch)
    for b in range(6):
        known = np.ones((8, 8, 8), bool)
        known[unknown_slices(batch.width[b], 8)] = False
        assert painted[b, :, known].tobytes() == batch.known[b, :, known].tobytes()
        assert np.count_nonzero(painted[b, :, ~known]) > 0.99 * np.count_nonzero(~known)


@pytest.mark.parametrize("kind", KINDS)
def test_identity_is_json_and_tells_what_decides_the_bytes(kind: str) -> None:
    painter = painter_of(kind, 8)
    identity = painter.identity()
    assert json.loads(json.dumps(identity)) == identity
    changes: list[dict[str, Any]] = [{"seed": 12}, {"realization": 1}, {"tile": 9}]
    changes.append({"box_shape": (40, 40, 44)})
    if KINDS[kind]["name"] == "gaussian":
        changes += [{"steps": 6}, {"overlap_method": "independent"}]
    good = {"seed": 11, "box_shape": BOX, "tile": 8, **KINDS[kind]}
    for change in changes:
        assert make_painter(**{**good, **change}).identity() != identity


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_realization_change_every_voxel(kind: str) -> None:
    painter = painter_of(kind, 8)
    batch = pick(batch_for(painter, 8, 1), np.array([0]))
    first = painter.paint(batch)
    assert np.mean(first != painter_of(kind, 8, seed=12).paint(batch)) > 0.99
    other = make_painter(seed=11, realization=1, box_shape=BOX, tile=8, **KINDS[kind])
    assert np.mean(first != other.paint(batch)) > 0.99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "oil"}, "painter: 'oil' is not one of lodi, gaussian, trivial"),
        ({"sampler": "rk4"}, "sampler: 'rk4'"),
        ({"overlap_method": "blended"}, "overlap method: 'blended'"),
        ({"steps": 0}, "steps: 0"),
        ({"steps": 4096}, "steps: 4096"),
        ({"seed": -3}, "seed: -3"),
        ({"realization": 70000}, "realization: 70000"),
    ],
)
def test_make_painter_refuses(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make_painter(**{"name": "gaussian", "seed": 0, "box_shape": BOX, **change})


def test_a_batch_of_the_wrong_shape_is_refused() -> None:
    for kind in KINDS:
        painter = painter_of(kind, 8)
        batch = batch_for(painter, 8, 2)
        batch.inputs = batch.inputs[..., 1:]
        with pytest.raises(BadInput, match="inputs has shape"):
            painter.paint(batch)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_says_what_its_classes_say(row: PainterRow) -> None:
    """The plan goes by the row alone; the engine by the class."""
    painter = load(row.painter)
    memory = row.memory
    assert (painter.name, painter.input) == (row.name, row.input)
    assert (painter.margin, painter.channels) == (memory.margin, memory.channels)
    if row.halo_painter:
        haloes, windows = load(row.halo_painter), row.halo_memory
        for name in ("stride", "batch", "window", "channels"):
            assert getattr(haloes, name) == getattr(windows, name), name
    assert stand_in(row.name) == row.stand_in and stand_in("not installed") is None


# The trivial painter.


def test_the_trivial_painter_imports_no_torch() -> None:
    program = (
        "import sys; from bigbox.painters import make_painter;"
        "make_painter('trivial', seed=1, box_shape=(32, 32, 32));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_flipped_bit_of_the_known_voxels_changes_the_tile() -> None:
    painter = painter_of("trivial", 8)
    batch = pick(batch_for(painter, 8, 3), np.array([2]))
    inside = (0, 0, *unknown_slices(batch.width[0], 8))
    before = painter.paint(batch)
    places = np.argwhere(batch.known[0, 0])
    for x, y, z in places[:: len(places) // 20]:
        other = pick(batch, np.array([0]))
        other.known[0, 0, x, y, z] = np.nextafter(other.known[0, 0, x, y, z], np.float32(1))
        assert np.mean(painter.paint(other)[inside] != before[inside]) > 0.9


def test_echo_hears_places_and_not_what_lies_in_the_cuboid() -> None:
    known = np.random.default_rng(3).normal(size=(6, 6, 6)).astype(np.float32)
    width = np.array([[2, 0], [0, 0], [0, 1]])
    heard = echo(known, width)
    assert 0 <= heard < 1
    filled = known.copy()
    filled[unknown_slices(width, 6)] = 7
    assert echo(filled, width) == heard
    assert echo(np.ascontiguousarray(known[:, ::-1]), width) != heard


def test_the_trivial_mean_follows_the_matter() -> None:
    painter = make_painter("trivial", seed=1, box_shape=BOX, tile=8)
    batch = pick(batch_for(painter, 8, 1), np.array([0]))
    bright = pick(batch, np.array([0]))
    bright.inputs = batch.inputs + np.float32(1)
    assert np.allclose(painter.paint(bright) - painter.paint(batch), 0.05, atol=1e-6)


# The Gaussian painter: one axis.


@pytest.mark.parametrize("tile", [4, 5, 6, 8, 9, 32])
def test_precision_is_the_inverse_covariance_and_banded(tile: int) -> None:
    precision, covariance = oracle.axis_precision(tile), axis_covariance(tile)
    assert np.allclose(precision @ covariance, np.eye(tile), atol=1e-11)
    lag = abs(np.arange(tile)[:, None] - np.arange(tile)[None])
    assert not precision[lag > oracle.ORDER].any()
    assert covariance[0, 0] == pytest.approx(1)


def test_the_spectrum_is_the_smoothing_of_the_maps() -> None:
    k = np.array([0.0, 0.05, 0.1, 0.2])
    power = axis_power(k) / axis_power(np.zeros(1))
    assert np.allclose(power, np.exp(-((k * oracle.SMOOTHING) ** 2)), rtol=0.01)
    grid = 2 * np.pi * np.arange(1024) / 1024
    assert axis_power(grid).mean() == pytest.approx(1)
    a, innovation = oracle.axis_filter()
    response = abs(np.exp(-1j * np.outer(grid, np.arange(5))) @ a) ** -2 * innovation
    assert np.allclose(response, axis_power(grid), rtol=1e-10)


def test_true_power_is_the_covariance_on_the_circle() -> None:
    shape = (48, 40, 44)
    covariance = np.fft.ifftn(true_power(shape)).real
    c = axis_covariance(12)[0]
    expected = c[:, None, None] * c[None, :, None] * c[None, None, :]
    assert np.allclose(covariance[:12, :12, :12], expected, atol=1e-7)


# The Gaussian painter: the denoiser against dense linear algebra.


def dense_estimate(z: np.ndarray, x0: np.ndarray, width: np.ndarray, a: float, s: float) -> Any:
    """E[x0 | z, known] from the t^3 x t^3 covariance; float64, (t, t, t)."""
    tile = len(z)
    c = axis_covariance(tile)
    covariance = np.kron(np.kron(c, c), c)
    inside = np.zeros((tile, tile, tile), bool)
    inside[unknown_slices(width, tile)] = True
    u, k = np.flatnonzero(inside), np.flatnonzero(~inside)
    regression = np.linalg.solve(covariance[np.ix_(k, k)], covariance[np.ix_(k, u)])
    mean = x0.ravel()[k] @ regression
    rest = covariance[np.ix_(u, u)] - covariance[np.ix_(u, k)] @ regression
    gain = a * rest @ np.linalg.inv(a * a * rest + s * s * np.eye(len(u)))
    estimate = x0.ravel().copy()
    estimate[u] = mean + gain @ (z.ravel()[u] - a * mean)
    return estimate.reshape(z.shape)


@pytest.mark.parametrize(("tile", "every"), [(6, 1), (8, 9)])
def test_denoiser_for_every_pattern_of_known_faces(tile: int, every: int) -> None:
    """All 64 patterns in one mixed batch, slabs of random widths; against dense algebra."""
    draw = np.random.default_rng(tile)
    patterns = np.array(list(product((0, 1), repeat=6))).reshape(-1, 3, 2)
    width = patterns * draw.integers(1, tile // 2, patterns.shape)
    c = np.linalg.cholesky(axis_covariance(tile))
    x0 = np.einsum("ai,bj,ck,nijk->nabc", c, c, c, draw.normal(size=(64, tile, tile, tile)))
    for b in range(64):
        x0[(b, *unknown_slices(width[b], tile))] = 0
    z = draw.normal(size=x0.shape)
    schedule = Schedule(3, -4, 4)
    step = 2
    denoiser = GaussianDenoiser(Known(torch.from_numpy(x0), width), schedule)
    estimate = denoiser.denoise(torch.from_numpy(z), step).numpy()
    a, s = schedule.alphas[step], schedule.sigmas[step]
    for b in range(0, 64, every):
        assert np.allclose(estimate[b], dense_estimate(z[b], x0[b], width[b], a, s), atol=1e-8)


def test_four_known_voxels_tell_all_that_lies_beyond_them() -> None:
    """Markov of the order of the overlap: six known voxels give the law that four give."""
    four, six = oracle.axis_law(20, 4, 0), oracle.axis_law(22, 6, 0)
    assert np.allclose(four.mean[4:, :4], six.mean[6:, 2:6], atol=1e-10)
    assert np.allclose(six.mean[6:, :2], 0, atol=1e-10)
    law = [a.vectors * a.values @ a.vectors.T for a in (four, six)]
    assert np.allclose(law[0][4:, 4:], law[1][6:, 6:], atol=1e-10)


def test_denoiser_in_single_precision() -> None:
    batch = batch_for(painter_of("conditioned dpmpp", 32), 32, 3)
    known = torch.from_numpy(batch.known[:, 0] * 20)
    z = torch.randn(3, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    schedule = Schedule(8, -8, 10, 0.5, to_zero=True)
    for step in (8, 4, 1):
        single = GaussianDenoiser(Known(known, batch.width), schedule).denoise(z, step)
        double = GaussianDenoiser(Known(known.double(), batch.width), schedule)
        exact = double.denoise(z.double(), step)
        assert (single - exact).abs().max() < 2e-5 * exact.abs().max()


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(2, 7)] * 6), st.integers(1, 3))
def test_apply_axes_is_the_product_over_axes(sizes: tuple[int, ...], batch: int) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(batch, *sizes[:3]))
    a, b, c = (draw.normal(size=(batch, n, m)) for n, m in zip(sizes[:3], sizes[3:], strict=True))
    expected = np.einsum("nijk,nia,njb,nkc->nabc", x, a, b, c)
    matrices = (torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(c))
    assert np.allclose(oracle.apply_axes(torch.from_numpy(x), matrices), expected)
    worked(expected.size)


# The Gaussian painter: what it paints.


def plain(overlap_method: str = "conditioned", **change: Any) -> GaussianPainter:
    settings = {"seed": 1, "box_shape": BOX, "tile": 8, "overlap_method": overlap_method}
    return GaussianPainter(**{**settings, **change})


def test_mean_is_the_smoothed_matter() -> None:
    """Two inputs differ by s g the same, so their difference is the smoothed difference of both."""
    painter = plain(steps=3)
    batch = pick(batch_for(painter, 8, 1), np.array([0]))
    empty = pick(batch, np.array([0]))
    empty.inputs = np.zeros_like(batch.inputs)
    mean = (painter.paint(batch) - painter.paint(empty))[0, 0]
    distance = np.arange(-oracle.MARGIN, oracle.MARGIN + 1)
    taps = np.exp(-(distance**2) / (2 * oracle.SMOOTHING**2))
    kernel = taps[:, None, None] * taps[None, :, None] * taps[None, None, :]
    kernel /= kernel.sum()
    for x, y, z in product((0, 3, 7), repeat=3):
        window = batch.inputs[0, 0, x : x + 13, y : y + 13, z : z + 13]
        assert mean[x, y, z] == pytest.approx(0.05 * float((window * kernel).sum()), rel=1e-4)


def test_single_and_double_precision_agree() -> None:
    for method in ("conditioned", "overwrite"):
        single, double = plain(method, tile=32), plain(method, tile=32, double=True)
        batch = batch_for(single, 32, 2)
        batch.known[:, 0] = np.where(batch.known[:, 0] != 0, 0.05, 0)  # g of no great size
        batch.inputs[:] = 1
        scatter = oracle.SCATTER_MK
        assert abs(single.paint(batch) - double.paint(batch)).max() < 1e-4 * scatter


def test_painted_tiles_have_the_conditional_law() -> None:
    """Given one slab, the painted rest has the mean and the covariance of dense linear algebra.

    In the eigenbasis of the conditional covariance the painted modes are independent with variance
    1; the sampler is allowed the two per cent that its recursion foretells.
    """
    tile, size = 8, 300
    painter = plain(steps=25, tile=tile, box_shape=(65536, 16, 16))
    one = pick(batch_for(painter, tile, 1), np.array([0]))
    one.inputs[:] = 0
    width = np.array([[0, 0], [3, 0], [0, 2]])
    c = np.linalg.cholesky(axis_covariance(tile))
    white = np.random.default_rng(4).normal(size=(tile, tile, tile))
    known = (np.einsum("ai,bj,ck,ijk->abc", c, c, c, white) * 0.02).astype(np.float32)
    u = unknown_slices(width, tile)
    known[u] = 0
    batch = pick(one, np.zeros(size, int))
    batch.origin = np.stack([np.arange(size) * tile, np.zeros(size, int), np.zeros(size, int)], 1)
    batch.width = np.broadcast_to(width, (size, 3, 2)).copy()
    batch.known[:] = known
    g = painter.paint(batch)[:, 0].astype(np.float64) / 0.02
    laws = [oracle.axis_law(tile, int(low), int(high)) for low, high in width]
    x0 = known.astype(np.float64) / 0.02
    mean = dense_estimate(np.zeros_like(x0), x0, width, 0.0, 1.0)
    modes = np.einsum("nijk,ia,jb,kc->nabc", g - mean, *(law.vectors for law in laws))
    variance = np.einsum("a,b,c->abc", *(law.values for law in laws))
    resolved = variance > 0.05
    modes = modes[:, resolved] / np.sqrt(variance[resolved])
    n_modes = resolved.sum()
    assert n_modes > 20
    assert abs(modes.mean(axis=0)).max() < 4.5 / np.sqrt(size)
    assert (modes**2).mean() == pytest.approx(1.0, abs=0.02 + 4 * np.sqrt(2 / (size * n_modes)))
    mixed = modes.T @ modes / size - np.diag((modes**2).mean(axis=0))
    assert abs(mixed).max() < 5.5 / np.sqrt(size)


def test_a_stitched_box_shows_no_seam() -> None:
    """The benchmark's machinery on eight tiles; its full table is tests/benchmarks/ORACLE.md."""
    tiling = Tiling(shape=(56, 56, 56), tile=32, overlap=4)
    results = [
        measure((method, realization, tiling))
        for method in (METHODS[1], DEFAULT)
        for realization in range(3)
    ]
    independent, conditioned = summary(results, tiling)["rows"]
    assert independent["seam"] > 3
    assert 0.9 < conditioned["seam"] < 1.1
    assert "joint, dpmpp-sde (default)" in markdown(summary(results, tiling), "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu_and_with_itself() -> None:
    for method, sampler in (("conditioned", "dpmpp"), ("latents", "ancestral")):
        cpu = plain(method, sampler=sampler, tile=32, steps=8)
        cuda = plain(method, sampler=sampler, tile=32, steps=8, device="cuda")
        batch = batch_for(cpu, 32, 5)
        painted = cuda.paint(batch)
        assert np.allclose(painted, cpu.paint(batch), atol=1e-2 * oracle.SCATTER_MK)
        assert np.array_equal(painted[3:4], cuda.paint(pick(batch, np.array([3]))))
