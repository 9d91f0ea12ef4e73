"""Slabs of a box as pictures: what is shown is the mean over the slab, and little is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from matplotlib.figure import Figure
from PIL import Image

from bigbox.analysis.maps.panel import draw_map, norm_of, ticks_of
from bigbox.analysis.maps.picture import Look, _norms, plot
from bigbox.analysis.maps.slab import Slab, panels, slab_image, slab_of
from bigbox.analysis.maps.titles import halo_title
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
    assert plot(Box.open(box.path), tmp_path / "p.png", axis="y", thickness=1.0) == ["dm", "tb"]
    shown = {"axis": "y", "thickness": 1.0, "arrays": ["dm", "halo", "tb"]}
    names = plot(Box.open(box.path), tmp_path / "all.png", **shown)
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
    assert plot(box, out, arrays=["gas", "dm"], look=Look(log=True)) == ["gas", "dm"]
    with pytest.raises(BadInput, match="no array 'rain'"):
        plot(box, out, arrays=["rain"])
    with pytest.raises(BadInput, match="not painted"):
        plot(box, out, look=Look(mark_tiles=True))


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


def test_a_window_is_a_part_of_the_slab(box: Box) -> None:
    slab = slab_of(box, "y", 2.5, 0.5, ((1.0, 2.5), (0.0, 6.0)))
    assert slab.window == ((10, 15), (0, 60)) and slab.sides(box) == pytest.approx((1, 2.5, 0, 6))
    whole = slab_image(box.array("dm"), slab_of(box, "y", 2.5, 0.5))
    np.testing.assert_array_equal(slab_image(box.array("dm"), slab), whole[10:25])
    assert slab.of_every(2).window == ((5, 8), (0, 30))
    for window in (((2.0, 1.0), (0, 6)), ((0, 1), (0, 6.5))):
        with pytest.raises(BadInput, match="must be two places in 0 to"):
            slab_of(box, "y", None, None, window)


@pytest.mark.parametrize("ending", [".pdf", ".svg"])
def test_pictures_for_papers(box: Box, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"p{ending}"
    plot(box, out, look=Look(cmap="viridis", vmin=0.1, vmax=10.0, dpi=72))
    text = out.read_bytes()
    assert text.startswith(b"%PDF" if ending == ".pdf" else b"<?xml")
    for look, words in (({"cmap": "rain"}, "no colour map"), ({"vmin": 2, "vmax": 1}, "below")):
        with pytest.raises(BadInput, match=words):
            Look(**look)


def test_a_film_goes_through_the_box(box: Box, tmp_path: Path) -> None:
    out = tmp_path / "f.gif"
    assert plot(box, out, frames=3, look=Look(dpi=40)) == ["dm"]
    with Image.open(out) as film:
        assert film.n_frames == 3
    with pytest.raises(BadInput, match="GIF, MP4"):
        plot(box, tmp_path / "f.png", frames=3)
    with pytest.raises(BadInput, match="PNG, PDF, SVG"):
        plot(box, tmp_path / "f.gif")


def test_all_mass_bins_have_one_scale_and_name_their_range(box: Box) -> None:
    halo = box.create_array("halo", channels=4, attributes={"mass_edges": [3e10, 1e11, 5e11, 1e12]})
    halo[:] = 0
    halo[1, 10:12, 25] = 1e10
    halo[3, 20:22, 25] = 1e13
    images = panels(box, slab_of(box, "y", None, None), ["halo"])
    norms = _norms(images, Look())
    assert len({(norm.vmin, norm.vmax) for norm in norms.values()}) == 1
    titles = [halo_title(box, channel) for channel in range(4)]
    assert titles[0] == "haloes of 3×10¹⁰ to 10¹¹ M☉/h" and titles[3] == "haloes above 10¹² M☉/h"


def test_tiles_are_marked_on_what_has_tiles(tmp_path: Path) -> None:
    edges = (np.array([1.0, 2.0]), np.array([3.0]))
    image = np.ones((4, 4), np.float32)
    for kind, lines in (("tb", 3), ("dm", 0), ("halo", 0)):
        place = Figure().subplots()
        draw_map(place, image, kind, None, (0, 4, 0, 4), edges)
        assert len(place.lines) == lines, kind


def test_faint_brightness_has_the_colour_of_the_floor() -> None:
    image = np.full((50, 50), 1e-9, np.float32)
    image[:3] = 5.0
    norm = norm_of("tb", image)
    assert norm.vmin == pytest.approx(5e-3, rel=0.01) and float(norm(1e-9)) == 0.0
