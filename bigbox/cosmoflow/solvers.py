"""Solve dx/dt = v(x, t) from noise at t = 0 to the field at t = 1, for whatever fits into memory.

    euler      one call of v an interval                       first order
    heun       two calls: at the beginning, and at the end     second order
    adaptive   Bogacki & Shampine 1989, orders 3 and 2: chooses its intervals by the error that it
               estimates; three calls each, of which a refused interval loses what it has called

v is asked at the time of each stage, and is given no other: whatever it masks at a time, it masks
itself, in a copy. So a refused interval leaves nothing behind.

The tiles of a box that is larger than memory go together, each interval of all tiles before the
next, so that they cannot choose intervals by their own errors. There, Euler and Heun are samplers
of the diffusion painters (`bigbox.diffusion.samplers`), on times fixed beforehand. The straight
path x_t = t x_1 + (1 - t) x_0 is that of a diffusion up to its length:

    z = alpha x_1 + sigma x_0 = x_t / (t^2 + (1 - t)^2)^(1/2),   gamma = 2 log((1 - t) / t)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from bigbox.diffusion.schedule import Schedule
from bigbox.errors import BadInput

Velocity = Callable[[Tensor, float], Tensor]
# An adaptive interval may grow or shrink by so much at once, and is chosen a little too short.
SHRINK, GROW, CAUTION = 0.2, 5.0, 0.9


def flow_times(schedule: Schedule) -> np.ndarray:
    """Return the flow's time at each step of a schedule, float64 (steps + 1,); 1 without noise."""
    return np.asarray(1.0 / (1.0 + np.exp(schedule.gammas / 2.0)))


def check_times(times: Sequence[float]) -> None:
    """Raise BadInput unless times ascend within 0 .. 1."""
    if len(times) < 2 or any(b <= a for a, b in pairwise(times)) or times[0] < 0 or times[-1] > 1:
        raise BadInput(f"times {list(times)}: must be two or more, ascending within 0 .. 1")


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Return x at the last time, of x at the first; one call an interval."""
    check_times(times)
    for begin, end in pairwise(times):
        x = x + (end - begin) * velocity(x, begin)
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Return x at the last time, of x at the first; two calls an interval."""
    check_times(times)
    for begin, end in pairwise(times):
        first = velocity(x, begin)
        second = velocity(x + (end - begin) * first, end)
        x = x + (end - begin) / 2 * (first + second)
    return x


@dataclass(frozen=True)
class Solved:
    """What an adaptive solver found: x, the times that it chose, and what it took."""

    x: Tensor
    times: tuple[float, ...]
    calls: int
    refused: int  # intervals that were too long


def adaptive(
    velocity: Velocity,
    x: Tensor,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    begin: float = 0.0,
    end: float = 1.0,
    first: float = 0.01,
    most_calls: int = 10_000,
) -> Solved:
    """Return x at `end`, of x at `begin`, with local errors below atol + rtol |x|.

    That is the root mean square over x. first: the interval that is tried first. Raises BadInput
    where most_calls do not do.
    """
    check_times((begin, end))
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise BadInput(f"tolerances rtol {rtol}, atol {atol}: must be positive")
    t, h, times, calls, refused = begin, min(first, end - begin), [begin], 1, 0
    k1 = velocity(x, t)
    while t < end:
        h = min(h, end - t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + 3 * h / 4 * k2, t + 3 * h / 4)
        new = x + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
        then = end if h >= end - t else t + h
        k4 = velocity(new, then)
        calls += 3
        error = h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)
        scale = atol + rtol * x.abs().maximum(new.abs())
        size = float((error / scale).square().mean().sqrt())
        if not math.isfinite(size):
            raise BadInput(
                f"velocity at t = {t:.4g}: is not finite; the model's weights are damaged"
            )
        if size <= 1:
            x, k1, t = new, k4, then
            times.append(t)
        else:
            refused += 1
        h *= min(GROW, max(SHRINK, CAUTION * max(size, 1e-10) ** (-1 / 3)))
        if calls > most_calls:
            raise BadInput(
                f"adaptive solver: {calls} calls up to t = {t:.4g}; allow larger errors (rtol"
                f" {rtol}, atol {atol})"
            )
    return Solved(x, tuple(times), calls, refused)
