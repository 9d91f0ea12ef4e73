"""The phases that N-GenIC draws for a seed, so that a run can be repeated with other gravity.

GADGET-4's N-GenIC draws the mode of each wave vector from ranlxd1 (Luescher 1994), seeded column by
column from a table that is itself drawn from the seed. The same phases on both sides leave nothing
to the chance of the initial conditions in a comparison.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LUXURY = 202  # steps of the recurrence between two dozens of numbers that are used
_ONE_BIT = 2.0**-48


class Ranlxd1:
    """Many generators side by side: `uniform()` is the next number of each, float64 (seeds,).

    12 numbers, x_n = x_(n-5) - x_(n-12) - carry modulo 1, of which 12 in 202 are used.
    """

    def __init__(self, seeds: NDArray[np.int64]) -> None:
        seeds = np.where(seeds == 0, 1, seeds)
        bits = [(seeds >> k) & 1 for k in range(31)]
        self._x = np.zeros((12, len(seeds)))
        i, j = 0, 18
        for k in range(12):
            for _ in range(48):
                self._x[k] = 2 * self._x[k] + (1 - bits[i])
                bits[i] = bits[i] ^ bits[j]
                i, j = (i + 1) % 31, (j + 1) % 31
        self._x *= _ONE_BIT
        self._carry = np.zeros(len(seeds))
        self._at, self._lag, self._refresh = 11, 7, 0

    def uniform(self) -> NDArray[np.float64]:
        self._at = (self._at + 1) % 12
        if self._at == self._refresh:
            for _ in range(_LUXURY):
                change = self._x[self._lag] - self._x[self._at] - self._carry
                below = change < 0
                self._x[self._at] = change + below
                self._carry = np.where(below, _ONE_BIT, 0.0)
                self._at, self._lag = (self._at + 1) % 12, (self._lag + 1) % 12
            self._refresh = self._at
        return self._x[self._at].copy()


def modes(n: int, seed: int) -> NDArray[np.complex128]:
    """Unit complex Gaussian modes of an rfftn of n^3 voxels, (n, n, n//2+1); <|m|^2> = 1."""
    generators = Ranlxd1(_seeds(n, seed).ravel())
    drawn = np.empty((n, n, n), np.complex128)  # x, then the columns (y, z)
    for offset in range(n // 2):
        for x in (offset, n - 1 - offset):
            phase, amplitude = generators.uniform(), generators.uniform()
            mode = np.sqrt(-np.log(amplitude)) * np.exp(2j * np.pi * phase)
            drawn[x] = mode.reshape(n, n)
    half = drawn[:, :, : n // 2 + 1].copy()
    mirror = -np.arange(n) % n
    for z in (0, n // 2):
        partner = drawn[mirror][:, mirror, -z % n].conj()
        taken = np.zeros((n, n), bool)
        taken[n // 2 + 1 :] = True
        taken[:: n // 2, n // 2 + 1 :] = True
        half[:, :, z] = np.where(taken, partner, half[:, :, z])
        half[:: n // 2, :: n // 2, z] = 0
    return half


def _seeds(n: int, seed: int) -> NDArray[np.int64]:
    """The seeds of the columns, (n, n): the same for low modes whatever n."""
    generator = Ranlxd1(np.array([seed]))
    table = np.zeros((n, n), np.int64)
    for i in range(n // 2):
        for first, second in ((0, 0), (1, 0), (0, 1), (1, 1)):  # counted from the other end
            for turned in (False, True):
                for j in range(i + turned):
                    a, b = (j, i) if turned else (i, j)
                    place = n - 1 - a if first else a, n - 1 - b if second else b
                    table[place] = int(0x7FFFFFFF * generator.uniform()[0])
    return table
