"""Overlap methods: what the denoiser is shown, and what is put into its input."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from bigbox.diffusion.overlap import Known, OverlapMethod, overlap_method, overlap_methods
from bigbox.diffusion.samplers import sample
from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.names import SAMPLERS
from bigbox.noise import Purpose

T = 6  # steps
SCHEDULE = Schedule(T, -8, 8)
METHODS = (*overlap_methods(), "independent")


def field(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(purpose: Purpose, step: int) -> Tensor:
    return field(1000 * int(purpose) + step, 2, 8, 8, 8)


def at_work(name: str, known: Known, schedule: Schedule = SCHEDULE) -> OverlapMethod:
    return overlap_method(name)(known, schedule, noise)


@pytest.fixture
def known() -> Known:
    """Two tiles of 8^3 with different slabs."""
    width = np.array([[[2, 0], [0, 3], [0, 0]], [[1, 1], [0, 0], [2, 2]]])
    bare = Known(torch.zeros(2, 8, 8, 8), width)
    x0 = torch.where(bare.mask, field(1, 2, 8, 8, 8), torch.zeros(()))
    return Known(x0, width, field(2, 2, T - 1, 8, 8, 8))


def test_mask_against_voxel_by_voxel(known: Known) -> None:
    for b, x, y, z in product(range(2), range(8), range(8), range(8)):
        slabs = [
            voxel < low or voxel >= 8 - high
            for voxel, (low, high) in zip((x, y, z), known.width[b], strict=True)
        ]
        assert bool(known.mask[b, x, y, z]) == any(slabs)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_conditioned_denoiser_is_shown(method: str, known: Known) -> None:
    heard = at_work(method, known).shown()
    if method == "conditioned":
        assert heard is known
    else:
        assert not heard.width.any()
        assert not heard.mask.any()
        assert not heard.x0.any()


@pytest.mark.parametrize("method", ["conditioned", "independent"])
def test_methods_that_leave_z_alone(method: str, known: Known) -> None:
    z = field(3, 2, 8, 8, 8)
    begun = at_work(method, known)
    begun.before_step(before := z.clone(), 3)
    assert torch.equal(before, z)
    assert begun.latents is None and not begun.stores_latents


def test_overwrite_noises_the_known_voxels_to_the_step(known: Known) -> None:
    overwrite = at_work("overwrite", known)
    eps = noise(Purpose.KNOWN, 0)  # one and the same at every step
    for step in range(T, 0, -1):
        z = field(step, 2, 8, 8, 8)
        overwrite.before_step(after := z.clone(), step)
        wanted = SCHEDULE.alphas[step] * known.x0 + SCHEDULE.sigmas[step] * eps
        assert torch.allclose(after[known.mask], wanted.float()[known.mask], atol=1e-6)
        assert torch.equal(after[~known.mask], z[~known.mask])


def test_overwrite_draws_no_noise_where_nothing_is_known() -> None:
    def never(purpose: Purpose, step: int) -> Tensor:
        raise AssertionError("drawn")

    z = field(3, 2, 8, 8, 8)
    overwrite = overlap_method("overwrite")(Known.nothing(z), SCHEDULE, never)
    overwrite.before_step(before := z.clone(), 3)
    assert torch.equal(before, z)


def test_latents_puts_back_what_the_earlier_tile_had(known: Known) -> None:
    latents = at_work("latents", known)
    assert known.steps is not None
    for step in range(T, 0, -1):
        z = field(step, 2, 8, 8, 8)
        latents.before_step(after := z.clone(), step)
        if step == T:  # pure noise, the same in both tiles already
            assert torch.equal(after, z)
        else:
            assert torch.equal(after[known.mask], known.steps[:, step - 1][known.mask])
            assert torch.equal(after[~known.mask], z[~known.mask])
            assert latents.latents is not None and latents.stores_latents
            assert torch.equal(latents.latents[:, step - 1], after)


class Watched:
    """A denoiser that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def denoise(self, z: Tensor, step: int) -> Tensor:
        self.seen[step] = z.clone()
        return 0.5 * z


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_tiles_share_every_latent_of_their_overlap(sampler: str) -> None:
    """
    +-----------+
    |  first  +-|---------+     the slab of 3 voxels: the second tile's denoiser sees, at every
    |         | |  second |     step, the bits that the first tile's saw
    +-----------+         |
              +-----------+
    """
    schedule = Schedule(T, -8, 8, to_zero=sampler != "ancestral", doubled=sampler == "heun")
    whole = {p: field(p, 1, 13, 8, 8) for p in range(20)}

    def cut(low: int):  # type: ignore[no-untyped-def]
        return lambda purpose, step: whole[int(purpose) + 2 * step][:, low : low + 8].clone()

    nothing = Known(
        torch.zeros(1, 8, 8, 8), np.zeros((1, 3, 2), int), torch.zeros(1, T - 1, 8, 8, 8)
    )
    latents = overlap_method("latents")
    earlier = latents(nothing, schedule, cut(0))
    first = Watched()
    x0 = sample(first, schedule, sampler, cut(0), earlier.before_step)
    assert earlier.latents is not None
    width = np.array([[[3, 0], [0, 0], [0, 0]]])
    slab, steps = torch.zeros(1, 8, 8, 8), torch.zeros(1, T - 1, 8, 8, 8)
    slab[:, :3], steps[:, :, :3] = x0[:, 5:], earlier.latents[:, :, 5:]
    known = Known(slab, width, steps)
    second = Watched()
    later = latents(known, schedule, cut(5))
    sample(second, schedule, sampler, cut(5), later.before_step)
    for step in range(T, 0, -1):
        assert torch.equal(second.seen[step][:, :3], first.seen[step][:, 5:])


def test_refusals(known: Known) -> None:
    with pytest.raises(BadInput, match="'blended'"):
        overlap_method("blended")
    with pytest.raises(BadInput, match="step latents"):
        at_work("latents", Known(known.x0, known.width))


def test_names_and_help_are_had_without_torch_and_numpy() -> None:
    program = (
        "import sys; from bigbox.diffusion.overlap import overlap_help, overlap_methods;"
        "print(overlap_methods(), overlap_help());"
        "from bigbox.painters import painter_names; print(painter_names());"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    for name in ("conditioned: ", "overwrite: ", "latents: ", "'lodi'", "'trivial-halo'"):
        assert name in done.stdout.decode()
    assert b"independent" not in done.stdout
