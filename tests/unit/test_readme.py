"""Every command and every program text of the README is run, in its order, in an empty folder.

Those that set up an environment (`pip install`, `deploy/quickstart.sh`, `deploy/test.sh`) are what
runs this test: deploy/test.sh installs the package, and runs the quickstart and the unit tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BY_ITSELF = ("deploy/quickstart.sh", "deploy/test.sh")
SET_UP = (*BY_ITSELF, "pip install '.[simulate]'")
WORDS = 900


def blocks() -> list[tuple[str, str]]:
    """(language, text) of every fenced block that has a language."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands_of(language: str, text: str) -> list[list[str]]:
    if language == "python":
        return [[sys.executable, "-c", text]]
    assert language == "sh", f"a block of {language} that no test runs"
    return [["sh", "-c", line] for line in text.splitlines() if line not in SET_UP]


def chains() -> list[list[tuple[str, str]]]:
    """The blocks in their order, apart where they have no box in common: each needs only its own.

    Several chains run at a time.
    """
    found: list[tuple[set[str], list[tuple[str, str]]]] = []
    for block in filter(lambda block: commands_of(*block), blocks()):
        boxes, chain = set(re.findall(r"[\w-]+\.zarr", block[1])), [block]
        for other in [other for other in found if other[0] & boxes]:
            found.remove(other)
            boxes, chain = boxes | other[0], other[1] + chain
        found.append((boxes, chain))
    return [chain for _, chain in sorted(found, key=lambda one: -len(one[1]))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader would be: `bigbox` on the path, and an empty folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bigbox").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bigbox "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    beside_python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}:{beside_python}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun: deploy/test.sh installs one")
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.mark.slow
@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain[0][1].splitlines()[0])
def test_every_command_of_the_readme_runs(folder: Path, chain: list[tuple[str, str]]) -> None:
    for block in chain:
        for command in commands_of(*block):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    text = "".join(text for _, text in chain)
    assert (folder / "first.png").exists() == ("bigbox plot first.zarr" in text)
    assert (folder / "sim_validate" / "index.html").exists() == ("validate sim.zarr" in text)


def test_the_readme_has_commands_of_all_kinds() -> None:
    texts = [text for language, text in blocks() if commands_of(language, text)]
    assert sorted(text for chain in chains() for _, text in chain) == sorted(texts)
    assert sum(len(commands_of(*block)) for block in blocks()) >= 10
    assert "bigbox plot first.zarr" in "".join(texts) and "validate sim.zarr" in "".join(texts)


def test_the_readme_is_short_and_its_links_work_anywhere() -> None:
    assert len(README.split()) <= WORDS
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", README)
    assert links and all(link.startswith("https://") for link in links)
    (picture,) = re.findall(r"!\[[^\]]{40,}\]\(([^)]+)\)", README)
    assert (ROOT / picture).stat().st_size < 300_000


def test_what_the_readme_names_exists() -> None:
    named = re.findall(r"`((?:bigbox|scheduler|deploy|tests)/[\w./-]*)`", README)
    assert named
    for name in named:
        assert (ROOT / name).exists(), f"the README names {name}"
    for module in re.findall(r"python -m ([\w.]+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), f"the README names {module}"


def test_the_scripts_run_what_the_readme_promises() -> None:
    suite = (ROOT / "deploy" / "test.sh").read_text()
    assert "deploy/quickstart.sh" in suite and "tests/unit" in suite
    for script in BY_ITSELF:
        assert script in README
        assert os.access(ROOT / script, os.X_OK)
    assert "deploy/test.sh" in (ROOT / ".ci" / "run").read_text()
