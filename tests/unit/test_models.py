"""Models that say what they are: which is taken for a box, what is refused, what leaves a mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from bigbox.analysis.maps.picture import plot
from bigbox.analysis.report.fields import open_field
from bigbox.analysis.report.validate import notes
from bigbox.cli import main
from bigbox.data import default_model
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.errors import BadInput
from bigbox.networks.card import read_card, write_remark
from bigbox.networks.model import load_model
from bigbox.painters.models import TOLERANCES, Facts, choose_model, differences, known_models
from bigbox.painters.trained_range import DM, HALO, MASS, count_outside, words
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.store.box import Box
from tests.models import LODI, VOXEL, card, write_model

CAMELS = {"omega_m": 0.3, "omega_b": 0.049, "h": 0.6711, "sigma8": 0.8, "n_s": 0.9624}
EINSTEIN_DE_SITTER = CAMELS | {"omega_m": 1.0, "h": 0.5}


def small_box(path: Path, redshift: float = 0.0, voxel: float = VOXEL, **cosmology: float) -> Box:
    box = Box.create(path, (32,) * 3, 32 * voxel, redshift, cosmology=CAMELS | cosmology)
    rng = np.random.default_rng(4)
    box.create_array("dm")[...] = rng.lognormal(0, 1, (32,) * 3).astype(np.float32)
    return box


def facts(**values: float) -> Facts:
    return Facts("box", {"voxel_size": VOXEL, "redshift": 0.0} | CAMELS | values)


@pytest.fixture(autouse=True)
def no_models_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("BIGBOX_MODELS", raising=False)


@pytest.mark.parametrize("name", [name for name in TOLERANCES if name != "smoothing"])
def test_each_quantity_is_held_to_its_tolerance(name: str) -> None:
    told = card(LODI, kind="lodi", cosmology=CAMELS)
    tolerance, known = TOLERANCES[name], {**told, **CAMELS}[name]
    step = tolerance.most * (known if tolerance.relative else 1.0)
    assert differences(told, facts(**{name: known + 0.99 * step})) == []
    (word,) = differences(told, facts(**{name: known + 1.01 * step}))
    assert word.startswith(tolerance.label) and "where the model knows" in word


def test_haloes_of_another_smoothing_or_other_bins_are_not_for_it() -> None:
    told = card(LODI, kind="lodi")
    edges = [*told["halo_mass_edges"], 1e14]
    assert differences(told, Facts("box", {"smoothing": 0.2}, edges)) == []
    assert "smoothing of the haloes 0.4" in differences(told, Facts("b", {"smoothing": 0.4}))[0]
    assert "mass bins" in differences(told, Facts("b", {}, [1e9, *edges[1:]]))[0]
    assert differences(told | {"kind": "halogen"}, Facts("b", {"smoothing": 0.4})) == []


def test_the_model_that_fits_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "data/bigbox/models/early", redshift=2.0, cosmology=CAMELS)
    write_model(tmp_path / "more/coarse", voxel_size=0.39, cosmology=CAMELS)
    monkeypatch.setenv("BIGBOX_MODELS", str(tmp_path / "more"))
    assert [one.name for one in known_models()] == ["coarse", "early", "default"]
    kinds = ("lodi", "halogen")
    assert choose_model(facts(), kinds).folder == default_model()
    assert choose_model(facts(redshift=2.01), kinds).folder.name == "early"
    assert choose_model(facts(voxel_size=0.4), kinds).folder.name == "coarse"
    with pytest.raises(BadInput) as refused:
        choose_model(facts(redshift=1.0), kinds)
    for part in ("coarse: voxel", "early: redshift 1 where the model knows 2", "default: redshift"):
        assert part in str(refused.value)
    forced = choose_model(facts(redshift=1.7), kinds, force=True)
    assert forced.folder.name == "early"
    assert forced.forced == (
        "painted with --force: redshift 1.7 where the model knows 2 (within 0.05)"
    )
    with pytest.raises(BadInput, match="model early is not for it"):
        choose_model(facts(), kinds, Path("early"))


def test_a_painting_goes_on_with_the_model_that_it_began_with(tmp_path: Path) -> None:
    ours = read_card(default_model(), "lodi")["sha256"]
    write_model(tmp_path / "data/bigbox/models/mine", cosmology=CAMELS)
    assert choose_model(facts(), ("lodi",)).folder.name == "mine"  # a user's before ours
    assert choose_model(facts(), ("lodi",), begun=[ours]).folder == default_model()
    assert choose_model(facts(), ("lodi",), begun=["of none"]).among == 2


def test_a_cosmology_that_is_not_told_is_said() -> None:
    box = Facts("box", {"voxel_size": VOXEL, "redshift": 0.0, "omega_m": 0.3})
    choice = choose_model(box, ("lodi",))
    assert choice.untold == ["sigma8", "h", "n_s"]
    assert "tells no sigma8, h, n_s" in choice.words()[0]


@pytest.mark.parametrize("other", [{"redshift": 2.0}, EINSTEIN_DE_SITTER], ids=["z = 2", "EdS"])
def test_another_universe_is_refused_or_marked(
    tmp_path: Path, other: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model", cosmology=CAMELS)
    box = small_box(tmp_path / "box.zarr", **other)
    how: dict[str, Any] = {"model": model, "steps": 1, "halo_stride": 32, "quiet": True}
    with pytest.raises(BadInput, match="where the model knows"):
        paint(PaintOptions(box.path, **how))
    assert not box.has("tb")
    assert main(["plan", str(box.path), "--model", str(model)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["plan", str(box.path), "--model", str(model), "--force"]) == 0
    assert "painted with --force" in capsys.readouterr().out
    paint(PaintOptions(box.path, force=True, **how))
    for name in ("tb", "halo"):
        forced = str(box.array(name).attrs["forced"])
        assert forced.startswith("painted with --force:") and "where the model knows" in forced
    assert any("painted with --force" in note for note in notes(open_field(box.path), None))
    plot(box, tmp_path / "box.png", arrays=["tb"])
    with pytest.raises(BadInput, match="where the model knows"):
        paint(PaintOptions(box.path, **how))  # it does not go on without


def test_what_lies_outside_of_the_training_is_counted(tmp_path: Path) -> None:
    """Against the plain way, in memory; on every voxel, every second one, and over two ranks."""
    rng = np.random.default_rng(8)
    box = Box.create(tmp_path / "box.zarr", (96,) * 3, 96 * VOXEL, 0.0)
    dm = rng.lognormal(0, 2, (96,) * 3).astype(np.float32)
    box.create_array("dm")[...] = dm
    halo = rng.lognormal(20, 4, (4, 96, 96, 96)).astype(np.float32)
    told = {"source": "catalogue: FOF groups", "mass_edges": [1e10, 1e11, 1e12, 2e14]}
    box.create_array("halo", channels=4, attributes=told)[...] = halo
    smoothed = smooth_periodic(dm, gaussian_kernel(0.2, VOXEL))
    limit, limits = float(np.quantile(smoothed, 0.999)), [1e10, 1e11, 1e12, 1e20]
    cards = {
        "halogen": card(LODI, range={DM: limit}),
        "lodi": card(LODI, range={HALO: limits, MASS: 1e14}),
    }
    for grid in (1, 2):
        found = count_outside(box, cards, grid, memory=1 << 24, share=(0, 2))
        found.join(count_outside(box, cards, grid, memory=1 << 24, share=(1, 2)))
        sampled = smoothed[::grid, ::grid, ::grid]
        outside = found.attributes()
        assert outside[DM]["share"] == (sampled > limit).mean()
        assert outside[DM]["largest"] == sampled.max()
        for channel in range(3):
            one = outside[f"halo density, mass bin {channel}"]
            assert one["share"] == (halo[channel] > limits[channel]).mean() > 0
        assert "halo density, mass bin 3" not in outside
        assert outside[MASS]["largest"] == 2e14
    assert words(outside).startswith("outside of what the model was trained on: densest")
    assert words({}) == ""


def test_a_painting_says_what_its_networks_have_not_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_model(tmp_path / "model", cosmology=CAMELS, range={DM: 2.0, HALO: [1e20] * 4})
    box = small_box(tmp_path / "box.zarr")
    paint(PaintOptions(box.path, model=model, steps=1, halo_stride=32, quiet=True))
    dm = smooth_periodic(np.asarray(box.array("dm")[...]), gaussian_kernel(0.2, VOXEL))
    outside: Any = box.array("tb").attrs["outside_training"]
    assert outside == {
        DM: {"limit": 2.0, "largest": float(dm.max()), "share": float((dm > 2.0).mean())}
    }
    assert "outside of what the model was trained on" in caplog.text
    assert any("in part outside" in note for note in notes(open_field(box.path), None))
    assert main(["verify", str(box.path)]) == 0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"transforms": {"tb": {"floor": 5e-3, "mean": float("nan"), "std": 0.7}}},
         r"transforms\.tb\.mean is nan"),
        ({"transforms": {"tb": {"floor": 5e-3, "mean": 0.0, "std": 0.0}}}, "std is 0.0"),
        ({"transforms": {"tb": {"floor": 5e-3}}}, "lacks floor, mean or std"),
        ({"gamma": [-9.0, float("inf")]}, r"gamma\[1\] is inf"),
        ({"voxel_size": "fine"}, "voxel_size is 'fine'"),
        ({"voxel_size": -0.1}, "voxel_size is -0.1"),
        ({"redshift": -1.0}, "redshift is -1.0"),
        ({"grid": 0}, "no whole number from 1 on"),
        ({"cosmology": None}, "cosmology is no table"),
    ],
)  # fmt: skip
def test_a_card_that_cannot_be_true_is_refused(
    tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "lodi.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=line):
        load_model(folder, "lodi")
    box = small_box(tmp_path / "box.zarr")
    assert main(["paint", str(box.path), "--model", str(folder), "--quiet"]) == 2
    assert not box.has("tb")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    import hashlib

    folder = write_model(tmp_path / "model")
    tensors = load_file(folder / "lodi.safetensors")
    name = next(key for key, tensor in tensors.items() if tensor.ndim > 1)
    tensors[name].view(-1)[3] = value
    data = save(tensors)
    (folder / "lodi.safetensors").write_bytes(data)
    told = json.loads((folder / "lodi.json").read_text())
    told["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "lodi.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"has 1 of .* weights that are not finite"):
        load_model(folder, "lodi")
    assert all(torch.isfinite(t).all() for t in load_model(folder, "halogen").network.parameters())


def test_remarks_change_nothing_else_of_a_card(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    before = read_card(folder, "lodi")
    write_remark(folder, "lodi", "evaluated", [{"summary": "well"}])
    after = read_card(folder, "lodi")
    assert after.pop("evaluated") == [{"summary": "well"}]
    assert after == before
    with pytest.raises(BadInput, match="'transforms' is not one of"):
        write_remark(folder, "lodi", "transforms", {})
    load_model(folder, "lodi")


def test_models_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "nets/mine", cosmology=CAMELS, range={DM: 321.0})
    broken = write_model(tmp_path / "nets/broken")
    (broken / "lodi.json").write_text("{")
    monkeypatch.setenv("BIGBOX_MODELS", str(tmp_path / "nets"))
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    mine = text[text.index("mine  ") :]
    assert "voxels of 0.09766 Mpc/h at redshift 0" in mine and "321" in mine
    assert "broken" in text and "cannot be used" in text
    assert "BSD-3-Clause" in text[text.index("default  ") :]
    assert "stand-in" in text[text.index("default  ") :]
    assert main(["models", "mine"]) == 0
    assert "default  " not in capsys.readouterr().out
    monkeypatch.setenv("BIGBOX_MODELS", str(tmp_path / "nowhere"))
    assert main(["models"]) == 2
