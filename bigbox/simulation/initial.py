"""Initial conditions: a Gaussian field and its second-order displacements (2LPT) on a grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bigbox.simulation.linear import Growth, Spectrum


def wave_numbers(n: int, side: float, device: torch.device) -> list[Tensor]:
    """Return k along x, y, z of an rfftn of n^3 voxels: shapes (n,1,1), (1,n,1), (1,1,n//2+1)."""
    unit = 2 * np.pi * n / side
    full = torch.fft.fftfreq(n, device=device) * unit
    half = torch.fft.rfftfreq(n, device=device) * unit
    return [full.view(-1, 1, 1), full.view(1, -1, 1), half.view(1, 1, -1)]


def white_noise(n: int, seed: int, device: torch.device) -> Tensor:
    """Return modes of unit white noise on n^3 voxels, complex64 (n, n, n//2+1), <|m|^2> = n^3.

    A pure function of n and the seed, whatever the device (Philox, numpy's own normal numbers).
    """
    generator = np.random.Generator(np.random.Philox(seed))
    noise = generator.standard_normal((n, n, n), dtype=np.float32)
    modes: Tensor = torch.fft.rfftn(torch.from_numpy(noise).to(device))
    return modes


def linear_field(noise: Tensor, side: float, spectrum: Spectrum) -> Tensor:
    """Return delta(k) at z = 0 of white noise, in place: its modes times sqrt(P / voxel).

    The spectrum is k in h/Mpc and P in (Mpc/h)^3, interpolated in their logarithms.
    """
    n = len(noise)
    k = wave_numbers(n, side, noise.device)
    log_k, log_p = np.log(spectrum[0]), np.log(spectrum[1])
    yz = k[1][0] ** 2 + k[2][0] ** 2
    for i in range(n):  # plane by plane: the working memory stays small
        k2 = (k[0][i] ** 2 + yz).cpu().double().numpy()
        k2[k2 == 0] = 1.0
        power = np.exp(np.interp(0.5 * np.log(k2), log_k, log_p))
        noise[i] *= torch.from_numpy(np.sqrt(power * (n / side) ** 3)).float().to(noise.device)
    noise[0, 0, 0] = 0.0
    return noise


def displacements(delta: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Return first and second order displacements of the grid points, float32 (3, n, n, n).

    x = q + D psi1 + (3/7) D^2 psi2 in an EdS past (Bouchet et al. 1995):
    psi1 = -grad phi1 with lap phi1 = delta, and psi2 = -grad phi2 with
    lap phi2 = sum_{i<j} (phi1_ii phi1_jj - phi1_ij^2).
    """
    n = len(delta)
    k = wave_numbers(n, side, delta.device)
    # The gradient of the Nyquist mode is not real: it is left out, as in every spectral derivative.
    odd = [torch.where(x.abs() >= 0.9999 * np.pi * n / side, 0.0, x) for x in k]

    def inverse_laplacian(modes: Tensor) -> Tensor:
        k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
        k2[0, 0, 0] = 1.0
        return modes / k2

    def real(modes: Tensor) -> Tensor:
        field: Tensor = torch.fft.irfftn(modes, s=(n, n, n))
        return field

    def second(i: int, j: int) -> Tensor:
        return real(potential * (k[i] * k[i] if i == j else odd[i] * odd[j]))

    def gradient(modes: Tensor) -> Tensor:
        out = torch.empty((3, n, n, n), device=delta.device)
        for i in range(3):
            out[i] = real(modes * (1j * odd[i]))
        return out

    potential = inverse_laplacian(delta)
    first = gradient(potential)
    xx, yy = second(0, 0), second(1, 1)
    source = xx * yy
    source += second(2, 2) * (xx + yy)
    del xx, yy
    for i, j in ((0, 1), (0, 2), (1, 2)):
        source -= second(i, j) ** 2
    modes = torch.fft.rfftn(source)
    del source
    return first, gradient(inverse_laplacian(modes))


def start(delta: Tensor, side: float, growth: Growth, a: float) -> tuple[Tensor, Tensor]:
    """Return positions in Mpc/h and momenta a^2 dx/dt / H0 at scale factor a, float32 (3, n^3).

    Particle (i, j, k) of the grid is column (i n + j) n + k.
    """
    n = len(delta)
    first, second = displacements(delta, side)
    d1, p1 = growth.factor(a), growth.momentum(a)
    om = growth.omega(a)
    d2 = 3 / 7 * d1**2 * om ** (-1 / 143)  # Bouchet et al. 1995
    p2 = d2 * 2 * om ** (6 / 11) * a**2 * growth.expansion(a)
    line = torch.arange(n, device=delta.device, dtype=torch.float32) * (side / n)
    positions, momenta = torch.empty_like(first), torch.empty_like(first)
    for i, place in enumerate(torch.meshgrid(line, line, line, indexing="ij")):
        positions[i] = place + d1 * first[i] + d2 * second[i]
        momenta[i] = p1 * first[i] + p2 * second[i]
    return positions.view(3, -1).remainder_(side), momenta.view(3, -1)
