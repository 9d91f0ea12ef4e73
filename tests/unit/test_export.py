"""Ways out of the store: every file holds the box's own values, and its readers open it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
import zarr
from astropy.io import fits

import bigbox
from bigbox.blockwise import regions
from bigbox.cli import main
from bigbox.cli.export import EXAMPLES
from bigbox.errors import BadInput
from bigbox.export import export
from bigbox.export.npy import contiguous
from bigbox.export.ome import mean_of_eight
from bigbox.painters import stand_in
from bigbox.physics.brightness import mean_brightness
from bigbox.physics.cosmology import Cosmology
from bigbox.scheduler import Bricks, Tiling
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.layouts import PaintLayout
from bigbox.store.recorded import painting_of
from bigbox.store.run import Start

SHAPE = (70, 66, 97)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Box:
    path = tmp_path_factory.mktemp("export") / "box.zarr"
    box = Box.create(path, SHAPE, 7.0, 0.5, {"omega_m": 0.3, "h": 0.6711})
    rng = np.random.default_rng(0)
    box.create_array("dm")[:] = rng.random(SHAPE, dtype=np.float32)
    box.create_array("tb")[:] = rng.random(SHAPE, dtype=np.float32)
    box.create_array("halo", channels=4)[:] = rng.random((4, *SHAPE), dtype=np.float32)
    return box


def values(box: Box, name: str) -> np.ndarray:
    return np.asarray(box.array(name)[:])


@pytest.mark.parametrize("memory", [1 << 30, 1])
@pytest.mark.parametrize("name", ["tb", "halo"])
def test_npy_is_the_array(box: Box, tmp_path: Path, name: str, memory: int) -> None:
    (done,) = export(box, "npy", [name], tmp_path / "a.npy", memory=memory)
    assert np.array_equal(np.load(done.path, mmap_mode="r"), values(box, name))
    assert done.bytes == done.path.stat().st_size
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_hdf5_is_read_by_h5py_and_by_xarray(box: Box, tmp_path: Path, memory: int) -> None:
    (done,) = export(box, "hdf5", ["tb", "halo"], tmp_path / "a.hdf5", memory=memory)
    with h5py.File(done.path) as file:
        assert np.array_equal(file["tb"][:], values(box, "tb"))
        assert np.array_equal(file["halo"][:], values(box, "halo"))
        assert file["tb"].attrs["units"] == "mK" and file["tb"].dtype == np.float32
        assert [d.label for d in file["halo"].dims] == ["", "x", "y", "z"]
        np.testing.assert_allclose(file["tb"].dims[2][0][:], (np.arange(97) + 0.5) * 0.1)
        header = file["Header"].attrs
        np.testing.assert_allclose(header["BoxSize"], box.box_size)
        assert header["omega_m"] == 0.3 and header["Redshift"] == 0.5


def test_a_cubic_box_has_one_box_size(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (8, 8, 8), 2.0, 0.0)
    box.create_array("dm")[:] = 1
    (done,) = export(box, "hdf5")
    assert done.path == tmp_path / "b.hdf5" and done.arrays == ("dm",)
    with h5py.File(done.path) as file:
        assert float(file["Header"].attrs["BoxSize"]) == 2.0


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("name", ["tb", "halo"])
def test_ome_zarr_is_a_pyramid_of_means(box: Box, tmp_path: Path, version: str, name: str) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    place = tmp_path / "a.ome.zarr"
    export(box, "ome-zarr", [name], place, ome_version=version)
    group = zarr.open_group(place, mode="r")
    about = group.attrs["ome"] if version == "0.5" else group.attrs
    image = about["multiscales"][0]
    (node,) = Reader(parse_url(place, mode="r"))()
    levels = [np.asarray(level) for level in node.data]
    assert len(levels) == len(image["datasets"]) == 2
    whole = values(box, name)
    assert np.array_equal(levels[0], whole)
    lead = whole.shape[:-3]
    means = whole[..., :70, :66, :96].reshape(*lead, 35, 2, 33, 2, 48, 2).mean((-5, -3, -1))
    np.testing.assert_allclose(levels[1], means, rtol=1e-6)
    # A linear field keeps its values at the places that the metadata gives.
    for number, dataset in enumerate(image["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert scale["scale"][-3:] == pytest.approx([0.1 * 2**number] * 3)
        assert translation["translation"][-3:] == pytest.approx([0.05 * 2**number] * 3)
    assert [axis["name"] for axis in image["axes"]] == ["c", "x", "y", "z"][-whole.ndim :]
    assert group.attrs["bigbox"]["length_units"] == "comoving Mpc/h"
    window = about["omero"]["channels"][0]["window"]
    assert 0 < window["start"] < window["end"] < 1


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ome_zarr_is_valid_by_an_independent_model(box: Box, tmp_path: Path, version: str) -> None:
    models = pytest.importorskip("ome_zarr_models")
    export(box, "ome-zarr", ["halo"], tmp_path / "a.ome.zarr", ome_version=version)
    image = models.open_ome_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
    assert type(image).__name__ == "Image" and image.ome_zarr_version == version


def test_open_is_an_xarray_data_set_on_dask(box: Box) -> None:
    data = bigbox.open(box.path)
    assert isinstance(data, xarray.Dataset) and set(data) == {"dm", "tb", "halo"}
    assert data.tb.chunks is not None and data.halo.dims == ("channel", "x", "y", "z")
    assert data.tb.attrs["units"] == "mK" and data.x.attrs["units"] == "Mpc/h"
    assert data.attrs["redshift"] == 0.5 and data.attrs["cosmology"]["h"] == 0.6711
    plane = data.tb.sel(z=1.2, method="nearest")
    assert float(plane.z) == pytest.approx(1.15) or float(plane.z) == pytest.approx(1.25)
    at = round(float(plane.z) / 0.1 - 0.5)
    assert np.array_equal(plane.values, values(box, "tb")[:, :, at])
    again = xarray.open_zarr(box.path, consolidated=False)
    xarray.testing.assert_equal(data.compute().drop_vars("channel"), again.compute())
    assert bigbox.open(box.path, chunks={"x": 7}).dm.chunks[0][0] == 7
    with pytest.raises(BadInput, match="no such store"):
        bigbox.open(box.path / "nothing")


@pytest.mark.parametrize("to", list(EXAMPLES))
def test_the_three_line_examples_work(box: Box, tmp_path: Path, to: str) -> None:
    places = {"npy": "box_tb.npy", "hdf5": "box.hdf5", "fits": "box_tb.fits"}
    places["ome-zarr"] = "box_tb.ome.zarr"
    assert main(["export", str(box.path), "--to", to, "--out", str(tmp_path / places[to])]) == 0
    code = EXAMPLES[to]
    assert len(code.splitlines()) == 3
    if to == "hdf5":  # this box has three sides
        code = code.replace('float(f["Header"].attrs["BoxSize"])', 'f["Header"].attrs["BoxSize"]')
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_bad_requests_leave_nothing_behind(box: Box, tmp_path: Path) -> None:
    taken = tmp_path / "taken.npy"
    taken.touch()
    for arguments, words in (
        (("npy", ["gas"]), "no 'gas'"),
        (("rain",), "not one of"),
        (("npy", ["tb", "dm"], tmp_path / "a.npy"), "one array a file"),
        (("npy", None, taken), "exists already"),
        (("npy", None, tmp_path / "no" / "a.npy"), "no folder"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            export(box, *arguments)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["taken.npy"]
    assert main(["export", str(box.path), "--to", "npy", "--out", str(taken)]) == 2


def test_a_damaged_array_is_named_and_leaves_nothing(box: Box, tmp_path: Path) -> None:
    small = Box.create(tmp_path / "b.zarr", (40, 40, 40), 4.0, 0.0)
    small.create_array("dm")[:] = 1
    (shard,) = (p for p in (small.path / "dm" / "c").rglob("*") if p.is_file())
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    for to in ("npy", "hdf5", "ome-zarr"):
        with pytest.raises(BadInput, match=r"b\.zarr/dm.*damaged"):
            export(small, to, ["dm"], tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["b.zarr"]


def test_an_unfinished_painting_is_refused(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (56, 56, 56), 5.6, 0.0)
    tiling = Tiling(box.shape)
    assert painting_of(box) is None
    start = Start(box, PaintLayout(Bricks(tiling, 2)), {"painter": "gaussian", "seed": 1})
    start.begin(DISK, {}).lease.close()
    found = painting_of(box)
    assert found is not None and not found.complete and found.layout.tiling == tiling
    assert stand_in(found.identity["painter"])
    with pytest.raises(BadInput, match="0 of 8 tiles"):
        export(box, "npy")
    (done,) = export(box, "npy", partial=True)
    assert np.isnan(np.load(done.path)).all()


@pytest.mark.parametrize("voxels", [0, 50, 300, 10**6])
def test_regions_cover_every_voxel_once(voxels: int) -> None:
    shape, unit = (2, 7, 12, 9), (1, 3, 4, 2)
    seen = np.zeros(shape, int)
    for part in regions(shape, unit, voxels):
        assert seen[part].size <= max(voxels, np.prod(unit))
        seen[part] += 1
    assert (seen == 1).all()


def test_contiguous_runs_are_those_of_the_whole_array() -> None:
    whole = np.arange(2 * 5 * 6 * 4, dtype=np.float32).reshape(2, 5, 6, 4)
    for part in (
        *regions(whole.shape, (1, 2, 3, 2), 0),
        *regions(whole.shape, (1, 2, 3, 2), 40),
        tuple(slice(0, n) for n in whole.shape),
    ):
        block = np.ascontiguousarray(whole[part])
        runs = list(contiguous(block, part, whole.shape))
        assert sum(values.size for _, values in runs) == block.size
        for first, values_ in runs:
            assert np.array_equal(values_.ravel(), np.arange(first, first + values_.size))


def test_mean_of_eight() -> None:
    block = np.random.default_rng(0).random((2, 4, 6, 8), dtype=np.float32)
    slow = block.reshape(2, 2, 2, 3, 2, 4, 2).mean((2, 4, 6))
    np.testing.assert_allclose(mean_of_eight(block), slow, rtol=1e-6)


def test_fits_is_read_by_astropy(box: Box, tmp_path: Path) -> None:
    (done,) = export(box, "fits", ["tb"], tmp_path / "a.fits", omega_hi=4e-4, memory=1 << 22)
    with fits.open(done.path) as found:
        image, header = found[0].data, found[0].header
        found.verify("exception")
        tb = np.asarray(box.require("tb")[...], np.float64)
        cosmology = Cosmology.from_header(box.attributes["cosmology"])
        wanted = mean_brightness(4e-4, box.redshift, cosmology)
        np.testing.assert_allclose(image, tb * wanted / tb.mean(), rtol=1e-5)
    assert header["BUNIT"] == "mK" and header["CDELT1"] == pytest.approx(box.voxel)
    assert any("Omega_HI = 0.0004" in line for line in header["COMMENT"])


def test_rescaled_says_so(box: Box, tmp_path: Path) -> None:
    (done,) = export(box, "hdf5", ["tb", "dm"], tmp_path / "a.hdf5", omega_hi=4e-4)
    with h5py.File(done.path) as file:
        assert "Omega_HI = 0.0004" in file["tb"].attrs["rescaled"]
        assert "rescaled" not in file["dm"].attrs
    with pytest.raises(BadInput, match="is of tb"):
        export(box, "npy", ["dm"], tmp_path / "b.npy", omega_hi=4e-4)
    with pytest.raises(BadInput, match="no folder"):
        export(box, "npy", ["dm"], tmp_path / "none" / "b.npy")
