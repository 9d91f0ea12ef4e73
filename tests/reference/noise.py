"""Philox in Python's unlimited integers (Salmon et al. 2011)."""

from __future__ import annotations

from bigbox.noise import MASK


def slow_philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """The paper's round in Python's unlimited integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]
