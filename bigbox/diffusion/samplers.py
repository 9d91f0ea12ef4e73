"""Take one denoising step (`take_step`), or all of them (`sample`).

Tensors are (B, t, t, t); a step changes z in place. Coefficients are computed in double precision
and rounded once. Both steps are written with the estimate x0 of the clean tile; a network that
predicts the noise gives x0 = (z - sigma eps) / alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput
from bigbox.names import SAMPLERS
from bigbox.noise import Purpose

if TYPE_CHECKING:
    from torch import Tensor


class Denoiser(Protocol):
    """A network (or a closed form), made for one batch's condition and known voxels."""

    def denoise(self, z: Tensor, step: int | np.ndarray) -> Tensor:
        """Estimate the clean tiles x0 from z at noise level `step`, both (B, t, t, t).

        step: of all tiles, or int64 (B,), of each. z is left as it is. The result may be used until
        the second next call.
        """


def dpmpp_step(
    z: Tensor,
    x0: Tensor,
    previous: Tensor | None,
    noise: Tensor | None,
    step: int,
    schedule: Schedule,
) -> Tensor:
    """Take a step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), from `step` to `step - 1`.

    With noise, of SDE-DPM-Solver++(2M) (the same paper's appendix B.5), which forgets its noise
    as it goes: what the network got wrong at one step it can mend at the next.

    previous: the estimate of step + 1, none at the first step. The last step to zero noise is of
    first order and returns x0. The first step is of first order too, and starts from infinite
    gamma: there z is pure noise, without alpha x0. Taking it for a z of step T would cost modes of
    variance v a share alpha_T sqrt(v) of their mean, see schedule.py.
    """
    if previous is None:
        z.mul_(float(schedule.sigmas[step - 1]))
        return z.add_(x0, alpha=float(schedule.alphas[step - 1]))
    half = schedule.gammas / -2.0  # log of signal over noise amplitude
    length = half[step - 1] - half[step]
    forget = float(length) if noise is not None else 0.0
    decay = float(schedule.sigmas[step - 1] / schedule.sigmas[step] * math.exp(-forget))
    gain = float(-schedule.alphas[step - 1] * math.expm1(-length - forget))
    z.mul_(decay)
    if math.isinf(length):
        return z.add_(x0, alpha=gain)
    forward = float(length / (half[step] - half[step + 1]) / 2.0)
    z.add_(x0, alpha=gain * (1.0 + forward))
    if noise is not None:
        z.add_(noise, alpha=float(schedule.sigmas[step - 1] * math.sqrt(-math.expm1(-2 * forget))))
    return z.add_(previous, alpha=-gain * forward)


def ancestral_step(
    z: Tensor, x0: Tensor, noise: Tensor | None, step: int, schedule: Schedule
) -> Tensor:
    """Take an ancestral step of the variational diffusion model (eq. 14), to `step - 1`.

    With c = 1 - exp(gamma_s - gamma_t): z_s = (alpha_s / alpha_t) (z_t - c sigma_t eps)
    + sigma_s sqrt(c) noise; eps is written out in z_t and x0. noise: none at the last step, where
    the result is z_0 / alpha_0.
    """
    s, t = step - 1, step
    alpha, sigma = schedule.alphas, schedule.sigmas
    c = -math.expm1(schedule.gammas[s] - schedule.gammas[t])
    scale = 1.0 if noise is not None else 1.0 / alpha[s]
    z.mul_(float(scale * alpha[s] / alpha[t] * (1.0 - c)))
    z.add_(x0, alpha=float(scale * alpha[s] * c))
    if noise is not None:
        z.add_(noise, alpha=float(sigma[s] * math.sqrt(c)))
    return z


