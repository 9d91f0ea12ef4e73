"""Seam diagnostics: known answers, planted seams, no alarm without one, any block size alike."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr

from bigbox.analysis.seams.cells import choose_blocks, layers_of
from bigbox.analysis.seams.find import find_seams, normal_scores, sample_values, stage_residuals
from bigbox.analysis.seams.planes import plane_sums
from bigbox.analysis.spectra.modes import jsonable
from bigbox.errors import BadInput
from bigbox.scheduler.stages import stage
from bigbox.scheduler.tiling import Tiling
from tests.fields import PLANTED, autoregressive, draw, isotropic, plant

SMALL = Tiling((36, 40, 48), tile=16, overlap=4)
OPEN = Tiling((40, 52, 40), tile=16, overlap=4, periodic=(False, True, False))
BOX = Tiling((112, 112, 112))


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    return draw(isotropic(BOX.shape), BOX.shape, 11)


@pytest.fixture(scope="module")
def rough() -> np.ndarray:
    return draw(autoregressive(BOX.shape), BOX.shape, 11)


def owner_map(tiling: Tiling) -> np.ndarray:
    return tiling.owner(np.moveaxis(np.indices(tiling.shape), 0, -1))


def cell_means(field: np.ndarray, owner: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(planes, cells): mean over the face of each cell, and its area; slow and obvious."""
    f, o = np.moveaxis(field, axis, 0), np.moveaxis(owner, axis, 0)
    # Cells of the first plane serve for all: who owns what across the axis never changes.
    labels = np.unique(o[0])
    means = np.array([[plane[o[0] == c].mean() for c in labels] for plane in f])
    return means, np.array([(o[0] == c).sum() for c in labels])


@pytest.mark.parametrize("memory", [3 << 20, 1 << 30])
def test_planes_are_their_definition(memory: int) -> None:
    field = np.random.default_rng(1).random(SMALL.shape)
    found, again = plane_sums(field, SMALL, memory=memory)
    assert found is again
    owner = owner_map(SMALL)
    field = field - found.offset
    for axis, planes in enumerate(found.axes):
        other = tuple(a for a in range(3) if a != axis)

        def at(by: int, a: int = axis) -> np.ndarray:
            return np.roll(field, -by, a)

        def near(one: np.ndarray, two: np.ndarray) -> bool:
            return np.allclose(one, two, rtol=1e-5, atol=1e-7)

        assert near(planes.mean, field.mean(axis=other))
        assert near(planes.square, (field**2).mean(axis=other))
        assert near(planes.jump, ((field - at(-1)) ** 2).mean(axis=other))
        laplace = sum(np.roll(field, s, a) for s in (-1, 1) for a in other) - 4 * field
        assert near(planes.texture, (laplace**2).mean(axis=other))
        if planes.reach > 1:
            kink = at(1) - 3 * field + 3 * at(-1) - at(-2)
            assert near(planes.kink, (kink**2).mean(axis=other))
        means, area = cell_means(field, owner, axis)
        reach = planes.reach
        for x in (0, 5, 13, SMALL.shape[axis] - 1):
            window = np.roll(means, reach - x, axis=0)[: 2 * reach]
            product = (window * area) @ window.T / area.sum()
            assert near(planes.product[x], product)
        signs = np.ones((4, *SMALL.shape))
        for slot, a in enumerate(other):
            colour = SMALL.colours(a)[SMALL.coords(owner)[..., a]]
            signs[slot + 1] = np.where(colour % 2, -1, 1)
        signs[3] = signs[1] * signs[2]
        assert near(planes.signed, (signs * field).mean(axis=tuple(a + 1 for a in other)).T)
    texture = (sum(np.roll(field, s, a) for s in (-1, 1) for a in range(3)) - 6 * field) ** 2
    total = np.bincount(owner.ravel(), texture.ravel())
    volume = np.bincount(owner.ravel())
    level = SMALL.coords(np.arange(SMALL.size))
    sign = np.prod([np.where(SMALL.colours(a)[level[:, a]] % 2, -1, 1) for a in range(3)], axis=0)
    assert np.allclose(found.textures.signed[-1], [(sign * total).sum(), (sign * volume).sum()])
    assert np.allclose(
        found.textures.squares, [(total**2).sum(), (total * volume).sum(), (volume**2).sum()]
    )
    assert found.textures.cells == SMALL.size


@pytest.mark.parametrize("tiling", [SMALL, OPEN])
def test_blocks_cover_every_voxel_once(tiling: Tiling) -> None:
    layers = layers_of(tiling)
    count = np.zeros(tiling.shape, int)
    for block in choose_blocks(tiling, layers, 2, 24 * 24**3, 1):
        count[tuple(slice(*b) for b in block.bounds)] += 1
        assert block.read(count).shape == tuple(b - a + 4 for a, b in block.bounds)
    assert (count == 1).all()


