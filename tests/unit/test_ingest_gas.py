"""T_b of gas: equation 11 by hand, whatever way the neutral fraction is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.hydrogen import of_gas
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.ingestion.sources import open_snapshot
from bigbox.physics import ionisation
from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.store.box import Box
from tests import snapshots
from tests.reference import cic
from tests.snapshots import BOX, H

COUNT, GRID = 2000, 20
DARK_SHARE = 0.251 / 0.3


def gas(seed: int = 4, **more: Any) -> dict[str, NDArray]:
    """Gas in code units; every tenth particle forms stars."""
    rng = np.random.default_rng(seed)
    return {
        "Coordinates": snapshots.clustered(COUNT, seed),
        "Masses": rng.uniform(0.5e-3, 2e-3, COUNT).astype(np.float32),
        "Density": 10 ** rng.uniform(-9, -4, COUNT).astype(np.float32),
        "InternalEnergy": 10 ** rng.uniform(1.5, 4, COUNT).astype(np.float32),
        "ElectronAbundance": rng.uniform(0, 1.16, COUNT).astype(np.float32),
        "StarFormationRate": (np.arange(COUNT) % 10 == 0).astype(np.float32),
        **more,
    }


def run(folder: Path, content: dict[str, NDArray], **options: Any) -> list[Path]:
    return snapshots.gadget(
        folder, snapshots.clustered(COUNT), gas=content, share=DARK_SHARE, **options
    )


def expected(content: dict[str, NDArray], neutral: NDArray, z: float) -> NDArray:
    """All in memory, float64: 189 h (1+z)²/E ρ_HI/ρ_c of m X_H x_HI, CIC, smoothed."""
    neutral = np.where(content["StarFormationRate"] > 0, 1, neutral)
    hi = content["Masses"].astype(float) * 1e10 * 0.76 * neutral
    grid = np.zeros((GRID,) * 3)
    cic.deposit(grid, content["Coordinates"].astype(float), BOX, hi)
    rho = grid / (BOX / GRID) ** 3
    e = np.sqrt(0.3 * (1 + z) ** 3 + 0.7)
    tb = 189 * H * (1 + z) ** 2 / e * rho / CRITICAL_DENSITY
    return smooth_periodic(tb, gaussian_kernel(0.2, BOX / GRID))


def check(folder: Path, paths: list[Path], want: NDArray, label: str, **options: Any) -> None:
    done = ingest_snapshot(paths, folder / "b.zarr", grid=GRID, gas=True, **options)
    box = Box.open(folder / "b.zarr")
    tb = np.asarray(box.require("tb")[:])
    np.testing.assert_allclose(tb, want, rtol=1e-4, atol=1e-5 * want.max())
    assert label in str(box.array("tb").attrs["source"]) and done.tb_source.startswith("gas: ")
    assert done.tb_mean == pytest.approx(want.mean(), rel=1e-5)
    assert done.tb_expected == pytest.approx(done.tb_mean, rel=1e-5)


@pytest.mark.parametrize("files", [1, 3])
def test_the_snapshots_own_neutral_fraction(files: int, tmp_path: Path) -> None:
    neutral = np.random.default_rng(0).uniform(0, 1, COUNT).astype(np.float32)
    content = gas(NeutralHydrogenAbundance=neutral)
    paths = run(tmp_path, content, style="arepo", redshift=0.5, files=files)
    label = "the snapshot's NeutralHydrogenAbundance, star-forming gas neutral"
    check(tmp_path, paths, expected(content, neutral, 0.5), label)
    with pytest.raises(BadInput, match="has its own neutral fraction"):
        of_gas(open_snapshot(paths), self_shielding=True)


def physical(content: dict[str, NDArray], z: float) -> tuple[NDArray, NDArray]:
    """n_H in cm⁻³ and T in K, by hand from kpc/h, 1e10 M_sun/h and km/s."""
    density = content["Density"].astype(float) * 1.989e43 / 3.085678e21**3 * H**2 * (1 + z) ** 3
    mean = 4 / (1 + 3 * 0.76 + 4 * 0.76 * content["ElectronAbundance"].astype(float))
    heat = content["InternalEnergy"] * 1e10 * 2 / 3 * mean * 1.67262192e-24 / 1.380649e-16
    return density * 0.76 / 1.67262192e-24, heat


def test_ionisation_equilibrium_with_the_snapshots_electrons(tmp_path: Path) -> None:
    content = gas()
    n, heat = physical(content, 1.0)
    rate = ionisation.background_rate(1.0)
    neutral = ionisation.neutral_fraction(n, heat, rate, content["ElectronAbundance"])
    paths = run(tmp_path, content, redshift=1.0)
    check(tmp_path, paths, expected(content, neutral, 1.0), "ionisation equilibrium at 3.3")


def test_self_shielding_and_another_background(tmp_path: Path) -> None:
    content = gas()
    table = tmp_path / "TREECOOL"
    table.write_text("0.0 1e-13 0 0 0 0 0\n1.0 1e-13 0 0 0 0 0\n")
    n, heat = physical(content, 0.0)
    neutral = ionisation.neutral_fraction(n, heat, ionisation.shielded(1e-13, n, heat, 0.0))
    label = "1e-13 per second (TREECOOL), with self-shielding"
    want = expected(content, neutral, 0.0)
    check(tmp_path, run(tmp_path, content), want, label, uvb=table, self_shielding=True)


def test_swift_gas(tmp_path: Path) -> None:
    """h-free units; a negative rate is the time of the last stars, not of any now."""
    rng = np.random.default_rng(9)
    content = {
        "Coordinates": snapshots.clustered(COUNT, 4),
        "Masses": rng.uniform(1e-3, 2e-3, COUNT).astype(np.float32),
        "Densities": 10 ** rng.uniform(0, 5, COUNT).astype(np.float32),
        "Temperatures": 10 ** rng.uniform(3, 6, COUNT).astype(np.float32),
        "StarFormationRates": np.where(np.arange(COUNT) % 10, -0.5, 1).astype(np.float32),
    }
    path = snapshots.swift(tmp_path, snapshots.clustered(COUNT), redshift=1.0, gas=content)
    n = content["Densities"].astype(float) * 1.98841e43 / 3.08567758e24**3 * 8
    n *= 0.76 / 1.67262192e-24
    rate = ionisation.background_rate(1.0)
    neutral = ionisation.neutral_fraction(n, content["Temperatures"], rate)
    as_gadget = {
        "Coordinates": content["Coordinates"],
        "Masses": content["Masses"] * H,
        "StarFormationRate": content["StarFormationRates"],
    }
    check(tmp_path, [path], expected(as_gadget, neutral, 1.0), "no self-shielding")


def test_gas_of_the_twin_run(tmp_path: Path) -> None:
    """dm of the N-body run, as it is alone; tb of the gas of the other."""
    neutral = np.full(COUNT, 0.25, np.float32)
    content = gas(NeutralHydrogenAbundance=neutral)
    dark = snapshots.gadget(tmp_path / "dark", snapshots.clustered(COUNT), more={"Seed": 3})
    hydro = run(tmp_path / "hydro", content, more={"Seed": 3})
    ingest_snapshot(dark, tmp_path / "alone.zarr", grid=GRID)
    ingest_snapshot(dark, tmp_path / "both.zarr", grid=GRID, gas=hydro)
    both = Box.open(tmp_path / "both.zarr")
    alone = np.asarray(Box.open(tmp_path / "alone.zarr").array("dm")[:])
    assert np.asarray(both.array("dm")[:]).tobytes() == alone.tobytes()
    want = expected(content, neutral, 0.0)
    np.testing.assert_allclose(both.array("tb")[:], want, rtol=1e-4, atol=1e-5 * want.max())
    other = run(tmp_path / "other", content, more={"Seed": 4})
    with pytest.raises(BadInput, match="4, is another .3. .*: the gas of another simulation"):
        ingest_snapshot(dark, tmp_path / "c.zarr", grid=GRID, gas=other)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"Density": None}, "has neither NeutralHydrogenAbundance nor Density"),
        ({"InternalEnergy": None}, "nor InternalEnergy"),
        ({"Masses": None}, "PartType0 has no Masses"),
        ({"Density": np.nan}, "gas particle 1500 has Density nan"),
        ({"Masses": -1.0}, "particle 1500 has mass -1, which is no mass"),
        ({"NeutralHydrogenAbundance": 1.5}, "has NeutralHydrogenAbundance 1.5, outside of 0 .. 1"),
        ({"Coordinates": np.nan}, "PartType0: particle 1500 is at .nan, nan, nan., outside"),
    ],
)
def test_bad_gas_is_one_line_and_leaves_nothing(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    content = gas()
    for name, value in change.items():
        if value is None:
            del content[name]
        else:
            content.setdefault(name, np.full(COUNT, 0.5, np.float32))[1500] = value
    paths = run(tmp_path / "run", content)
    with pytest.raises(BadInput, match=match) as caught:
        ingest_snapshot(paths, tmp_path / "b.zarr", grid=GRID, gas=True)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_no_gas(tmp_path: Path) -> None:
    paths = snapshots.gadget(tmp_path, snapshots.clustered(COUNT))
    with pytest.raises(BadInput, match="has no gas .PartType0.; give --gas-from"):
        ingest_snapshot(paths, tmp_path / "b.zarr", grid=GRID, gas=True)


def test_gas_without_star_formation(tmp_path: Path) -> None:
    content = gas()
    del content["StarFormationRate"]
    snapshot = open_snapshot(run(tmp_path, content))
    found = of_gas(snapshot)
    assert "no star formation in the snapshot" in found.label
    _, hi = found.points(next(found.chunks()), GRID)
    assert (hi <= content["Masses"] * 0.76 * (1 + 1e-6)).all()
    assert Cosmology.from_header(snapshot.header.cosmology).omega_b == 0.049
