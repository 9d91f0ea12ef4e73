"""Gaussian noise that is a pure function of (seed, realization, purpose, step, global voxel).

    key      seed                                                      2 words of 32 bits
    counter  (z // 4,  y,  x,  realization << 16 | purpose << 12 | step)       4 words
                |
                +-- one call of Philox4x32-10 gives four words: the voxels 4(z//4) .. 4(z//4) + 3

Philox4x32-10 is the counter-based generator of Salmon et al. 2011 (Random123). A word i becomes the
normal of u = (i + 1/2) / 2^32 through the inverse of the Gaussian distribution function (Wichura
1988, algorithm AS 241, PPND7, relative accuracy 1e-7), so that |normal| <= 6.34. Nothing here calls
a library's logarithm, and no multiplication is fused with an addition: numpy, torch on a CPU and
torch on a GPU run the same operations in the same order and give the same bits.
"""

from __future__ import annotations

from enum import IntEnum
from importlib import import_module
from typing import Any

import numpy as np

from bigbox.errors import BadInput

Array = np.ndarray

MASK = 0xFFFFFFFF
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10

MAX_SEED = 2**64
MAX_REALIZATION = 2**16
MAX_STEP = 2**12
MAX_VOXEL = 2**32

# AS 241, PPND7: centre |u - 1/2| <= 0.425, then the tail in r = sqrt(-log(min(u, 1 - u))). The
# third range (r > 5) is never reached: the smallest u is 2^-33, where r = 4.78.
_CENTRE = 0.425
_CENTRE_SQUARED = 0.180625
_A = (3.3871327179e0, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1)
_B = (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1)
_TAIL_SHIFT = 1.6
_C = (1.4234372777e0, 2.7568153900e0, 1.3067284816e0, 1.7023821103e-1)
_D = (1.0, 7.3700164250e-1, 1.2021132975e-1)
ARTANH = (1.0, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13)
_LN2 = 0.6931471805599453
_MANTISSA = (1 << 52) - 1
_SQRT_HALF_MANTISSA = 0x6A09E667F3BCD  # of sqrt(2): above it a mantissa is halved


class Purpose(IntEnum):
    """What a noise field is drawn for; fields of different purposes are independent."""

    INITIAL = 0  # the pure noise that denoising starts from
    ANCESTRAL = 1  # the fresh noise of one ancestral step (eq. 14)
    KNOWN = 2  # the fixed noise of the overwritten known voxels (section 2.4, Algorithm 1)
    PAINT = 4  # the noise of the painter that has no network


def check_key(seed: int, realization: int) -> None:
    """Raise BadInput unless the seed and the realization fit the generator's key and counter."""
    if not 0 <= seed < MAX_SEED:
        raise BadInput(f"seed: {seed} is outside 0 .. 2^64 - 1; choose another seed")
    if not 0 <= realization < MAX_REALIZATION:
        raise BadInput(
            f"realization: {realization} is outside 0 .. {MAX_REALIZATION - 1}; change the seed"
        )


def last_word(realization: int, purpose: int, step: int) -> int:
    """Return the counter's last word."""
    return realization << 16 | int(purpose) << 12 | step


def normal(
    seed: int,
    realization: int,
    purpose: int,
    step: int,
    origin: Any,
    shape: tuple[int, int, int],
    box_shape: tuple[int, int, int],
    device: Any = None,
) -> Any:
    """Return standard normals of the voxels origin .. origin + shape of a box, wrapped.

    origin: int (3,) or (B, 3) voxel corners. Float32 of shape `shape` or (B, *shape): numpy if
    device is None, else a torch tensor on that device, with the same bits. Raises BadInput where a
    number does not fit its place in the counter.
    """
    check_key(seed, realization)
    if not 0 <= purpose < 16:
        raise BadInput(f"noise purpose: {purpose} is outside 0 .. 15")
    if not 0 <= step < MAX_STEP:
        raise BadInput(f"noise step: {step} is outside 0 .. {MAX_STEP - 1}; use fewer steps")
    if any(not 0 < n <= MAX_VOXEL for n in box_shape):
        raise BadInput(f"box shape: {box_shape} is outside 1 .. 2^32 voxels on an axis")
    corner = np.asarray(origin, dtype=np.int64)
    corners = np.atleast_2d(corner)
    word = last_word(realization, purpose, step)
    x, y, z = ((corners[:, a, None] + np.arange(shape[a])) % box_shape[a] for a in range(3))
    blocks, index = _blocks(z)
    if device is not None and not str(device).startswith("cpu"):
        result = _normal_torch(seed, word, x, y, blocks, index, device)
    else:
        result = np.empty((len(corners), *shape), np.float32)
        for b, first in enumerate(index[:, 0]):  # one tile at a time: arrays stay in the cache
            fields = _fields(seed, word, x[b : b + 1], y[b : b + 1], blocks[b : b + 1])[0]
            wraps = index[b, -1] - first != shape[2] - 1
            where = index[b] if wraps else slice(first, first + shape[2])
            result[b] = fields[:, :, where]
        if device is not None:
            result = import_module("torch").from_numpy(result)
    return result if corner.ndim == 2 else result[0]


