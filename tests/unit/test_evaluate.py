"""`bigbox evaluate`: what is measured is what a plain way in memory finds, and it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigbox.analysis.halo_mass import halo_mass
from bigbox.analysis.report.fields import Field, LazyArray
from bigbox.cli import main
from bigbox.diffusion.overlap import tiling_for
from bigbox.errors import BadInput
from bigbox.evaluation.measure import (
    ALTERNATING,
    LOG_TB,
    VOID,
    Measures,
    void_alternation,
)
from bigbox.evaluation.summary import checks, mean_and_error, over_draws
from bigbox.evaluation.truth import make_draws, open_truths
from bigbox.ingest.particles import ingest_snapshot
from bigbox.networks.card import read_card
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box
from tests import snapshots
from tests.benchmarks.oracle import seam_ratio, seam_ratios
from tests.models import VOXEL, write_model
from tests.reference.spectra import pair_in_memory

CAMELS = {"omega_m": 0.3, "omega_b": 0.049, "h": 0.6711, "sigma8": 0.8, "n_s": 0.9624}
N = 64
EDGES = [*HALO_EDGES, 3e13]


def brightness(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(N) * 0.3)[:, None, None] + np.cos(np.arange(N) * 0.2)
    field: np.ndarray = 10 ** (wave - 1.5 + 0.3 * rng.normal(size=(N,) * 3))
    return field.astype(np.float32)


def lazy(array: np.ndarray) -> Field:
    one = LazyArray(array.shape, (24, 32, 32), lambda region: array[region])
    return Field("tb", one, "mK", array.shape, (array.shape[0] * VOXEL,) * 3)


def truth(path: Path, draw: int = 0, *, whole: bool = True, haloes: int = 5) -> Path:
    """A box as ingest makes it of a simulation: all of it, or another draw alone."""
    box = Box.create(path, (N,) * 3, N * VOXEL, 0.0, cosmology=CAMELS)
    rng = np.random.default_rng(haloes)
    if whole:
        box.create_array("dm")[...] = rng.lognormal(0, 1, (N,) * 3).astype(np.float32)
    told = {"source": "catalogue: FOF groups", "smoothing": 0.2, "mass_edges": EDGES}
    halo = np.random.default_rng(haloes + 1).lognormal(22, 2, (4, N, N, N)).astype(np.float32)
    box.create_array("halo", channels=4, attributes=told)[...] = halo
    box.create_array("tb", attributes={"source": "a stand-in"})[...] = brightness(100 + draw)
    return path


@pytest.mark.parametrize("grid", [1, 2])
def test_a_field_is_measured_as_in_memory(grid: int) -> None:
    first, field = brightness(1), brightness(2)
    sampled = [one[::grid, ::grid, ::grid] for one in (first, field)]
    tiling = tiling_for("joint", sampled[0].shape, 16, None, 2)
    measures = Measures(lazy(first), tiling, grid, 5e-3, {"memory": 1 << 26})
    found = measures.of(lazy(field))
    wanted = pair_in_memory(field, first, N * VOXEL, edges=measures.edges)
    np.testing.assert_allclose(found["power"], wanted.first.power, rtol=1e-5)
    np.testing.assert_allclose(found["r"], wanted.correlation, rtol=1e-4, atol=1e-6)
    assert found["k"][0] < 1.3 and found["k"][-1] > 9  # the least modes of 6.25 Mpc/h
    assert found["mean"] == pytest.approx(field.mean(dtype=float))
    inner = np.histogram(np.log10(field.astype(float)), LOG_TB)[0] / field.size
    np.testing.assert_allclose(found["onepoint"][1:-1], inner, atol=1e-6)
    assert found["onepoint"].sum() == pytest.approx(1)
    logs = np.log10(sampled[1] + 5e-3)
    seams = [*seam_ratios(logs, tiling), seam_ratio(logs, tiling)]
    np.testing.assert_allclose(found["seams"], seams, rtol=1e-4)
    assert set(found["bispectrum"]) == {"equilateral", "squeezed"}
    same = measures.of(lazy(first))
    np.testing.assert_allclose(same["r"], 1, rtol=1e-6)


def test_a_checkerboard_in_voids_is_seen() -> None:
    rng = np.random.default_rng(3)
    smooth = 4e-3 + 1e-3 * np.sin(np.arange(32) * 2 * np.pi / 32)
    field = np.broadcast_to(smooth[:, None, None], (32,) * 3).astype(np.float32).copy()
    field[10:14, 3:9, 20:25] = 5.0  # no void
    quiet = void_alternation(lazy(field).array, 1 << 24)
    sign = (-1.0) ** np.arange(32)
    loud = (field + 1e-3 * sign[:, None, None] * (field < 1)).astype(np.float32)
    loud += (1e-5 * rng.normal(size=loud.shape)).astype(np.float32)
    found = void_alternation(lazy(loud).array, 1 << 24)
    assert found[0] == pytest.approx(1e-3, rel=0.02) and found[0] > 100 * quiet[0]
    assert found[1] < 2e-5 > found[2]
    for axis in range(3):  # the plain way
        rolled = [np.roll(loud.astype(float), shift, axis) for shift in (2, 1, 0, -1, -2)]
        inside = np.all([one < VOID for one in rolled], axis=0)
        high = sum(w * one for w, one in zip(ALTERNATING, rolled, strict=True))[inside]
        assert found[axis] == pytest.approx(np.sqrt((high**2).mean()), rel=1e-6)
    assert np.isnan(void_alternation(lazy(np.ones((32,) * 3, np.float32)).array, 1 << 24)).all()


def test_haloes_are_held_against_the_true_on_the_painting_grid(tmp_path: Path) -> None:
    box = Box.open(truth(tmp_path / "truth.zarr"))
    true = np.asarray(box.array("halo")[...], float)[:, ::2, ::2, ::2]
    painted = Box.create(tmp_path / "painted.zarr", (N,) * 3, N * VOXEL, 0.0)
    mine = (true * [[[[0.5]]], [[[1.0]]], [[[2.0]]], [[[0.0]]]]).astype(np.float32)
    painted.create_array("halo", channels=4, grid=2)[...] = mine
    found = halo_mass(painted, box, 1 << 26)
    np.testing.assert_allclose(found.ratio, [0.5, 1, 2, 0], rtol=1e-6)
    np.testing.assert_allclose(found.error, 0, atol=1e-6)  # the same part in every octant
    logs = [np.log10(np.maximum(one.astype(float), 1e9)) for one in (mine, true)]
    wanted = np.sqrt(((logs[0] - logs[1]) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(found.rms, wanted, rtol=1e-5, atol=1e-7)


def test_means_errors_and_bands() -> None:
    rng = np.random.default_rng(6)
    drawn = rng.normal(10, 1, (400, 3))
    mean, error = mean_and_error(drawn)
    np.testing.assert_allclose(error, drawn.std(0, ddof=1) / 20)
    same = over_draws(rng.normal(10, 1, (100, 3)), drawn)
    assert np.all(abs(same["ratio"] - 1) < 5 * same["error"]) and all(same["inside"])
    np.testing.assert_allclose(same["error"], np.hypot(0.01, 0.005), rtol=0.2)
    np.testing.assert_allclose(same["band"], 0.196, rtol=0.15)
    bright = over_draws(rng.normal(13, 1, (100, 3)), drawn)
    assert not any(bright["inside"])
    alone = over_draws([[2.0]], [[1.0]])
    assert alone["ratio"] == 2 and np.isnan(alone["error"]).all() and "band" not in alone
    assert np.isnan(mean_and_error([[1.0, 2.0]])[1]).all()


def test_what_is_asked_is_judged() -> None:
    def row(power: float, mean: float, r: float, voids: float) -> dict[str, Any]:
        def ratio(value: float) -> dict[str, Any]:
            return {"ratio": np.array([1.0, value]), "error": np.array([0.01, 0.01])}

        return {
            "k": [1.0, 2.0],
            "power": ratio(power),
            "mean": {"ratio": mean, "error": 0.001},
            "r": {"value": np.array([0.9, r]), "draws": np.array([0.9, 0.8])},
            "onepoint": ratio(1.0),
            "bispectrum": {},
            "voids": ratio(voids),
        }

    good = checks({"lodi": row(1.04, 1.01, 0.79, 0.9), "haloes": {"mass": [1, 1.05, 0.95, 1]}})
    assert len(good) == 5 and all(one["kept"] for one in good)
    bad = checks({"lodi": row(1.07, 0.96, 0.7, 1.2), "haloes": {"mass": [1, 1.2, 1, 1]}})
    assert not any(one["kept"] for one in bad)
    assert "1.070 ± 0.010 at k = 2.0 h/Mpc" in bad[0]["found"]
    assert checks({"pipeline": row(1.07, 1.0, 0.7, 1.0)})[0]["kept"]


def test_truths_with_the_same_haloes_are_draws_of_one(tmp_path: Path) -> None:
    paths = [truth(tmp_path / "a.zarr"), truth(tmp_path / "a1.zarr", 1, whole=False)]
    paths.append(truth(tmp_path / "b.zarr", haloes=9))
    found = open_truths(paths)
    assert [(one.name, len(one.draws)) for one in found] == [("a", 2), ("b", 1)]
    assert found[0].checksum != found[1].checksum == open_truths(paths[2:])[0].checksum
    with pytest.raises(BadInput, match="given twice"):
        open_truths([paths[0], paths[0]])
    with pytest.raises(BadInput, match="has no 'dm'"):
        open_truths(paths[1:])


def test_draws_of_a_catalogue_are_what_ingest_makes(tmp_path: Path) -> None:
    positions = snapshots.clustered(3000)
    centres, masses = snapshots.haloes(60, positions)
    source = snapshots.gadget(tmp_path, positions)
    groups = snapshots.catalogue(tmp_path, centres, masses)
    how: dict[str, Any] = {"grid": 40, "haloes": groups, "hi_halo": True}
    ingest_snapshot(source, tmp_path / "truth.zarr", hi_draw=1, **how)
    ingest_snapshot(source, tmp_path / "other.zarr", hi_draw=0, **how)
    (found,) = open_truths([tmp_path / "truth.zarr"])
    make_draws(found, groups[0], 3, tmp_path)
    names = [one.path.name for one in found.draws]
    assert names == ["truth.zarr", "truth-draw0.zarr", "truth-draw2.zarr"]
    wanted = np.asarray(Box.open(tmp_path / "other.zarr").array("tb")[...])
    np.testing.assert_allclose(found.draws[1].array("tb")[...], wanted, rtol=1e-4, atol=1e-6)
    assert abs(np.asarray(found.draws[2].array("tb")[...]) - wanted).max() > 0.01 * wanted.max()
    again = snapshots.catalogue(tmp_path / "more", centres[:50], masses[:50])
    (found,) = open_truths([tmp_path / "truth.zarr"])
    with pytest.raises(BadInput, match="was not made of these haloes"):
        make_draws(found, again[0], 3, tmp_path)


@pytest.fixture
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("BIGBOX_MODELS", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("no_models")
def test_models_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_model(tmp_path / "one", cosmology=CAMELS)
    two = write_model(tmp_path / "two", cosmology=CAMELS)
    (two / "halogen.json").unlink()
    paths = [truth(tmp_path / "a.zarr"), truth(tmp_path / "a1.zarr", 1, whole=False)]
    out = tmp_path / "out"
    command = ["evaluate", *map(str, [one, two, *paths]), "--out", str(out), "--steps", "1"]
    command += ["--realizations", "2", "--threads", "1"]
    assert main([*command, "--keep-boxes"]) == 0
    said = capsys.readouterr()
    assert "has no halogen.json" in said.err and f"report: {out / 'index.html'}" in said.out
    numbers = json.loads((out / "numbers.json").read_text())
    (found,) = numbers["truths"]
    assert found["draws"] == 2 and list(found["models"]) == ["one", "two"]
    rows = found["models"]["one"]
    assert set(rows) == {"forced", "lodi", "pipeline", "haloes", "checks"}
    assert set(found["models"]["two"]) == {"forced", "lodi", "checks"}
    assert rows["lodi"]["power"] == found["models"]["two"]["lodi"]["power"]  # the same weights
    assert len(rows["lodi"]["power"]["ratio"]) == len(rows["lodi"]["k"]) > 8
    page = (out / "index.html").read_text()
    assert "<title>one, two: bigbox evaluate</title>" in page and "true haloes" in page
    assert page.count("data:image/png") == 4

    seams = ["--parts", "seams", "--out", str(tmp_path / "seams")]
    assert main([*command, *seams]) == 0
    alone = json.loads((tmp_path / "seams" / "numbers.json").read_text())["truths"][0]["models"]
    assert np.shape(alone["one"]["seams"]["ratio"]) == (4,) and alone["one"]["seams"]["pairs"] == 2
    assert alone["one"]["seams"] == alone["two"]["seams"], "the same weights"
    assert alone["one"]["checks"][0]["name"] == "seams, tiles moved by half, worst axis"
    page = (tmp_path / "seams" / "index.html").read_text()
    assert "one, 2 pairs with moved tiles" in page and "data:image/png" not in page

    assert "evaluated" not in read_card(one, "lodi")
    assert main([*command, "--write-card"]) == 0  # paints nothing anew
    assert not (out / "boxes").exists()
    again = json.loads((out / "numbers.json").read_text())["truths"][0]["models"]["one"]
    assert again["pipeline"]["power"] == rows["pipeline"]["power"]
    (entry,) = read_card(one, "lodi")["evaluated"]
    assert entry["truth"]["checksum"] == found["checksum"] and "from dm alone" in entry["summary"]
    assert entry["lodi"]["power"]["ratio"] == rows["lodi"]["power"]["ratio"]
    assert "halo mass by bin" in read_card(one, "halogen")["evaluated"][0]["summary"]
    assert main(["models", str(one)]) == 0
    assert "on true haloes P" in capsys.readouterr().out
    assert {p.name for p in paths[0].iterdir()} == {"zarr.json", "dm", "halo", "tb", "x", "y", "z"}


@pytest.mark.usefixtures("no_models")
def test_what_cannot_be_evaluated_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model", redshift=2.0)
    path, out = truth(tmp_path / "a.zarr"), tmp_path / "out"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "zarr.json").write_text('{"attributes": [1]}')
    for command, line in (
        ([str(model)], "no box with a truth among them"),
        ([str(tmp_path / "odd")], "no box with a truth among them"),
        ([str(model), str(path)], "redshift 0 where the model knows 2"),
        ([str(tmp_path / "nowhere"), str(path)], "no known model of that name"),
        ([str(path), "--halos", str(tmp_path)], "has no HDF5 file"),
    ):
        assert main(["evaluate", *command, "--out", str(out)]) == 2, command
        assert line in capsys.readouterr().err
        assert not out.exists()
