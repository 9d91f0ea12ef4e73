"""The particle mesh: deposit, potential, forces, and what must be conserved or grow."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from bigbox.simulation.evolve import evolve
from bigbox.simulation.initial import linear_field, start, white_noise
from bigbox.simulation.linear import Growth
from bigbox.simulation.mesh import Mesh, WholeMesh, gradient, kind_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[Mesh, WholeMesh], ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Mesh]:
    """The mesh of a CPU, and that of a GPU on a CPU."""
    return request.param


def some(count: int, side: float, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0, side, (3, count)).astype(np.float32))


def test_deposit_agrees_with_a_loop_over_particles(kind: type[Mesh]) -> None:
    n, side = 6, 3.0
    x = some(200, side)
    x[:, 0] = side  # as remainder may leave it, by rounding
    expected = np.zeros((n, n, n))
    for place in x.numpy().T.astype(np.float64) * n / side:
        low = np.floor(place).astype(int)
        above = place - low
        for corner in product((0, 1), repeat=3):
            share = np.prod([f if c else 1 - f for f, c in zip(above, corner, strict=True)])
            expected[tuple((low + corner) % n)] += share
    found = kind(n, side, CPU).density(x).numpy() * x.shape[1] / n**3
    assert np.abs(found - expected).max() < 1e-4
    assert found.sum() == pytest.approx(x.shape[1], rel=1e-6)


def test_the_potential_solves_poissons_equation(kind: type[Mesh]) -> None:
    """Of the deposited density, mode by mode; and only its mean is lost."""
    n, side = 12, 5.0
    mesh = kind(n, side, CPU)
    x = some(500, side)
    density = mesh.density(x).numpy().astype(np.float64)
    potential = mesh.potential(x).numpy().astype(np.float64)
    f = 2 * np.pi / side * np.fft.fftfreq(n, 1 / n)
    k2 = f[:, None, None] ** 2 + f[:, None] ** 2 + f**2
    laplacian = np.fft.ifftn(-k2 * np.fft.fftn(potential)).real
    assert np.abs(laplacian - (density - 1)).max() < 1e-4 * np.abs(density).max()


@pytest.mark.parametrize("planes", [1, 3, 4, 10, 64])
def test_gradient_agrees_with_rolls(planes: int) -> None:
    n = 10
    field = torch.from_numpy(np.random.default_rng(0).standard_normal((n, n, n)).astype("f4"))
    out, one = torch.empty((2, n, n, n, 3))
    gradient(field, out, planes)
    gradient(field, one)
    assert torch.equal(out, one)
    f = field.numpy()
    for axis in range(3):
        near = np.roll(f, -1, axis) - np.roll(f, 1, axis)
        far = np.roll(f, -2, axis) - np.roll(f, 2, axis)
        assert np.abs(out[..., axis].numpy() - (8 * near - far) / 12).max() < 1e-6


def test_whole_arrays_agree_with_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: the two orders of the same sums."""
    n, side = 32, 10.0
    x = some(5000, side)
    x[:, :2000] = (x[:, :2000] / 30 + 9.9) % side
    monkeypatch.setattr(WholeMesh, "slab", 4 * n**2 * 5)
    monkeypatch.setattr(WholeMesh, "chunk", 999)
    planes, whole = Mesh(n, side, CPU), WholeMesh(n, side, CPU)
    p, q = torch.zeros_like(x), torch.zeros_like(x)
    planes.kick(p, x, 0.7)
    whole.kick(q, x, 0.7)
    assert (p - q).abs().max() < 1e-5 * p.abs().max()
    phi, other = planes.potential(x), whole.potential(x)
    assert (phi - other).abs().max() < 1e-5 * phi.abs().max()
    assert torch.allclose(planes.at(phi, x), whole.at(other, x), atol=1e-5 * float(phi.abs().max()))
    assert (kind_for(CPU), kind_for(torch.device("cuda"))) == (Mesh, WholeMesh)


