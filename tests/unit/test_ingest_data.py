"""Ingest of real GADGET-4 outputs, where the repository has them beside it (../shared/data)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from bigbox.ingestion.hydrogen import hydrogen_density, of_gas
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.physics import ionisation
from bigbox.physics.cosmology import Cosmology
from bigbox.store.box import Box
from tests.reference import cic

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the simulation outputs are not here: {DATA}"
)


def test_64_cubed(tmp_path: Path) -> None:
    """dm against a float64 deposit in memory to 1e-6; the channels' mass; mean T_b and Ω_HI."""
    run = DATA / "gadget4_L6.25_N64"
    done = ingest_snapshot([run], tmp_path / "b.zarr", haloes=[run], hi_halo=True)
    assert (done.shape, done.box_size, done.redshift) == (
        (64,) * 3,
        pytest.approx((6.25,) * 3),
        0.0,
    )
    with h5py.File(run / "snapshot_000.hdf5") as file:
        exact = cic.density_contrast([file["PartType1/Coordinates"][:]], (64,) * 3, 6250.0)
    box = Box.open(tmp_path / "b.zarr")
    np.testing.assert_allclose(box.array("dm")[:], exact, rtol=1e-6, atol=1e-6)
    assert abs(done.mean - 1) < 1e-7
    for channel in done.halo:
        assert channel.mass_in_array == pytest.approx(channel.mass, rel=1e-6)
    assert [channel.haloes for channel in done.halo] == [24, 11, 1, 1]
    assert done.tb_mean == pytest.approx(done.tb_expected, rel=1e-5)
    assert 3e-4 < done.omega_hi < 3e-3
    # The tabulated spectrum's slope is not in the header; what is there is of another kind.
    assert "n_s" not in box.attributes["cosmology"]
    assert box.attributes["cosmology"]["sigma8"] == 0.8


def test_128_cubed_in_two_files(tmp_path: Path) -> None:
    run = DATA / "gadget4_L12.5_N128"
    done = ingest_snapshot([run], tmp_path / "b.zarr", grid=32, haloes=[run], halo_type="subhalo")
    assert done.particles == 128**3 and abs(done.mean - 1) < 1e-7
    found = open_catalogue([run / "groups_000"], "subhalo")
    assert sum(found.counts) == 2281 and len(found.files) == 2
    for channel in done.halo:
        assert channel.mass_in_array == pytest.approx(channel.mass, rel=1e-6)


def katz_electrons(
    n: NDArray, t: NDArray, electrons: NDArray, table: Path, redshift: float
) -> tuple[NDArray, NDArray]:
    """x_HI and n_e / n_H by the rates of Katz, Weinberg & Hernquist 1996 (tables 1 and 2)."""
    rows = np.loadtxt(table)
    at = np.log10(1 + redshift)
    h, he, hep = (10 ** np.interp(at, rows[:, 0], np.log10(rows[:, i] + 1e-99)) for i in (1, 2, 3))
    root, hot = np.sqrt(t), 1 + np.sqrt(t / 1e5)
    per_h = 1 / root * (t / 1e3) ** -0.2 / (1 + (t / 1e6) ** 0.7)
    he_recombines = 1.5e-10 * t**-0.6353
    he_recombines += 1.9e-3 * t**-1.5 * np.exp(-470000 / t) * (1 + 0.3 * np.exp(-94000 / t))
    n_e = np.maximum(electrons * n, 1e-30)
    from_h = 5.85e-11 * root * np.exp(-157809.1 / t) / hot + h / n_e
    from_he = 2.38e-11 * root * np.exp(-285335.4 / t) / hot + he / n_e
    from_hep = 5.68e-12 * root * np.exp(-631515.0 / t) / hot + hep / n_e
    neutral = 8.4e-11 * per_h / (8.4e-11 * per_h + from_h)
    twice = from_hep / (3.36e-10 * per_h)  # He++ over He+
    once = 0.24 / (4 * 0.76) / (1 + he_recombines / from_he + twice)
    return neutral, 1 - neutral + once * (1 + 2 * twice)


@pytest.mark.parametrize("number", ["004", "006"])
def test_hydrodynamics(number: str, tmp_path: Path) -> None:
    """T_b of the gas, and our equilibrium against the electrons that the code has found itself."""
    run = DATA / "gadget4_hydro_L3.125_N32"
    path = run / f"snapshot_{number}.hdf5"
    table = run / "TREECOOL.txt"
    done = ingest_snapshot([path], tmp_path / "b.zarr", grid=32, gas=True, uvb=table)
    assert done.tb_mean == pytest.approx(done.tb_expected, rel=1e-5)
    assert 3e-4 < done.omega_hi < 5e-3
    snapshot = open_snapshot([path])
    z = snapshot.header.redshift
    assert ionisation.background_rate(z) == pytest.approx(
        ionisation.background_rate(z, table), rel=0.03
    )
    gas = of_gas(snapshot, table=table)
    names = ("Density", "InternalEnergy", "ElectronAbundance", "StarFormationRate")
    with h5py.File(path) as file:
        data = {name: file[f"PartType0/{name}"][:] for name in names}
    quiet = data["StarFormationRate"] == 0
    n = data["Density"][quiet] * hydrogen_density(
        snapshot.header, Cosmology.from_header(snapshot.header.cosmology).h
    )
    electrons = data["ElectronAbundance"][quiet]
    heat = ionisation.temperature(data["InternalEnergy"][quiet] * 1e10, electrons)
    x = ionisation.neutral_fraction(n, heat, ionisation.background_rate(z, table), electrons)
    assert (1 - x < electrons + 0.02).all()  # helium gives the rest
    # With the code's own rates (Katz, Weinberg & Hernquist 1996) its electrons come out: units,
    # temperatures and the background are right. Ours are 16 % lower in thin gas, as published.
    theirs, code = katz_electrons(n, heat, electrons, table, z)
    np.testing.assert_allclose(code, electrons, atol=1e-5)
    assert 0.8 < np.median(x / theirs) < 0.9
    assert gas.points(next(gas.chunks()), 8)[1].sum(dtype=float) > 0
