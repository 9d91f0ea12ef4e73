"""What is not in a file is never read as zero: virtual data sets, chunks, raw files, shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import bigbox
from bigbox.analysis.maps.picture import plot
from bigbox.errors import BadInput
from bigbox.export import export
from bigbox.ingestion.density import ingest_density
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.store.absent import absent_chunks
from bigbox.store.box import Box
from tests import snapshots
from tests.grids import N, grid, ingest

COUNT = 4000


def refused(source: object, folder: Path, match: str, **options: object) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(BadInput, match=match) as caught:
        ingest_density(str(source), folder / "b.zarr", box_size=(25.0,), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before


def virtual(path: Path, shape: tuple[int, ...], parts: list[tuple[slice, str, str]]) -> Path:
    """A file with a virtual data set "rho" of parts: where, of which file, of which data set."""
    layout = h5py.VirtualLayout(shape, "f4")
    for cut, file, name in parts:
        layout[cut] = h5py.VirtualSource(file, name, (cut.stop - cut.start, *shape[1:]))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("rho", layout)
    return path


def slabs(folder: Path, rho: NDArray) -> Path:
    cuts = [slice(0, 16), slice(16, 32)]
    for i, cut in enumerate(cuts):
        with h5py.File(folder / f"slab{i}.h5", "w") as file:
            file["d/rho"] = rho[cut]
    parts = [(cut, f"slab{i}.h5", "d/rho") for i, cut in enumerate(cuts)]
    return virtual(folder / "grid.hdf5", rho.shape, parts)


def test_a_virtual_grid_needs_all_its_sources(tmp_path: Path) -> None:
    """Reported as karabo_data#146: all zeroes where a source file was moved."""
    rho = grid()
    source = slabs(tmp_path, rho)
    whole = (rho / rho.mean(dtype=float)).astype(np.float32)
    np.testing.assert_allclose(ingest(source, tmp_path)[0], whole, rtol=1e-6)
    shutil.rmtree(tmp_path / "b.zarr")
    with h5py.File(tmp_path / "slab1.h5", "r+") as file:
        del file["d/rho"]
        file["d/rho"] = rho[16:30]
    refused(source, tmp_path, r"slab1.h5: d/rho has shape \(14, 32, 32\), which is not what")
    with h5py.File(tmp_path / "slab1.h5", "r+") as file:
        file.move("d/rho", "d/other")
    refused(source, tmp_path, "slab1.h5: has no d/rho, where .*grid.hdf5:/rho has its values")
    (tmp_path / "slab1.h5").write_text("cut")
    refused(source, tmp_path, "slab1.h5: cannot be read")
    (tmp_path / "slab1.h5").unlink()
    refused(source, tmp_path, "slab1.h5: no such file, but .*grid.hdf5:/rho has a part")


def test_virtual_data_sets_with_a_gap_and_of_each_other(tmp_path: Path) -> None:
    slabs(tmp_path, grid())
    gap = virtual(tmp_path / "gap.hdf5", (N, N, N), [(slice(0, 16), "slab0.h5", "d/rho")])
    refused(gap, tmp_path, "its sources hold 16384 of 32768 values, the others would read as 0")
    outer = virtual(tmp_path / "outer.hdf5", (N, N, N), [(slice(0, N), "grid.hdf5", "rho")])
    assert ingest(outer, tmp_path)[0].shape == (N, N, N)
    shutil.rmtree(tmp_path / "b.zarr")
    (tmp_path / "slab0.h5").unlink()
    refused(outer, tmp_path, "slab0.h5: no such file")


def test_chunks_of_hdf5_that_were_never_written(tmp_path: Path) -> None:
    rho = grid()
    with h5py.File(tmp_path / "rho.hdf5", "w") as file:
        data = file.create_dataset("rho", rho.shape, "f4", chunks=(16, 16, 16))
        data[:16] = rho[:16]
        data[16:, :16] = rho[16:, :16]
        file.create_dataset("none", rho.shape, "f4")
    source = tmp_path / "rho.hdf5:/rho"
    refused(
        source, tmp_path, r"rho: chunk \(1, 1, 0\) is not in the file \(2 of 8 .*--empty-chunks"
    )
    refused(tmp_path / "rho.hdf5:/none", tmp_path, "its values were never written and would read")
    dm, _ = ingest(source, tmp_path, empty_chunks=True)
    assert (dm[16:, 16:] == 0).all() and (dm[:16] > 0).all()


