"""CosmoFlow's layers, masks, networks and losses, against slow references and invariants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bigbox.cosmoflow import layers
from bigbox.cosmoflow.loss import FlowTask, between, velocity_error
from bigbox.cosmoflow.masks import mask, masked, visible
from bigbox.cosmoflow.networks import PRESETS, Encoder, Flow, FlowSize, Velocity, summary
from bigbox.cosmoflow.vae import Vae, VaeSize, VaeTask
from bigbox.errors import BadInput
from tests.reference import cosmoflow as reference

TINY = {
    2: FlowSize(2, 4, (8, 8, 8, 8), (1, 2, 2, 2), (8, 8, 8), 1, 16, "group", patch=2),
    3: FlowSize(
        3, 3, (8, 8, 8), (1, 2, 2), (8, 8), 1, 16, "voxel", patch=2, summary=False, periodic=False
    ),
}


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


def field(ndim: int, edge: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, *(edge,) * ndim)


def alive(network: torch.nn.Module) -> torch.nn.Module:
    """The network with random weights in the layers that begin at zero."""
    for weights in network.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.1)
    return network.eval()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("edge, stride", [(3, 1), (3, 2), (1, 2), (5, 2)])
def test_a_convolution_is_that_of_the_definition(ndim: int, edge: int, stride: int) -> None:
    layer = layers.Conv(ndim, 2, 3, edge=edge, stride=stride, periodic=True)
    x = torch.randn(1, 2, *(4,) * ndim)
    weight, bias = (one.detach().double().numpy() for one in layer.conv.parameters())
    expected = reference.convolve(x[0].double().numpy(), weight, bias, stride)
    np.testing.assert_allclose(layer(x)[0].detach(), expected, atol=1e-5)


def test_a_field_smaller_than_the_reach_is_continued_all_around() -> None:
    x = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    assert layers.wrap(x, 5)[0, 0, :, 0].tolist() == [(i - 5) % 3 for i in range(13)]
    assert torch.equal(layers.wrap(x, 2), torch.nn.functional.pad(x, (2,) * 4, mode="circular"))


@pytest.mark.parametrize("ndim", [2, 3])
def test_patches_hold_their_voxels_and_become_the_field_again(ndim: int) -> None:
    x = torch.randn(2, 3, *(8,) * ndim)
    patches = layers.patchify(x, 2)
    assert patches.shape == (2, 3 * 2**ndim, *(4,) * ndim)
    assert torch.equal(
        patches[0, 1], x[0, 0][(..., *(slice(0, None, 2),) * (ndim - 1), slice(1, None, 2))]
    )
    assert torch.equal(layers.unpatchify(patches, 2), x)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_voxel_is_normalised_by_its_own_channels(ndim: int) -> None:
    layer = layers.VoxelNorm(6)
    x = torch.randn(2, 6, *(4,) * ndim) * 3 + 1
    made = layer(x)
    where = (1, slice(None), *(2,) * ndim)
    one = x[where]
    expected = (one - one.mean()) / (one.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(made[where], expected)


def test_channels_are_seen_as_long_as_they_should_be() -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 2, 7, 8, 64):
        times = torch.from_numpy(np.concatenate([rng.random(50), [0.0, 0.5, 1.0]]))
        seen = visible(times, channels).tolist()
        assert seen == [reference.visible(t, channels) for t in times.tolist()]
        assert min(seen) == 1 and max(seen) == channels


def test_all_channels_at_the_beginning_one_at_the_end() -> None:
    times = torch.tensor([0.0, 0.124, 0.125, 0.5, 0.99, 1.0])
    assert visible(times, 8).tolist() == [8, 8, 7, 4, 1, 1]
    assert mask(torch.tensor([0.5]), 4).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_mask_leaves_the_latent_of_the_caller_alone(ndim: int) -> None:
    latent = torch.randn(3, 5, *(2,) * ndim)
    before, times = latent.clone(), [0.1, 0.7, 1.0]
    made = masked(latent, torch.tensor(times))
    np.testing.assert_array_equal(made, reference.masked(before.numpy(), times))
    assert torch.equal(latent, before)
    velocity = alive(Velocity(TINY[ndim]))
    given_latent = torch.randn(1, TINY[ndim].latent, *(2,) * ndim)
    before = given_latent.clone()
    with torch.no_grad():
        velocity(field(ndim, 2 * TINY[ndim].factor), torch.ones(1), given_latent)
    assert torch.equal(given_latent, before)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_velocity_knows_the_channels_of_its_time_alone(ndim: int) -> None:
    size = TINY[ndim]
    velocity, x = alive(Velocity(size)), field(ndim, 2 * size.factor)
    latent = torch.randn(1, size.latent, *(2,) * ndim)
    other = latent.clone()
    other[:, -1] += 1
    with torch.no_grad():
        for t, same in ((0.0, False), (0.99, True)):
            time = torch.tensor([t])
            assert torch.equal(velocity(x, time, latent), velocity(x, time, other)) is same


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_encoder_shifts_with_the_field_exactly(ndim: int) -> None:
    size = PRESETS["small", ndim]
    encoder, x = Encoder(size).eval(), field(ndim, 4 * size.factor if ndim == 2 else 32)
    with torch.no_grad():
        latent = encoder(x)
        for by in ((1, 0), (2, 3), (0, 1)):
            axes = (2, 3)
            moved = encoder(x.roll([one * size.factor for one in by], axes))
            assert torch.equal(moved, latent.roll(by, axes))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_latent_knows_the_field_within_the_encoders_reach(ndim: int) -> None:
    size = TINY[ndim]
    encoder, edge = alive(Encoder(size)), 96 if ndim == 2 else 48
    reach = encoder.reach
    x = field(ndim, edge).requires_grad_()
    at = edge // size.factor // 2
    encoder(x)[(0, 0, *(at,) * ndim)].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].abs().sum(tuple(range(1, ndim))).nonzero()
    first, last = int(seen.min()), int(seen.max())
    assert at * size.factor - reach <= first and last <= (at + 1) * size.factor - 1 + reach
    assert last - first > size.factor + reach  # no more than a pool's width is given away


def test_a_periodic_velocity_shifts_with_the_field() -> None:
    size = replace(TINY[2], norm="voxel")
    velocity = alive(Velocity(size))
    x, latent, t = field(2, 32), torch.randn(1, 4, 2, 2), torch.tensor([0.3])
    with torch.no_grad():
        moved = velocity(x.roll(16, 2), t, latent.roll(1, 2))
        torch.testing.assert_close(moved, velocity(x, t, latent).roll(16, 2), atol=1e-5, rtol=1e-4)


def test_maps_of_a_batch_do_not_know_of_each_other() -> None:
    flow = alive(Flow(TINY[2]))
    x, t = field(2, 32, 3), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        latent = flow.encoder(x)
        whole = flow.velocity(x, t, latent)
        for i in range(3):
            alone = flow.velocity(x[i : i + 1], t[i : i + 1], latent[i : i + 1])
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_an_untrained_network_gives_the_best_linear_estimate() -> None:
    """Of white fields v given x_t is (2 t - 1) / (t^2 + (1 - t)^2) x_t."""
    flow, t = Flow(TINY[2]), torch.tensor([0.25])
    x = field(2, 32)
    v = flow.velocity(x, t, flow.encoder(x))
    torch.testing.assert_close(v, (2 * 0.25 - 1) / (0.25**2 + 0.75**2) * x)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_loss_is_that_of_the_definition(ndim: int) -> None:
    task = FlowTask(alive(Flow(TINY[ndim])))
    x0, x1, t = field(ndim, 16, 2), field(ndim, 16, 2), torch.tensor([0.2, 0.9])
    x_t = between(x0, x1, t)
    torch.testing.assert_close(x_t[1], 0.9 * x1[1] + 0.1 * x0[1])
    with torch.no_grad():
        output = task.network.velocity(x_t, t, task.network.encoder(x1))
        expected = reference.flow_loss(output.numpy(), x0.numpy(), x1.numpy())
        assert float(task(x1, x0, t)) == pytest.approx(expected, rel=1e-5)
        assert velocity_error(x1 - x0, x0, x1).tolist() == [0, 0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_weight_gets_a_gradient(ndim: int) -> None:
    size = replace(TINY[ndim], attention=("down 1",) if ndim == 2 else ())
    task = FlowTask(alive(Flow(size)))
    task(field(ndim, 16, 2), field(ndim, 16, 2), torch.tensor([0.2, 0.9])).backward()
    unused = [n for n, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_the_papers_preset_has_its_shapes_and_about_its_weights() -> None:
    """Encoder 2,875,072 and decoder 52,910,631 - 2.2 M unused; the differences are in the docs."""
    size = PRESETS["paper", 2]
    assert (size.factor, size.compression) == (16, 32)
    with torch.device("meta"):
        flow = Flow(size)
        count = [sum(p.numel() for p in m.parameters()) for m in (flow.encoder, flow.velocity)]
        latent = flow.encoder(torch.empty(2, 1, 256, 256))
        assert latent.shape == (2, 8, 16, 16) and summary(latent).shape == (2, 8)
        v = flow.velocity(torch.empty(2, 1, 256, 256), torch.empty(2), latent)
        assert v.shape == (2, 1, 256, 256)
    assert count == [2_876_040, 48_872_001]


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"ndim": 4}, "ndim 4"),
        ({"strides": (1,)}, "as many"),
        ({"strides": (1, 3, 2, 2)}, "must be 1 or 2"),
        ({"patch": 3}, "patch 3"),
        ({"norm": "batch"}, "norm batch"),
        ({"latent": 0}, "latent 0"),
    ],
)
def test_a_network_that_cannot_be_is_refused(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        replace(TINY[2], **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_size_comes_back_from_its_card(ndim: int) -> None:
    assert FlowSize.from_dict(TINY[ndim].as_dict()) == TINY[ndim]


def test_the_autoencoder_has_the_latent_of_the_flow_and_its_loss() -> None:
    size = VaeSize.beside(PRESETS["small", 2], "small")
    vae = Vae(VaeSize.from_dict(size.as_dict()))
    x = field(2, 64, 2)
    mean, log_variance = vae.encode(x)
    assert mean.shape == Encoder(PRESETS["small", 2])(x).shape == log_variance.shape
    assert vae.decode(mean).shape == x.shape
    noise = torch.randn_like(mean)
    decoded = vae.decode(mean + noise * (log_variance / 2).exp())
    gauss = torch.distributions.Normal
    prior = gauss(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(gauss(mean, (log_variance / 2).exp()), prior)
    expected = 0.5 * (decoded - x).square().mean().log() + divergence.sum() / x.numel()
    torch.testing.assert_close(VaeTask(vae)(x, noise), expected)
