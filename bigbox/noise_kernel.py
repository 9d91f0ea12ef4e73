"""The noise of `bigbox.noise` on a GPU in one kernel, with the same bits.

Launched without the fusing of products and sums. `TRITON_INTERPRET=1` runs it on a CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bigbox import noise

BLOCK = 512

_FIRST, _SECOND = (tl.constexpr(c) for c in noise.PHILOX_MULTIPLIERS)
_WEYL0, _WEYL1 = (tl.constexpr(c) for c in noise.PHILOX_WEYL)
_ROUNDS = tl.constexpr(noise.PHILOX_ROUNDS)
_A, _B, _C, _D = (tl.constexpr(c) for c in (noise._A, noise._B, noise._C, noise._D))
_SERIES = tl.constexpr(noise.ARTANH)
_LN2, _TAIL_SHIFT = tl.constexpr(noise._LN2), tl.constexpr(noise._TAIL_SHIFT)
_MANTISSA, _HALF = tl.constexpr(noise._MANTISSA), tl.constexpr(noise._SQRT_HALF_MANTISSA)


def normals(
    seed: int, words: Tensor, corners: Tensor, tile: int, box_shape: tuple[int, int, int]
) -> Tensor:
    """Return normals of tiles, float32 (B, tile, tile, tile).

    words: int64 (B,), the counter's last word of each tile (`noise.last_word`); corners: int64
    (B, 3), voxels. Both on the device, as captured graphs need it.
    """
    out = torch.empty((len(corners), *(tile,) * 3), device=corners.device)
    low, high = (
        part - 2**32 if part >= 2**31 else part for part in (seed & noise.MASK, seed >> 32)
    )
    _normals[len(corners), tile**3 // BLOCK](
        out, corners, words, low, high, *box_shape, TILE=tile, BLOCK=BLOCK, enable_fp_fusion=False
    )
    return out


# A value of 1 would else be no number of the kernel's, and each seed a kernel of its own.
@triton.jit(do_not_specialize=["low", "high", "nx", "ny", "nz"])
def _normals(out, corners, words, low, high, nx, ny, nz, TILE: tl.constexpr, BLOCK: tl.constexpr):
    b = tl.program_id(0)
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z = (tl.load(corners + 3 * b + 2) + v % TILE) % nz
    y = (tl.load(corners + 3 * b + 1) + (v // TILE) % TILE) % ny
    x = (tl.load(corners + 3 * b) + v // (TILE * TILE)) % nx
    c0 = (z // 4).to(tl.uint32)
    c1 = y.to(tl.uint32)
    c2 = x.to(tl.uint32)
    c3 = tl.zeros((BLOCK,), tl.uint32) + tl.load(words + b).to(tl.uint32)
    k0 = tl.zeros((BLOCK,), tl.uint32) + low.to(tl.uint32, bitcast=True)
    k1 = tl.zeros((BLOCK,), tl.uint32) + high.to(tl.uint32, bitcast=True)
    first = tl.full((BLOCK,), _FIRST, tl.uint32)
    second = tl.full((BLOCK,), _SECOND, tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        d0 = tl.umulhi(second, c2) ^ c1 ^ k0
        d2 = tl.umulhi(first, c0) ^ c3 ^ k1
        c1 = second * c2
        c3 = first * c0
        c0 = d0
        c2 = d2
        k0 += tl.full((BLOCK,), _WEYL0, tl.uint32)
        k1 += tl.full((BLOCK,), _WEYL1, tl.uint32)
    place = z % 4
    word = tl.where(place == 0, c0, tl.where(place == 1, c1, tl.where(place == 2, c2, c3)))
    tl.store(out + b.to(tl.int64) * TILE * TILE * TILE + v, _gaussian(word))


@triton.jit
def _f64(x, value: tl.constexpr):
    return tl.full(x.shape, value, tl.float64)


@triton.jit
def _polynomial(c: tl.constexpr, r, N: tl.constexpr):
    value = r * _f64(r, c[N - 1])
    for i in tl.static_range(N - 2):
        value += _f64(r, c[N - 2 - i])
        value *= r
    return value + _f64(r, c[0])


@triton.jit
def _minus_log(p):
    bits = p.to(tl.int64, bitcast=True)
    mantissa = bits & _MANTISSA
    high = (mantissa > _HALF).to(tl.int64)
    exponent = (bits >> 52) - 1023 + high
    mantissa = mantissa | ((1023 - high) << 52)
    m = mantissa.to(tl.float64, bitcast=True)
    one = _f64(p, 1.0)
    f = (m - one) / (m + one)
    series = _polynomial(_SERIES, f * f, 7)
    series *= f
    series *= _f64(p, 2.0)
    whole = exponent.to(tl.float64) * _f64(p, _LN2)
    whole += series
    return whole * _f64(p, -1.0)


@triton.jit
def _gaussian(word):
    """Apply AS 241 to (word + 1/2) / 2^32: the steps of `bigbox.noise.gaussian`, in float64."""
    q = word.to(tl.int64).to(tl.float64)
    q = q - _f64(q, 2147483647.5)
    q = q * _f64(q, 2.0**-32)
    r = q * q
    r = r * _f64(r, -1.0)
    r = r + _f64(r, 0.180625)
    value = _polynomial(_A, r, 4)
    value *= q
    value = value / _polynomial(_B, r, 4)
    r = tl.sqrt(_minus_log(_f64(q, 0.5) - tl.abs(q)))
    r = r - _f64(r, _TAIL_SHIFT)
    far = _polynomial(_C, r, 4)
    far = far / _polynomial(_D, r, 3)
    far = tl.where(q < 0.0, -far, far)
    return tl.where(tl.abs(q) > _f64(q, 0.425), far, value).to(tl.float32)