def test_raw_files_beside_an_hdf5_file(tmp_path: Path) -> None:
    rho = grid()
    (tmp_path / "raw").write_bytes(rho.tobytes())
    with h5py.File(tmp_path / "rho.hdf5", "w") as file:
        external = [(str(tmp_path / "raw"), 0, rho.nbytes)]
        file.create_dataset("rho", rho.shape, "f4", external=external)
    assert ingest(tmp_path / "rho.hdf5", tmp_path)[0].max() > 1
    shutil.rmtree(tmp_path / "b.zarr")
    (tmp_path / "raw").write_bytes(rho.tobytes()[:-5])
    refused(tmp_path / "rho.hdf5", tmp_path, "raw: has 131067 of 131072 bytes that .*rho.hdf5:/rho")


@pytest.mark.parametrize("kind", ["v2", "v3", "sharded", "start"])
def test_zarr_chunks_that_are_lost(kind: str, tmp_path: Path) -> None:
    """Reported as zarr-python#486: a chunk that is lost reads as the fill value, without error."""
    rho = grid()
    place = tmp_path / "rho.zarr"
    more: dict = {"zarr_format": 2} if kind == "v2" else {}
    if kind in ("sharded", "start"):
        location = "end" if kind == "sharded" else "start"
        more = {"shards": {"shape": (32, 32, 16), "index_location": location}}
    array = zarr.create_array(place, shape=rho.shape, dtype="f4", chunks=(16, 16, 16), **more)
    array[:] = rho
    assert list(absent_chunks(array)) == []
    assert ingest(place, tmp_path)[0].shape == rho.shape
    shutil.rmtree(tmp_path / "b.zarr")
    if "shards" in more:
        array[16:, :16, 16:] = 0  # a chunk of its fill value is left out of its shard
        lost, count = "(1, 0, 1)", 1
    else:
        (place / ("1.0.1" if kind == "v2" else "c/1/0/1")).unlink()
        lost, count = "(1, 0, 1)", 1
    match = rf"rho.zarr: chunk \{lost[:-1]}\) is not in the file \({count} of 8 .*--empty-chunks"
    refused(place, tmp_path, match)
    dm, _ = ingest(place, tmp_path, empty_chunks=True)
    assert (dm[16:, :16, 16:] == 0).all() and (dm == 0).sum() == 16**3
    shutil.rmtree(tmp_path / "b.zarr")
    if "shards" in more:
        shutil.rmtree(place / "c" / "0" / "0", ignore_errors=True)
        refused(place, tmp_path, r"chunk \(0, 0, 0\) is not in the file \(8 of 8")


def test_a_summary_of_metadata_that_is_older_than_the_array(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    array = group.create_array("rho", shape=(16, N, N), dtype="f4", chunks=(16, 16, 16))
    zarr.consolidate_metadata(tmp_path / "g.zarr")
    array.resize((N, N, N))
    array[:] = rho = grid()
    dm, _ = ingest(tmp_path / "g.zarr", tmp_path)
    np.testing.assert_allclose(dm, rho / rho.mean(dtype=float), rtol=1e-6)


def test_a_virtual_snapshot_needs_all_its_sources(tmp_path: Path) -> None:
    """Reported as h5py#1546 and HDFGroup/hdf5#5088; IllustrisTNG's simulation.hdf5 is so."""
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few)
    half = COUNT // 2
    layout = h5py.VirtualLayout((COUNT, 3), "f4")
    for i, cut in enumerate((slice(0, half), slice(half, COUNT))):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as file:
            file["x"] = few[cut] * 1000
        layout[cut] = h5py.VirtualSource(f"part{i}.h5", "x", (half, 3))
    with h5py.File(path, "r+") as file:
        del file["PartType1/Coordinates"]
        file["PartType1"].create_virtual_dataset("Coordinates", layout)
    ingest_snapshot([path], tmp_path / "b.zarr", grid=8)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(BadInput, match="part1.h5: no such file, but .*PartType1/Coordinates has a"):
        ingest_snapshot([path], tmp_path / "c.zarr", grid=8)
    assert not (tmp_path / "c.zarr").exists()


