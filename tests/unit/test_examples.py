"""Every example of the pages and of the docstrings is run, in its order, in a folder of its own."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import bigbox
from bigbox import names
from bigbox.networks import presets
from bigbox.painters import models
from bigbox.simulation import seeds
from bigbox.training import measures
from bigbox.training.train import MEASURED
from tests import snapshots
from tests.models import VOXEL, write_model
from tests.small_runs import quick_runs
from tests.small_training import use_small_networks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy" / "docs"
PAGES = ("snapshot", "haloes", "realizations", "training")
ELSEWHERE = {"extending.md"}  # its examples are those of tests/unit/test_extend_*.py
MODULES = ("bigbox", *(f"bigbox.api.{name}" for name in (
    "accessor", "cosmology", "evaluate", "ingest", "opening", "paint", "plan", "plot", "simulate",
    "train", "validate",
)))  # fmt: skip
SIDE = 64 * VOXEL


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot and its catalogue, small networks that are for it, and boxes."""
    folder = tmp_path_factory.mktemp("sources")
    places = snapshots.clustered(20_000, box=SIDE)
    snapshots.gadget(folder / "snapdir_000", places, box=SIDE)
    where, masses = snapshots.haloes(150, places)
    snapshots.catalogue(folder / "groups_000", where, masses, box=SIDE)
    write_model(folder / "known")
    rng = np.random.default_rng(0)
    np.save(folder / "rho.npy", rng.gamma(0.5, 2.0, (64, 64, 64)))
    for name in ("small", "painted"):
        bigbox.ingest(folder / "rho.npy", folder / f"{name}.zarr", box_size=6.25, redshift=0)
    how = {"painter": "gaussian", "steps": 2, "quiet": True}
    bigbox.paint(folder / "painted.zarr", seed=1, **how)
    return folder


@pytest.fixture
def folder(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an example is run: the sources are there."""
    for path in sources.iterdir():
        if path.suffix == ".zarr":
            shutil.copytree(path, tmp_path / path.name)
        elif path.name != "known":
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.FOLDERS, str(sources / "known"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(names.DEFAULT_STEPS, "dpmpp-sde", 2)
    return tmp_path


def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have them for one test: what `use_small_networks` sets comes back."""
    for place, name in ((measures, "TILES"), (measures, "CURVE_TILES")):
        monkeypatch.setattr(place, name, getattr(place, name))
    for table, key in ((MEASURED, "cpu"), (presets.HALOGEN, "mini"), (presets.LODI, "mini")):
        monkeypatch.setitem(table, key, table[key])
    use_small_networks()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    code = blocks(DOCS / f"{page}.md")
    assert len(code) >= 2
    if page == "training":
        _small_networks(monkeypatch)
    world: dict[str, object] = {}
    with quick_runs(seeds):
        for number, text in enumerate(code):
            exec(compile(text, f"{page}.md, block {number + 1}", "exec"), world)
    plt.close("all")


def test_every_page_with_examples_is_run() -> None:
    having = {page.name for page in DOCS.rglob("*.md") if blocks(page)}
    assert having == {f"{page}.md" for page in PAGES} | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str, folder: Path) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 0
