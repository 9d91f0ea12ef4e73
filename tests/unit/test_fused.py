"""The layers for a GPU against the plain ones; without a GPU by Triton's interpreter."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, here first
pytest.importorskip("triton", reason="Triton is not installed on this machine")

from bigbox.networks import fused, layers  # noqa: E402
from bigbox.networks.halogen import Halogen  # noqa: E402
from bigbox.networks.lodi import Lodi  # noqa: E402
from tests.models import HALOGEN, LODI, random_weights  # noqa: E402

DEVICE = "cuda" if GPU else "cpu"
HALF = 2e-3  # of float16 sums of float32, relative to the result's size


@pytest.fixture(autouse=True)
def _painting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the way of a GPU wherever nothing is trained; interpreted if there is none."""
    monkeypatch.setattr(fused, "painting", lambda x: not torch.is_grad_enabled())
    torch.manual_seed(3)
    with torch.inference_mode():
        yield


def off(found: Tensor, wanted: Tensor) -> float:
    """Distance relative to the size, infinite where something is no number."""
    assert found.shape == wanted.shape
    error = (found.float() - wanted.float()).norm() / wanted.float().norm()
    return float(error) if torch.isfinite(error) else float("inf")


def last(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """Random numbers (B, C, x, y, z), channels last."""
    x = torch.randn(shape, device=DEVICE) + 0.5
    return x.to(dtype).contiguous(memory_format=torch.channels_last_3d)


def is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("channels", [16, 48, 12])
@pytest.mark.parametrize("told", ["nothing", "bias", "one level", "a level each"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norm(channels: int, told: str, dtype: torch.dtype) -> None:
    layer = layers.norm(channels).to(DEVICE)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x = last(2, channels, 6, 4, 8, dtype=dtype)
    bias = torch.randn(channels, device=DEVICE) if told == "bias" else None
    count = {"one level": 1, "a level each": 2}.get(told)
    modulation = torch.randn(count, 2 * channels, device=DEVICE) if count else None
    for silu in (True, False):
        found = fused.normalise(layer, x, torch.float32, bias, modulation, silu)
        assert off(found, fused.plain_norm(layer, x, bias, modulation, silu)) < 1e-5
    assert is_last(found)


def test_norm_of_a_far_mean() -> None:
    """Sums of squares lose digits where the mean is far from 0; not as many as float16 has."""
    layer = layers.norm(16).to(DEVICE)
    x = last(1, 16, 16, 16, 16, dtype=torch.float32) + 10
    assert off(fused.normalise(layer, x, torch.float32), fused.plain_norm(layer, x)) < 2e-4


@pytest.mark.parametrize("edge", [2, 4])
def test_changes_of_resolution(edge: int) -> None:
    x, skip = last(2, 8, edge, edge, edge), last(2, 16, 2 * edge, 2 * edge, 2 * edge)
    fine = fused.upsample(x)
    plain = nn.functional.interpolate(x.float(), scale_factor=2, mode="trilinear")
    assert is_last(fine) and off(fine, plain) < HALF
    for groups in (1, 4):
        joined = fused.join(fine, skip, groups)
        parts = [y.unflatten(1, (groups, -1)) for y in (fine, skip)]
        assert is_last(joined) and torch.equal(joined, torch.cat(parts, 2).flatten(1, 2))
    assert torch.equal(fused.pool(skip), nn.functional.max_pool3d(skip.float(), 2).half())
    patches = fused.patchify(skip, 2)
    assert is_last(patches) and torch.equal(layers.unpatchify(patches, 2), skip)


def make(cin: int, out: int, groups: int, edge: int, dtype: torch.dtype, **how: Any) -> Any:
    layer = layers.conv(cin, out, groups, edge).to(DEVICE)
    nn.init.normal_(layer.weight, std=0.1)
    return layer, fused.Convolution(layer, how.pop("chooser", fused.Chooser()), dtype, **how)


@pytest.mark.parametrize("chooser", [fused.Chooser, fused.OwnKernel])
@pytest.mark.parametrize(
    ("cin", "out", "groups", "edge", "n"),
    [
        (16, 16, 1, 3, 8),
        (48, 32, 1, 3, 4),
        (32, 80, 1, 3, 4),
        (6, 16, 1, 3, 8),  # filled up
        (1, 24, 1, 3, 8),  # by taps
        (16, 1, 1, 3, 8),
        (64, 32, 4, 3, 8),  # joined groups
        (256, 256, 4, 3, 4),
        (32, 16, 4, 1, 4),
        (16, 48, 1, 1, 4),
    ],
)
def test_convolution(
    cin: int, out: int, groups: int, edge: int, n: int, chooser: Callable[[], fused.Chooser]
) -> None:
    dtype = torch.float16 if GPU or chooser is fused.OwnKernel else torch.float32
    layer, fast = make(cin, out, groups, edge, dtype, chooser=chooser())
    x, residual = last(2, cin, n, n, n, dtype=dtype), last(2, out, n, n, n, dtype=torch.float32)
    weight = layer.weight.to(dtype)
    plain = fused.plain_convolution(x, weight, layer.bias, groups)
    found = fast(x)
    assert off(found, plain) < HALF
    assert is_last(found)
    assert off(fast(x, residual), plain + residual) < HALF
    if chooser is fused.OwnKernel and edge == 3 and cin > fused.FEW_CHANNELS:
        assert fast.blockings(fused.rows(x)) or cin == 6


def test_every_blocking_gives_the_same_bits() -> None:
    _, fast = make(32, 96, 1, 3, torch.float16)
    h = fused.rows(last(1, 32, 8, 8, 8))
    ways = fused.blockings(8, 32, 96)
    assert len(ways) > 1
    results = [fast.own(h, way) for way in ways]
    if GPU:  # numpy, which the interpreter multiplies by, adds in another order
        assert all(torch.equal(results[0], other) for other in results)
    assert all(off(other, results[0]) < HALF for other in results)


def test_a_fine_convolution_gives_float32() -> None:
    layer, fast = make(16, 1, 1, 3, torch.float16, chooser=fused.OwnKernel(), fine=True)
    x = last(1, 16, 8, 8, 8)
    assert fast(x).dtype == torch.float32
    assert off(fast(x), fused.plain_convolution(x, layer.weight.half(), layer.bias, 1)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("chooser", [fused.Chooser, fused.OwnKernel])
@pytest.mark.parametrize("levels", [1, 2])
def test_whole_lodi(levels: int, chooser: Callable[[], fused.Chooser]) -> None:
    plain = random_weights(Lodi(replace(LODI, bypass=4))).to(DEVICE)
    fast = copy.deepcopy(plain)
    dtype = torch.float16 if GPU or chooser is fused.OwnKernel else torch.float32
    fast.to(dtype)
    for linear in (fast.embed, fast.gains):
        linear.float()
    for module in fast.modules():
        if isinstance(module, layers.ResidualBlock):
            module.level.float()
    fused.use(fast, chooser())
    z, mask = torch.randn(2, 32, 32, 32, device=DEVICE), torch.zeros(2, 32, 32, 32, device=DEVICE)
    condition, level = torch.randn(2, 4, 32, 32, 32, device=DEVICE), torch.rand(levels).to(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "painting", lambda x: False)
        wanted = plain(z, level, plain.prepare(condition, z, mask))
    found = fast(z, level, fast.prepare(condition, z, mask))
    assert off(found, wanted) < 2 * HALF


@pytest.mark.slow
@pytest.mark.parametrize("chooser", [fused.Chooser, fused.OwnKernel])
def test_whole_halogen(chooser: Callable[[], fused.Chooser]) -> None:
    plain = random_weights(Halogen(HALOGEN)).to(DEVICE)
    dtype = torch.float16 if GPU or chooser is fused.OwnKernel else torch.float32
    fast = copy.deepcopy(plain).to(dtype)
    fused.use(fast, chooser())
    x = torch.randn(1, 1, 32, 32, 32, device=DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "painting", lambda x: False)
        wanted = plain(x)
    assert off(fast(x), wanted) < 2 * HALF
