"""Fields interpolated from every so many voxels: against sums in loops, whole boxes, known P(k)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import bigbox
from bigbox.analysis.report.validate import validate
from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.export import export
from bigbox.ingestion.particles import ingest_snapshot
from bigbox.physics.interpolation import REACH, Scale, refine, weights
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.store.box import Box
from bigbox.store.interpolated import Interpolated
from bigbox.store.recorded import painting_of
from bigbox.testing.exercised import worked
from tests.boxes import scratch
from tests.fields import draw, isotropic
from tests.reference.spectra import pair_in_memory

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gadget4_L12.5_N128"
FLOOR = 5e-3  # mK, of the networks
SIZE = 12.5  # Mpc/h, on 128 voxels

Voxels = np.ndarray


def sampled(field: Voxels, step: int) -> Voxels:
    return field[(..., *(slice(None, None, step),) * 3)]


def interpolated(field: Voxels, step: int, scale: Scale) -> Voxels:
    """A whole periodic box, float32, from every so many of its voxels."""
    pad = [(0, 0)] * (field.ndim - 3) + [(REACH - 1, REACH)] * 3
    return scale.interpolated(np.pad(sampled(field, step), pad, mode="wrap"), step)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_voxel_is_a_sum_over_those_around_it(step: int) -> None:
    """Against the sum itself, voxel by voxel."""
    block = np.random.default_rng(step).normal(size=(18, 17, 19))
    fine, table = refine(block, step), weights(step)
    cells = [n - 2 * REACH + 1 for n in block.shape]
    assert fine.shape == tuple(step * n for n in cells)
    for voxel in product(*(range(step * n) for n in cells)):
        x, y, z = (table[v % step] for v in voxel)
        i, j, k = (slice(v // step, v // step + 2 * REACH) for v in voxel)
        found = np.einsum("x,y,z,xyz", x, y, z, block[i, j, k])
        assert fine[voxel] == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("step", [2, 3])
def test_waves_within_the_band_pass(step: int) -> None:
    """A constant to 1e-8, and waves up to 0.65 of Nyquist to 2e-4."""
    assert np.abs(weights(step).sum(axis=1) - 1).max() < 1e-8
    distance = np.arange(1 - REACH, REACH + 1) - np.arange(step)[:, None] / step
    for k in np.linspace(0, 0.65 * np.pi, 50):
        response = (weights(step) * np.exp(1j * k * distance)).sum(axis=1)
        assert np.abs(response - 1).max() < 2e-4


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(8, 20)] * 3),
    step=st.sampled_from([2, 3]),
    scale=st.sampled_from([Scale(floor=FLOOR), Scale(cut=1.0), Scale()]),
    data=st.data(),
)
def test_regions_have_the_bits_of_the_whole_box(shape, step, scale, data) -> None:
    """Whatever is asked for, as numpy indexes the whole; voxels on disk come back as they are."""
    values = np.random.default_rng(sum(shape)).lognormal(0, 2, (2, *shape)).astype(np.float32)
    with scratch() as folder:
        sizes = [float(step * n) for n in shape]
        box = Box.create(folder / "b.zarr", [step * n for n in shape], sizes, 0.0)
        attributes = scale.attributes()
        box.create_array("halo", channels=2, grid=step, attributes=attributes)[...] = values
        array = box.view("halo")
        assert isinstance(array, Interpolated) and array.shape[1:] == box.shape
        pad = [(0, 0)] + [(REACH - 1, REACH)] * 3
        whole = scale.interpolated(np.pad(values, pad, mode="wrap"), step)
        assert array[...].tobytes() == whole.tobytes()
        assert sampled(whole, step).tobytes() == values.tobytes()
        if scale != Scale():
            assert (whole >= 0).all()
        for _ in range(4):
            key: list[slice | int] = [data.draw(st.sampled_from([0, -1, slice(None)]))]
            for n in box.shape:
                low = data.draw(st.integers(0, n - 1))
                high = data.draw(st.integers(low + 1, n))
                cut = slice(low, high, data.draw(st.sampled_from([None, 1, 3])))
                key.append(data.draw(st.sampled_from([cut, low, low - n, slice(None)])))
            wanted = whole[tuple(key)]
            got = array[tuple(key)]
            assert got.shape == wanted.shape and got.tobytes() == wanted.tobytes()
        assert array[0, ..., 3].tobytes() == whole[0, ..., 3].tobytes()
        worked()


def known_field(kind: str) -> Voxels:
    """T_b in mK on 128^3 voxels: positive fields of many decades, smoothed over two voxels."""
    shape = (128, 128, 128)
    if kind == "exponential of a smoothed Gaussian":
        g = draw(isotropic(shape, smoothing=2.048, slope=-2.0), shape, 5)
        return (0.05 * np.exp(1.5 * g)).astype(np.float32)
    g = draw(isotropic(shape, smoothing=0.1, slope=-2.0), shape, 6)
    return 0.05 * smooth_periodic(np.exp(2 * g), gaussian_kernel(0.2, SIZE / 128))


def power_and_correlation(field: Voxels, other: Voxels, k_max: float = 10.0) -> tuple[float, float]:
    """Largest |P / P_other - 1|, and least r, in bins of 0.5 h/Mpc up to k_max."""
    found = pair_in_memory(field, other, SIZE, edges=np.arange(0.5, k_max + 0.1, 0.5))
    return float(np.abs(found.transfer**2 - 1).max()), float(found.correlation.min())


@pytest.mark.parametrize("kind", ["exponential of a smoothed Gaussian", "smoothed log-normal"])
def test_power_of_known_fields(kind: str) -> None:
    """P(k) within 0.2 % to k = 10 h/Mpc from an eighth of the voxels, r > 0.9999."""
    field = known_field(kind)
    assert field.max() / np.median(field) > 20
    off, r = power_and_correlation(interpolated(field, 2, Scale(floor=FLOOR)), field)
    assert off < 2e-3 and r > 0.9999


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the simulation outputs are not here: {DATA}")
def test_power_and_mass_of_a_simulation(tmp_path: Path) -> None:
    """T_b of a GADGET-4 run as its halo catalogue gives it, and the haloes in four mass bins."""
    ingest_snapshot([DATA], tmp_path / "b.zarr", haloes=[DATA], hi_halo=True)
    box = Box.open(tmp_path / "b.zarr")
    tb = box.array("tb")[...]
    off, r = power_and_correlation(interpolated(tb, 2, Scale(floor=FLOOR)), tb)
    assert off < 2e-3 and r > 0.9999
    halo = box.array("halo")[...]
    halo[halo < 10**9.5] = 0
    fine = interpolated(halo, 2, Scale(cut=10**9.5))
    for one, other in zip(fine, halo, strict=True):
        mass = one.sum(dtype=np.float64) / other.sum(dtype=np.float64)
        assert abs(mass - 1) < 0.015
        off, r = power_and_correlation(one, other, 5.0)
        assert off < 0.03 and r > 0.998


def painted_box(folder: Path) -> tuple[Box, Voxels]:
    """A box whose T_b was painted on every second voxel; and T_b of the whole box, interpolated."""
    shape = (64, 64, 96)
    box = Box.create(folder / "box.zarr", shape, 6.25, 0.0)
    box.create_array("dm")[...] = np.exp(draw(isotropic(shape), shape, 3))
    how = ["--painter", "trivial", "--painting-grid", "2", "--tile", "16", "--quiet"]
    assert main(["paint", str(box.path), *how]) == 0
    fine = box.array("tb")[...].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return box, interpolated(fine, 2, Scale())


def test_what_users_open_is_on_the_grid_of_dm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, whole = painted_box(tmp_path)
    opened = bigbox.open(box.path)
    assert opened.tb.dims == opened.dm.dims == ("x", "y", "z")
    assert opened.tb.values.tobytes() == whole.tobytes()
    assert opened.tb.isel(z=slice(3, 40, 2), x=7).values.tobytes() == whole[7, :, 3:40:2].tobytes()
    assert "grid" not in opened.tb.attrs and "voxel for 2 of dm" in opened.tb.attrs["interpolated"]
    stored = bigbox.open(box.path, grid="painted")
    assert stored.tb.dims == ("x2", "y2", "z2")
    assert stored.tb.values.tobytes() == sampled(whole, 2).tobytes()
    np.testing.assert_array_equal(stored.z2, opened.z[::2])
    with pytest.raises(BadInput, match="grid 'fine': is not one of dm, painted"):
        bigbox.open(box.path, grid="fine")
    for grid, wanted in (("dm", whole), ("painted", sampled(whole, 2))):
        for memory in (1 << 30, 1):
            (done,) = export(
                box, "npy", ["tb"], tmp_path / f"{grid}{memory}.npy", grid=grid, memory=memory
            )
            assert np.load(done.path).tobytes() == np.ascontiguousarray(wanted).tobytes()
        out = str(tmp_path / f"{grid}.hdf5")
        told = ["export", str(box.path), "--to", "hdf5", "--array", "dm", "tb", "--out", out]
        assert main([*told, "--grid", grid]) == 0
        with h5py.File(out) as file:
            assert file["tb"][:].tobytes() == np.ascontiguousarray(wanted).tobytes()
            names = ["x", "y", "z"] if grid == "dm" else ["x2", "y2", "z2"]
            assert [d.label for d in file["tb"].dims] == names
            np.testing.assert_allclose(file["tb"].dims[0][0][1], opened.x[64 // len(wanted)])
        (done,) = export(box, "ome-zarr", ["tb"], tmp_path / f"{grid}.ome.zarr", grid=grid)
        group = zarr.open_group(done.path, mode="r")
        assert group["0"][...].tobytes() == np.ascontiguousarray(wanted).tobytes()
        (scale, shift) = group.attrs["ome"]["multiscales"][0]["datasets"][0][
            "coordinateTransformations"
        ]
        step = 64 // len(wanted)
        np.testing.assert_allclose(scale["scale"], [step * box.voxel] * 3)
        np.testing.assert_allclose(shift["translation"], [box.voxel / 2] * 3)
        picture = tmp_path / f"{grid}.png"
        told = ["plot", str(box.path), "--out", str(picture), "--mark-tiles", "--grid", grid]
        assert main(told) == 0 and picture.stat().st_size > 10_000
    capsys.readouterr()


def test_validation_looks_for_seams_where_tiles_meet(tmp_path: Path) -> None:
    """Spectra on the grid of dm, seams on the one that was painted, a truth sampled for these."""
    box, whole = painted_box(tmp_path)
    np.save(tmp_path / "truth.npy", whole)
    found = validate(box.path, truth=str(tmp_path / "truth.npy"), out=tmp_path / "out")
    assert found["box"]["shape"] == [64, 64, 96]
    assert any("on one voxel for 2 of dm" in note for note in found["notes"])
    assert found["spectra"]["k_nyquist"] == pytest.approx(np.pi / box.voxel, rel=0.01)
    painting = painting_of(box)
    assert painting and found["seams"]["tiles"] == list(painting.layout.tiling.counts) == [4, 4, 5]
    assert "residual" not in found["seams"]["views"], "it is the truth at every painted voxel"
    ratio = np.array(found["spectra"]["ratio"]["value"], float)
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 1, rtol=1e-5)


def test_what_is_not_painted_is_not_made_up(tmp_path: Path) -> None:
    """NaN reaches as far as the kernel; a region is whole on dm's grid where it was asked for."""
    box = Box.create(tmp_path / "box.zarr", (128, 128, 128), 12.5, 0.0)
    box.create_array("dm")[...] = 1 + np.random.default_rng(1).random(box.shape, np.float32)
    how = ["--painter", "trivial", "--painting-grid", "2", "--tile", "16", "--quiet"]
    how += ["--overlap-method", "conditioned", "--overlap", "2"]
    assert main(["paint", str(box.path), *how, "--region", "21:40,64:80,100:127"]) == 0
    tb = np.asarray(bigbox.open(box.path).tb)
    assert np.isfinite(tb[21:40, 64:80, 100:127]).all()
    stored = box.array("tb")[...]
    assert np.isnan(stored).any() and np.isnan(tb).any()
    assert sampled(tb, 2).tobytes() == stored.tobytes()
