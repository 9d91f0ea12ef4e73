"""How noisy a tile is at each step: z = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1.

gamma is the log of the noise-to-signal ratio, alpha^2 = sigmoid(-gamma), sigma^2 = sigmoid(gamma)
(paper section 2.2.3). Step T is almost pure noise, step 0 the painted tile; the network is called
at the steps T .. 1.

    step    T        T-1   ...          2      1        0
    gamma   max  >   ...   >            ...  > min    > -inf         to_zero (dpmpp, dpmpp-sde)
    gamma   max  >   ...   >            ...  > ...    > min          otherwise (ancestral, VDM)

Where the ends and the steps should be was measured with the exact denoiser of a Gaussian field,
mode by mode, in closed form. A mode of variance v (in units of the variance per voxel) keeps these
fractions of its power and of its mean, which is what the condition or known voxels tell of it:

    sampler, calls    gamma range   skew          v = 0.05    0.1      1       10     100     240
    dpmpp, 25         -8 .. 11      0      power    1.010  1.014   1.018   1.019   1.020   1.022
    dpmpp, 25         -8 .. 11      0.5    power    0.995  1.000   1.006   1.011   1.015   1.019
                                           mean     1.000  1.000   1.000   1.000   1.000   1.000
    dpmpp, 25         -8 .. 8       0.5    power    0.995  0.999   1.006   1.012   1.039   1.070
                                           mean     1.000  1.000   1.000   1.000   0.993   0.976
    dpmpp, 12         -8 .. 11      0      power    1.029  1.043   1.063   1.067   1.068   1.069
    dpmpp, 12         -8 .. 11      0.5    power    0.978  0.984   0.996   1.002   1.005   1.007
    dpmpp-sde, 12     -8 .. 9       0.4    power    0.978  0.989   1.005   1.011   1.007   0.991
                                           mean     1.000  1.000   1.000   1.000   1.002   1.004
    dpmpp-sde, 25     -8 .. 9       0.4    power    1.003  1.009   1.019   1.026   1.032   1.035
    euler, 100        -7.1 .. 7.8   0      power    0.948  0.956   0.963   0.967   1.001   1.043
    heun, 49          -5.5 .. 9.3   0      power    0.937  0.971   0.996   0.990   0.995   1.010
    ancestral, 50     -10 .. 8      0      power    0.840  0.840   0.840   0.840   0.839   0.835
    ancestral, 50     -13.3 .. 5    0      power    0.837  0.837   0.837   0.835   0.705   0.522

- gamma_max: z starts as pure noise, as if alpha were 0. For a mode of variance v that is wrong by
  alpha^2 v in power; gamma_max = ln(v_max) + 5.5 keeps that below 1 %.
- dpmpp-sde forgets its first noise, and with it what was wrong with gamma_max: 9 will do.
- The first step of dpmpp starts from alpha = 0 as well (see samplers.py). Were it to start from
  alpha at gamma_max, modes would lose alpha sqrt(v) of their mean: 6 % at v = 240 with
  gamma_max = 11, 10 % with 10.
- gamma_min: the last call returns the estimate itself, without the modes of v < exp(gamma_min).
- skew: dpmpp is of second order, and a mode settles where alpha^2 v = sigma^2. Longer steps in the
  noise and shorter ones towards the end take half of the error away at 25 calls, and more at 12.
- euler and heun are those of flow matching, on the straight path from noise to the field. Heun is
  within 1.1 % for modes of 0.24 and more, at four times dpmpp's calls.
- ancestral sampling loses 15 to 20 % of the power at 50 calls whatever the ends are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bigbox.errors import BadInput

# The schedules of the samplers of flow matching, for every painter.
STRAIGHT_PATH: dict[str, dict[str, Any]] = {
    "euler": {"gamma_min": -7.1, "gamma_max": 7.8, "skew": 0.0, "to_zero": True},
    "heun": {"gamma_min": -5.5, "gamma_max": 9.3, "skew": 0.0, "to_zero": True, "doubled": True},
}


@dataclass(frozen=True)
class Schedule:
    """The noise levels of `steps` network calls. Raises BadInput."""

    steps: int
    gamma_min: float
    gamma_max: float
    skew: float = 0.0  # steps are 1 - skew long at gamma_min, 1 + skew at gamma_max, 1 in the mean
    to_zero: bool = False  # step 0 has no noise, and gamma_min is of step 1; else of step 0
    doubled: bool = False  # two calls at each level but the first (and, of an even number, second)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"schedule: {self.steps} steps; at least 1 is needed")
        if not self.gamma_min < self.gamma_max:
            raise BadInput(
                f"schedule: gamma_min {self.gamma_min} is not below gamma_max {self.gamma_max}"
            )
        if not 0 <= self.skew < 1:
            raise BadInput(f"schedule: skew {self.skew} is outside 0 .. 1 (1 excluded)")

    @cached_property
    def gammas(self) -> np.ndarray:
        """float64 (steps + 1,), by step: gammas[0] is the end of the denoising."""
        nodes = self.steps if self.to_zero else self.steps + 1
        single = 2 - self.steps % 2  # levels of one call, where they are doubled
        if self.doubled:
            nodes = min(nodes, single + (self.steps - single) // 2)
        x = np.linspace(0.0, 1.0, nodes) if nodes > 1 else np.ones(1)
        warped = x - self.skew * x * (1.0 - x)
        gammas = self.gamma_min + (self.gamma_max - self.gamma_min) * warped
        if self.doubled and self.steps > single:
            gammas = np.concatenate([gammas[:-single].repeat(2), gammas[-single:]])
        return np.concatenate([[-np.inf], gammas]) if self.to_zero else gammas

    @cached_property
    def alphas(self) -> np.ndarray:
        """float64 (steps + 1,): the signal's amplitude in z."""
        return np.asarray(1.0 / np.sqrt(1.0 + np.exp(self.gammas)))

    @cached_property
    def sigmas(self) -> np.ndarray:
        """float64 (steps + 1,): the noise's amplitude in z."""
        return np.asarray(1.0 / np.sqrt(1.0 + np.exp(-self.gammas)))
