"""Snapshots into boxes: the same box whatever format, files, chunks; mass conserved to rounding."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from bigbox.errors import StoppedEarly
from bigbox.ingestion import arrays, catalogue, particles, snapshot, sorted_points
from bigbox.ingestion.check import damaged_inputs
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.physics.brightness import brightness_temperature
from bigbox.physics.hi_halo import POINTS, hi_points
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.scheduler.grid import Grid
from bigbox.store.box import Box
from tests import snapshots
from tests.reference import cic
from tests.snapshots import BOX, H

COUNT = 20_000
GRID = 24


@pytest.fixture(scope="module")
def positions() -> NDArray[np.float32]:
    return snapshots.clustered(COUNT)


def made(folder: Path, source: Any, name: str = "b.zarr", **options: Any) -> Box:
    paths = [source] if isinstance(source, Path) else list(source)
    done = ingest_snapshot(paths, folder / name, grid=options.pop("grid", GRID), **options)
    assert abs(done.mean - 1) < 1e-6
    return Box.open(folder / name)


def dm(box: Box) -> NDArray[np.float32]:
    return np.asarray(box.require("dm")[:])


def reference(positions: NDArray, weights: NDArray | None, n: int, box: float) -> NDArray:
    """CIC in float64, one particle after the other: the slow, obvious one."""
    grid = np.zeros((n, n, n))
    weights = np.ones(len(positions)) if weights is None else weights
    for p, w in zip(positions.astype(float), weights, strict=True):
        u = p * n / box - 0.5
        i = np.floor(u).astype(int)
        f = u - i
        for corner in itertools.product((0, 1), repeat=3):
            share = np.prod([f[a] if c else 1 - f[a] for a, c in enumerate(corner)])
            grid[tuple((i + corner) % n)] += w * share
    return grid


def test_dm_agrees_with_a_slow_deposit_to_1e_6(tmp_path: Path) -> None:
    few = snapshots.clustered(3000)
    few[:3] = [[0, 0, 0], [np.nextafter(np.float32(BOX), np.float32(0))] * 3, [BOX, 1e-6, 2.0]]
    got = dm(made(tmp_path, snapshots.gadget(tmp_path, few), grid=12))
    want = reference(few, None, 12, BOX) * 12**3 / 3000
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert abs(got.sum(dtype=float) / 12**3 - 1) < 1e-7


def test_particles_of_several_masses(tmp_path: Path) -> None:
    few = snapshots.clustered(1500)
    masses = np.random.default_rng(1).uniform(0.1, 3, 1500)
    masses *= snapshots.particle_mass(1500) / masses.mean()
    got = dm(made(tmp_path, snapshots.gadget(tmp_path, few, masses=masses), grid=8))
    want = reference(few, masses, 8, BOX)
    np.testing.assert_allclose(got, want / want.mean(), rtol=1e-6, atol=1e-6)


def compress(**options: Any) -> dict[str, Any]:
    return {"filters": dict(chunks=True, **options)}


FORMATS: dict[str, dict[str, Any]] = {
    "arepo": {"style": "arepo", "name": "snap_033"},
    "several files": {"files": 3, "name": "snapshot_033"},
    "mass data set": {"masses": np.full(COUNT, snapshots.particle_mass(COUNT))},
    "gzip": compress(compression="gzip", shuffle=True),
    "blosc": compress(**hdf5plugin.Blosc(cname="zstd")),
    "bitshuffle": compress(**hdf5plugin.Bitshuffle(nelems=0, cname="lz4")),
    "empty last file": {"files": 1, "more": {}},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_bytes(
    name: str, positions: NDArray[np.float32], tmp_path: Path
) -> None:
    plain = dm(made(tmp_path, snapshots.gadget(tmp_path / "plain", positions), "plain.zarr"))
    box = made(tmp_path, snapshots.gadget(tmp_path / "other", positions, **FORMATS[name]))
    assert dm(box).tobytes() == plain.tobytes()
    assert box.box_size == (BOX,) * 3 and box.redshift == 0
    known = box.attributes["cosmology"]
    assert (known["omega_m"], known["omega_b"], known["h"]) == (0.3, 0.049, H)
    assert not list(tmp_path.glob(".*"))


def test_swift_is_converted_from_h_free_units(
    positions: NDArray[np.float32], tmp_path: Path
) -> None:
    box = made(tmp_path, snapshots.swift(tmp_path, positions, redshift=0.5))
    plain = dm(made(tmp_path, snapshots.gadget(tmp_path / "plain", positions), "plain.zarr"))
    np.testing.assert_allclose(dm(box), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(box.box_size, BOX, rtol=1e-9)
    assert box.redshift == 0.5 and box.attributes["cosmology"]["h"] == H
    header = open_snapshot([tmp_path / "snap_0000.hdf5"]).header
    mass = np.float32(snapshots.particle_mass(COUNT) / H / 1e10)
    assert mass * header.mass == pytest.approx(snapshots.particle_mass(COUNT), rel=1e-6)


def test_swift_groups(positions: NDArray[np.float32], tmp_path: Path) -> None:
    centres, masses = snapshots.haloes(60, positions)
    path = snapshots.swift(tmp_path, positions, haloes=(centres, masses))
    groups = tmp_path / "fof_output_0000.hdf5"
    box = made(tmp_path, path, haloes=[groups])
    assert box.array("halo").attrs["source"] == "catalogue: FOF groups, Groups/Masses at Centres"
    for i, (low, high) in enumerate(zip(HALO_EDGES, (*HALO_EDGES[1:], np.inf), strict=True)):
        total = np.asarray(box.array("halo")[i]).sum(dtype=float) * (BOX / GRID) ** 3
        inside = masses[(masses >= low) & (masses < high)]
        assert total == pytest.approx(inside.sum(dtype=float), rel=1e-5)
    with pytest.raises(ValueError, match="SWIFT catalogues have no subhaloes"):
        open_catalogue([groups], "subhalo")


def test_gizmo_names_of_the_cosmology(positions: NDArray[np.float32], tmp_path: Path) -> None:
    (path,) = snapshots.gadget(tmp_path, positions, style="arepo")
    with h5py.File(path, "r+") as file:
        header = file["Header"].attrs
        for old, new in (("Omega0", "Omega_Matter"), ("OmegaBaryon", "Omega_Baryon")):
            header[new] = header[old]
            del header[old]
    known = open_snapshot([path]).header.cosmology
    assert (known["omega_m"], known["omega_b"], known["omega_lambda"]) == (0.3, 0.049, 0.7)


def test_slope_of_the_spectrum_only_where_the_code_has_used_it(tmp_path: Path) -> None:
    """GADGET-4 writes PrimordialIndex also where it has read a tabulated spectrum (type 2)."""
    few = snapshots.clustered(100)
    said = {"Sigma8": 0.8, "ReNormalizeInputSpectrum": 1, "PrimordialIndex": 0.96}
    for kind, code, has in ((2, "", False), (1, "", True), (2, "bigbox simulate 1", True)):
        more = {**said, "PowerSpectrumType": kind, "Code": code}
        folder = tmp_path / f"{kind}{len(code)}"
        known = open_snapshot(snapshots.gadget(folder, few, more=more)).header.cosmology
        assert ("n_s" in known) == has and known["sigma8"] == 0.8


def test_a_folder_any_file_or_all_files(positions: NDArray[np.float32], tmp_path: Path) -> None:
    files = snapshots.gadget(tmp_path / "run" / "snapdir_004", positions, files=3)
    for given in ([tmp_path / "run"], [files[0].parent], [files[2]], files[::-1]):
        assert open_snapshot(given).files == tuple(files)
    catalogues = snapshots.catalogue(
        tmp_path / "run" / "groups_004", *snapshots.haloes(30, positions), files=2
    )
    for given in ([tmp_path / "run"], [catalogues[1]], catalogues):
        assert open_catalogue(given).files == tuple(catalogues)
    many = snapshots.gadget(tmp_path / "many", positions, files=11)  # .10 is after .9
    for given in ([tmp_path / "many"], many[::-1], many[3:5], [many[2]] * 11):
        assert open_snapshot(given).files == tuple(many)


def test_high_word_counts(tmp_path: Path) -> None:
    """A total above 2^32 is read from both words; the files then hold too few."""
    few = snapshots.clustered(100)
    more = {"NumPart_Total_HighWord": np.array([0, 2, 0, 0, 0, 0], np.uint32)}
    paths = snapshots.gadget(tmp_path, few, style="arepo", more=more)
    with pytest.raises(ValueError, match=f"says {100 + 2 * 2**32} particles of type 1"):
        open_snapshot(paths)


def test_numbers_of_files_chunks_and_workers_change_no_byte(
    positions: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three arrays, of shuffled particles, many chunks, one worker, against the plain way."""
    centres, masses = snapshots.haloes(60, positions)
    one = snapshots.gadget(tmp_path / "one", positions)
    groups = snapshots.catalogue(tmp_path / "one", centres, masses)
    options: dict[str, Any] = {"hi_halo": True, "grid": 40}
    plain = made(tmp_path, one, "plain.zarr", haloes=groups, **options)

    order = np.random.default_rng(5).permutation(COUNT)
    many = snapshots.gadget(tmp_path / "many", positions[order], files=4)
    groups = snapshots.catalogue(tmp_path / "many", centres, masses, files=3)
    for module, size in ((snapshot, 777), (catalogue, 7), (sorted_points, 1001), (particles, 1)):
        monkeypatch.setattr(module, "MEMORY" if module is particles else "CHUNK", size)
    monkeypatch.setattr(snapshot.Snapshot.chunks, "__defaults__", (777,))
    monkeypatch.setattr(catalogue.Catalogue.chunks, "__defaults__", (7,))
    other = made(tmp_path, many, haloes=groups, memory=1, **options)
    for name in ("dm", "halo", "tb"):
        a, b = np.asarray(plain.array(name)[:]), np.asarray(other.array(name)[:])
        assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize(
    ("shape", "edge", "margin"), [(20, 8, 3), (20, 20, 0), (5, 8, 9), (9, 4, 4)]
)
def test_windows_of_any_bricks_make_the_same_field(
    shape: int, edge: int, margin: int, tmp_path: Path
) -> None:
    """Bricks smaller than their margins, odd last bricks, boxes smaller than the margin."""
    rng = np.random.default_rng(7)
    place, weights = rng.uniform(-3, shape + 3, (500, 3)), rng.gamma(1, 5, 500).astype(np.float32)
    whole = np.zeros((shape,) * 3)
    cic.deposit(whole, place, float(shape), weights)
    bricks = Grid.regular((shape,) * 3, edge)
    sorted_ = sorted_points.SortedPoints(tmp_path / "s", bricks, margin)
    for part in np.array_split(np.arange(500), 7):
        sorted_.add(place[part], weights[part])
    assert sorted_.points == 500
    assert sorted_.total == float(sum(map(lambda w: np.longdouble(w), weights)))
    padded = np.pad(whole, margin, mode="wrap") if margin else whole
    for brick in range(bricks.size):
        region = tuple(slice(cut.start, cut.stop + 2 * margin) for cut in bricks.slices(brick))
        np.testing.assert_allclose(
            sorted_.deposit(brick, 1.0), padded[region], rtol=1e-6, atol=3e-6
        )


