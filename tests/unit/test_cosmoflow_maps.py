"""Maps: how they are made, read, split, measured; and every refusal of maps, models, latents."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigbox.cli import main
from bigbox.cosmoflow import coding, networks, simulated
from bigbox.cosmoflow.anomaly import area, distance
from bigbox.cosmoflow.coding import decode, encode, load_latents, save_latents
from bigbox.cosmoflow.evaluation import checks
from bigbox.cosmoflow.maps import Maps, Split, fit_transform, load_maps
from bigbox.cosmoflow.model import check_maps, load, maps_of_card
from bigbox.cosmoflow.networks import Flow, FlowSize
from bigbox.cosmoflow.simulated import CARD, MapOptions, make_maps, place, project
from bigbox.cosmoflow.spectra import Bins, compare, contrast
from bigbox.cosmoflow.train import Batches, FlowTrainOptions, train_maps
from bigbox.cosmoflow.vae import Vae, VaeSize
from bigbox.errors import BadInput
from bigbox.networks.model import Model, save_model
from bigbox.physics.cosmology import Cosmology
from bigbox.simulate.linear import power_spectrum, warm
from tests.reference import cosmoflow as reference
from tests.small_training import line_trainer

SIZE = FlowSize(2, 4, (8, 8, 8, 8), (1, 2, 2, 2), (8, 8, 8), 1, 16, "group", patch=2)
ABOUT = {
    "field": "dm",
    "units": simulated.UNITS,
    "pixel": 0.5,
    "thickness": 5.0,
    "redshift": 0.0,
    "source": "a test",
}


def some_maps(count: int = 24, edge: int = 32, each: int = 2, **about: Any) -> Maps:
    """Lognormal maps with structure, `each` of a simulation; their amplitude is sigma8."""
    rng = np.random.default_rng(3)
    simulation = np.arange(count) // each
    parameters = np.stack([0.1 + 0.4 * rng.random(count), 0.6 + 0.4 * rng.random(count)], 1)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(edge), np.fft.rfftfreq(edge), indexing="ij"))
    modes = np.fft.rfft2(rng.standard_normal((count, edge, edge))) / (k + 1 / edge) * 0.1
    logs = np.fft.irfft2(modes, s=(edge, edge)) * parameters[:, 1, None, None]
    values = (1e12 * parameters[:, 0, None, None] * np.exp(logs)).astype(np.float32)
    return Maps("made", values, simulation, parameters, ABOUT | about)


def write_folder(path: Path, maps: Maps) -> Path:
    """Write maps as `bigbox cosmoflow maps` leaves them."""
    path.mkdir()
    numbers = np.unique(maps.simulation)
    rows = [
        {"seed": int(i), "omega_m": one[0], "sigma8": one[1]}
        for i in numbers
        for one in [maps.parameters[maps.simulation == i][0].tolist()]
    ]
    (path / CARD).write_text(json.dumps({**maps.about, "made": {}, "simulations": rows}))
    for i in numbers:
        np.save(place(path, int(i)), maps.values[maps.simulation == i])
    return path


def write_network(folder: Path, maps: Maps, network: Any, kind: str) -> Model:
    """Write a network with random weights and a card for these maps."""
    for weights in network.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.05)
    card = {
        "size": network.size.as_dict(),
        "preset": "small",
        "voxel_size": maps.pixel,
        "smoothing": 0.0,
        "redshift": 0.0,
        "cosmology": {},
        "transforms": {"dm": asdict(fit_transform(maps))},
        "maps": maps_of_card(maps),
        "data": Split.of(maps).as_dict(),
    }
    save_model(folder, kind, network, card, torch.float32)
    return load(folder, kind)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    torch.manual_seed(1)
    return write_network(tmp_path / "model", some_maps(), Flow(SIZE), "flow")


# ---------------------------------------------------------------- maps of simulations


def test_particles_are_projected_as_by_the_definition() -> None:
    rng = np.random.default_rng(0)
    positions = (10 * rng.random((200, 3))).astype(np.float32)
    positions[0] = [9.999, 0.001, 5.0]
    made = project(positions, 10.0, 16, 3, mass=2.0)
    np.testing.assert_allclose(made, 2 * reference.project(positions, 10.0, 16, 3), rtol=1e-5)
    assert made.sum() * (10 / 16) ** 2 == pytest.approx(3 * 200 * 2.0, rel=1e-5)  # on each axis


def test_maps_are_the_same_whatever_was_made_before(tmp_path: Path) -> None:
    asked = MapOptions(tmp_path / "a", 2, 16, 25.0, 2, 8, 2, seed=5)
    assert make_maps(asked, "cpu") == 2
    first = place(tmp_path / "a", 0).read_bytes(), place(tmp_path / "a", 1).read_bytes()
    place(tmp_path / "a", 1).unlink()
    assert make_maps(replace(asked, simulations=3), "cpu") == 2
    assert place(tmp_path / "a", 0).read_bytes() == first[0]
    assert place(tmp_path / "a", 1).read_bytes() == first[1]
    maps = load_maps(tmp_path / "a")
    assert maps.values.shape == (18, 16, 16) and maps.side == pytest.approx(25)
    omega_m = maps.parameters[:, 0]
    mean = maps.values.reshape(9, 2, 256).mean((1, 2))  # both slabs of an axis: the whole box
    expected = Cosmology(omega_m=1.0).matter_density * omega_m[::2] * 12.5
    np.testing.assert_allclose(mean, expected, rtol=1e-4)
    with pytest.raises(BadInput, match="was begun with edge 16, not 32"):
        make_maps(replace(asked, edge=32), "cpu")


def test_parameters_cover_the_plane_and_do_not_depend_on_their_number() -> None:
    many, few = (MapOptions(Path("x"), n).parameters() for n in (128, 20))
    np.testing.assert_array_equal(many[:20], few)
    assert [*many.min(0), *many.max(0)] == pytest.approx([0.1, 0.6, 0.5, 1.0], abs=0.01)
    assert np.bincount((many[:, 0] > 0.3) * 2 + (many[:, 1] > 0.8)).tolist() == [32] * 4


def test_warm_dark_matter_has_no_small_scales() -> None:
    cold = power_spectrum(Cosmology(), 1e-2, 20.0)
    k, power = warm(cold, 0.5, Cosmology())
    share = power / cold[1]
    assert share[0] == pytest.approx(1, abs=1e-3) and np.all(np.diff(share) <= 0)
    alpha = 0.049 * 0.5**-1.11 * (0.251 / 0.25) ** 0.11 * (0.6711 / 0.7) ** 1.22
    half = np.interp(1 / alpha, k, share)
    assert half == pytest.approx(2 ** (-10 / 1.12), rel=0.02)


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"simulations": 0}, "--simulations 0"),
        ({"edge": 8}, "--edge 8"),
        ({"slabs": 0}, "--slabs 0"),
        ({"warm": -1.0}, "--warm -1"),
        ({"omega_m": (0.5, 0.1)}, "--omega-m"),
        ({"grid": 9}, "even"),
        ({"omega_m": (0.01, 0.02)}, "omega_b"),
    ],
)
def test_maps_that_cannot_be_made_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        MapOptions(Path("x"), **wrong)


# ---------------------------------------------------------------- reading and splitting


def test_maps_of_a_folder_and_of_camels_are_read_alike(tmp_path: Path) -> None:
    maps = some_maps()
    folder = load_maps(write_folder(tmp_path / "folder", maps))
    np.testing.assert_array_equal(folder.values, maps.values)
    np.save(tmp_path / "Maps_Mcdm_X_LH_z=0.00.npy", maps.values)
    table = np.array([maps.parameters[2 * i] for i in range(12)])
    np.savetxt(tmp_path / "params.txt", np.hstack([table, np.ones((12, 4))]))
    camels = load_maps(tmp_path / "Maps_Mcdm_X_LH_z=0.00.npy", tmp_path / "params.txt")
    np.testing.assert_array_equal(camels.values, maps.values)
    np.testing.assert_array_equal(camels.simulation, folder.simulation)
    np.testing.assert_allclose(camels.parameters, folder.parameters)
    assert (camels.pixel, camels.about["thickness"]) == (25 / 32, 5.0)


def test_simulations_are_split_and_not_maps() -> None:
    maps = some_maps(60, 16, each=3)
    split = Split.of(maps)
    parts = [set(part) for part in split.as_dict().values()]
    assert [len(part) for part in parts] == [14, 3, 3]
    assert set.union(*parts) == set(range(20)) and sum(map(len, parts)) == 20
    test = maps.of(split.test)
    assert len(test) == 9 and set(test.simulation) == parts[2]
    with pytest.raises(BadInput, match="simulation 99 is not there"):
        maps.of([0, 99])
    with pytest.raises(BadInput, match="at least 3"):
        Split.of(some_maps(4, 16))


def test_what_holds_no_maps_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[Path, Path | None, str]] = []
    cases.append((tmp_path, None, "no maps.json there"))
    cases.append((tmp_path / "none.npy", None, "is not there"))
    np.save(tmp_path / "a.npy", some_maps(4, 16).values)
    cases.append((tmp_path / "a.npy", None, "needs its parameters"))
    (tmp_path / "words.txt").write_text("no numbers here")
    cases.append((tmp_path / "a.npy", tmp_path / "words.txt", "is no table"))
    np.savetxt(tmp_path / "three.txt", np.ones((3, 2)))
    cases.append((tmp_path / "a.npy", tmp_path / "three.txt", "not a multiple of the 3"))
    (tmp_path / "torn.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:500])
    cases.append((tmp_path / "torn.npy", tmp_path / "three.txt", "cannot be read"))
    np.save(tmp_path / "flat.npy", np.ones((4, 16), np.float32))
    np.savetxt(tmp_path / "two.txt", np.ones((2, 2)))
    cases.append((tmp_path / "flat.npy", tmp_path / "two.txt", r"shape \(4, 16\)"))
    for name, value in (("nan", np.nan), ("negative", -1.0)):
        bad = some_maps(4, 16).values
        bad[2, 3, 4] = value
        np.save(tmp_path / f"{name}.npy", bad)
        cases.append((tmp_path / f"{name}.npy", tmp_path / "two.txt", "map 2 has a value"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / CARD).write_text(json.dumps({**ABOUT, "simulations": [
        {"omega_m": 0.3, "sigma8": 0.8}]}))  # fmt: skip
    cases.append((tmp_path / "empty", None, "no simulation is done"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / CARD).write_text('{"simul')
    cases.append((tmp_path / "torn", None, "is damaged"))
    for path, parameters, word in cases:
        with pytest.raises(BadInput, match=word):
            load_maps(path, parameters)


# ---------------------------------------------------------------- spectra and scores


def test_power_is_that_of_the_definition() -> None:
    fields = np.random.default_rng(1).standard_normal((2, 12, 12))
    bins = Bins(12, 6.0)
    for one, field in zip(bins.power(fields), fields, strict=True):
        np.testing.assert_allclose(one, reference.power(field, 6.0))
    x = 2 * np.pi * np.arange(12) / 12
    wave = np.broadcast_to(np.cos(3 * x)[:, None], (12, 12))[None]
    power = bins.power(wave)[0]
    assert bins.k[2] == pytest.approx(3 * 2 * np.pi / 6)
    assert np.flatnonzero(power > 1e-12).tolist() == [2]


def test_maps_compared_with_themselves_are_perfect() -> None:
    maps = some_maps()
    found = compare(maps.values, maps.values, Bins(32, 16.0))
    np.testing.assert_allclose(found["ratio"], 1)
    np.testing.assert_allclose(found["r"], 1)
    louder = contrast(maps.values, maps.values) * 2
    mean = maps.values.mean((1, 2), keepdims=True, dtype=np.float64)
    found = compare((louder + 1) * mean, maps.values, Bins(32, 16.0))
    np.testing.assert_allclose(found["ratio"], 4)


def test_scores_tell_chance_from_certainty() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(50)
    assert area(one, one) == 0.5 and area(one, one + 1) == 1 and area(one + 1, one) == 0
    rows = rng.standard_normal((4000, 3)) @ np.array([[1, 0, 0], [2, 1, 0], [0, 0, 9]])
    found = distance(rows, rows)
    assert np.mean(found**2) == pytest.approx(3, rel=0.01)  # chi^2 of three numbers


def test_a_model_is_held_to_its_limits() -> None:
    k = np.array([0.5, 1.5, 3.0, 6.0])
    rows = {
        "flow": {"k": k, "ratio": [1.05, 0.92, 1.2, 0.7]},
        "vae": {"k": k, "ratio": [1.0, 0.5, 0.4, 0.9]},
    }
    found = checks({"models": rows, "nyquist": 4.0})
    assert [one["kept"] for one in found] == [True, False]
    assert found[0]["found"] == "at most 8.0 % off" and found[1]["found"] == "2 of 3"
    rows["flow"]["ratio"] = [1.05, 0.89, 1.2, 1.05]
    assert [one["kept"] for one in checks({"models": rows, "nyquist": 4.0})] == [False, True]


# ---------------------------------------------------------------- models and latents


def test_a_batch_is_a_function_of_its_step() -> None:
    maps = some_maps()
    transform = fit_transform(maps)
    draws = Batches(maps, transform, "flow", 4, 16)
    cpu = torch.device("cpu")
    one, again, other = (draws.batch([0, step], 8, cpu) for step in (5, 5, 6))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["x0"], other["x0"])
    assert ((one["t"] * 8).floor() == torch.arange(8)).all()
    known = np.sort(transform.forward(maps.values).reshape(len(maps), -1), axis=1)
    for field in one["x1"].numpy():  # moved, turned, mirrored: the same values
        off = np.abs(known - np.sort(field.ravel())).max(1)
        assert off.min() < 1e-5


def test_decoding_is_a_function_of_latent_seed_and_number(model: Model) -> None:
    maps = some_maps()
    latent = encode(model, maps).latent
    assert latent.shape == (24, 4, 2, 2)
    whole = decode(model, latent, seed=7, calls=3)
    part = decode(model, latent[4:6], seed=7, numbers=np.array([4, 5]), calls=3)
    np.testing.assert_allclose(part, whole[4:6], rtol=1e-4)
    assert not np.allclose(decode(model, latent[:1], seed=8, calls=3), whole[:1], rtol=1e-3)
    assert whole.min() >= 0 and whole.shape == maps.values.shape


@pytest.mark.parametrize("solver", coding.SOLVERS)
def test_a_straight_velocity_leads_to_its_field(solver: str) -> None:
    """From x0 to x1 in a straight line: every solver is exact, each stage at its own time."""
    x0, x1, asked = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8), []

    def velocity(x: torch.Tensor, t: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        torch.testing.assert_close(x, t * x1 + (1 - t) * x0, atol=1e-5, rtol=1e-4)
        return x1 - x0

    made = coding.flow(velocity, x0, torch.empty(0), 6, solver)
    torch.testing.assert_close(made, x1)
    if solver == "euler":
        assert asked == pytest.approx([i / 6 for i in range(6)])
    if solver == "heun":
        assert asked == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])


def test_latents_come_back_and_those_of_another_model_are_refused(
    model: Model, tmp_path: Path
) -> None:
    maps, path = some_maps(), tmp_path / "l.safetensors"
    latents = encode(model, maps)
    save_latents(path, latents)
    back = load_latents(path, model, tmp_path / "model")
    for name in coding.KEYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(latents, name))
    assert back.about == latents.about
    with pytest.raises(BadInput, match="exists already"):
        save_latents(path, latents)
    torch.manual_seed(2)
    other = write_network(tmp_path / "other", maps, Flow(SIZE), "flow")
    with pytest.raises(BadInput, match="latents of model .*, not of .*other"):
        load_latents(path, other, tmp_path / "other")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadInput, match="are no latents, or damaged"):
        load_latents(path, model, tmp_path / "model")
    with pytest.raises(BadInput, match="is not there"):
        load_latents(tmp_path / "none", model, tmp_path / "model")


@pytest.mark.parametrize(
    "about, word",
    [
        ({"pixel": 0.53}, "pixel 0.53 Mpc/h, model M is for 0.5"),
        ({"thickness": 10.0}, "thickness 10 Mpc/h, model M is for 5"),
        ({"field": "gas"}, "field gas, model M is for dm"),
        ({"units": "K"}, "units K"),
        ({"redshift": 1.0}, "redshift 1, model M is for 0"),
    ],
)
def test_maps_that_a_model_is_not_for_are_refused(
    model: Model, about: dict[str, Any], word: str
) -> None:
    check_maps(model.card, some_maps(pixel=0.52), "M")
    with pytest.raises(BadInput, match=word):
        check_maps(model.card, some_maps(**about), "M")


def test_maps_that_the_latent_does_not_divide_are_refused(model: Model) -> None:
    with pytest.raises(BadInput, match="40 pixels on an edge: must be a multiple of 16"):
        check_maps(model.card, some_maps(edge=40), "M")


def test_models_that_are_none_are_refused(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(BadInput, match="no vae.json there; `bigbox cosmoflow train --kind vae`"):
        load(folder, "vae")
    card = json.loads((folder / "flow.json").read_text())
    (folder / "flow.json").write_text(json.dumps(card | {"size": card["size"] | {"latent": 5}}))
    with pytest.raises(BadInput, match="does not fit its card"):
        load(folder)
    boxes = FlowSize(3, 2, (4,), (1,), (4, 4), 1, 8, "voxel", summary=False)
    save_model(folder, "flow", Flow(boxes), card | {"size": boxes.as_dict()}, torch.float32)
    with pytest.raises(BadInput, match="is of 3-D fields"):
        load(folder)


# ---------------------------------------------------------------- training and commands


def test_a_training_that_is_stopped_ends_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(networks.PRESETS, ("small", 2), SIZE)
    maps, weights = some_maps(12, 16), []
    for name, stops in (("whole", (6,)), ("parts", (3, 6))):
        for steps in stops:
            if steps < 6:  # as a kill leaves it: a checkpoint in the middle
                monkeypatch.setattr("bigbox.training.loop.Trainer.checkpoint_every", 0.0)
                asked = FlowTrainOptions(
                    tmp_path / name, steps=6, batch=2, hours=None, device="cpu"
                )
                with pytest.raises(KeyboardInterrupt):
                    train_maps(_interrupting(maps, monkeypatch), asked)
                monkeypatch.undo()
                monkeypatch.setitem(networks.PRESETS, ("small", 2), SIZE)
            else:
                asked = FlowTrainOptions(tmp_path / name, steps=6, batch=2, device="cpu")
                card = train_maps(maps, asked)
        weights.append((tmp_path / name / "flow.safetensors").read_bytes()[-1000:])
        assert card["recipe"]["steps"] == 6 and card["data"] == Split.of(maps).as_dict()
    assert weights[0] == weights[1]


def _interrupting(maps: Maps, monkeypatch: pytest.MonkeyPatch) -> Maps:
    drawn = Batches.batch

    def batch(self: Batches, key: list[int], *more: Any) -> Any:
        if key[1:3] == [0, 3]:  # a training batch, of step 3
            raise KeyboardInterrupt
        return drawn(self, key, *more)

    monkeypatch.setattr(Batches, "batch", batch)
    return maps


@pytest.mark.slow
def test_every_command_does_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "maps", some_maps(32, 32))
    write_folder(tmp_path / "warm", some_maps(8, 32))
    torch.manual_seed(1)
    write_network(tmp_path / "m", load_maps(tmp_path / "maps"), Flow(SIZE), "flow")
    write_network(tmp_path / "m", load_maps(tmp_path / "maps"), Vae(VaeSize(2, 4, 16, 8)), "vae")
    for line in (
        "evaluate m maps --calls 2",
        "encode m maps l.safetensors --part test",
        "decode m l.safetensors d.npy --calls 2",
        "infer m maps --epochs 1 --width 8 --seeds 2",
        "infer m maps --epochs 1 --seeds 1 --from spectrum --out spectrum",
        "interpolate m maps --pairs 2 --shares 1 --calls 2",
        "anomaly m maps warm --count 4 --calls 2",
    ):
        assert main(["cosmoflow", *line.split()]) == 0
    said = capsys.readouterr().out
    assert "velocity error" in said and "ResNet-18" in said and "area under the curve" in said
    for name in ("evaluation", "inference", "spectrum", "channels", "anomaly"):
        numbers = json.loads((tmp_path / name / "numbers.json").read_text())
        assert numbers["of"]["model"].startswith("m (")
        assert (tmp_path / name / "index.html").stat().st_size > 10_000
    assert np.load("d.npy").shape == (4, 32, 32)
    assert len(json.loads(Path("channels/numbers.json").read_text())["channels"]) == 4
    assert main(["cosmoflow", "decode", "m", "l.safetensors", "d.npy"]) == 2
    assert main(["cosmoflow", "decode", "m", "l.safetensors", "e.npy", "--kind", "vae"]) == 2
    assert main(["cosmoflow", "encode", "m", "maps", "l.safetensors"]) == 2
    assert not Path("e.npy").exists()


def test_the_rate_is_halved_on_a_plateau_and_stays_so_after_a_stop(tmp_path: Path) -> None:
    """As the paper trains: no better for two validations, half the rate."""
    trainer = line_trainer(tmp_path, steps=60, rate=1e-30)
    trainer.recipe = replace(trainer.recipe, patience=2)
    trainer.run()
    halved, rows = trainer.halved_at, trainer.curve.rows()
    best = rows[0]["step"]  # nothing is learned: the first one stays the best
    assert len(halved) == 2
    assert best + 20 <= halved[0] < best + 30 and halved[0] + 20 <= halved[1] < halved[0] + 30
    for row in rows:
        times = sum(at < row["step"] for at in halved)
        assert row["rate"] == pytest.approx(1e-30 / 2**times)
    again = line_trainer(tmp_path, steps=60, rate=1e-30)
    again.run()
    assert again.halved_at == halved
