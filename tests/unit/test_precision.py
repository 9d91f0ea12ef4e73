"""The precisions that networks paint in, a CPU's and a GPU's, against float64 with the same noise.

The shipped networks on the shipped density. The whole of a box: tests/benchmarks/SPEED.md.
"""

from __future__ import annotations

import resource
from functools import cache

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from bigbox.data import default_model, quickstart_grid
from bigbox.devices import keep_freed_memory
from bigbox.networks.layers import Conv, PairConv
from bigbox.networks.model import load_model
from bigbox.painters import TileBatch
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter
from bigbox.painters.network import fast_dtype, ready


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@cache
def density() -> np.ndarray:
    """1 + delta of one window and its margin, with massive haloes in it."""
    with h5py.File(quickstart_grid()) as file:
        dm = np.asarray(file["dm"][...], np.float32)
    place = np.unravel_index(dm.argmax(), dm.shape)
    painter = halogen(torch.float32)
    edge = painter.grid * painter.window + 2 * painter.margin
    axes = ((p - edge // 2 + np.arange(edge)) % n for p, n in zip(place, dm.shape, strict=True))
    return dm[np.ix_(*axes)]


def halogen(dtype: torch.dtype) -> HalogenPainter:
    painter = HalogenPainter(load_model(default_model(), "halogen"))
    painter.__dict__["dtype"] = dtype
    return painter


def lodi(dtype: torch.dtype) -> LodiPainter:
    model = load_model(default_model(), "lodi")
    painter = LodiPainter(seed=1, box_shape=(128,) * 3, steps=4, model=model)
    painter.__dict__["dtype"] = dtype
    return painter


@cache
def haloes(dtype: torch.dtype) -> np.ndarray:
    """log10 rho_h (4, 64, 64, 64)."""
    return halogen(dtype).predict(np.ascontiguousarray(density())[None])[0]


@cache
def brightness(dtype: torch.dtype) -> np.ndarray:
    """Four tiles about the middle, one of them with known voxels."""
    painter = lodi(dtype)
    rho = 10.0 ** haloes(torch.float32)
    corners = [(16, 16, 16), (8, 16, 16), (16, 20, 12), (20, 8, 16)]
    places = [tuple(slice(c, c + 32) for c in corner) for corner in corners]
    width = np.zeros((4, 3, 2), int)
    width[3, 0, 0] = 4
    known = np.zeros((4, 1, 32, 32, 32), np.float32)
    known[3, 0, :4] = 0.1
    batch = TileBatch(
        tiles=np.arange(4),
        origin=np.array(corners),
        inputs=np.stack([rho[(slice(None), *place)] for place in places]),
        known=known,
        width=width,
    )
    return painter.paint(batch).astype(np.float64)


@torch.inference_mode()
def one_call(dtype: torch.dtype) -> np.ndarray:
    """v of one tile of noise in the middle of the window."""
    painter = lodi(dtype)
    network = painter.network
    middle = (slice(None), *(slice(16, 48),) * 3)
    halo = painter.model.transform("halo").forward(
        torch.from_numpy(10.0 ** haloes(torch.float32)[middle])
    )
    nothing = torch.zeros(1, 32, 32, 32)
    z = torch.randn(nothing.shape, generator=torch.Generator().manual_seed(1))
    prepared = network.prepare(halo[None], nothing, nothing > 0)
    return network(z, torch.tensor([0.5]), prepared).double().numpy()


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).mean()))


def test_haloes_against_float64() -> None:
    """Measured of the shipped model: 1.7e-5 and 5.1e-4 dex rms, 0.003 and 0.03 % of the mass."""
    exact, mass = haloes(torch.float64), (10.0 ** haloes(torch.float64)).sum()
    for dtype, dex, share in ((torch.float32, 3e-5, 1e-4), (torch.bfloat16, 8e-4, 1e-3)):
        found = haloes(dtype)
        assert rms(found - exact) < dex
        assert abs((10.0 ** found.astype(np.float64)).sum() / mass - 1) < share


@torch.inference_mode()
def test_an_inlet_of_two_groups_is_the_same_convolution() -> None:
    whole = Conv(8, 16, 3, padding=1)
    x = torch.randn(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(3))
    assert rms((PairConv(whole)(x) - whole(x)).numpy()) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "dex", "mean"), [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 3e-3, 3e-3)]
)
def test_brightness_against_float64(dtype: torch.dtype, dex: float, mean: float) -> None:
    fast, exact = brightness(dtype), brightness(torch.float64)
    assert rms(np.log10(fast + 0.005) - np.log10(exact + 0.005)) < dex
    assert abs(fast.mean() / exact.mean() - 1) < mean


@pytest.mark.slow
def test_a_gpus_precision_is_finer_than_a_cpus() -> None:
    """float16 as on a GPU, by a CPU's slow kernels: one call."""
    exact = one_call(torch.float64)
    half, brain = (rms(one_call(t) - exact) for t in (torch.float16, torch.bfloat16))
    print(f"float16 {half / rms(exact):.2g}, bfloat16 {brain / rms(exact):.2g}")
    assert half < 0.5 * brain < 0.01 * rms(exact)


def test_what_is_kept_in_float32() -> None:
    network = load_model(default_model(), "lodi").network
    half = {n: p.dtype for n, p in ready(network, "cpu", torch.float16).named_parameters()}
    assert half["inlet.weight"] == half["bottom.0.norms.0.weight"] == torch.float16
    assert half["outlet.2.weight"] == half["embed.0.weight"] == torch.float32
    brain = ready(network, "cpu", torch.bfloat16)
    for name, module in brain.named_modules():
        large = isinstance(module, nn.Conv3d) and module.kernel_size != (1, 1, 1)
        inside = large and "let" not in name and name != "filters"
        wanted = torch.bfloat16 if inside else torch.float32
        assert all(p.dtype == wanted for p in module.parameters(recurse=False)), name


@torch.inference_mode()
def test_one_noise_level_for_all_tiles_of_a_call() -> None:
    """The level becomes part of the norms: as if each tile were told it."""
    network = lodi(torch.float32).network
    generator = torch.Generator().manual_seed(2)
    z, known = torch.randn(2, 2, 32, 32, 32, generator=generator)
    haloes = torch.randn(2, 4, 32, 32, 32, generator=generator)
    prepared = network.prepare(haloes, known, known > 1)
    one = network(z, torch.tensor([0.3]), prepared)
    each = network(z, torch.tensor([0.3, 0.3]), prepared)
    assert rms((one - each).numpy()) < 1e-5 * rms(each.numpy())


def test_tensors_come_and_go_without_page_faults() -> None:
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.zeros(1 << 20).add_(1.0)  # 4 MB, a thousand pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000


def test_the_precision_of_a_device() -> None:
    assert fast_dtype("cuda") == torch.float16
    assert fast_dtype("cpu") in (torch.bfloat16, torch.float32)