def test_halo_channels_hold_the_catalogues_mass(
    positions: NDArray[np.float32], tmp_path: Path
) -> None:
    centres, masses = snapshots.haloes(200, positions)
    masses[:4] = HALO_EDGES  # an edge belongs to the channel above it
    source = snapshots.gadget(tmp_path, positions)
    groups = snapshots.catalogue(tmp_path, centres, masses)
    box = made(tmp_path, source, haloes=groups, grid=40)
    halo = box.require("halo")
    edges = [*HALO_EDGES, np.inf]
    kernel = gaussian_kernel(0.2, BOX / 40)
    stored = (masses / 1e10).astype(np.float32).astype(float) * 1e10
    for i in range(4):
        inside = (stored >= edges[i]) & (stored < edges[i + 1])
        total = np.asarray(halo[i]).sum(dtype=float) * (BOX / 40) ** 3
        assert total == pytest.approx(stored[inside].sum(), rel=1e-6)
        rough = np.zeros((40,) * 3)
        cic.deposit(rough, centres[inside].astype(float), BOX, stored[inside])
        want = smooth_periodic(rough / (BOX / 40) ** 3, kernel)
        np.testing.assert_allclose(halo[i], want, rtol=1e-5, atol=1e-6 * want.max())
    assert halo.attrs["mass_edges"][:4] == list(HALO_EDGES)
    assert halo.attrs["mass_edges"][4] == pytest.approx(stored.max(), rel=1e-6)
    assert halo.attrs["smoothing"] == 0.2
    assert halo.attrs["source"] == "catalogue: FOF groups, Group/GroupMass at GroupPos"
    assert box.array("dm").attrs["smoothing"] == 0.0


