"""Triton kernels of the networks on a GPU, channels last: norm and SiLU, convolution, upsampling.

What each must give stands beside its caller in `bigbox.networks.fused`, in plain torch. Tensors are
(B, x, y, z, C) in memory. Sums are float32; nothing is added atomically, so that bits are the same
at every run. `TRITON_INTERPRET=1` runs the kernels on a CPU.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moments(x, bias, sums, voxels, C: tl.constexpr, CP: tl.constexpr, SPLITS: tl.constexpr,
            BLOCK: tl.constexpr, ROUNDS: tl.constexpr, HAS_BIAS: tl.constexpr):  # fmt: skip
    """Sum x + bias and its square over a share of the voxels, ROUNDS blocks: (B, SPLITS, 2, C)."""
    b = tl.program_id(0)
    split = tl.program_id(1)
    c = tl.arange(0, CP)
    shift = tl.zeros((CP,), tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
    first = split * ROUNDS * BLOCK
    total = tl.zeros((BLOCK, CP), tl.float32)
    square = tl.zeros((BLOCK, CP), tl.float32)
    base = x + b.to(tl.int64) * voxels * C
    for i in range(ROUNDS):
        v = first + i * BLOCK + tl.arange(0, BLOCK)
        inside = (v < voxels)[:, None] & (c < C)[None, :]
        values = tl.load(base + v[:, None] * C + c[None, :], mask=inside, other=0.0)
        values = tl.where(inside, values.to(tl.float32) + shift[None, :], 0.0)
        total += values
        square += values * values
    at = sums + (b * SPLITS + split) * 2 * C + c
    tl.store(at, tl.sum(total, 0), mask=c < C)
    tl.store(at + C, tl.sum(square, 0), mask=c < C)


@triton.jit
def normalise(x, bias, sums, weight, offset, modulation, out, voxels, each, eps, count,
              C: tl.constexpr, CP: tl.constexpr, SHARE: tl.constexpr, SPLITS: tl.constexpr,
              BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr, MODULATED: tl.constexpr,
              SILU: tl.constexpr):  # fmt: skip
    """Normalise x + bias in groups of SHARE channels, then scale, shift and SiLU.

    each: 2 C where every tile has a modulation of its own, else 0; count: voxels of a group.
    """
    b = tl.program_id(0)
    c = tl.arange(0, CP)
    real = c < C
    s = tl.arange(0, SPLITS)
    at = sums + (b * SPLITS + s[:, None]) * 2 * C + c[None, :]
    total = tl.sum(tl.load(at, mask=real[None, :], other=0.0), 0)
    square = tl.sum(tl.load(at + C, mask=real[None, :], other=0.0), 0)
    total = tl.sum(total.reshape(CP // SHARE, SHARE), 1)
    square = tl.sum(square.reshape(CP // SHARE, SHARE), 1)
    mean = total / count
    spread = tl.maximum(square / count - mean * mean, 0.0)
    rate = 1.0 / tl.sqrt(spread + eps)
    mean = tl.broadcast_to(mean[:, None], (CP // SHARE, SHARE)).reshape(CP)
    rate = tl.broadcast_to(rate[:, None], (CP // SHARE, SHARE)).reshape(CP)
    scale = tl.load(weight + c, mask=real, other=0.0).to(tl.float32)
    shift = tl.load(offset + c, mask=real, other=0.0).to(tl.float32)
    if MODULATED:
        more = 1.0 + tl.load(modulation + b * each + c, mask=real, other=0.0)
        scale = scale * more
        shift = shift * more + tl.load(modulation + b * each + C + c, mask=real, other=0.0)
    scale = scale * rate
    if HAS_BIAS:
        mean = mean - tl.load(bias + c, mask=real, other=0.0).to(tl.float32)
    shift = shift - mean * scale
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (v < voxels)[:, None] & real[None, :]
    place = b.to(tl.int64) * voxels * C + v[:, None] * C + c[None, :]
    y = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add(x, bias, residual, out, size, C: tl.constexpr, BLOCK: tl.constexpr):
    """Add x, a bias of its channels, and a residual."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + at % C, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def upsample(x, out, size, N: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    """Interpolate (B, N, N, N, C) to (B, 2N, 2N, 2N, C); size: elements of the result."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    c = at % C
    v = at // C
    k = v % (2 * N)
    j = (v // (2 * N)) % (2 * N)
    i = (v // (4 * N * N)) % (2 * N)
    b = v // (8 * N * N * N)
    # Of fine voxel i: coarse i // 2, and the neighbour below (even) or above (odd).
    i0, j0, k0 = i // 2, j // 2, k // 2
    i1 = tl.minimum(tl.maximum(i0 + 2 * (i % 2) - 1, 0), N - 1)
    j1 = tl.minimum(tl.maximum(j0 + 2 * (j % 2) - 1, 0), N - 1)
    k1 = tl.minimum(tl.maximum(k0 + 2 * (k % 2) - 1, 0), N - 1)
    result = tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(8):
        p = i1 if corner & 4 else i0
        q = j1 if corner & 2 else j0
        r = k1 if corner & 1 else k0
        place = (((b * N + p) * N + q) * N + r) * C + c
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        value *= 0.25 if corner & 4 else 0.75
        value *= 0.25 if corner & 2 else 0.75
        value *= 0.25 if corner & 1 else 0.75
        result += value
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def convolve(x, w, bias, residual, out, X, Y, Z, GROUP_OUT, OUT,
             CIN: tl.constexpr, BX: tl.constexpr, BY: tl.constexpr, BZ: tl.constexpr,
             BN: tl.constexpr, BK: tl.constexpr, PER_GROUP: tl.constexpr,
             HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr):  # fmt: skip
    """Convolve with 3³ voxels, zeros beyond the edges: an implicit matrix product.

    A program makes BX x BY x BZ voxels and BN channels of one group. The copy engine brings the
    voxels of one tap and BK channels, and the zeros beyond the edges.

    x: descriptor of (B, X, Y, Z, groups CIN); w: descriptor of (27 CIN, groups GROUP_OUT), CIN
    filled up with zeros to a multiple of BK, GROUP_OUT to one of BN; out: (B, X, Y, Z, OUT).
    """
    BM: tl.constexpr = BX * BY * BZ
    CHUNKS: tl.constexpr = (CIN + BK - 1) // BK
    column = tl.program_id(0)
    tile = tl.program_id(1)
    group = column // PER_GROUP
    z0 = (tile % (Z // BZ)) * BZ
    tile = tile // (Z // BZ)
    y0 = (tile % (Y // BY)) * BY
    tile = tile // (Y // BY)
    x0 = (tile % (X // BX)) * BX
    b = tile // (X // BX)
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(27 * CHUNKS):
        tap = k // CHUNKS
        c = group * CIN + (k % CHUNKS) * BK
        here = [b, x0 + tap // 9 - 1, y0 + (tap // 3) % 3 - 1, z0 + tap % 3 - 1, c]
        total = tl.dot(x.load(here).reshape(BM, BK), w.load([k * BK, column * BN]), total)
    n = (column % PER_GROUP) * BN + tl.arange(0, BN)
    real = n < GROUP_OUT
    n = group * GROUP_OUT + n
    if HAS_BIAS:
        total += tl.load(bias + n, mask=real, other=0.0).to(tl.float32)[None, :]
    m = tl.arange(0, BM)
    row = ((b * X + x0 + m // (BY * BZ)) * Y + y0 + (m // BZ) % BY) * Z + z0 + m % BZ
    place = row.to(tl.int64)[:, None] * OUT + n[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask=real[None, :], other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=real[None, :])
