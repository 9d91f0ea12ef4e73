"""The box on disk: created, refused, opened by zarr and xarray, read in cut-outs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.ingest.check import damaged_inputs
from bigbox.store.box import Box, field_chunks
from bigbox.store.cutouts import CutoutReader
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import boxes


def make(path: Path, shape: tuple[int, int, int] = (40, 36, 70)) -> Box:
    box = Box.create(path, shape, 0.1 * shape[0], 0.5, {"Omega_m": 0.3}, {"source": "test"})
    rng = np.random.default_rng(1)
    box.create_array("dm")[:] = rng.random(shape, dtype=np.float32)
    return box


def test_round_trip_and_geometry(tmp_path: Path) -> None:
    box = make(tmp_path / "b.zarr")
    again = Box.open(tmp_path / "b.zarr")
    assert again.shape == (40, 36, 70) and again.redshift == 0.5
    assert again.voxel == pytest.approx(0.1)
    assert again.box_size == pytest.approx((4.0, 3.6, 7.0))
    assert again.attributes["cosmology"] == {"Omega_m": 0.3}
    assert again.names() == ["dm"]
    assert np.array_equal(again.require("dm")[:], box.array("dm")[:])


def test_xarray_sees_coordinates_units_and_no_warning(tmp_path: Path) -> None:
    box = make(tmp_path / "b.zarr")
    box.create_array("halo", channels=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", UserWarning)
        data = xarray.open_zarr(box.path, consolidated=False)
    assert data.dm.dims == ("x", "y", "z") and data.halo.dims == ("channel", "x", "y", "z")
    assert data.dm.attrs["units"] == "1" and data.x.attrs["units"] == "Mpc/h"
    assert np.allclose(data.z.values, (np.arange(70) + 0.5) * 0.1)
    assert np.isnan(data.halo.isel(channel=0, x=0, y=0, z=0).values)


def test_voxels_never_written_are_nan(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (8, 8, 8), 1.0, 0.0)
    assert np.isnan(box.create_array("dm")[:]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((8, 8), 1.0, 0.0), "3"),
        (((8, 8, 0), 1.0, 0.0), "less than one voxel"),
        (((8, 8, 8), -1.0, 0.0), "lengths > 0"),
        (((8, 8, 8), (1.0, 1.0), 0.0), "lengths > 0"),
        (((8, 8, 8), (1.0, 2.0, 1.0), 0.0), "not cubic"),
        (((8, 8, 8), 1.0, -3.0), "redshift"),
    ],
)
def test_bad_geometry_is_refused(tmp_path: Path, arguments: tuple, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Box.create(tmp_path / "b.zarr", *arguments)
    assert not (tmp_path / "b.zarr").exists()


def test_bad_stores_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such store"):
        Box.open(tmp_path / "none.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(BadInput, match="not a bigbox"):
        Box.open(tmp_path / "other.zarr")
    box = Box.create(tmp_path / "b.zarr", (8, 8, 8), 1.0, 0.0)
    with pytest.raises(BadInput, match="no 'dm'") as caught:
        box.require("dm")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="exists already"):
        Box.create(tmp_path / "b.zarr", (8, 8, 8), 1.0, 0.0)
    box.create_array("dm", channels=2)
    with pytest.raises(BadInput, match="4 dimensions"):
        box.require("dm")


def test_wrong_shape_is_refused(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (8, 8, 8), 1.0, 0.0)
    Box.create(tmp_path / "c.zarr", (6, 8, 8), 1.0, 0.0).create_array("dm")
    (tmp_path / "c.zarr" / "dm").rename(box.path / "dm")
    with pytest.raises(BadInput, match="6, 8, 8"):
        box.require("dm")


@pytest.mark.parametrize("n", [5, 32, 100, 128, 300, 10240])
def test_shards_are_whole_chunks_and_at_most_the_box(n: int) -> None:
    chunk, shard = field_chunks((n, n, n))
    assert all(s % c == 0 for c, s in zip(chunk, shard, strict=True))
    assert shard[0] <= 256 and (n <= shard[0] or shard[0] == 4 * chunk[0])


@settings(max_examples=40, deadline=None)
@given(
    shape=boxes(1, 9),
    periodic=st.tuples(*[st.booleans()] * 3),
    origin=boxes(-20, 20),
    size=boxes(1, 14),
    channels=st.sampled_from([None, 2]),
    cache_bytes=st.sampled_from([1, 10**6]),
)
def test_cut_outs_are_what_numpy_takes(
    tmp_path_factory: pytest.TempPathFactory, shape, periodic, origin, size, channels, cache_bytes
) -> None:
    lead = () if channels is None else (channels,)
    values = np.arange(np.prod(lead + shape), dtype=np.float32).reshape(lead + shape)
    place = tmp_path_factory.mktemp("cut") / "a.zarr"
    array = zarr.create_array(place, data=values, chunks=(1,) * len(lead) + (4, 3, 5))
    index = [
        (np.arange(o, o + s) % n) if p else np.clip(np.arange(o, o + s), 0, n - 1)
        for o, s, n, p in zip(origin, size, shape, periodic, strict=True)
    ]
    wanted = values[(slice(None),) * len(lead) + np.ix_(*index)]
    reader = CutoutReader(array, periodic, cache_bytes=cache_bytes)
    for _ in range(2):
        assert np.array_equal(reader.read(origin, size), wanted)
    worked(wanted.size)


def test_reader_keeps_within_its_bytes(tmp_path: Path) -> None:
    box = make(tmp_path / "b.zarr", (96, 96, 96))
    reader = CutoutReader(box.require("dm"), cache_bytes=5 * 32**3 * 4)
    for x in range(0, 96, 8):
        reader.read((x, 5, 90), (20, 20, 20))
        assert reader._places.nbytes <= reader.cache_bytes
        assert 1 <= len(reader._open) <= len(reader._places) == 5


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    box = make(tmp_path / "b.zarr")
    shard = box.path / "dm" / "c" / "0" / "0" / "0"
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(BadInput, match=r"dm: chunk \(0, 0, 0\).*damaged"):
        CutoutReader(box.require("dm")).read((0, 0, 0), (4, 4, 4))


@pytest.mark.parametrize("periodic", [(True,) * 3, (False,) * 3])
def test_a_missing_shard_is_no_density(tmp_path: Path, periodic: tuple[bool, ...]) -> None:
    box = make(tmp_path / "b.zarr", (40, 36, 140))
    assert box.array("dm").shards == (64, 64, 192)  # the last chunk reaches beyond the box
    reader = CutoutReader(box.require("dm"), periodic)
    assert np.isfinite(reader.read((0, 0, 0), (40, 36, 140))).all()
    assert damaged_inputs(box) == []
    (box.path / "dm" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(BadInput, match=r"dm: chunk \(0, 0, 2\).*damaged or missing"):
        CutoutReader(box.require("dm"), periodic).read((3, 3, 135), (4, 4, 4))
    (line,) = damaged_inputs(box)
    assert line == "dm: shard (0, 0, 0), chunks all 3: damaged or missing: values are not finite"


def test_one_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    box = make(tmp_path / "b.zarr")
    box.array("dm")[33, 1, 65] = np.inf
    reader = CutoutReader(box.require("dm"))
    reader.read((0, 0, 0), (32, 36, 64))
    with pytest.raises(BadInput, match=r"chunk \(1, 0, 2\).* 1 of its \d+ values are not finite"):
        reader.read((30, 0, 60), (8, 8, 8))
    (line,) = damaged_inputs(box)
    assert "chunks (1, 0, 2): damaged or missing" in line


def test_the_quickstart_is_the_shipped_grid_whatever_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As deploy/quickstart.sh does it: from beside a folder of that name."""
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()
    assert main(["ingest", "quickstart", "quickstart/box.zarr"]) == 0
    assert Box.open(Path("quickstart/box.zarr")).shape == (128, 128, 128)