def test_layers_are_the_owners() -> None:
    for tiling in (SMALL, OPEN):
        owner = tiling.coords(owner_map(tiling))
        for axis, layers in enumerate(layers_of(tiling)):
            line = np.moveaxis(owner[..., axis], axis, 0)[:, 0, 0]
            change = np.flatnonzero(line != np.roll(line, 1))
            if not tiling.periodic[axis]:
                change = change[change > 0]
            assert np.array_equal(layers.seams, change)


def test_source_and_threads_change_nothing(smooth: np.ndarray, tmp_path: Path) -> None:
    field = smooth[:36, :40, :48]
    stored = zarr.create_array(
        tmp_path / "f.zarr", shape=field.shape, chunks=(16, 16, 16), dtype="f4"
    )
    stored[:] = field
    expected = jsonable(find_seams(field, SMALL))
    for array in (stored, dask.array.from_array(field, chunks=10)):
        assert jsonable(find_seams(array, SMALL, workers=2)) == expected
    small = find_seams(field, SMALL, memory=3 << 20)
    assert np.allclose(small.ratio, expected["ratio"], rtol=1e-4)


def test_seam_ratio_of_white_noise_with_offsets_is_known() -> None:
    white = np.random.default_rng(2).standard_normal(BOX.shape).astype(np.float32)
    assert abs((find_seams(white, BOX).ratio - 1) / find_seams(white, BOX).ratio_error).max() < 3.5
    step = 0.5
    found = find_seams(plant(white, BOX, "step", step), BOX)
    assert np.allclose(found.ratio, 1 + step**2 / 2, atol=0.02)
    steps = {(f.name, f.axis): f for f in found.tests}
    for axis in "xyz":
        finding = steps["alternating step, sign of both", axis]
        assert abs(finding.value) == pytest.approx(step, abs=0.01)
    assert found.alarm


def test_profiles_are_folded_on_the_seams() -> None:
    layers = layers_of(SMALL)[1]
    n = SMALL.shape[1]
    line = np.zeros(n)
    expected = {}
    for first, sign, width in zip(layers.starts, layers.sign, layers.widths, strict=True):
        for j in range(width):
            near = min(j, width - 1 - j)
            distance = near if sign < 0 else -1 - near
            line[first + j] = 10 + distance
            expected[distance] = 10 + distance
    field = np.random.default_rng(0).standard_normal(SMALL.shape) * 1e-3 + line[None, :, None]
    profile = find_seams(field, SMALL).profiles[1]
    assert profile.axis == "y" and list(profile.distance) == sorted(expected)
    assert np.allclose(profile.mean, [expected[d] for d in profile.distance], atol=1e-3)
    assert np.allclose(profile.variance, 1e-6, rtol=0.1)
    assert profile.planes.sum() == n


def test_a_wave_of_the_tile_period_is_its_harmonic() -> None:
    tiling = Tiling((230, 64, 64))  # strides of 25 and 26
    assert len(set(np.diff(tiling.origins(0)))) == 2
    field = np.random.default_rng(0).standard_normal(tiling.shape)
    count = tiling.counts[0]
    phase = np.interp(np.arange(230), np.append(tiling.origins(0), 230), np.arange(count + 1))
    field += 0.05 * np.cos(2 * np.pi * 2 * phase)[:, None, None]
    found = next(
        h for h in find_seams(field, tiling).harmonics if (h.axis, h.quantity) == ("x", "mean")
    )
    at = list(found.order).index(2.0)
    assert found.z[at] > 6 and np.delete(found.z, at).max() < 4


@pytest.mark.parametrize("n", [64, 84, 96])
def test_a_red_field_in_a_small_box_is_no_seam(n: int) -> None:
    tiling = Tiling((n, n, n))
    field = draw(isotropic(tiling.shape, 1.0, -3.0), tiling.shape, 5)
    found = find_seams(field, tiling)
    assert not found.alarm and found.p_value > 0.05


def test_an_axis_of_one_tile_has_no_seams() -> None:
    tiling = Tiling((32, 112, 112), periodic=(False, True, True))
    field = np.random.default_rng(3).standard_normal(tiling.shape)
    found = find_seams(field, tiling)
    assert np.isnan(found.ratio[0]) and np.isfinite(found.ratio[1:]).all()
    assert not found.alarm


def test_no_alarm_without_seams(smooth: np.ndarray, rough: np.ndarray) -> None:
    for field in (smooth, rough, np.exp(rough)):
        report = find_seams(field, BOX)
        assert not report.alarm and report.p_value > 0.01
        assert abs((report.ratio - 1) / report.ratio_error).max() < 4


