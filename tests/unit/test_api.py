"""`import bigbox`: functions found when asked for, which the commands call; what they return."""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

import bigbox
from bigbox import progress
from bigbox.api.backend import BigboxBackend
from bigbox.api.cosmology import parameters_of, to_astropy
from bigbox.cli import main
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box
from tests.reference.spectra import power_in_memory

ROOT = Path(__file__).parents[2]
NAMES = ("ingest", "plan", "paint", "validate", "plot", "simulate", "train", "evaluate")
VOXEL, N = 12.5 / 128, 32
HOW = {"painter": "gaussian", "tile": 16, "steps": 2, "quiet": True}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painted box of 32^3 voxels with haloes."""
    folder = tmp_path_factory.mktemp("api")
    rng = np.random.default_rng(3)
    np.save(folder / "rho.npy", rng.gamma(2.0, 0.5, (N, N, N)))
    known = {"omega_m": 0.3, "h": 0.6711}
    made = bigbox.ingest(
        folder / "rho.npy", folder / "box.zarr", box_size=N * VOXEL, redshift=1.0, cosmology=known
    )
    halo = Box.open(made.box, "r+").create_array(
        "halo", channels=4, attributes={"mass_edges": list(HALO_EDGES)}
    )
    halo[:] = rng.gamma(0.5, 1e9, (4, N, N, N))
    assert bigbox.paint(made.box, seed=1, **HOW).tiles == 64
    return made.box


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_bigbox_imports_nothing_else() -> None:
    code = "import sys; old = set(sys.modules); import bigbox; dir(bigbox)\n"
    code += "print(*(m for m in set(sys.modules) - old if '.' not in m))"
    assert set(run(code).split()) <= {"bigbox", "typing", "_typing"}


def test_names_are_functions_whatever_is_imported_before() -> None:
    for name in ("ingestion.density", "planning", "simulation.options", "training.options"):
        importlib.import_module(f"bigbox.{name}")
    assert all(inspect.isfunction(getattr(bigbox, name)) for name in (*NAMES, "open"))
    assert {*NAMES, "open", "BadInput"} <= set(dir(bigbox))
    with pytest.raises(AttributeError, match="nothing"):
        bigbox.nothing  # noqa: B018


def test_errors_are_builtins_too() -> None:
    assert issubclass(bigbox.BadInput, ValueError)
    assert issubclass(bigbox.MissingPackage, ImportError)
    assert issubclass(bigbox.StoppedEarly, RuntimeError)
    with pytest.raises(ValueError, match="no such store"):
        bigbox.open("nowhere.zarr")
    with pytest.raises(ValueError, match="max_powr_error is none of its limits"):
        bigbox.validate("nowhere.zarr", max_powr_error=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_a_keyword_of_the_same_default(name: str) -> None:
    command = importlib.import_module(f"bigbox.cli.{name}")
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    keywords = inspect.signature(getattr(bigbox, name)).parameters
    limits = any(one.kind is one.VAR_KEYWORD for one in keywords.values())
    other = {"paths", "given", "model", "help"} if name == "evaluate" else {"paths", "help"}
    other |= {"omega_m", "omega_b", "h", "sigma8", "n_s"}
    for action in parser._actions:
        if action.dest in other:
            continue
        assert action.dest in keywords or limits, action.dest
        if action.dest in keywords and action.option_strings and not action.required:
            mine = keywords[action.dest].default
            same = {"sampler": ("dpmpp-sde", None), "out": (None, "evaluation")}
            wanted = same.get(action.dest, ())
            nothing = (None, False, [], ())
            assert (
                mine == action.default
                or (mine in nothing and action.default in nothing)
                or mine in wanted
                or (isinstance(mine, tuple) and list(mine) == action.default)
            ), (action.dest, mine, action.default)


CALLS = [
    ("plan --shape 64 --box-size 6.25", {"shape": [64], "box_size": 6.25, "ranks": 1}),
    ("paint b.zarr --seed 4 --steps 3", {"box": Path("b.zarr"), "seed": 4, "steps": 3}),
    ("train lodi a.zarr --out m --within 2", {"kind": "lodi", "within": 2.0}),
    ("ingest a.npy b.zarr --box-size 3", {"box_size": [3.0], "grid": None}),
    ("simulate s --grid 16 --box-size 2 --seeds 1-3", {"seeds": [1, 2, 3], "grid": 16}),
]


@pytest.mark.parametrize(("words", "wanted"), CALLS, ids=lambda value: str(value)[:20])
def test_a_command_calls_the_function(
    words: str, wanted: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, calls = words.split()[0], []

    class Enough(Exception):
        """The call came."""

    def noted(*places: object, **keywords: object) -> None:
        calls.append(keywords)
        inspect.signature(real).bind(*places, **keywords)
        raise Enough

    real = getattr(bigbox, name)
    monkeypatch.setattr(bigbox, name, noted)
    with pytest.raises(Enough):
        main(words.split())
    assert {key: calls[0][key] for key in wanted} == wanted


def test_a_box_is_a_labelled_data_set(box: Path) -> None:
    found = bigbox.open(box)
    assert found.halo.dims == ("channel", "x", "y", "z")
    assert found.channel.values.tolist() == [0, 1, 2, 3]
    assert found.mass_lower.values.tolist() == list(HALO_EDGES)
    assert found.mass_upper.values.tolist() == [*HALO_EDGES[1:], np.inf]
    assert found.mass_lower.attrs["units"] == "M_sun/h" and found.tb.attrs["units"] == "mK"
    heavy = found.halo.sel(channel=3)
    assert float(heavy.mass_lower) == HALO_EDGES[3]


def test_every_way_to_open_gives_the_same_without_a_warning(box: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = bigbox.open(box)
        plain = xarray.open_zarr(box)
        engine = xarray.open_dataset(box, engine=BigboxBackend, drop_variables="halo")
    np.testing.assert_array_equal(plain.tb.values, mine.tb.values)
    np.testing.assert_array_equal(engine.tb.values, mine.tb.values)
    assert "halo" not in engine and engine.bigbox.box_size == mine.bigbox.box_size
    assert BigboxBackend().guess_can_open(box) and not BigboxBackend().guess_can_open(box.parent)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    engines = project["entry-points"]["xarray.backends"]
    assert engines == {"bigbox": "bigbox.api.backend:BigboxBackend"}


def test_spectra_are_those_of_the_whole_box_in_its_own_size(box: Path) -> None:
    found = bigbox.open(box)
    spectrum, side = found.bigbox.power("tb"), N * VOXEL
    power = power_in_memory(found.tb.values, side).power
    np.testing.assert_allclose(spectrum.power, power, rtol=1e-4)
    table = spectrum.to_xarray()
    assert spectrum.units == "(Mpc/h)^3 mK^2" == table.power.attrs["units"]
    np.testing.assert_allclose(table.error, power * np.sqrt(2 / spectrum.modes), rtol=1e-4)
    pair = found.bigbox.cross("dm")
    assert np.all(np.abs(pair.correlation) <= 1 + 1e-6)
    same = found.bigbox.cross(bigbox.open(box)).to_xarray()
    np.testing.assert_allclose(same.correlation, 1, atol=1e-6)
    by_array = found.bigbox.power(found.halo.sel(channel=1))
    assert by_array.units.endswith("^2") and np.isfinite(by_array.power).all()


def test_what_has_no_spectrum_is_refused(box: Path) -> None:
    found = bigbox.open(box)
    with pytest.raises(bigbox.BadInput, match="a part is not periodic"):
        found.isel(x=slice(0, 16)).bigbox.power()
    with pytest.raises(bigbox.BadInput, match="choose one channel"):
        found.bigbox.power("halo")
    with pytest.raises(bigbox.BadInput, match="has no 'hi', but dm, halo, tb"):
        found.bigbox.power("hi")
    with pytest.raises(bigbox.BadInput, match="other box: is"):
        found.bigbox.cross(found.assign_attrs(box_size=[9.0, 9.0, 9.0]))
    with pytest.raises(bigbox.BadInput, match="is no box"):
        xarray.Dataset().bigbox.box_size  # noqa: B018


def test_cosmology_frequency_and_distance_are_astropys(box: Path) -> None:
    import astropy.units as u
    from astropy.cosmology import FlatLambdaCDM, Planck18

    found = bigbox.open(box).bigbox
    by_hand = FlatLambdaCDM(67.11, 0.3, Tcmb0=0)
    assert isinstance(found.cosmology, FlatLambdaCDM)
    assert abs(found.distance / by_hand.comoving_distance(1.0) - 1) < 1e-10
    assert found.frequency.to_value(u.MHz) == pytest.approx(1420.405751768 / 2)
    assert parameters_of(to_astropy(parameters_of(Planck18))) == parameters_of(Planck18)
    open_one = to_astropy({"omega_lambda": 0.0})
    assert open_one.Ok0 == pytest.approx(0.7) and parameters_of(open_one)["omega_lambda"] == 0.0
    with pytest.raises(ValueError, match="'Om0' is none of omega_m"):
        parameters_of({"Om0": 0.3})


def test_expansion_and_density_agree_with_astropy() -> None:
    import astropy.units as u

    from bigbox.physics.cosmology import CRITICAL_DENSITY, Cosmology

    mine = Cosmology(omega_m=0.3, omega_lambda=0.6)
    theirs = to_astropy({"omega_m": 0.3, "omega_lambda": 0.6})
    for z in (0.0, 0.5, 3.0):
        assert mine.expansion(z) == pytest.approx(theirs.efunc(z), rel=1e-6)
    critical = theirs.critical_density0.to_value(u.Msun / u.Mpc**3) / mine.h**2
    assert critical == pytest.approx(CRITICAL_DENSITY, rel=2e-4)


def test_tiles_tell_what_is_done(box: Path) -> None:
    tiles = bigbox.open(box).bigbox.tiles
    assert tiles.count == 64 and tiles.to_xarray().sizes == {"tile_x": 4, "tile_y": 4, "tile_z": 4}
    assert bool(tiles.to_xarray().all()) and tiles.tiling.tile == 16


def test_everything_draws_on_the_axes_it_is_given(box: Path) -> None:
    found, figure = bigbox.open(box), Figure()
    axes = figure.subplots(1, 4)
    spectrum = found.bigbox.power("dm")
    assert spectrum.plot(axes[0], label="dm") is axes[0] and len(axes[0].lines) == 1
    low, high = (axes[0].collections[0].get_paths()[0].vertices[:, 1] for _ in range(2))
    assert low.min() > 0 and high.max() > spectrum.power.max()  # a band, above zero
    assert found.bigbox.cross("dm").plot(axes[1]) is axes[1]
    found.bigbox.plot("dm", axes[2], thickness=1.0)
    bigbox.plan(box, painter="gaussian", tile=16).plot(axes[3])
    assert len(axes[2].images) == 1 and axes[3].patches
    picture = bigbox.plot(box, array=["dm"], thickness=1.0)
    assert picture._repr_png_().startswith(b"\x89PNG")
    wanted = found.dm.isel(z=slice(11, 21)).mean("z")  # the 10 voxels about the middle
    np.testing.assert_allclose(picture.to_xarray().dm, wanted, rtol=1e-5)


def test_the_backend_of_matplotlib_is_left_alone(box: Path) -> None:
    code = f"""
