"""The verdict on a box: what passes, what fails, what is refused, and what the report holds."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bigbox.analysis.report import diagnostics
from bigbox.analysis.report.fields import compressed, open_field, open_truth, residual
from bigbox.analysis.report.validate import Limits, validate
from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.scheduler import Tiling
from bigbox.store.box import Box
from bigbox.store.recorded import painting_of
from tests.fields import draw, isotropic, plant

SHAPE = (64, 64, 64)
SIZE = 6.25
MEAN, RMS = 0.05, 0.02

Make = Callable[..., Path]


def field(seed: int) -> np.ndarray:
    return np.asarray(MEAN + RMS * draw(isotropic(SHAPE), SHAPE, seed), np.float32)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("validate")

    def box(name: str, tb: np.ndarray | None, size: float = SIZE, halo: bool = False) -> Path:
        path = folder / f"{name}.zarr"
        if path.exists():
            shutil.rmtree(path)
        made = Box.create(path, SHAPE if tb is None else tb.shape, size, 0.0)
        made.create_array("dm")[:] = np.exp(draw(isotropic(made.shape), made.shape, 77))
        if tb is not None:
            made.create_array("tb")[:] = tb
        if halo:
            masses = np.random.default_rng(0).lognormal(25, 2, (4, *made.shape))
            made.create_array("halo", channels=4)[:] = masses * (masses > 1e11)
        return path

    return box


@pytest.fixture(scope="module")
def good(make: Make) -> Path:
    return make("good", field(1), halo=True)


def test_the_report_is_whole_and_needs_nothing_else(
    good: Path, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = make("other", field(2)), tmp_path / "report"
    told = ["validate", str(good), "--truth", str(good), "--out", str(out), "--mark-tiles"]
    assert main([*told, "--realizations", str(other)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{good}: pass: all") and said[1].endswith("index.html")
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["pass"] is True and numbers["limits"]["k_max"] == 10.0
    page = (out / "index.html").read_text()
    images = re.findall(r'<img src="([^"]{0,30})[^"]*" alt="([^"]+)">', page)
    drawn = [p for p in out.glob("*.png") if p.name != "maps.png"]  # the side by side one
    assert len(images) == len(drawn) > 18
    assert all(source.startswith("data:image/png;base64,") for source, _ in images)
    # Every link and source is inline.
    assert set(re.findall(r'(?:src|href)="(data:|#)?', page)) == {"data:"}
    assert "http" not in page and "<script" not in page and "@import" not in page
    assert 'name="viewport"' in page


def test_the_numbers_are_json_without_nan(good: Path) -> None:
    found = validate(good)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["box"]["unit"] == "mK"
    assert found["notes"] == [] and "default" in found["seam_words"]
    assert [c["name"] for c in found["checks"]] == ["seam_ratio"] * 2 + ["seam_found"] * 2


@pytest.mark.parametrize("kind", ["step", "offset"])
def test_planted_seams_fail_and_can_be_allowed(
    make: Make, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make("bad", MEAN + RMS * plant((field(1) - MEAN) / RMS, Tiling(SHAPE), kind, 0.4))
    found = validate(bad)
    assert not found["pass"] and "seam" in found["verdict"]
    assert validate(bad, limits=Limits(max_seam_ratio=9, false_alarm_rate=0))["pass"]


def test_seams_between_faint_voxels_are_seen_through_bright_ones(make: Make) -> None:
    faint = plant((field(1) - MEAN) / RMS, Tiling(SHAPE), "step", 0.4)
    found = validate(make("bright", np.exp(1.5 * faint).astype(np.float32)))
    views = found["seams"]["views"]
    # The field itself is judged by its normal scores where its tails are heavy.
    for name in ("field", "compressed"):
        assert views[name]["alarm"] and views[name]["p_value"] < 1e-9, name


def test_a_truth_that_is_louder_fails_the_power(make: Make, good: Path) -> None:
    loud = make("loud", MEAN + 1.2 * (field(1) - MEAN))
    found = validate(good, truth=str(loud))
    (power,) = (c for c in found["checks"] if c["name"] == "power")
    assert not power["passed"] and power["value"] == pytest.approx(1 / 1.44, rel=1e-3)
    assert validate(good, truth=str(loud), limits=Limits(max_power_error=0.4))["pass"]
    bright = make("bright", 1.1 * field(1))
    wide = Limits(max_power_error=0.4)
    failed = [
        c["name"]
        for c in validate(good, truth=str(bright), limits=wide)["checks"]
        if not c["passed"]
    ]
    assert failed == ["mean"]


def test_correlation_is_judged_when_asked(make: Make, good: Path) -> None:
    other = make("other", field(2))
    wide = {"max_power_error": 9.0, "max_mean_error": 9.0}
    assert validate(good, truth=str(other), limits=Limits(**wide))["pass"]
    found = validate(good, truth=str(other), limits=Limits(**wide, min_correlation=0.5))
    assert [c["name"] for c in found["checks"] if not c["passed"]] == ["correlation"]


def test_a_truth_is_the_same_from_any_file(make: Make, good: Path, tmp_path: Path) -> None:
    values = field(2)
    box = make("other", values)
    np.save(tmp_path / "t.npy", values)
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        file["tb"] = values
        file["tb"].attrs["box_size"] = SIZE
    wanted = validate(good, truth=str(box))["spectra"]
    for name in ("t.npy", "t.hdf5:tb"):
        found = validate(good, truth=str(tmp_path / name), memory=64 << 20)["spectra"]
        for key in ("correlation", "transfer"):
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-3, atol=1e-4)


def test_errors_are_the_scatter_of_the_realizations(make: Make, good: Path) -> None:
    others = [make(f"r{seed}", field(seed)) for seed in (2, 3)]
    found = validate(good, realizations=others)["spectra"]
    each = [found["box"]["power"], *(one["power"] for one in found["realizations"]["each"])]
    np.testing.assert_allclose(found["box"]["errors"], np.std(each, axis=0, ddof=1), rtol=1e-6)
    assert "scatter" in found["error_kind"] and "3 realizations" in found["error_words"]


def test_the_error_of_a_ratio_knows_what_is_shared(tmp_path: Path) -> None:
    shape, pulls = (32, 32, 32), []
    box = Box.create(tmp_path / "b.zarr", shape, 3.2, 0.0)
    power = isotropic(shape)
    for name in "ab":
        box.create_array(name)
    for seed in range(12):
        shared, a, b = (draw(power, shape, 100 * seed + i) for i in range(3))
        for name, one in (("a", a), ("b", b)):
            box.array(name)[:] = 2 * shared + one
        edges = np.linspace(3, 25, 9)
        fields = [open_field(box.path, name) for name in "ab"]
        found = diagnostics.spectra(fields[0], fields[1], [], edges, {"memory": 1 << 28})["ratio"]
        pulls.append((np.array(found["value"]) - 1) / np.array(found["error"]))
    # 96 pulls: their scatter is known to 8 %.
    assert 0.75 < np.std(pulls) < 1.3


def test_distributions_are_those_of_numpy(good: Path) -> None:
    found = validate(good)["onepoint"]["box"]
    values = field(1).astype(np.float64)
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert found["std"] == pytest.approx(values.std(), rel=1e-6)
    assert found["positive"] == pytest.approx((values > 0).mean())
    for scale in ("linear", "log"):
        edges, density = (np.array(found[scale][key]) for key in ("edges", "density"))
        total = (density * np.diff(edges)).sum()
        assert total == pytest.approx(1.0, rel=1e-3)


def test_fields_made_of_fields(make: Make, good: Path) -> None:
    other = make("other", field(2))
    a, b = open_field(good), open_field(other)
    cut = (slice(3, 9), slice(0, 64), slice(60, 64))
    np.testing.assert_array_equal(residual(a, b).array[cut], (field(1) - field(2))[cut])
    np.testing.assert_array_equal(residual(a, b).array[3:9], (field(1) - field(2))[3:9])
    squeezed = compressed(a).array[cut]
    order = np.argsort(field(1)[cut].ravel(), kind="stable")
    assert (np.diff(squeezed.ravel()[order]) >= 0).all()
    assert 0.5 < np.std(squeezed) < 2


def test_a_stand_in_is_named_at_the_head(make: Make) -> None:
    path = make("painted", None)
    assert main(["paint", str(path), "--painter", "trivial", "--quiet"]) == 0
    found = painting_of(Box.open(path))
    assert found is not None and found.complete
    found = validate(path)
    assert "stand-in painter 'trivial'" in found["notes"][0]
    assert "Tiles as painted" in found["seam_words"]
    (records,) = (path / "ledger" / "records").iterdir()
    os.truncate(records, records.stat().st_size // 3)
    with pytest.raises(BadInput, match="not painted to its end"):
        validate(path)


def test_bad_input_is_one_line_and_writes_nothing(
    make: Make, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = field(1)
    nan[5, 6, 7] = np.nan
    np.save(tmp_path / "small.npy", field(1)[:32])
    (tmp_path / "file").touch()
    truth = str(tmp_path / "small.npy")
    out = tmp_path / "out"
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "none.zarr")], "no such store"),
        ([str(make("blank", None))], "not painted yet"),
        ([str(make("nan", nan))], r"1 voxels are not finite, the first at (5, 6, 7)"),
        ([str(make("flat", np.full(SHAPE, 0.05, np.float32)))], "constant"),
        ([str(good), "--truth", truth], "has 32 x 64 x 64 voxels"),
        ([str(good), "--truth", str(make("big", field(1), size=9.0))], "is 9 x 9 x 9 Mpc/h"),
        ([str(good), "--truth", str(tmp_path / "no.npy")], "no such file"),
        ([str(good), "--realizations", str(good)], "itself"),
        ([str(good), "--array", "rain"], "no array 'rain'"),
        ([str(good), "--array", "halo"], "4 dimensions"),
        ([str(good), "--min-seam-ratio", "1.1"], "both sides of 1"),
        ([str(good), "--k-max", "0.01"], "below the box's first bin"),
        ([str(good), "--memory", "1e-4"], "too little"),
        ([str(good), "--scratch", str(tmp_path / "none")], "no such folder"),
    ]
    for arguments, words in cases:
        assert main(["validate", *arguments, "--out", str(out)]) == 2, arguments
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, (arguments, error)
    assert main(["validate", str(good), "--out", str(tmp_path / "file")]) == 2
    assert not out.exists()


def test_a_truth_that_is_the_box_leaves_no_residual(good: Path) -> None:
    found = validate(good, truth=str(good))
    assert found["pass"] and set(found["seams"]["views"]) == {"field", "compressed"}
    assert open_truth(str(good), "tb", open_field(good)).name == f"{good}/tb"
