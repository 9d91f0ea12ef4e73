"""Gaussian smoothing: unit sum, the transform of a Gaussian, and blocks that change no bit."""

from __future__ import annotations

import numpy as np
import pytest

from bigbox.errors import BadInput
from bigbox.physics.smoothing import gaussian_kernel, smooth, smooth_periodic

VOXEL = 25 / 256


def test_kernel() -> None:
    kernel = gaussian_kernel(0.2, VOXEL)
    assert len(kernel) == 2 * 9 + 1
    assert kernel.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal(kernel, kernel[::-1])
    assert kernel[10] / kernel[9] == pytest.approx(np.exp(-0.5 * (VOXEL / 0.2) ** 2))
    assert gaussian_kernel(0.0, VOXEL).tolist() == [1.0]
    assert len(gaussian_kernel(0.2, 0.2)) == 2 * 4 + 1
    for radius, voxel in ((-1.0, 1.0), (np.nan, 1.0), (1.0, 0.0)):
        with pytest.raises(BadInput):
            gaussian_kernel(radius, voxel)


def test_agrees_with_the_transform_of_a_gaussian() -> None:
    """A periodic field times exp(-k²R²/2), to what the kernel leaves out beyond 4 R."""
    field = np.random.default_rng(0).gamma(0.3, 2, (32, 32, 32))
    k = 2 * np.pi * np.fft.fftfreq(32, VOXEL)
    damp = np.exp(-0.5 * 0.04 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    want = np.fft.ifftn(np.fft.fftn(field) * damp).real
    np.testing.assert_allclose(smooth_periodic(field, gaussian_kernel(0.2, VOXEL)), want, rtol=2e-3)


def test_blocks_give_the_bits_of_the_whole() -> None:
    field = np.random.default_rng(1).lognormal(0, 3, (2, 30, 25, 28)).astype(np.float32)
    kernel = gaussian_kernel(0.15, VOXEL)
    m = len(kernel) // 2
    whole = smooth_periodic(field, kernel)
    assert whole.dtype == np.float32 and whole.shape == field.shape
    assert whole.sum(dtype=float) == pytest.approx(field.sum(dtype=float), rel=1e-6)
    for low, high in (
        ((0, 0, 0), (30, 25, 28)),
        ((3, 20, 11), (5, 25, 12)),
        ((29, 0, 5), (30, 9, 28)),
    ):
        index = [
            np.arange(a - m, b + m) % n for a, b, n in zip(low, high, (30, 25, 28), strict=True)
        ]
        part = smooth(field[np.ix_(range(2), *index)], kernel)
        cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert part.tobytes() == whole[(slice(None), *cut)].tobytes()


def test_no_radius_is_a_copy() -> None:
    field = np.ones((3, 3, 3), np.float32)
    out = smooth(field, gaussian_kernel(0.0, 1.0))
    assert out is not field and np.array_equal(out, field)
    with pytest.raises(BadInput, match="less than the kernel's 3"):
        smooth(np.ones((2, 5, 5), np.float32), np.ones(3) / 3)
