"""Bad snapshots and catalogues: each is one line that says what is wrong, and leaves nothing."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.ingestion import sorted_points
from bigbox.ingestion.particles import ingest_snapshot
from tests import snapshots

COUNT = 1000


def edit(*names: str, remove: bool = False, **attributes: Any) -> Callable[[list[Path]], None]:
    """Changes attributes of groups, or removes groups or data sets, in the last file."""

    def change(paths: list[Path]) -> None:
        with h5py.File(paths[-1], "r+") as file:
            for name in names:
                if remove:
                    del file[name]
                else:
                    file[name].attrs.update(attributes)

    return change


def set_value(name: str, index: int, value: Any) -> Callable[[list[Path]], None]:
    def change(paths: list[Path]) -> None:
        with h5py.File(paths[-1], "r+") as file:
            file[name][index] = value

    return change


def replace(name: str, values: Any) -> Callable[[list[Path]], None]:
    def change(paths: list[Path]) -> None:
        with h5py.File(paths[-1], "r+") as file:
            del file[name]
            file[name] = values

    return change


def cut(share: float) -> Callable[[list[Path]], None]:
    def change(paths: list[Path]) -> None:
        data = paths[-1].read_bytes()
        paths[-1].write_bytes(data[: int(share * len(data))])

    return change


def remove_file(paths: list[Path]) -> None:
    paths[1].unlink()


SNAPSHOT: dict[str, tuple[Callable[[list[Path]], None], str]] = {
    "no header": (edit("Header", remove=True), "has no group Header"),
    "no particles": (edit("PartType1", remove=True), "500 particles of type 1, but it has no gr"),
    "no coordinates": (edit("PartType1/Coordinates", remove=True), "PartType1 has no Coordinates"),
    "box size 0": (edit("Header", BoxSize=0.0), "its BoxSize is 0.0; a periodic box has a pos"),
    "box of NaN": (edit("Header", BoxSize=np.nan), "its BoxSize is nan"),
    "slab": (edit("Header", BoxSize=[4e3, 4e3, 2e3]), r"its box of .* is not a cube"),
    "no box size": (edit("Header", BoxSize=np.zeros(0)), "its Header has no BoxSize"),
    "other box": (edit("Header", BoxSize=5e3), "box size 5 Mpc/h is another .4 Mpc/h. than in"),
    "other time": (edit("Header", Redshift=0.5), "redshift 0.5 is another .0. than in"),
    "future": (edit("Header", Redshift=-0.5), "its redshift -0.5 must be at least 0"),
    "other cosmology": (edit("Parameters", Omega0=0.2), "omega_m 0.2 is another .0.3. than"),
    "other total": (
        edit("Header", NumPart_Total=np.array([0, 1001, 0, 0, 0, 0])),
        "NumPart_Total .0, 1001, 0, 0, 0, 0. is another",
    ),
    "wrong count": (
        edit("Header", NumPart_ThisFile=[0, 499, 0, 0, 0, 0]),
        r"Coordinates has shape .500, 3., the header says 499 particles; the file is damaged",
    ),
    "too few": (
        replace("PartType1/Coordinates", np.zeros((499, 3))),
        r"Coordinates has shape .499, 3., the header says 500",
    ),
    "a missing file": (remove_file, r"snapshot_000.1.hdf5: no such file, .* says that it is one"),
    "cut in half": (cut(0.5), "truncated or damaged"),
    "cut to nothing": (cut(0.0), "truncated or damaged"),
    "no HDF5": (lambda paths: paths[-1].write_text("no HDF5 at all"), "truncated or damaged"),
    "NaN": (set_value("PartType1/Coordinates", 17, np.nan), r"particle 17 is at .nan, nan, nan"),
    "outside": (
        set_value("PartType1/Coordinates", 3, [10, 5000, 10]),
        r"particle 3 is at .10, 5000, 10., outside of the box of 0 .. 4000",
    ),
    "below": (set_value("PartType1/Coordinates", 3, [-10, 0, 0]), "outside of the box"),
}


def refused(folder: Path, match: str, given: list[Path], **options: Any) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(BadInput, match=match) as caught:
        ingest_snapshot(given, folder / "b.zarr", grid=8, **options)
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", SNAPSHOT)
def test_bad_snapshot(name: str, tmp_path: Path) -> None:
    change, match = SNAPSHOT[name]
    files = 3 if name == "a missing file" else 2
    paths = snapshots.gadget(tmp_path / "run", snapshots.clustered(COUNT), files=files)
    change(paths)
    refused(tmp_path, match, [paths[0]])


def test_wrong_particle_types(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    only_gas = snapshots.gadget(tmp_path / "gas", few[:0], gas={"Coordinates": few, "Masses": few})
    refused(tmp_path, "has no dark matter .PartType1., only type 0", only_gas)
    zoom = snapshots.gadget(tmp_path / "zoom", few)
    with h5py.File(zoom[0], "r+") as file:
        file["PartType2/Coordinates"] = few[:5] * 1e3
        for name in ("NumPart_ThisFile", "NumPart_Total"):
            file["Header"].attrs[name] = [0, COUNT, 5, 0, 0, 0]
    refused(
        tmp_path,
        "has 5 particles of type 2, of 0 M_sun/h each .* .low resolution of a zoom run.",
        zoom,
    )


def test_tracers_without_places_are_no_matter(tmp_path: Path) -> None:
    paths = snapshots.gadget(tmp_path, snapshots.clustered(COUNT))
    with h5py.File(paths[0], "r+") as file:
        file["PartType3/TracerID"] = np.arange(7)
        for name in ("NumPart_ThisFile", "NumPart_Total"):
            file["Header"].attrs[name] = [0, COUNT, 0, 7, 0, 0]
    ingest_snapshot(paths, tmp_path / "b.zarr", grid=8)


def test_units_that_cannot_be(tmp_path: Path) -> None:
    """A box of 4 Mpc/h whose header says 4 kpc/h, and half of the particles."""
    few = snapshots.clustered(COUNT)
    paths = snapshots.gadget(tmp_path / "a", few)
    edit("Parameters", UnitLength_in_cm=3.085678e24)(paths)
    refused(tmp_path, "its dark matter in a box of 4000 Mpc/h has the density 3e-10", paths)
    paths = snapshots.gadget(tmp_path / "c", few, share=0.5)
    refused(tmp_path, "has the density 0.15 over critical, but Omega_m is 0.3", paths)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "empty: has no HDF5 file", [tmp_path / "empty"])
    refused(tmp_path, "none: no such file or folder", [tmp_path / "none"])
    few = snapshots.clustered(COUNT)
    for name in ("snapshot_000", "snapshot_001"):
        snapshots.gadget(tmp_path / "two", few, name=name)
    refused(
        tmp_path, r"two: holds 2 snapshots .snapshot_000, snapshot_001.; name", [tmp_path / "two"]
    )
    groups = snapshots.catalogue(tmp_path / "groups", *snapshots.haloes(5, few))
    refused(tmp_path, "not a snapshot but a halo catalogue .give it with --halos", groups)
    refused(tmp_path, "no snapshot .* is there", [tmp_path / "groups"])


CATALOGUE: dict[str, tuple[Callable[[list[Path]], None], str]] = {
    "other box": (edit("Header", BoxSize=5e3), "box size 5 Mpc/h is another"),
    "other time": (edit("Header", Redshift=0.5), "redshift 0.5 is another"),
    "other cosmology": (edit("Parameters", HubbleParam=0.7), "h 0.7 is another .0.6711."),
    "no header": (edit("Header", remove=True), "no halo catalogue"),
    "no masses": (edit("Group/GroupMass", remove=True), "has no Group/GroupMass"),
    "no places": (edit("Group/GroupPos", remove=True), "Group has no GroupCM or GroupPos"),
    "wrong count": (edit("Header", Ngroups_ThisFile=19), "the header says 19 groups; the file is"),
    "too many": (
        edit("Header", Ngroups_Total=41),
        "its header says 41 groups in all, its 2 files hold 40",
    ),
    "NaN": (set_value("Group/GroupPos", 2, np.nan), "halo 2 is at .nan, nan, nan."),
    "outside": (set_value("Group/GroupPos", 2, 1e5), "outside of the box"),
    "no mass": (set_value("Group/GroupMass", 2, -1), "halo 2 has mass -1, which is no mass"),
    "cut": (cut(0.6), "truncated or damaged"),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_bad_catalogue(name: str, tmp_path: Path) -> None:
    change, match = CATALOGUE[name]
    few = snapshots.clustered(COUNT)
    source = snapshots.gadget(tmp_path / "run", few)
    groups = snapshots.catalogue(tmp_path / "groups", *snapshots.haloes(40, few), files=2)
    change(groups)
    refused(tmp_path, match, source, haloes=groups)


def test_catalogue_of_another_simulation(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    source = snapshots.gadget(tmp_path / "run", few, more={"Seed": 1})
    centres, masses = snapshots.haloes(40, few)
    redshift = snapshots.catalogue(tmp_path / "z", centres, masses, redshift=1.0)
    refused(
        tmp_path, "redshift 1 is another .0. .* a catalogue of another sim", source, haloes=redshift
    )
    seed = snapshots.catalogue(tmp_path / "s", centres, masses, more={"Seed": 2})
    refused(tmp_path, "the seed of the initial conditions, 2, is another", source, haloes=seed)


def test_haloes_where_no_matter_is(tmp_path: Path) -> None:
    """The same header, other initial conditions: haloes strewn over the box."""
    clumps = np.tile(snapshots.clustered(COUNT)[:20], (50, 1))
    clumps += np.random.default_rng(0).normal(0, 0.02, clumps.shape).astype(np.float32)
    source = snapshots.gadget(tmp_path / "run", np.mod(clumps, snapshots.BOX))
    strewn = np.random.default_rng(1).uniform(0, snapshots.BOX, (100, 3))
    groups = snapshots.catalogue(tmp_path / "g", strewn, np.full(100, 4e10))
    refused(tmp_path, "% of the haloes' mass is where matter is denser", source, haloes=groups)


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    source = snapshots.gadget(tmp_path / "run", few)
    groups = snapshots.catalogue(tmp_path / "groups", *snapshots.haloes(5, few))
    refused(tmp_path, "needs their catalogue: give --halos", source, hi_halo=True)
    refused(
        tmp_path, "either of the gas .* choose one", source, hi_halo=True, gas=True, haloes=groups
    )
    refused(tmp_path, "are for the gas", source, self_shielding=True)
    refused(tmp_path, "radius -0.2 Mpc/h must be", source, smoothing=-0.2)
    refused(
        tmp_path, "smoothing reaches 400 voxels, at most 251", source, haloes=groups, smoothing=50.0
    )
    refused(tmp_path, "has no subhaloes; has it groups", source, haloes=groups, halo_type="subhalo")
    far = snapshots.gadget(tmp_path / "far", few, redshift=7.0)
    groups = snapshots.catalogue(tmp_path / "z7", *snapshots.haloes(5, few), redshift=7.0)
    refused(tmp_path, "redshift 7: the HI-halo relation .* ends", far, haloes=groups, hi_halo=True)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = snapshots.gadget(tmp_path / "run", snapshots.clustered(COUNT))
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1000))
        refused(tmp_path, "but 0.0 GB are free: choose another folder", source)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((sorted_points.SortedPoints, "_append"), (zarr.Array, "__setitem__")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, full)
            refused(tmp_path, r"cannot be written .No space left on device.", source)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = snapshots.clustered(COUNT)
    source = snapshots.gadget(tmp_path / "run", few, files=2)
    groups = snapshots.catalogue(tmp_path / "groups", *snapshots.haloes(40, few))
    box = str(tmp_path / "b.zarr")
    given = [*map(str, source), box, "--grid", "16", "--halos", str(groups[0]), "--hi-halo"]
    assert main(["ingest", *given]) == 0
    said = capsys.readouterr().out
    assert "16 x 16 x 16 voxels, 4 x 4 x 4 Mpc/h, z = 0" in said
    assert "dm: 1000 particles" in said and "mean 1.0000000" in said
    assert said.count("halo: ") == 4 and "a stand-in for hydrodynamics" in said
    assert "expected of Omega_HI" in said and "Crighton et al. 2015" in said

    def fails(match: str, *arguments: str) -> None:
        try:
            status = main(["ingest", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        text = capsys.readouterr().err
        assert status == 2 and match in text and text.count("\n") == 1, text

    other = str(tmp_path / "c.zarr")
    fails("exists already", *given)
    fails("is a snapshot; --index is of a density grid", str(source[0]), other, "--index", "0")
    fails("is a density grid; --gas is of a snapshot", "quickstart", other, "--gas")
    fails("no such file", str(tmp_path / "none.hdf5"), other, "--gas")
    fails("not allowed with", str(source[0]), other, "--gas", "--hi-halo")
    with h5py.File(source[1], "r+") as file:
        del file["Header"]
    fails("has no group Header", str(source[1]), other)
    assert not (tmp_path / "c.zarr").exists()
