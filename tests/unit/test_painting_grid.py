"""Painting on every second voxel of dm: what is read, what is stored, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import bigbox
from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.registry import make_painter, painting_grid_of
from bigbox.physics.smoothing import gaussian_kernel, smooth, smooth_periodic
from bigbox.scheduler.region import Region
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.recorded import haloes_of, painting_of
from bigbox.testing.exercised import worked
from tests.boxes import new_box, scratch
from tests.models import VOXEL, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), grid=2)


def box_of(folder: Path, shape: tuple[int, int, int] = (128, 128, 128)) -> Box:
    """A box of structured matter that the models are made for."""
    box = Box.create(folder / "box.zarr", shape, VOXEL * shape[0], 0.0)
    rng = np.random.default_rng(4)
    box.create_array("dm")[...] = smooth_periodic(rng.lognormal(0, 2, shape), gaussian_kernel(2, 1))
    return box


def paint(box: Box, *options: str | Path) -> int:
    return main(["paint", str(box.path), "--quiet", *map(str, options)])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(5, 40)] * 3),
    chunk=st.integers(3, 9),
    step=st.integers(1, 3),
    origin=st.tuples(*[st.integers(-20, 40)] * 3),
    extent=st.tuples(*[st.integers(1, 14)] * 3),
)
def test_cut_outs_of_every_so_many_voxels(shape, chunk, step, origin, extent) -> None:
    """What numpy takes, whether or not chunks and axes are multiples of the step."""
    with scratch() as folder:
        values = np.random.default_rng(1).random((2, *shape), np.float32)
        array = zarr.create_array(folder / "a", data=values, chunks=(2, *(chunk,) * 3))
        reader = CutoutReader(array, cache_bytes=4000, step=step)
        sampled = values[(slice(None), *(slice(None, None, step),) * 3)]
        assert reader.shape == sampled.shape[1:]
        at = [
            (np.arange(o, o + n)) % m for o, n, m in zip(origin, extent, reader.shape, strict=True)
        ]
        wanted = sampled[(slice(None), *np.ix_(*at))]
        assert reader.read(origin, extent).tobytes() == wanted.tobytes()
        worked()


def test_smoothing_then_sampling_in_less_work_gives_the_same_bits() -> None:
    block = np.random.default_rng(2).lognormal(size=(2, 31, 40, 37)).astype(np.float32)
    for kernel in (gaussian_kernel(0.2, 0.098), np.ones(1)):
        for step in (2, 3):
            slow = smooth(block, kernel)[(..., *(slice(None, None, step),) * 3)]
            assert smooth(block, kernel, step).tobytes() == slow.tobytes()


def test_a_window_sees_dm_smoothed_at_full_resolution(model: Path) -> None:
    """HALOgen on every second voxel: the network is given smoothed dm, sampled."""
    painter = HalogenPainter(load_model(model, "halogen"))
    assert painter.grid == 2
    dm = np.random.default_rng(8).lognormal(0, 1, (160, 160, 160)).astype(np.float32)
    first, m = (9, 5, 30), painter.margin  # the last wraps
    under = [(2 * a + np.arange(-m, 2 * painter.window + m)) % 160 for a in first]
    predicted = painter.predict(dm[np.ix_(*under)][None])
    sampled = smooth_periodic(dm, gaussian_kernel(0.2, VOXEL))[::2, ::2, ::2]
    inner = sampled[np.ix_(*((a + np.arange(painter.window)) % 80 for a in first))]
    bare = HalogenPainter(load_model(model, "halogen"))
    bare.model.card["grid"], bare.__dict__["_kernel"] = 1, np.ones(1)
    assert predicted.tobytes() == bare.predict(inner[None]).tobytes()


def test_the_engine_paints_dm_to_tb_on_the_grid_of_the_model(tmp_path: Path, model: Path) -> None:
    box = box_of(tmp_path)
    assert paint(box, "--model", model, "--steps", "2", "--threads", "1") == 0
    halo, tb = box.array("halo"), box.array("tb")
    assert halo.shape == (4, 64, 64, 64) and tb.shape == (64, 64, 64)
    plain = paint_haloes(HalogenPainter(load_model(model, "halogen")), box.array("dm")[...])
    np.testing.assert_allclose(halo[...], plain, rtol=1e-5)
    assert (plain > 0).any() and np.isfinite(tb[...]).all()
    assert (tb.attrs["log_floor"], halo.attrs["log_cut"]) == (5e-3, 10**9.5)
    opened = bigbox.open(box.path)
    assert opened.tb.shape == opened.halo.shape[1:] == (128, 128, 128)
    assert opened.tb.values[::2, ::2, ::2].tobytes() == tb[...].tobytes()
    assert opened.halo.values[:, ::2, ::2, ::2].tobytes() == halo[...].tobytes()
    assert np.isfinite(opened.tb).all() and (opened.tb >= 0).all()
    for found in (painting_of(box), haloes_of(box)):
        assert found and found.run["grid"] == found.identity["grid"] == found.layout.grid == 2
    assert main(["verify", str(box.path)]) == main(["status", str(box.path)]) == 0


def test_any_program_opens_the_store(tmp_path: Path) -> None:
    """Dimensions and coordinates of their own, so that no axis has two lengths."""
    box = box_of(tmp_path, (64, 96, 64))
    plain = ("--painter", "trivial", "--painting-grid", "2", "--tile", "16")
    assert paint(box, *plain) == paint(box, *plain, "--realization", "3") == 0
    for group, names in ((box.path, {"dm", "tb"}), (box.path / "realizations/0003", {"tb"})):
        with xarray.open_zarr(group, consolidated=False) as found:
            assert set(found.data_vars) == names and found.tb.dims == ("x2", "y2", "z2")
            assert found.tb.shape == (32, 48, 32)
            np.testing.assert_array_equal(found.y2, found.y[::2])
            assert found.tb.attrs["grid"] == 2
            assert found.tb.attrs["voxel_size"] == 2 * box.voxel
    assert box.names() == ["dm", "tb"]
    assert box.grid_of("tb").shape == (32, 48, 32) and box.grid_of("dm").step == 1


def test_haloes_of_all_voxels_serve_a_coarser_painter(tmp_path: Path, model: Path) -> None:
    """Every second voxel of them is taken."""
    rho = 10 ** np.random.default_rng(5).normal(10, 1, (4, 128, 128, 128)).astype(np.float32)
    boxes = []
    for name, grid in (("fine", 1), ("half", 2)):
        (tmp_path / name).mkdir()
        box = box_of(tmp_path / name)
        array = box.create_array("halo", channels=4, grid=grid)
        array[...] = rho[(slice(None), *(slice(None, None, grid),) * 3)]
        boxes.append(box)
    how = ("--model", model, "--steps", "2")
    assert paint(boxes[0], *how) == paint(boxes[1], *how) == 0
    assert boxes[0].array("tb")[...].tobytes() == boxes[1].array("tb")[...].tobytes()
    assert boxes[0].array("tb").shape == (64, 64, 64)


def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(box: Box, *options: str | Path) -> str:
        before = {p: p.read_bytes() for p in box.path.rglob("*") if p.is_file()}
        assert paint(box, *options) == 2
        assert before == {p: p.read_bytes() for p in box.path.rglob("*") if p.is_file()}
        (line,) = capsys.readouterr().err.splitlines()
        return line

    box = box_of(tmp_path, (64, 64, 66))
    said = refused(box, "--painter", "trivial", "--painting-grid", "4", "--tile", "8")
    assert "one voxel for 4 of dm" in said and "66 on z" in said and "--grid" in said
    said = refused(box, "--model", model, "--painting-grid", "3", "--force")
    assert "3 was asked for" in said and "one voxel for 2 of dm" in said
    box.create_array("halo", channels=4, grid=1)
    (tmp_path / "coarse").mkdir()
    coarse = box_of(tmp_path / "coarse")
    coarse.create_array("halo", channels=4, grid=4)[...] = 1
    said = refused(coarse, "--model", model)
    assert "halo: has one voxel for 4 of dm" in said and "ingest halo again" in said
    mixed = write_model(tmp_path / "mixed", grid=2)
    card = json.loads((mixed / "halogen.json").read_text())
    (mixed / "halogen.json").write_text(json.dumps(card | {"grid": 1}))
    (tmp_path / "none").mkdir()
    said = refused(box_of(tmp_path / "none"), "--model", mixed)
    assert "halogen painter: has one voxel for 1 of dm" in said and "one for 2" in said
    card = json.loads((mixed / "lodi.json").read_text())
    (mixed / "lodi.json").write_text(json.dumps(card | {"grid": 0.5}))
    with pytest.raises(BadInput, match=r"grid 0\.5 is no whole number"):
        painting_grid_of("lodi", mixed, None)
    every = write_model(tmp_path / "every")
    with pytest.raises(BadInput, match="one voxel for 1 of dm on each axis, the painting grid"):
        make_painter("lodi", seed=0, box_shape=(64,) * 3, grid=2, model=every)


def test_a_painting_goes_on_only_on_its_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = new_box(tmp_path, (64, 64, 64), 1)
    plain = ("--painter", "trivial", "--tile", "16")
    assert paint(Box.open(path), *plain, "--painting-grid", "2") == 0
    assert paint(Box.open(path), *plain) == 2
    assert "is painted with box_shape" in capsys.readouterr().err
    assert paint(Box.open(path), *plain, "--discard") == 0
    assert Box.open(path).array("tb").shape == (64, 64, 64)


@pytest.mark.parametrize("text", ["10:31,0:64,63:65", "10:31,0:64,63:65Mpc/h"])
def test_a_region_is_given_in_voxels_of_dm(text: str) -> None:
    tiling = Tiling((32, 32, 32), 8, 4, halved=True)
    found = Region.read(text, tiling, 1.0, grid=2)
    assert found.low == (5, 0, 31) and found.extent == (11, 32, 2)
    wide = Region.read(text, tiling, 1.0, grid=2, reach=3)
    assert wide.low == (2, -3, 28) and wide.extent == (17, 32, 8)
    with pytest.raises(ValueError, match="65 voxels on axis x, must be 1 to 64"):
        Region.read("0:65,0:1,0:1", tiling, 1.0, grid=2)
