"""The steps of a particle-mesh run: leapfrog in the scale factor, with FastPM's factors.

Positions x are comoving Mpc/h; momenta are p = a^2 dx/dt, in H0 Mpc/h. With lap phi = delta,
dp/dt = -(3/2) Omega_m grad phi / a and dx/dt = p / a^2. A step from a0 to a1 over the middle m
changes p by the force at one time and x by the p at one time, with factors under which a particle
of the Zel'dovich approximation (x = q + D psi, p = P psi, P = a^3 E dD/da) moves exactly:

      kick   p -= grad phi (P(m) - P(m before)) / D(a0)
      drift  x += p (D(a1) - D(a0)) / P(m)

(Feng et al. 2016, eqs. 23-26), which keeps the growth of large scales right with any steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bigbox.simulation.linear import Growth
from bigbox.simulation.mesh import Mesh

Step = tuple[float, float]


def evolve(
    positions: Tensor,
    momenta: Tensor,
    mesh: Mesh,
    growth: Growth,
    times: NDArray[np.float64],
    shown: Callable[[Sequence[Step]], Iterable[Step]] = iter,
) -> None:
    """Move particles from times[0] to times[-1], in place.

    Positions and momenta, float32 (3, M), are both of one time, before and afterwards. `shown` is
    given the steps, from and to which scale factor, and gives them back one by one.
    """
    before = times[0]
    for now, after in shown([*zip(times[:-1], times[1:], strict=True)]):
        middle = float(np.sqrt(now * after))
        change = growth.momentum(middle) - growth.momentum(before)
        mesh.kick(momenta, positions, change / growth.factor(now))
        drift = (growth.factor(after) - growth.factor(now)) / growth.momentum(middle)
        positions.add_(momenta, alpha=drift).remainder_(mesh.side)
        before = middle
    change = growth.momentum(times[-1]) - growth.momentum(before)
    mesh.kick(momenta, positions, change / growth.factor(times[-1]))