def _blocks(z: Array) -> tuple[Array, Array]:
    """Return blocks of four voxels that cover wrapped coordinates z (B, n), and each voxel's place.

    A block is named again where the coordinates wrap, so that a box whose length is no multiple of
    four needs no special case. Returns blocks (B, m) and the index (B, n) into the 4 m voxels.
    """
    block = z // 4
    new = np.ones(z.shape, bool)
    new[:, 1:] = (block[:, 1:] != block[:, :-1]) | (z[:, 1:] < z[:, :-1])
    place = np.cumsum(new, axis=1) - 1
    blocks = np.zeros((len(z), int(place.max()) + 1), np.int64)
    np.put_along_axis(blocks, place, block, axis=1)
    return blocks, place * 4 + z % 4


def _normal_torch(
    seed: int, word: int, x: Array, y: Array, blocks: Array, index: Array, device: Any
) -> Any:
    """Return the same on a torch device, all tiles at once, float32 (B, nx, ny, nz)."""
    import torch

    xs, ys, zs, where = (torch.from_numpy(a).to(device) for a in (x, y, blocks, index))
    fields = _fields(seed, word, xs, ys, zs)
    where = where[:, None, None, :].expand(*fields.shape[:3], where.shape[1])
    return torch.gather(fields, 3, where).float()


def _fields(seed: int, word: int, x: Any, y: Any, blocks: Any) -> Any:
    """Return normals of whole blocks, float64 (B, nx, ny, 4 m); x, y, blocks: int64 (B, n)."""
    # The axes stay apart until the rounds mix them: broadcasting makes the first two rounds cheap.
    counter = (
        blocks[:, None, None, :],
        y[:, None, :, None],
        x[:, :, None, None],
        (blocks * 0 + word)[:, None, None, :],
    )
    words = philox((seed & MASK, seed >> 32), counter)
    voxels = _library(x).stack(words, -1)
    return gaussian(voxels.reshape(*voxels.shape[:3], -1))


def _library(array: Any) -> Any:
    """Return the module of an array's type: numpy, or torch."""
    return import_module(type(array).__module__)


def philox(key: tuple[int, int], counter: tuple[Any, Any, Any, Any]) -> tuple[Any, ...]:
    """Return four words for each counter, by Philox4x32-10 (Salmon et al. 2011).

    counter: four int64 arrays (numpy or torch) of 32-bit words, broadcast against each other.
    Returns four int64 arrays of 32-bit words. A product wraps in 64 bits, and the mask after the
    shift takes away the sign, so that signed arithmetic gives the unsigned high word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        p0 = c0 * PHILOX_MULTIPLIERS[0]
        p1 = c2 * PHILOX_MULTIPLIERS[1]
        c0 = p1 >> 32
        c0 &= MASK
        c0 = c0 ^ (c1 ^ k0)
        c2 = p0 >> 32
        c2 &= MASK
        c2 = c2 ^ (c3 ^ k1)
        p1 &= MASK
        p0 &= MASK
        c1, c3 = p1, p0
        k0 = (k0 + PHILOX_WEYL[0]) & MASK
        k1 = (k1 + PHILOX_WEYL[1]) & MASK
    return c0, c1, c2, c3


def gaussian(words: Any) -> Any:
    """Return normals, float64, of int64 words i < 2^32: AS 241 of (i + 1/2) / 2^32."""
    library = _library(words)
    q = library.asarray(words, dtype=library.float64)
    q -= 2147483647.5
    q *= 2.0**-32  # u - 1/2, exactly
    r = q * q
    r *= -1.0
    r += _CENTRE_SQUARED
    value = _polynomial(_A, r)
    value *= q
    value /= _polynomial(_B, r)
    value, q = value.reshape(-1), q.reshape(-1)
    tail = abs(q) > _CENTRE
    outer = q[tail]
    r = library.sqrt(_minus_log(0.5 - abs(outer)))
    r -= _TAIL_SHIFT
    far = _polynomial(_C, r)
    far /= _polynomial(_D, r)
    far *= 1.0 - 2.0 * (outer < 0.0)
    value[tail] = far
    return value.reshape(words.shape)


def _polynomial(coefficients: tuple[float, ...], r: Any) -> Any:
    """Apply Horner's rule, each product and each sum rounded on its own."""
    value = r * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        value += c
        value *= r
    value += coefficients[0]
    return value


def _minus_log(p: Any) -> Any:
    """Return -log(p) of normal float64 p in (0, 1), to 1e-10, from + - * / and p's bits alone.

    p = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh(f), f = (m - 1) / (m + 1).
    """
    library = _library(p)
    bits = p.view(library.int64)
    mantissa = bits & _MANTISSA
    high = (mantissa > _SQRT_HALF_MANTISSA) * 1  # int64 in numpy and in torch
    exponent = (bits >> 52) - 1023 + high
    mantissa |= (1023 - high) << 52
    m = mantissa.view(library.float64)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    series = _polynomial(ARTANH, s)
    series *= f
    series *= 2.0
    whole = library.asarray(exponent, dtype=library.float64)
    whole *= _LN2
    whole += series
    whole *= -1.0
    return whole
