"""Grids and snapshots as people have them: linked, locked, mislabelled, mixed up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr

from bigbox.errors import BadInput
from bigbox.ingestion.density import ingest_density
from bigbox.ingestion.headers import Told
from bigbox.ingestion.ingested import IngestedSnapshot
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.ingestion.sanity import redshift_in_name
from bigbox.ingestion.sources import open_snapshot
from bigbox.physics.cosmology import Cosmology
from tests import snapshots
from tests.grids import N, grid, ingest, refused, store
from tests.snapshots import BOX, OMEGA_M

COUNT = 4000


def test_a_zarr_array_deep_in_groups(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "g.zarr").create_group("a/b").create_array("rho", data=grid())
    assert ingest(tmp_path / "g.zarr", tmp_path)[0].shape == (N, N, N)


@pytest.mark.parametrize("name", ["zstd", "blosc", "lz4"])
def test_grids_with_filters(name: str, tmp_path: Path) -> None:
    """Reported as h5py#2294: can't open directory, though hdf5plugin is there."""
    filters = {"zstd": hdf5plugin.Zstd(), "blosc": hdf5plugin.Blosc(), "lz4": hdf5plugin.LZ4()}
    rho = grid()
    with h5py.File(tmp_path / "rho.hdf5", "w") as file:
        file.create_dataset("rho", data=rho, chunks=(16, 16, 16), **filters[name])
    dm, _ = ingest(tmp_path / "rho.hdf5", tmp_path)
    np.testing.assert_allclose(dm, rho / rho.mean(dtype=float), rtol=1e-6)


def test_a_grid_behind_a_link_is_found(tmp_path: Path) -> None:
    """Reported as h5py#671: visititems passes over links."""
    rho = grid()
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["deep/rho"] = rho
    with h5py.File(tmp_path / "index.h5", "w") as file:
        file["field"] = h5py.ExternalLink("data.h5", "/deep/rho")
        file["loop"] = h5py.SoftLink("/")
        file["gone"] = h5py.ExternalLink("none.h5", "/rho")
    for name in ("index.h5", "index.h5:/field"):
        np.testing.assert_allclose(
            ingest(tmp_path / name, tmp_path)[0], rho / rho.mean(dtype=float), rtol=1e-6
        )
    shutil.rmtree(tmp_path / "b.zarr")
    refused(tmp_path / "index.h5:/gone", tmp_path, "gone is a link to .*none.h5:/rho, which is not")
    with h5py.File(tmp_path / "index.h5", "r+") as file:
        del file["field"]
    refused(tmp_path / "index.h5", tmp_path, "are: none; links that lead nowhere: gone")


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
@pytest.mark.parametrize(
    ("axes", "index"),
    [((..., None), None), ((None, ...), None), ((None, ..., None), None), ((None, ...), 0)],
)
def test_an_axis_of_length_1_is_no_choice(
    kind: str, axes: Any, index: int | None, tmp_path: Path
) -> None:
    """Reported as cloud-volume#672: a channel axis at the end."""
    rho = grid()
    if kind == "npy":
        np.save(tmp_path / "rho.npy", rho[axes])
    else:
        store(tmp_path, kind, rho[axes])
    dm, done = ingest(tmp_path / f"rho.{kind}", tmp_path, index=index)
    assert done.shape == (N, N, N)
    np.testing.assert_allclose(dm, rho / rho.mean(dtype=float), rtol=1e-6)


def test_an_index_into_grids_with_an_axis_of_length_1(tmp_path: Path) -> None:
    rho = grid()
    np.save(tmp_path / "rho.npy", np.stack([2 * rho, rho[::-1]])[..., None])
    dm, _ = ingest(tmp_path / "rho.npy", tmp_path, index=1)
    np.testing.assert_allclose(dm, rho[::-1] / rho.mean(dtype=float), rtol=1e-6)