def test_subhaloes_and_centres_of_mass(positions: NDArray[np.float32], tmp_path: Path) -> None:
    centres, masses = snapshots.haloes(50, positions)
    paths = snapshots.catalogue(tmp_path, centres, masses, centre="GroupCM", subhaloes=True)
    assert "GroupCM" in open_catalogue(paths).label
    found = open_catalogue(paths, "subhalo")
    assert found.label == "catalogue: SUBFIND subhaloes, Subhalo/SubhaloMass at SubhaloCM"
    place, mass = found.read(next(found.chunks()), GRID)
    np.testing.assert_allclose(mass * 1e10, masses / 2, rtol=1e-6)
    np.testing.assert_allclose(place, centres * GRID / BOX, rtol=1e-5, atol=1e-5)


def test_files_of_a_catalogue_without_any_halo(
    positions: NDArray[np.float32], tmp_path: Path
) -> None:
    paths = snapshots.catalogue(tmp_path, *snapshots.haloes(2, positions), files=4)
    assert open_catalogue(paths).counts == (0, 1, 0, 1)


def test_tb_of_haloes_is_that_of_their_points(
    positions: NDArray[np.float32], tmp_path: Path
) -> None:
    centres, masses = snapshots.haloes(40, positions)
    source = snapshots.gadget(tmp_path, positions)
    groups = snapshots.catalogue(tmp_path, centres, masses)
    box = made(tmp_path, source, haloes=groups, hi_halo=True, smoothing=0.3)
    tb = np.asarray(box.require("tb")[:])
    found = open_catalogue(groups)
    model = particles.Cosmology.from_header(box.attributes["cosmology"])
    place, mass = found.read(next(found.chunks()), GRID)
    points, hi = hi_points(
        np.arange(40), place * BOX / GRID, mass * 1e10, 0.0, model, found.fingerprint()
    )
    assert len(points) == 40 * POINTS
    rough = np.zeros((GRID,) * 3)
    cic.deposit(rough, points, BOX, hi)
    rough *= brightness_temperature((GRID / BOX) ** 3, 0.0, model)
    want = smooth_periodic(rough, gaussian_kernel(0.3, BOX / GRID))
    np.testing.assert_allclose(tb, want, rtol=1e-5, atol=1e-6 * want.max())
    attributes = box.array("tb").attrs
    assert "a stand-in for hydrodynamics" in str(attributes["source"])
    assert attributes["smoothing"] == 0.3
    assert attributes["omega_hi"] == pytest.approx(hi.sum() / BOX**3 / 2.77536627e11, rel=1e-6)


