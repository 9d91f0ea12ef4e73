"""The networks: shapes, independent channels, equal bits, files that are not what they say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from bigbox.errors import BadInput
from bigbox.networks.halogen import Halogen
from bigbox.networks.layers import join, level_features, patchify, unpatchify, upsample
from bigbox.networks.lodi import Lodi
from bigbox.networks.model import load_model, save_model
from bigbox.networks.presets import GRID, HALOGEN, LODI, HalogenSize, LodiSize, as_dict
from bigbox.networks.transforms import LogTransform

SMALL = LodiSize(2, (16, 24, 32), 1, 2, 4, 32, "v")
SMALL_HALOGEN = HalogenSize(2, (16, 32, 32), 1, 2, 4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """With weights that are nowhere zero, as after training."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_upsampling_is_trilinear() -> None:
    x = torch.randn(2, 3, 5, 5, 5, dtype=torch.float64)
    slow = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
    torch.testing.assert_close(upsample(x), slow)


def test_folding_and_back_is_nothing() -> None:
    x = torch.randn(2, 3, 8, 8, 8)
    folded = patchify(x, 2)
    assert folded.shape == (2, 24, 4, 4, 4)
    assert torch.equal(unpatchify(folded, 2), x)
    # The eight voxels of a patch are the eight channels at its place.
    assert set(folded[0, :8, 1, 2, 3].tolist()) == set(x[0, 0, 2:4, 4:6, 6:8].flatten().tolist())


def test_join_keeps_groups_apart() -> None:
    first, second = torch.zeros(1, 4, 1, 1, 1), torch.ones(1, 4, 1, 1, 1)
    assert join(first, second, 4).flatten().tolist() == [0, 1] * 4


@pytest.mark.parametrize("edge", [32, 64])
def test_halogen_channels_do_not_see_each_other(edge: int) -> None:
    """Changing the weights of one group of every grouped layer changes one channel only."""
    network = awake(Halogen(SMALL_HALOGEN))
    x = torch.randn(1, 1, edge, edge, edge)
    with torch.no_grad():
        before = network(x)
        assert before.shape == (1, 4, edge, edge, edge)
        for module in network.modules():
            if isinstance(module, (torch.nn.Conv3d, torch.nn.GroupNorm)):
                for parameter in module.parameters(recurse=False):
                    parameter[: len(parameter) // 4] += 0.1
        after = network(x)
    assert not torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:])


@pytest.mark.parametrize(("preset", "bottleneck"), [("paper", (8, 4)), ("mini", (8, 8))])
def test_presets_reach_their_bottleneck(preset: str, bottleneck: tuple[int, int]) -> None:
    """The paper's 8³ and 4³, from windows of 64³ and tiles of 32³ of the preset's grid."""
    halogen, lodi = HALOGEN[preset], LODI[preset]
    assert 64 // halogen.patch // 2 ** (len(halogen.widths) - 1) == bottleneck[0]
    assert 32 // lodi.patch // 2 ** (len(lodi.widths) - 1) == bottleneck[1]
    assert all(width % 16 == 0 for width in halogen.widths)
    assert GRID[preset] == {"paper": 1, "mini": 2}[preset]


def test_step_independent_part_is_the_same_convolution() -> None:
    """Noisy tile and conditions through one convolution, or through two whose results are added."""
    network = awake(Lodi(SMALL))
    z, halo = torch.randn(2, 32, 32, 32), torch.randn(2, 4, 32, 32, 32)
    known, mask = torch.randn(2, 32, 32, 32), (torch.rand(2, 32, 32, 32) > 0.5).float()
    with torch.no_grad():
        split = network.inlet(patchify(z[:, None], 2)) + network.prepare(halo, known, mask)
        weight = torch.cat([network.inlet.weight, network.condition_inlet.weight], dim=1)
        bias = network.inlet.bias + network.condition_inlet.bias
        told = torch.cat([z[:, None], halo, known[:, None], mask[:, None]], dim=1)
        together = functional.conv3d(patchify(told, 2), weight, bias, padding=1)
    torch.testing.assert_close(split, together, rtol=1e-4, atol=1e-4)


def test_log_transform_is_fitted_and_inverted() -> None:
    field = 10 ** np.random.default_rng(1).normal(-1, 1, (4, 8, 8, 8)).astype(np.float32)
    fit = LogTransform.fit([field, 2 * field], floor=1e-3)
    x = np.concatenate([fit.forward(field), fit.forward(2 * field)])
    assert abs(x.mean()) < 1e-5 and abs(x.std() - 1) < 1e-5
    np.testing.assert_allclose(fit.inverse(fit.forward(field)), field, rtol=1e-3, atol=1e-6)
    same = fit.forward(torch.from_numpy(field)).numpy()
    np.testing.assert_allclose(same, fit.forward(field), rtol=1e-5, atol=1e-6)


def test_log_transform_clips() -> None:
    clip = LogTransform(10.0, 0.5, 2.0, clip=True)
    field = np.array([0.0, 5.0, 10.0, 100.0], dtype=np.float32)
    x = clip.forward(field)
    assert x[0] == x[1] == x[2]
    np.testing.assert_allclose(clip.inverse(x)[3], 100.0, rtol=1e-5)
    assert clip.inverse(x - 1e-3)[0] == 0.0


