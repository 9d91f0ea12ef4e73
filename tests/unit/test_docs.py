"""The pages around the code lead somewhere, and what is installed cites no file of the checkout."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import bigbox

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "deploy/docs").rglob("*.md"))]
SOURCES = sorted(path for room in ("bigbox", "scheduler") for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = set(re.findall(r"`((?:bigbox|scheduler|tests|deploy)/[\w/.]*)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_decision_is_listed() -> None:
    pages = {path.name for path in (ROOT / "deploy/docs/decisions").glob("0*.md")}
    listed = re.findall(r"\((0\S+)\)", (ROOT / "deploy/docs/decisions/README.md").read_text())
    assert listed == sorted(pages)


def test_nothing_that_is_installed_cites_a_file_that_is_not() -> None:
    citing = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(r"\b(tests|deploy)/", path.read_text())
    }
    assert citing == set()


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {bigbox.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{bigbox.__version__}]\n" in (ROOT / "CHANGELOG.md").read_text()
    recipe = (ROOT / "deploy/conda/recipe.yaml").read_text()
    assert f'\n  version: "{bigbox.__version__}"\n' in recipe


def test_the_recipe_has_the_dependencies_of_the_project() -> None:
    renamed = {"torch": "pytorch", "dask[array]": "dask", "matplotlib": "matplotlib-base"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pairs = (one.split(">=") for one in project)
    wanted = {renamed.get(name, name): least for name, least in pairs}
    recipe = (ROOT / "deploy/conda/recipe.yaml").read_text()
    run = recipe.partition("  run:\n")[2].partition("\ntests:")[0]
    found = dict(re.findall(r"- (\S+) >=(\S+)", run))
    assert found.pop("python") == "3.11" and found == wanted