def euler_step(
    z: Tensor, x0: Tensor, previous: Tensor | None, step: int, schedule: Schedule
) -> Tensor:
    """Take Euler's step on the straight path of flow matching, to `step - 1`.

    With x_t = t x0 + (1 - t) noise the velocity is (x0 - x_t) / (1 - t), and z is x_t over the
    length of (t, 1 - t): z takes DDIM's step (Song et al. 2021). The first step starts from pure
    noise, as dpmpp's.
    """
    alpha, sigma = schedule.alphas, schedule.sigmas
    if previous is None:
        return z.mul_(float(sigma[step - 1])).add_(x0, alpha=float(alpha[step - 1]))
    ratio = sigma[step - 1] / sigma[step]
    return z.mul_(float(ratio)).add_(x0, alpha=float(alpha[step - 1] - ratio * alpha[step]))


def heun_step(
    z: Tensor, x0: Tensor, previous: Tensor | None, step: int, schedule: Schedule
) -> Tensor:
    """Take half a step of Heun's on the same path: Euler's to the next level, or its correction.

    A schedule of `doubled` levels has two calls at each level: the first, which begins with Euler's
    step to it, corrects that step; the second begins the next. previous: the estimate at the level
    that a step to correct began at.
    """
    gammas = schedule.gammas
    if previous is None or gammas[step - 1] != gammas[step]:
        return euler_step(z, x0, previous, step, schedule)
    t, s = 1.0 / (1.0 + np.exp(gammas[[step, step + 1]] / 2.0))
    s = 0.0 if step + 1 == schedule.steps else s  # where the first step began
    length, left = math.hypot(t, 1.0 - t), (1.0 - t) / (1.0 - s)
    begun = (z * length - (1.0 - left) * previous) / left  # x at s, before Euler's step
    first, second = (previous - begun) / (1.0 - s), (x0 - z * length) / (1.0 - t)
    return z.copy_((begun + (t - s) / 2.0 * (first + second)) / length)


def takes_noise(sampler: str, step: int, schedule: Schedule) -> bool:
    """Return whether a step adds fresh noise. The last never does, nor dpmpp-sde's first."""
    if step == 1 or sampler in ("dpmpp", "euler", "heun"):
        return False
    return sampler == "ancestral" or step < schedule.steps


def take_step(
    sampler: str,
    z: Tensor,
    x0: Tensor,
    previous: Tensor | None,
    noise: Tensor | None,
    step: int,
    schedule: Schedule,
) -> Tensor:
    """Take one step of a sampler, from `step` to `step - 1`; previous: the estimate of step + 1."""
    if sampler == "ancestral":
        return ancestral_step(z, x0, noise, step, schedule)
    if sampler in ("euler", "heun"):
        whole = euler_step if sampler == "euler" else heun_step
        return whole(z, x0, previous, step, schedule)
    return dpmpp_step(z, x0, previous, noise, step, schedule)


def check_sampler(sampler: str, schedule: Schedule) -> None:
    """Raise BadInput unless there is such a sampler, and it can go with the schedule."""
    if sampler not in SAMPLERS:
        raise BadInput(f"sampler: {sampler!r} is not one of {', '.join(SAMPLERS)}")
    if sampler != "ancestral" and not schedule.to_zero:
        raise BadInput(f"sampler: {sampler} needs a schedule that ends without noise (to_zero)")
    if (sampler == "heun") != schedule.doubled:
        raise BadInput(
            f"sampler: {sampler} and a schedule of doubled levels go together, or neither"
        )


def sample(
    denoiser: Denoiser,
    schedule: Schedule,
    sampler: str,
    noise: Callable[[Purpose, int], Tensor],
    before_step: Callable[[Tensor, int], None],
) -> Tensor:
    """Denoise a batch from pure noise in schedule.steps network calls, to the x0 (B, t, t, t).

    sampler: one of SAMPLERS; noise(purpose, step): fresh standard normals (B, t, t, t);
    before_step(z, step): called before the denoiser, may change z in place (an overlap method's).
    """
    check_sampler(sampler, schedule)
    z = noise(Purpose.INITIAL, 0)
    previous = None
    for step in range(schedule.steps, 0, -1):
        before_step(z, step)
        x0 = denoiser.denoise(z, step)
        fresh = takes_noise(sampler, step, schedule)
        stirring = noise(Purpose.ANCESTRAL, step) if fresh else None
        take_step(sampler, z, x0, previous, stirring, step, schedule)
        previous = x0
    return z