def test_default_grid_is_that_of_the_particles(tmp_path: Path) -> None:
    few = snapshots.clustered(20**3)
    done = ingest_snapshot(snapshots.gadget(tmp_path, few), tmp_path / "b.zarr")
    assert done.shape == (20, 20, 20)
    assert done.box.name == "b.zarr" and done.particles == 8000


def test_provenance_names_what_was_read(positions: NDArray[np.float32], tmp_path: Path) -> None:
    paths = snapshots.gadget(tmp_path, positions, more={"Seed": 17})
    box = made(tmp_path, paths)
    assert box.attributes["provenance"]["snapshot"] == [str(paths[0])]
    assert box.attributes["provenance"]["seed"] == 17
    shutil.rmtree(box.path)
    with h5py.File(paths[0], "r+") as file:
        del file["Parameters"].attrs["UnitLength_in_cm"]
    done = ingest_snapshot(paths, box.path, grid=GRID)
    assert "0.001 Mpc/h and 1e+10 M_sun/h are taken for granted" in done.notes[0]


def test_sigterm_leaves_nothing(
    positions: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = snapshots.gadget(tmp_path / "run", positions)
    monkeypatch.setattr(arrays, "check_mass", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedEarly, match="stopped by SIGTERM"):
        ingest_snapshot(paths, tmp_path / "b.zarr", grid=GRID)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_damaged_truth_is_found(positions: NDArray[np.float32], tmp_path: Path) -> None:
    source = snapshots.gadget(tmp_path, positions)
    groups = snapshots.catalogue(tmp_path, *snapshots.haloes(40, positions))
    box = made(tmp_path, source, haloes=groups, hi_halo=True)
    assert damaged_inputs(box) == []
    (shard,) = (p for p in (box.path / "tb" / "c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    (line,) = damaged_inputs(box)
    assert line.startswith("tb: shard (0, 0, 0), chunks all 1")
