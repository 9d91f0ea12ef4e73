"""Density grids in files, for tests: made, ingested, refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.density import ingest_density
from bigbox.ingestion.ingested import Ingested
from bigbox.store.box import Box

N = 32


def grid(seed: int = 0) -> NDArray[np.float32]:
    rho = np.random.default_rng(seed).gamma(0.5, 3.0, (N, N, N)).astype(np.float32)
    rho[5, 10, 20] = 1000.0
    return rho


def ingest(source: object, folder: Path, **options: Any) -> tuple[NDArray[np.float32], Ingested]:
    shutil.rmtree(folder / "b.zarr", ignore_errors=True)
    done = ingest_density(str(source), folder / "b.zarr", box_size=(25.0,), **options)
    return np.asarray(Box.open(folder / "b.zarr").array("dm")[:]), done


def refused(source: object, folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(BadInput, match=match) as caught:
        ingest_density(str(source), folder / "b.zarr", box_size=(25.0,), **options)
    assert "\n" not in str(caught.value) and "copy it again" not in str(caught.value)
    assert not (folder / "b.zarr").exists()


def store(folder: Path, kind: str, values: NDArray, **attributes: Any) -> Path:
    """The values in an HDF5 (or netCDF) file or a zarr array, with attributes."""
    path = folder / f"rho.{kind}"
    if kind == "zarr":
        zarr.create_array(path, data=values, chunks=(16, 16, 16)).attrs.update(attributes)
    else:
        with h5py.File(path, "w") as file:
            file["rho"] = values
            file["rho"].attrs.update(attributes)
    return path