import bigbox, pkgutil, importlib, matplotlib
for package in ("analysis.maps", "analysis.report", "analysis.spectra", "training", "api"):
    found = importlib.import_module("bigbox." + package)
    for one in pkgutil.iter_modules(found.__path__):
        importlib.import_module(f"bigbox.{{package}}.{{one.name}}")
bigbox.plot({str(box)!r}, {str(box.with_suffix(".png"))!r})
print(matplotlib.rcParams._get("backend"))
"""
    assert (
        run(code, MPLBACKEND="module://notebook_of_elsewhere") == "module://notebook_of_elsewhere"
    )
    assert matplotlib.__version__


def test_validate_returns_what_it_found(box: Path) -> None:
    found = bigbox.validate(box, truth=box, draws=0)
    assert found and found.passed and found.page is None and found.checks
    table = found.to_xarray()
    np.testing.assert_allclose(table.ratio, 1.0)
    np.testing.assert_allclose(table.power, table.power_of_truth)
    axes = Figure().subplots()
    assert found.plot(axes) is axes and len(axes.lines) == 2


def test_plan_tells_what_does_not_fit() -> None:
    tight = bigbox.plan(shape=128, box_size=12.5, memory=0.01)
    assert not tight.fits and "limit is 0.0 GB" in tight.refusal and "memory" in str(tight)
    assert float(tight.to_xarray().sum()) == pytest.approx(tight.memory_per_rank / 1e9)
    with pytest.raises(ValueError, match="plan takes a BOX"):
        bigbox.plan()


def test_what_needs_camb_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "camb", None)
    options = {"grid": 8, "box_size": 1.0, "seed": 1, "cosmology": {"sigma8": 0.77}}
    with pytest.raises(ImportError, match=r"pip install 'bigbox\[simulate\]'"):
        bigbox.simulate(tmp_path / "sim", **options)
    words = f"simulate {tmp_path / 'sim'} --grid 8 --box-size 1 --seed 1 --sigma8 0.77"
    assert main(words.split()) == 2
    assert "needs camb" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "sim").exists()


def test_a_library_logs_and_a_command_prints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "rho_z=2.0.npy", np.random.default_rng(0).random((20, 20, 20)))
    with caplog.at_level(logging.INFO, "bigbox"):
        made = bigbox.ingest(tmp_path / "rho_z=2.0.npy", tmp_path / "a.zarr", box_size=2.0)
    assert made.redshift == 2.0
    assert [r.getMessage() for r in caplog.records if "taken from the name" in r.getMessage()]
    assert capsys.readouterr() == ("", "")
    words = ["ingest", str(tmp_path / "rho_z=2.0.npy"), str(tmp_path / "b.zarr"), "--box-size", "2"]
    assert main(words) == 0
    assert "bigbox: note: redshift 2 is taken from the name" in capsys.readouterr().err
    assert not logging.getLogger("bigbox").handlers


def test_a_notebook_has_a_bar_and_a_script_has_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert progress.bar(3, "step") is None
    with caplog.at_level(logging.INFO, "bigbox.progress"):
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        assert list(progress.shown([1, 2], "step")) == [1, 2]
    assert "1/2 steps" in caplog.messages[0]
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ipywidgets may not be there: a bar of text then
        bar = progress.bar(3, "step")
    assert bar is not None
    bar.close()


SCRIPT = """\
import bigbox

made = bigbox.ingest("quickstart", "box.zarr")
plan = bigbox.plan("box.zarr", ranks=2)
painted = bigbox.paint("box.zarr", seed=1)
box = bigbox.open("box.zarr")
spectrum = box.bigbox.power("tb", normalise=True)
reveal_type(made.shape)
reveal_type(plan.fits)
reveal_type(spectrum.power)
"""


@pytest.mark.slow
def test_a_users_script_has_types(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    # Silent about bigbox itself, as mypy is about what is installed.
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--config-file", "pyproject.toml", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    said = done.stdout
    assert done.returncode == 0, said
    for wanted in ("tuple[int, int, int]", '"bool"', "numpy.ndarray"):
        assert wanted in said, said
    wrong = script.with_name("wrong.py")
    wrong.write_text('import bigbox\n\nbigbox.paint("box.zarr", sed=1)\nbigbox.pant("box.zarr")\n')
    done = subprocess.run(
        [*command, str(wrong)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert 'Unexpected keyword argument "sed"' in done.stdout
    assert 'has no attribute "pant"' in done.stdout
