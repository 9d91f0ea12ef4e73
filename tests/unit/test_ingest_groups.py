"""Catalogues of GADGET, AREPO and SWIFT beside their snapshots: flags, edges, units, parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bigbox.errors import BadInput
from bigbox.ingestion.particles import ingest_haloes, ingest_snapshot
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.store.box import Box
from tests import snapshots
from tests.snapshots import BOX, H

COUNT = 40
GRID = 24
FEW = snapshots.clustered(4000)
PLACES, MASSES = snapshots.haloes(COUNT, FEW)


def halo(folder: Path, given: Path) -> np.ndarray:
    place = folder / f"{given.name}.zarr"
    ingest_haloes([given], place, grid=GRID)
    return np.asarray(Box.open(place).require("halo")[:])


def test_subhaloes_that_are_flagged_do_not_count(tmp_path: Path) -> None:
    """SubhaloFlag 0 of IllustrisTNG: of no cosmological origin."""
    source = snapshots.gadget(tmp_path, FEW)
    (groups,) = snapshots.catalogue(tmp_path, PLACES, MASSES, subhaloes=True)
    flag = np.ones(COUNT, bool)
    flag[:2] = False
    with h5py.File(groups, "r+") as file:
        file["Subhalo/SubhaloFlag"] = flag
    options: dict[str, Any] = {"grid": GRID, "haloes": [groups], "halo_type": "subhalo"}
    done = ingest_snapshot(source, tmp_path / "b.zarr", **options)
    half = MASSES[2:] / 2
    want = half[half >= 3e10].sum()
    assert sum(channel.mass for channel in done.halo) == pytest.approx(want, rel=1e-5)
    assert "2 of 40 are left out: subhaloes of no cosmological origin" in done.notes[-1]


def test_haloes_a_hair_outside_of_the_box_are_wrapped(tmp_path: Path) -> None:
    """Reported as SOAP#106: the centre of mass of a halo at the edge."""
    shift = np.array([PLACES[0, 0] + 0.0087, 0, 0])
    for name, places in (("in", np.mod(PLACES - shift, BOX)), ("out", PLACES - shift)):
        outside = places < 0
        places = np.where(outside & (places < -0.1), places + BOX, places)
        snapshots.catalogue(tmp_path / name, places, MASSES)
    inside, outside_ = (halo(tmp_path, tmp_path / name) for name in ("in", "out"))
    np.testing.assert_allclose(outside_, inside, rtol=1e-4, atol=1e-4 * inside.max())
    snapshots.catalogue(tmp_path / "far", PLACES - [2.0, 0, 0], MASSES)
    with pytest.raises(BadInput, match="outside of the box of 0 .. 4000"):
        halo(tmp_path, tmp_path / "far")


def test_a_catalogue_without_units_has_those_of_its_snapshot(tmp_path: Path) -> None:
    """Reported as pynbody#512."""
    (path,) = snapshots.gadget(tmp_path, FEW)
    (groups,) = snapshots.catalogue(tmp_path / "g", PLACES, MASSES)
    with h5py.File(path, "r+") as file, h5py.File(groups, "r+") as other:
        file["PartType1/Coordinates"][:] = FEW
        file["Parameters"].attrs["UnitLength_in_cm"] = 3.085678e24
        for one in (file, other):
            one["Header"].attrs["BoxSize"] = BOX
        other["Group/GroupPos"][:] = PLACES
    done = ingest_snapshot([path], tmp_path / "b.zarr", grid=GRID, haloes=[groups])
    assert done.halo[-1].mass == pytest.approx(MASSES[MASSES >= 1e12].sum(), rel=1e-5)


@pytest.mark.parametrize("units", ["eagle", "gizmo"])
def test_units_where_other_codes_keep_them(units: str, tmp_path: Path) -> None:
    """EAGLE's group Units and GIZMO's UnitLength_In_CGS, which has its h in it (pynbody#645)."""
    (path,) = snapshots.gadget(tmp_path, FEW, style="arepo")
    with h5py.File(path, "r+") as file:
        file["PartType1/Coordinates"][:] = FEW
        header = file["Header"].attrs
        header["BoxSize"] = BOX
        if units == "eagle":
            known = {"UnitLength_in_cm": 3.085678e24, "UnitMass_in_g": 1.989e43}
            file.create_group("Units").attrs.update(known)
        else:
            header["UnitLength_In_CGS"] = 3.085678e24 / H
            header["UnitMass_In_CGS"] = 1.989e43 / H
    found = open_snapshot([path]).header
    assert found.has_units and found.box_size == pytest.approx(BOX)
    done = ingest_snapshot([path], tmp_path / "b.zarr", grid=8)
    assert done.box_size == (pytest.approx(BOX),) * 3 and done.notes == ()


def test_swift_in_parts_beside_a_view_of_them(tmp_path: Path) -> None:
    """Reported as swiftsimio#110: snapshot and catalogue, whole, as a folder, as view, as parts."""
    boxes = {}
    for name in ("whole", "parts"):
        folder = tmp_path / name
        folder.mkdir()
        path = snapshots.swift(folder, FEW, haloes=(PLACES, MASSES))
        groups = folder / "fof_output_0000.hdf5"
        if name == "parts":
            parts, group_parts = snapshots.distributed(path, 3), snapshots.distributed(groups, 2)
            assert open_snapshot([folder]).files == tuple(parts)
            assert open_snapshot([parts[1]]).files == tuple(parts)
            assert open_snapshot([path]).files == (path,)
            assert open_catalogue([folder]).files == tuple(group_parts)
            assert open_catalogue([groups]).counts == (COUNT,)
        given = folder if name == "parts" else path
        ingest_snapshot([given], tmp_path / f"{name}.zarr", grid=GRID, haloes=[groups])
        boxes[name] = Box.open(tmp_path / f"{name}.zarr")
    for name in ("dm", "halo"):
        a, b = (np.asarray(box.array(name)[:]) for box in boxes.values())
        assert a.tobytes() == b.tobytes()
    parts[1].unlink()
    with pytest.raises(BadInput, match="snap_0000.1.hdf5: no such file"):
        open_snapshot([path])
    with pytest.raises(BadInput, match="snap_0000.1.hdf5: no such file"):
        open_snapshot([tmp_path / "parts"])
