"""Packed and masked grids, as netCDF's conventions and xarray have them: applied, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.grids import N, grid, ingest, refused, store


@pytest.mark.parametrize("kind", ["hdf5", "nc", "zarr"])
def test_packed_values_are_unpacked(kind: str, tmp_path: Path) -> None:
    """Reported as zarr-python#2926 and xarray#9780: packed integers were taken for the data."""
    rho = grid()
    packed = np.rint((rho + 5.0) / 0.002).astype("u4")
    source = store(tmp_path, kind, packed, scale_factor=0.002, add_offset=-5.0)
    dm, _ = ingest(source, tmp_path)
    values = packed * 0.002 - 5.0
    np.testing.assert_allclose(dm, values / values.mean(), rtol=1e-6)


def test_packing_of_signs_and_of_no_number(tmp_path: Path) -> None:
    raw = np.random.default_rng(1).integers(0, 255, (N, N, N)).astype("u1")
    source = store(tmp_path, "hdf5", raw.view("i1"), _Unsigned="true")
    dm, _ = ingest(source, tmp_path)
    np.testing.assert_allclose(dm, raw / raw.mean(dtype=float), rtol=1e-6)
    shutil.rmtree(tmp_path / "b.zarr")
    refused(store(tmp_path, "hdf5", raw, scale_factor=0.0), tmp_path, "scale_factor 0.0 and add_of")
    refused(
        store(tmp_path, "hdf5", raw, scale_factor="none"), tmp_path, "scale_factor is 'none', which"
    )


FILL = np.float32(9.96921e36)
MASKS: dict[str, tuple[dict[str, Any], float]] = {
    "_FillValue": ({"_FillValue": FILL}, FILL),
    "missing_value": ({"missing_value": [np.float32(7e5), np.float32(8e5)]}, 8e5),
    "valid_max": ({"valid_max": np.float32(1e5)}, 2e5),
    "valid_range": ({"valid_range": np.array([0, 1e5], "f4")}, 2e5),
}


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
@pytest.mark.parametrize("name", MASKS)
def test_masked_voxels_are_no_density(kind: str, name: str, tmp_path: Path) -> None:
    """Reported as netcdf4-python#468: what was never written holds netCDF's fill value."""
    attributes, value = MASKS[name]
    if kind == "zarr":
        attributes = {k: np.asarray(v).tolist() for k, v in attributes.items()}
    rho = grid()
    assert ingest(store(tmp_path, kind, rho, **attributes), tmp_path)[0].max() > 100
    shutil.rmtree(tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "rho.zarr", ignore_errors=True)
    rho[3, 4, 5:8] = value
    source = store(tmp_path, kind, rho, **attributes)
    refused(source, tmp_path, r"voxel \(3, 4, 5\) holds .*, which its attributes .*_FillValue")


@pytest.mark.parametrize("version", [2, 3])
def test_what_xarray_writes(version: int, tmp_path: Path) -> None:
    """Packed, with a fill value, in zarr v2 (as the array's own) and v3 (in base64)."""
    xarray = pytest.importorskip("xarray")
    rho = grid().astype(float)
    packed = {"dtype": "i4", "scale_factor": 1e-3, "add_offset": 1.0, "_FillValue": -(2**31)}

    def write(**encoding: Any) -> Path:
        path = tmp_path / "rho.zarr"
        shutil.rmtree(path, ignore_errors=True)
        made = xarray.Dataset({"rho": (("x", "y", "z"), rho)})
        made.to_zarr(path, zarr_format=version, consolidated=False, encoding={"rho": encoding})
        return path

    for encoding, error in ((packed, 1e-3), ({}, 1e-5)):
        dm, _ = ingest(write(**encoding), tmp_path)
        np.testing.assert_allclose(dm, rho / rho.mean(), atol=error, rtol=1e-3)
    rho[3, 4, 5] = np.nan
    shutil.rmtree(tmp_path / "b.zarr")
    for encoding in (packed, {}):
        refused(write(**encoding), tmp_path, r"voxel \(3, 4, 5\) holds .*_FillValue")


def test_netcdf_fills_without_an_attribute(tmp_path: Path) -> None:
    rho = grid()
    with h5py.File(tmp_path / "rho.nc", "w") as file:
        data = file.create_dataset("rho", rho.shape, "f4", fillvalue=FILL, chunks=(16, 16, 16))
        rho[20, 0, 0] = FILL
        data[:] = rho
    refused(tmp_path / "rho.nc", tmp_path, r"voxel \(20, 0, 0\) holds 9.96921e\+36")