def test_kicks_conserve_momentum(kind: type[Mesh]) -> None:
    side = 8.0
    x = some(3000, side)
    x[:, :1000] = (x[:, :1000] / 20 + 7.9) % side  # a clump across a corner
    p = torch.zeros_like(x)
    kind(32, side, CPU).kick(p, x, 1.0)
    assert (p.double().sum(dim=1).abs() < 1e-4 * p.double().abs().sum(dim=1)).all()


def test_two_particles_attract_as_one_over_r_squared(kind: type[Mesh]) -> None:
    """lap phi = delta: a particle alone gives g = M / (4 pi r^2), M = V / count; beyond 3 cells."""
    n, side = 48, 48.0
    mesh = kind(n, side, CPU)
    rng = np.random.default_rng(1)
    for apart in (3.0, 4.5, 6.0):
        towards = rng.standard_normal(3)
        towards /= np.linalg.norm(towards)
        first = rng.uniform(0, side, 3)
        x = torch.from_numpy(np.stack((first, first + apart * towards), axis=1)).float() % side
        p = torch.zeros_like(x)
        mesh.kick(p, x, 1.0)
        assert torch.allclose(p[:, 0], -p[:, 1], atol=1e-4 * float(p.norm()))
        pull = p[:, 0].numpy() @ towards
        assert pull == pytest.approx(side**3 / 2 / (4 * np.pi * apart**2), rel=0.06)


def test_a_plane_wave_follows_zeldovich(kind: type[Mesh]) -> None:
    """Exact until orbits cross; few steps do, with FastPM's factors. The rest is the mesh's."""
    n, side, growth = 32, 32.0, Growth(0.3)
    q = np.stack(np.meshgrid(*[np.arange(n) * side / n] * 3, indexing="ij")).reshape(3, -1)
    k = 2 * np.pi / side
    psi = np.zeros_like(q)
    psi[0] = np.sin(k * q[0]) / k * 0.3  # orbits would cross at D = 1 / 0.3

    def at(a: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = (q + growth.factor(a) * psi) % side
        return torch.from_numpy(x).float(), torch.from_numpy(growth.momentum(a) * psi).float()

    x, p = at(0.1)
    evolve(x, p, kind(2 * n, side, CPU), growth, np.linspace(0.1, 1.0, 9))
    expected_x, expected_p = at(1.0)
    off = (x - expected_x + side / 2).remainder(side) - side / 2
    largest = float(np.abs(psi).max())
    assert off.abs().max() < 0.03 * largest
    assert (p - expected_p).abs().max() < 0.04 * growth.momentum(1.0) * largest


def test_large_scales_grow_linearly(kind: type[Mesh]) -> None:
    n, side, growth = 32, 1600.0, Growth(0.3)
    k = np.geomspace(1e-4, 1.0, 100)
    spectrum = k, 2e4 * (k / 0.02) / (1 + (k / 0.02) ** 2) ** 1.5
    delta = linear_field(white_noise(n, 5, CPU), side, spectrum)
    modes = delta.clone()
    x, p = start(delta, side, growth, 0.02)
    mesh = kind(2 * n, side, CPU)
    evolve(x, p, mesh, growth, np.linspace(0.02, 0.5, 11))
    found = torch.fft.rfftn(mesh.density(x)) / 8
    low = list(product((-1, 0, 1), (-1, 0, 1), (0, 1)))
    low.remove((0, 0, 0))
    before = np.array([complex(modes[i]) for i in low])
    after = np.array([complex(found[i]) for i in low])
    common, own = (after * before.conj()).real.sum(), (np.abs(before) ** 2).sum()
    assert common / own == pytest.approx(growth.factor(0.5), rel=0.02)
    assert common / np.sqrt(own * (np.abs(after) ** 2).sum()) > 0.995


def test_the_mesh_commutes_with_a_shift_by_cells(kind: type[Mesh]) -> None:
    n, side = 16, 16.0
    x = some(400, side)
    p, q = torch.zeros_like(x), torch.zeros_like(x)
    mesh = kind(2 * n, side, CPU)
    mesh.kick(p, x, 1.0)
    mesh.kick(q, (x + torch.tensor([[3.0], [0.0], [15.0]])) % side, 1.0)
    assert torch.allclose(p, q, atol=1e-3 * float(p.abs().max()))
