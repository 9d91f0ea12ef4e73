"""The notebook runs, and the site of pages and docstrings is built without a warning."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "deploy" / "docs" / "first_box.ipynb"
FUNCTIONS = ("ingest", "plan", "paint", "open", "validate", "plot", "simulate", "train", "evaluate")


def code_of(notebook: nbformat.NotebookNode) -> list[str]:
    cells = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return [line for source in cells for line in source.splitlines() if line.strip()]


def pictures_of(notebook: nbformat.NotebookNode) -> int:
    outputs = (out for cell in notebook.cells for out in cell.get("outputs", []))
    return sum("image/png" in out.get("data", {}) for out in outputs)


def test_the_notebook_is_short_public_and_comes_executed() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    code = code_of(notebook)
    assert len(code) <= 40
    assert not re.search(r"\b_\w|\._", "\n".join(code))
    imports = {line for line in code if re.match(r"(import|from) ", line)}
    assert imports == {"import matplotlib.pyplot as plt", "import bigbox"}
    assert pictures_of(notebook) == 2  # the slab, and P(k) with its band


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    about = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=500, resources=about).execute()
    assert pictures_of(notebook) == 2
    assert (tmp_path / "box.zarr" / "tb").is_dir()


class Links(HTMLParser):
    """The places that a page leads to, and those in it that can be led to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.to: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.to += [url for key in ("href", "src") if (url := told.get(key))]
        self.names |= {name for key in ("id", "name") if (name := told.get(key))}


@pytest.mark.slow
def test_the_site_is_built_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    out = tmp_path / "site"
    done = subprocess.run(
        [ROOT / "deploy" / "site.sh", out],
        capture_output=True,
        text=True,
        env={**os.environ, "http_proxy": "http://0.0.0.0:9", "https_proxy": "http://0.0.0.0:9"},
    )
    assert done.returncode == 0, done.stderr
    pages = {path.resolve(): Links(path) for path in out.rglob("*.html")}
    dead, elsewhere = [], []
    for path, page in pages.items():
        for link in page.to:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if link.endswith((".js", ".css")):
                    elsewhere.append(link)
                continue
            place = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = pages.get(place)
            if not place.exists() or (url.fragment and known and url.fragment not in known.names):
                dead.append(f"{path.name}: {link}")
    assert dead == [] and elsewhere == []
    functions = (out / "python.html").read_text(encoding="utf-8")
    assert all(f'id="bigbox.{name}"' in functions for name in FUNCTIONS)