def test_a_locked_file_is_called_locked(tmp_path: Path) -> None:
    """Reported as h5py#1101: unable to lock file."""
    source = store(tmp_path, "hdf5", grid())
    (path,) = snapshots.gadget(tmp_path, snapshots.clustered(COUNT))
    with h5py.File(source, "r+"), h5py.File(path, "r+"):
        code = (
            "import sys; from pathlib import Path; from bigbox.cli import main; "
            "sys.exit(main(['ingest', sys.argv[1], sys.argv[2], *sys.argv[3:]]))"
        )
        for given in ([str(source), str(tmp_path / "b.zarr"), "--box-size", "25"],
                      [str(path), str(tmp_path / "b.zarr")]):  # fmt: skip
            run = subprocess.run(
                [sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=60
            )
            assert run.returncode == 2 and "is locked: another program has it open" in run.stderr
            assert "HDF5_USE_FILE_LOCKING=FALSE" in run.stderr and run.stderr.count("\n") == 1


WRONG: dict[str, tuple[bytes, str]] = {
    "gzip": (b"\x1f\x8b\x08\x00", "is compressed with gzip; unpack it"),
    "netcdf": (b"CDF\x01", "is a netCDF file of the classic format; convert it with: nccopy"),
    "web": (b"<!DOCTYPE html>", "is a page of the web or XML, perhaps of a failed download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS; fetch"),
    "npy": (b"\x93NUMPY\x01\x00", "is a numpy file; let its name end in .npy"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_kind_of_file_under_the_name_is_called_what_it_is(
    name: str, tmp_path: Path
) -> None:
    content, match = WRONG[name]
    (tmp_path / "rho.hdf5").write_bytes(content + bytes(1000))
    refused(tmp_path / "rho.hdf5", tmp_path, match)
    (tmp_path / "snap").mkdir()
    (tmp_path / "rho.hdf5").rename(tmp_path / "snap" / "snapshot_000.hdf5")
    with pytest.raises(BadInput, match=match):
        ingest_snapshot([tmp_path / "snap"], tmp_path / "b.zarr", grid=8)


def test_hidden_files_are_none_of_the_snapshot(tmp_path: Path) -> None:
    """Reported as h5py#1562: a Mac leaves ._NAME beside each file."""
    files = snapshots.gadget(tmp_path / "run", snapshots.clustered(COUNT), files=2)
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert open_snapshot([tmp_path / "run"]).files == tuple(files)


def test_a_series_is_not_taken_for_the_parts_of_one(tmp_path: Path) -> None:
    """Reported as scida#187 and yt#1689; so are names that end in a redshift."""
    few = snapshots.clustered(COUNT)
    for names in (("lcdm.000", "lcdm.001"), ("snap_z0.0", "snap_z0.5")):
        folder = tmp_path / names[0]
        paths = [
            *snapshots.gadget(folder, few, name=names[0], redshift=3.0),
            *snapshots.gadget(folder, few, name=names[1]),
        ]
        for given in ([folder], paths, paths[::-1]):
            with pytest.raises(BadInput, match=rf"holds 2 snapshots \({names[0]}, {names[1]}\)"):
                open_snapshot(given)
        assert open_snapshot([paths[1]]).files == (paths[1],)


def test_parts_that_do_not_say_how_many_they_are(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    files = snapshots.gadget(tmp_path / "run", few, files=3)
    for path in files:
        with h5py.File(path, "r+") as file:
            del file["Header"].attrs["NumFilesPerSnapshot"]
    assert open_snapshot([tmp_path / "run"]).files == tuple(files)


def test_one_merged_file_that_still_says_that_it_is_one_of_eight(tmp_path: Path) -> None:
    """Reported as HBT-HERONS#115."""
    more = {"NumFilesPerSnapshot": np.int32(8)}
    (path,) = snapshots.gadget(tmp_path, snapshots.clustered(COUNT), more=more)
    assert open_snapshot([path]).files == (path,)


def with_type_2(folder: Path, files: int, mass: float) -> Path:
    """Dark matter, and as many particles of type 2 in the last file, of a share of their mass."""
    few = snapshots.clustered(COUNT)
    table = np.zeros(6)
    table[1] = (1 - mass) * snapshots.particle_mass(COUNT) / 1e10
    table[2] = mass * snapshots.particle_mass(COUNT) / 1e10
    paths = snapshots.gadget(folder, few, files=files, more={"MassTable": table})
    for i, path in enumerate(paths):
        here = COUNT if i == len(paths) - 1 else 0
        with h5py.File(path, "r+") as file:
            header = file["Header"].attrs
            header["NumPart_ThisFile"] = [0, header["NumPart_ThisFile"][1], here, 0, 0, 0]
            header["NumPart_Total"] = [0, COUNT, COUNT, 0, 0, 0]
            if here:
                file["PartType2/Coordinates"] = snapshots.clustered(here, seed=9) * 1e3
    return paths[0]


@pytest.mark.parametrize("files", [1, 2])
def test_neutrinos_are_left_out_and_said(files: int, tmp_path: Path) -> None:
    """Reported as pynbody#212: two species of matter; Quijote's neutrinos are of type 2."""
    path = with_type_2(tmp_path, files, 0.02)
    done = ingest_snapshot([path], tmp_path / "b.zarr", grid=8)
    assert any("type 2, 2 % of the dark matter and lighter each, as neu" in n for n in done.notes)
    assert done.particles == COUNT


@pytest.mark.parametrize("files", [1, 2])
def test_low_resolution_of_a_zoom_run_is_refused(files: int, tmp_path: Path) -> None:
    path = with_type_2(tmp_path, files, 0.9)
    with pytest.raises(BadInput, match="low resolution of a zoom run"):
        ingest_snapshot([path], tmp_path / "b.zarr", grid=8)


def made(path: Path, folder: Path, **options: Any) -> IngestedSnapshot:
    shutil.rmtree(folder / "b.zarr", ignore_errors=True)
    return ingest_snapshot([path], folder / "b.zarr", grid=8, **options)


def test_positions_and_box_size_in_different_units(tmp_path: Path) -> None:
    """Reported as pynbody#916: a converter changed one of the two."""
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few)
    with h5py.File(path, "r+") as file:
        file["PartType1/Coordinates"][:] = few
    with pytest.raises(BadInput, match="lie within 0.001 of the side of the box of 4000 .4 Mpc/h"):
        made(path, tmp_path)
    done = made(path, tmp_path, told=Told(box_size=BOX, length=1.0))
    (path,) = snapshots.gadget(tmp_path / "right", few)
    assert (done.largest, done.box_size) == (made(path, tmp_path).largest, (BOX,) * 3)


def test_a_part_of_the_box(tmp_path: Path) -> None:
    """Half of the volume, with all of the mass that the header asks for."""
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few[few[:, 1] < 0.45 * BOX])
    with pytest.raises(BadInput, match="its particles lie within 0.45 of the side of the box"):
        made(path, tmp_path)


def test_a_likely_unit_is_named_and_works(tmp_path: Path) -> None:
    (path,) = snapshots.gadget(tmp_path, snapshots.clustered(COUNT), style="arepo")
    with h5py.File(path, "r+") as file:
        file["PartType1/Coordinates"][:] /= 1000
        file["Header"].attrs["BoxSize"] = BOX
    match = "with --length-unit 1 --mass-unit 1e.10 it would be right"
    with pytest.raises(BadInput, match=match):
        made(path, tmp_path)
    assert made(path, tmp_path, told=Told(length=1.0, mass=1e10)).box_size == (BOX,) * 3


def test_a_scale_factor_in_the_place_of_a_redshift(tmp_path: Path) -> None:
    """Reported as pynbody#284: Time without Redshift."""
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few, redshift=1.0)
    with h5py.File(path, "r+") as file:
        del file["Header"].attrs["Redshift"]
    assert made(path, tmp_path).redshift == pytest.approx(1.0)
    with h5py.File(path, "r+") as file:
        del file["Header"].attrs["Time"]
    with pytest.raises(BadInput, match="neither Redshift nor a scale factor .Time.; give --redsh"):
        made(path, tmp_path)
    assert made(path, tmp_path, told=Told(redshift=2.5)).redshift == 2.5
    (path,) = snapshots.gadget(tmp_path, few, more={"Time": 0.5})
    with pytest.raises(
        BadInput, match=r"its redshift 0 and its scale factor 0.5 \(redshift 1\) do"
    ):
        made(path, tmp_path)
    # EAGLE keeps a time in Time, and the scale factor elsewhere.
    (path,) = snapshots.gadget(tmp_path, few, more={"Time": 0.0144, "ExpansionFactor": 1.0})
    assert made(path, tmp_path).redshift == 0


@pytest.mark.parametrize(
    ("name", "redshift"),
    [
        ("Grids_Mcdm_IllustrisTNG_CV_256_z=2.0.npy", 2.0), ("rho_z0.5.hdf5", 0.5),
        ("snap_028_z000p000", 0.0), ("rho_z=3.zarr", 3.0), ("run_z_1.25", 1.25),
        ("snap_z2.hdf5", None), ("size128.npy", None), ("xyz0.5.npy", None), ("rho.npy", None),
    ],
)  # fmt: skip
def test_the_redshift_in_a_name(name: str, redshift: float | None) -> None:
    assert redshift_in_name(Path(name)) == redshift


def test_the_redshift_in_a_name_is_taken_and_said(tmp_path: Path) -> None:
    np.save(tmp_path / "Grids_z=2.0.npy", grid())
    source = tmp_path / "Grids_z=2.0.npy"
    done = ingest(source, tmp_path)[1]
    assert done.redshift == 2.0 and "redshift 2 is taken from the name" in done.notes[0]
    done = ingest(source, tmp_path, redshift=1.0)[1]
    assert (done.redshift, done.notes) == (1.0, ())
    (path,) = snapshots.gadget(tmp_path, snapshots.clustered(COUNT), name="snap_z0.5")
    (warning, *_) = made(path, tmp_path).warnings
    assert warning.endswith("redshift 0 is taken, but its name, or its folder's, says 0.5")
    (path,) = snapshots.gadget(tmp_path / "snapdir_z1.0", snapshots.clustered(COUNT))
    assert made(path, tmp_path).warnings[0].endswith("folder's, says 1")


def test_no_cosmological_constant_is_an_open_universe(tmp_path: Path) -> None:
    """E(1) of Ω_m = 0.3, Ω_Λ = 0, and of a header that tells neither."""
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few, style="arepo", more={"OmegaLambda": 0.0})
    known = open_snapshot([path]).header.cosmology
    assert known["omega_lambda"] == 0.0
    model = Cosmology.from_header(known)
    assert model.expansion(1.0) == pytest.approx((OMEGA_M * 8 + 0.7 * 4) ** 0.5)
    more = {"OmegaLambda": 0.0, "Omega0": 0.0}
    (path,) = snapshots.gadget(tmp_path, few, style="arepo", more=more)
    assert not {"omega_m", "omega_lambda"} & open_snapshot([path]).header.cosmology.keys()


def test_haloes_that_weigh_more_than_all_matter(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few)
    centres, masses = snapshots.haloes(40, few)
    groups = snapshots.catalogue(tmp_path / "g", centres, 1e4 * masses)
    with pytest.raises(BadInput, match="its haloes weigh .* M_sun/h, the matter in the box 5.329e"):
        made(path, tmp_path, haloes=groups)
    groups = snapshots.catalogue(tmp_path / "g", centres, masses / 1e10)
    with pytest.raises(
        BadInput, match="heaviest halo has 120 M_sun/h, which is no halo; give --ha"
    ):
        made(path, tmp_path, haloes=groups)
    done = made(path, tmp_path, haloes=groups, halo_units=(None, 1e20))
    assert done.halo[-1].mass == pytest.approx(masses[masses >= 1e12].sum(), rel=1e-5)
    groups = snapshots.catalogue(tmp_path / "g", centres, masses / 1e3)
    (warning, *_) = made(path, tmp_path, haloes=groups).warnings
    assert "below the first mass bin (3e+10): halo is 0 everywhere" in warning


def test_a_voxel_of_no_usual_size_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid())
    done = ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=(25000.0,))
    assert any("a voxel has 781 Mpc/h: is the box size in Mpc/h?" in w for w in done.warnings)