def test_a_constant_field_cannot_be_normalised() -> None:
    with pytest.raises(BadInput, match="same everywhere"):
        LogTransform.fit([np.ones((1, 4, 4, 4), np.float32)], 1e-3)


def card(size: LodiSize | HalogenSize) -> dict[str, object]:
    transform = asdict(LogTransform(1.0, 0.0, 1.0))
    return {
        "size": as_dict(size),
        "voxel_size": 0.1,
        "smoothing": 0.2,
        "redshift": 0.0,
        "cosmology": {},
        "transforms": {"dm": transform, "halo": transform, "tb": transform},
    }


def test_a_model_comes_back(tmp_path: Path) -> None:
    network = awake(Lodi(SMALL))
    save_model(tmp_path, "lodi", network, card(SMALL), torch.float32)
    model = load_model(tmp_path, "lodi")
    z, halo = torch.randn(1, 32, 32, 32), torch.randn(1, 4, 32, 32, 32)
    level, empty = torch.tensor([0.3]), torch.zeros(1, 32, 32, 32)
    with torch.no_grad():
        wanted = network(z, level, network.prepare(halo, empty, empty))
        lodi = model.network
        found = lodi(z, level, lodi.prepare(halo, empty, empty))
    assert torch.equal(found, wanted)


def test_models_that_are_not_what_they_say(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no lodi\.json there"):
        load_model(tmp_path, "lodi")
    save_model(tmp_path, "lodi", Lodi(SMALL), card(SMALL), torch.bfloat16)
    weights, told = tmp_path / "lodi.safetensors", tmp_path / "lodi.json"
    whole, text = weights.read_bytes(), told.read_text()
    weights.write_bytes(whole[:-1000])
    with pytest.raises(BadInput, match="damaged, truncated"):
        load_model(tmp_path, "lodi")
    weights.write_bytes(whole)
    other = json.loads(text)
    other["size"]["widths"] = [16, 24, 48]
    told.write_text(json.dumps(other))
    with pytest.raises(BadInput, match="does not fit its card"):
        load_model(tmp_path, "lodi")
    told.write_text(text[:100])
    with pytest.raises(BadInput, match=r"lodi\.json"):
        load_model(tmp_path, "lodi")
    other = json.loads(text)
    del other["voxel_size"]
    told.write_text(json.dumps(other))
    with pytest.raises(BadInput, match="no voxel_size in the card"):
        load_model(tmp_path, "lodi")
    weights.unlink()
    told.write_text(text)
    with pytest.raises(BadInput, match="train it again"):
        load_model(tmp_path, "lodi")


def test_the_bypass_is_linear_filters_with_gains_of_the_level() -> None:
    """What it adds is the same network's output without it, plus filtered z."""
    plain = awake(Lodi(SMALL))
    assert not hasattr(plain, "filters") and not hasattr(plain, "gains")
    around = Lodi(replace(SMALL, bypass=3))
    awake(around).load_state_dict(plain.state_dict(), strict=False)
    z, halo, nothing = torch.randn(2, 32, 32, 32), torch.randn(2, 4, 32, 32, 32), torch.zeros(())
    level, empty = torch.tensor([0.2, 0.9]), nothing.expand(2, 32, 32, 32)
    with torch.no_grad():
        outputs = [one(z, level, one.prepare(halo, empty, empty)) for one in (plain, around)]
        embedded = around.embed(level_features(level, SMALL.embedding))
        gains = embedded @ around.gains.weight.T + around.gains.bias
        filtered = [
            functional.conv3d(z[:, None], kernel[None], bias[None], padding=2)[:, 0]
            for kernel, bias in zip(around.filters.weight, around.filters.bias, strict=True)
        ]
        added = sum(
            gain[:, None, None, None] * f for gain, f in zip(gains.T, filtered, strict=True)
        )
    torch.testing.assert_close(outputs[1], outputs[0] + added, rtol=1e-4, atol=1e-4)


def test_a_network_without_masks_is_not_told_of_known_voxels() -> None:
    network = awake(Lodi(replace(SMALL, masked=False)))
    assert network.condition_inlet.in_channels == 4 * SMALL.patch**3
    halo, known = torch.randn(1, 4, 32, 32, 32), torch.randn(1, 32, 32, 32)
    with torch.no_grad():
        told, untold = (network.prepare(halo, k, (k != 0).float()) for k in (known, 0 * known))
    assert torch.equal(told, untold)


@pytest.mark.parametrize("kind", ["lodi", "halogen"])
def test_cards_of_before_the_newer_sizes_still_load(tmp_path: Path, kind: str) -> None:
    made = awake(Lodi(SMALL)) if kind == "lodi" else awake(Halogen(SMALL_HALOGEN))
    save_model(tmp_path, kind, made, card(made.size), torch.float32)
    path = tmp_path / f"{kind}.json"
    told = json.loads(path.read_text())
    for key in ("skips", "groups", "masked", "bypass"):
        told["size"].pop(key, None)
    path.write_text(json.dumps(told))
    model = load_model(tmp_path, kind)
    assert model.network.size == made.size
    for mine, theirs in zip(model.network.parameters(), made.parameters(), strict=True):
        assert torch.equal(mine, theirs)