def test_heavy_tails_raise_no_alarm_and_hide_no_seam(rough: np.ndarray) -> None:
    bright = np.exp(2 * rough)
    report = find_seams(bright, BOX)
    assert report.scores and not report.alarm
    assert report.mean == pytest.approx(bright.mean(), rel=1e-4)
    assert find_seams(np.exp(2 * plant(rough, BOX, "step", 0.04)), BOX).alarm


def test_scores_make_any_field_gaussian(rough: np.ndarray) -> None:
    for field in (rough, np.exp(2 * rough), np.maximum(rough, 0)):
        found = normal_scores(sample_values(field, field.shape))(field)
        order = np.argsort(field, axis=None)
        assert (np.diff(found.ravel()[order]) >= 0).all()
        upper = found[rough > np.median(rough)]
        assert np.quantile(upper, 0.5) == pytest.approx(0.674, abs=0.1)
    scores = normal_scores(sample_values(rough, BOX.shape))
    plain, scored = plane_sums(rough, BOX, scores=scores)
    alone = plane_sums(rough, BOX)[0]
    assert np.array_equal(plain.axes[1].jump, alone.axes[1].jump)
    assert scored.textures.cells == BOX.size


@pytest.mark.parametrize(
    ("kind", "strength"), [(k, s) for k, s in zip(PLANTED, (0.03, 0.06, 0.04, 0.08), strict=True)]
)
def test_planted_seams_are_found_in_a_rough_field(
    rough: np.ndarray, kind: str, strength: float
) -> None:
    assert find_seams(plant(rough, BOX, kind, strength, 3), BOX).alarm


@pytest.mark.parametrize("kind", PLANTED)
def test_one_percent_is_found_in_a_smooth_field(smooth: np.ndarray, kind: str) -> None:
    assert find_seams(plant(smooth, BOX, kind, 0.01, 3), BOX).alarm


def test_report_is_json(smooth: np.ndarray) -> None:
    report = json.loads(json.dumps(jsonable(find_seams(smooth, BOX)), allow_nan=False))
    assert report["strongest"] in report["tests"]
    assert len(report["profiles"]) == 3


@pytest.mark.parametrize("colouring", ["levels", "paper"])
def test_residual_by_stage(colouring: str) -> None:
    reference = np.random.default_rng(3).standard_normal(SMALL.shape)
    owner = owner_map(SMALL)
    number = stage(SMALL, owner, colouring)
    field = reference + 0.01 * (1 + number)
    edge = np.zeros(SMALL.shape, bool)
    for axis in range(3):
        change = owner != np.roll(owner, 1, axis)
        edge |= change | np.roll(change, -1, axis)
    field[edge] += 0.1
    for found in stage_residuals(field, reference, SMALL, colouring=colouring, memory=3 << 20):
        here = number == found.stage
        rest = (field - reference)[here]
        assert found.voxels == here.sum()
        assert found.tiles == len(np.unique(owner[here]))
        assert found.mean == pytest.approx(rest.mean(), rel=1e-4)
        assert found.rms == pytest.approx(np.sqrt((rest**2).mean()), rel=1e-4)
        assert found.rms_at_seams == pytest.approx(0.11 + 0.01 * found.stage, rel=1e-4)
        assert found.relative == pytest.approx(found.rms / reference.std(), rel=1e-4)


def test_bad_input(smooth: np.ndarray) -> None:
    hurt = smooth.copy()
    hurt[100, 3, 4] = np.nan
    for field, words in (
        (smooth[:-1], "the tiling is of a box"),
        (np.ones(BOX.shape), "constant"),
        (hurt, r"\(100, 3, 4\) is not finite"),
    ):
        with pytest.raises(BadInput, match=words):
            find_seams(field, BOX)
    with pytest.raises(BadInput, match="false-alarm rate"):
        find_seams(smooth, BOX, false_alarm_rate=0.0)
    with pytest.raises(BadInput, match="too little"):
        find_seams(smooth, BOX, memory=1000)
    with pytest.raises(BadInput, match="reference: has shape"):
        stage_residuals(smooth, smooth[:-1], BOX)


def test_cores_that_wrap_round_the_box_are_one_tile() -> None:
    """Where tiles go together the last one's core ends behind voxel 0, which is no seam."""
    tiling = Tiling((52, 60, 64), 16, 4, halved=True)
    layers = layers_of(tiling)
    for axis, one in enumerate(layers):
        assert one.starts[0] == 0 and 0 not in one.seams
        assert len(one.seams) == tiling.counts[axis] == len(one.starts) - 1
        assert one.owner[0] == one.owner[-1] == tiling.counts[axis] - 1
    field = np.random.default_rng(3).normal(size=tiling.shape).astype(np.float32)
    found = stage_residuals(field, np.zeros_like(field), tiling)
    assert sum(one.voxels for one in found) == field.size
    assert all(abs(one.rms - 1) < 0.05 for one in found)
