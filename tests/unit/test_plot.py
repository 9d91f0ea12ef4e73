"""Slabs of a box as pictures: what is shown is the mean over the slab, and little is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from bigbox.analysis.maps.panel import norm_of, ticks_of
from bigbox.analysis.maps.picture import plot
from bigbox.analysis.maps.slab import Slab, panels, slab_image, slab_of
from bigbox.analysis.seams.cells import Layers
from bigbox.errors import BadInput
from bigbox.scheduler import Tiling
from bigbox.store.box import Box


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box.create(tmp_path / "b.zarr", (40, 50, 60), (4.0, 5.0, 6.0), 0.0)
    rng = np.random.default_rng(0)
    box.create_array("dm")[:] = rng.gamma(0.5, 2.0, box.shape).astype(np.float32)
    return box


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("pixels", [1024, 20, 7])
def test_slab_image_is_the_mean(box: Box, axis: int, pixels: int) -> None:
    slab = Slab(axis, 11, 9)
    whole = np.asarray(box.array("dm")[:], dtype=np.float64)
    expected = whole[slab.cut()].mean(axis)
    factor = -(-max(expected.shape) // pixels)
    rows, columns = (n // factor for n in expected.shape)
    expected = expected[: rows * factor, : columns * factor]
    expected = expected.reshape(rows, factor, columns, factor).mean((1, 3))
    image = slab_image(box.array("dm"), slab, pixels)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("at", "thickness", "expected"),
    [
        (None, None, (30, 1)),
        (0.0, None, (0, 1)),
        (5.99, None, (59, 1)),
        (3.05, 0.3, (29, 3)),
        (0.0, 2.0, (0, 20)),
        (5.9, 2.0, (40, 20)),
        (None, 6.0, (0, 60)),
    ],
)
def test_slab_of(box: Box, at: float | None, thickness: float | None, expected: tuple) -> None:
    slab = slab_of(box, "z", at, thickness)
    assert (slab.first, slab.count) == expected


@pytest.mark.parametrize(
    ("axis", "at", "thickness", "match"),
    [
        ("w", None, None, "not one of"),
        ("x", 4.0, None, "outside the box, 0 to 4 on x"),
        ("x", None, 4.5, "at most 4"),
        ("x", None, 0.0, "above 0"),
    ],
)
def test_slabs_outside_are_refused(
    box: Box, axis: str, at: float | None, thickness: float | None, match: str
) -> None:
    with pytest.raises(BadInput, match=match):
        slab_of(box, axis, at, thickness)


def test_only_the_chunks_under_the_slab_are_read(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    get = zarr.Array.__getitem__

    def watched(self: zarr.Array, cut: tuple) -> object:
        read.append(cut)
        return get(self, cut)

    monkeypatch.setattr(zarr.Array, "__getitem__", watched)
    slab_image(box.array("dm"), Slab(2, 33, 2))
    voxels = sum(np.prod([s.stop - s.start for s in cut]) for cut in read)
    assert voxels == 40 * 50 * 2


def test_a_picture_with_every_panel(box: Box, tmp_path: Path) -> None:
    halo = box.create_array("halo", channels=4)
    halo[:] = 0
    halo[2, 10:12] = 1e10
    tb = box.create_array("tb", attributes={"painting": {}})  # that is not at its end
    tb[:20] = np.float32(0.1)  # the rest is not painted: NaN
    names = plot(Box.open(box.path), tmp_path / "all.png", axis="y", thickness=1.0)
    assert names == ["dm", "halo 0", "halo 1", "halo 2", "halo 3", "tb"]
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    shown = panels(box, slab_of(box, "y", None, None))["tb"]
    assert np.isnan(shown[20:]).all() and (shown[:20] == np.float32(0.1)).all()


def test_a_place_that_cannot_be_written_is_one_line(box: Box, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        plot(box, tmp_path / "no" / "p.png")


def test_any_array_can_be_shown(box: Box, tmp_path: Path) -> None:
    gas = box.create_array("gas", attributes={"units": "K", "long_name": "temperature of the gas"})
    gas[:] = np.random.default_rng(1).random(box.shape, dtype=np.float32)
    out = tmp_path / "gas.png"
    assert plot(box, out, arrays=["gas"]) == ["gas"]
    assert plot(box, out, arrays=["gas", "dm"], log=True) == ["gas", "dm"]
    with pytest.raises(BadInput, match="no array 'rain'"):
        plot(box, out, arrays=["rain"])
    with pytest.raises(BadInput, match="not painted"):
        plot(box, out, mark_tiles=True)


@pytest.mark.parametrize("periodic", [True, False])
def test_owner_edges_are_where_the_owner_changes(periodic: bool) -> None:
    tiling = Tiling((60, 50, 41), 16, 3, (periodic,) * 3)
    for axis in range(3):
        line = np.zeros((tiling.shape[axis], 3), np.int64)
        line[:, axis] = np.arange(tiling.shape[axis])
        owner = tiling.owner(line)
        slow = [i for i in range(1, len(owner)) if owner[i] != owner[i - 1]]
        if periodic and owner[0] != owner[-1]:
            slow = [0, *slow]
        assert Layers.of(tiling, axis).seams.tolist() == slow


def test_ticks_of_the_brightness_scale_are_apart() -> None:
    norm = norm_of("tb", np.random.default_rng(0).lognormal(0, 3, 10**4).astype(np.float32) - 0.5)
    ticks = ticks_of(norm)
    assert ticks is not None and len(ticks) > 3 and 0.0 in ticks
    assert np.diff([float(norm(t)) for t in ticks]).min() >= 0.08