def test_a_snapshot_by_links_names_the_one_that_leads_nowhere(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    (path,) = snapshots.gadget(tmp_path, few)
    with h5py.File(path, "r+") as file, h5py.File(tmp_path / "data.h5", "w") as data:
        file.copy("PartType1", data)
        del file["PartType1"]
        file["PartType1"] = h5py.ExternalLink("data.h5", "/PartType1")
    ingest_snapshot([path], tmp_path / "b.zarr", grid=8)
    (tmp_path / "data.h5").unlink()
    with pytest.raises(
        BadInput, match=r"PartType1 is a link to .*data.h5:/PartType1, which is not"
    ):
        ingest_snapshot([path], tmp_path / "c.zarr", grid=8)


def test_masses_and_haloes_that_were_never_written(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    masses = np.full(COUNT, snapshots.particle_mass(COUNT))
    (path,) = snapshots.gadget(tmp_path, few, masses=masses)
    with h5py.File(path, "r+") as file:
        del file["PartType1/Masses"]
        file.create_dataset("PartType1/Masses", (COUNT,), "f4", chunks=(100,))[:3900] = 1
    with pytest.raises(BadInput, match=r"Masses: chunk \(39,\) is not in the file") as caught:
        ingest_snapshot([path], tmp_path / "c.zarr", grid=8)
    assert "--empty-chunks" not in str(caught.value)  # a particle is never left out
    (path,) = snapshots.gadget(tmp_path, few)
    (groups,) = snapshots.catalogue(tmp_path / "g", *snapshots.haloes(40, few))
    with h5py.File(groups, "r+") as file:
        del file["Group/GroupMass"]
        file.create_dataset("Group/GroupMass", (40,), "f4")
    with pytest.raises(BadInput, match="Group/GroupMass: its values were never written"):
        ingest_snapshot([path], tmp_path / "c.zarr", grid=8, haloes=[groups])
    assert not (tmp_path / "c.zarr").exists()


def test_many_particles_at_one_place_are_said(tmp_path: Path) -> None:
    few = snapshots.clustered(COUNT)
    few[::10] = 0
    (path,) = snapshots.gadget(tmp_path, few)
    done = ingest_snapshot([path], tmp_path / "b.zarr", grid=8)
    assert any("399 of 4000 particles are exactly where another" in w for w in done.warnings)
    rho = grid()
    rho[: int(0.7 * N)] = 0
    np.save(tmp_path / "rho.npy", rho)
    grids = ingest_density(str(tmp_path / "rho.npy"), tmp_path / "c.zarr", box_size=(25.0,))
    assert any("69 % of the voxels have density 0" in w for w in grids.warnings)


def test_nothing_leaves_a_box_that_lost_a_shard(tmp_path: Path) -> None:
    """Reported as xarray#8842 of others: NaN in the place of what was lost."""
    np.save(tmp_path / "rho.npy", grid())
    ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=(3.0,))
    shutil.rmtree(tmp_path / "b.zarr/dm/c")
    box, match = Box.open(tmp_path / "b.zarr"), r"dm: chunk \(0, 0, 0\) is not there: lost"
    for to in ("npy", "hdf5", "ome-zarr"):
        for partial in (False, True):
            with pytest.raises(BadInput, match=match):
                export(box, to, ["dm"], partial=partial)
    with pytest.raises(BadInput, match=match):
        plot(box, tmp_path / "b.png")
    with pytest.raises(BadInput, match=match):
        bigbox.open(box.path).dm.mean().compute()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zarr", "rho.npy"]
