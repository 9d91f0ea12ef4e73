"""`bigbox simulate` as a whole: its files, what ingest makes of them, and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.simulation import run
from bigbox.simulation.groups import LEAST
from bigbox.simulation.options import Options
from bigbox.simulation.run import simulate
from bigbox.simulation.snapshot import CATALOGUE, SNAPSHOT
from tests.small_runs import quick_runs

GRID, SIDE = 32, 3.125
REDSHIFT = 1.0


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_runs(run):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "run"
    simulate(out, Options(GRID, SIDE, 7, REDSHIFT, steps=25))
    return out


def test_the_snapshot_is_gadgets(made: Path) -> None:
    with h5py.File(made / SNAPSHOT) as file:
        header, part = file["Header"].attrs, file["PartType1"]
        count = GRID**3
        for name in ("NumPart_ThisFile", "NumPart_Total"):
            assert header[name].tolist() == [0, count, 0, 0, 0, 0]
        assert header["NumFilesPerSnapshot"] == 1
        assert header["BoxSize"] == 1e3 * SIDE
        assert (header["Time"], header["Redshift"]) == (0.5, REDSHIFT)
        assert header["Code"].startswith("bigbox simulate")
        density = 1e10 * header["MassTable"][1] * count / SIDE**3
        assert density == pytest.approx(0.3 * 2.77536627e11)
        x = part["Coordinates"][:]
        assert x.shape == part["Velocities"].shape == (count, 3)
        assert x.dtype == part["Velocities"].dtype == np.float32
        assert (x >= 0).all() and (x < 1e3 * SIDE).all()
        assert np.sort(part["ParticleIDs"][:]).tolist() == list(range(1, count + 1))
        assert part["Coordinates"].attrs["to_cgs"] == 3.085678e21
        assert part["Velocities"].attrs["a_scaling"] == 0.5
        assert file["Parameters"].attrs["Seed"] == 7


def test_the_catalogue_is_of_that_snapshot(made: Path) -> None:
    with h5py.File(made / SNAPSHOT) as file:
        x, v = file["PartType1/Coordinates"][:], file["PartType1/Velocities"][:]
        mass = file["Header"].attrs["MassTable"][1]
    with h5py.File(made / CATALOGUE) as file:
        header = dict(file["Header"].attrs)
        group = {name: values[:] for name, values in file["Group"].items()}
    lengths = group["GroupLen"]
    assert header["Ngroups_Total"] == header["Ngroups_ThisFile"] == len(lengths) > 3
    assert header["Nids_Total"] == lengths.sum()
    assert header["Nsubhalos_Total"] == 0
    assert (np.diff(lengths) <= 0).all() and lengths.min() >= LEAST
    assert group["GroupMass"] == pytest.approx(lengths * mass, rel=1e-6)
    assert (group["GroupLenType"][:, 1] == lengths).all()
    assert (group["GroupOffsetType"][:, 1] == np.cumsum(lengths) - lengths).all()
    a = 1 / (1 + REDSHIFT)
    for i, (start, length) in enumerate(zip(group["GroupOffsetType"][:, 1], lengths, strict=True)):
        own = slice(start, start + length)
        assert (x[own] == group["GroupPos"][i]).all(axis=1).any()
        # Velocities of particles are peculiar over sqrt(a), of groups peculiar times a.
        assert group["GroupVel"][i] == pytest.approx(
            a**1.5 * v[own].mean(axis=0), rel=2e-3, abs=0.1
        )
        # Friends of friends: no member without another one within the linking length.
        apart = x[own][:, None] - x[own][None]
        apart -= 1e3 * SIDE * np.round(apart / (1e3 * SIDE))
        square = (apart**2).sum(axis=-1) + np.where(np.eye(length), np.inf, 0)
        assert (square.min(axis=1) <= (0.2 * 1e3 * SIDE / GRID) ** 2 * 1.0001).all()


def test_ingest_reads_it_like_any_other(made: Path, tmp_path: Path, capsys) -> None:
    snapshot = open_snapshot([made / SNAPSHOT.parent])
    catalogue = open_catalogue([made / CATALOGUE.parent])
    assert snapshot.header.difference(catalogue.header) is None
    assert snapshot.header.box_size == pytest.approx(SIDE)
    assert snapshot.header.seed == 7
    assert snapshot.header.cosmology == pytest.approx(
        {
            "omega_m": 0.3,
            "omega_b": 0.049,
            "h": 0.6711,
            "omega_lambda": 0.7,
            "sigma8": 0.8,
            "n_s": 0.9624,
        }
    )
    box = str(tmp_path / "box.zarr")
    snapshot, haloes = str(made / SNAPSHOT.parent), str(made / CATALOGUE.parent)
    assert (
        main(["ingest", str(made / SNAPSHOT.parent), box, "--grid", "16", "--halos", haloes]) == 0
    )
    assert f"{GRID**3} particles" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed, threads in (("a", 1, 1), ("b", 1, 1), ("c", 1, 2), ("d", 2, 1)):
        torch.set_num_threads(threads)
        simulate(tmp_path / name, Options(16, SIDE, seed, steps=5))
    torch.set_num_threads(1)
    for path in (SNAPSHOT, CATALOGUE):
        a, b, c, d = ((tmp_path / name / path).read_bytes() for name in "abcd")
        assert a == b == c != d


def test_the_command_says_what_it_made_and_what_comes_next(tmp_path: Path, capsys) -> None:
    out = tmp_path / "sim"
    options = ["--grid", "16", "--box-size", "3", "--seed", "1", "--steps", "3", "--sigma8", "1.0"]
    assert main(["simulate", str(out), *options]) == 0
    said = capsys.readouterr()
    assert f"next: bigbox ingest {out / 'snapdir_000'}" in said.out
    assert "initial conditions" in said.err
    with h5py.File(out / SNAPSHOT) as file:
        assert file["Parameters"].attrs["Sigma8"] == 1.0
        assert file["Parameters"].attrs["Steps"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim"]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"--grid": "6"}, "at least 8"),
        ({"--grid": "17"}, "grid 17: .* even"),
        ({"--grid": "x"}, "whole number"),
        ({"--box-size": "0"}, "above 0"),
        ({"--box-size": "-3"}, "above 0"),
        ({"--box-size": "nan"}, "above 0"),
        ({"--redshift": "49"}, "redshift 49: .* below 49"),
        ({"--redshift": "-0.1"}, "at least 0"),
        ({"--steps": "0"}, "at least 1"),
        ({"--mesh-factor": "9"}, "1 to 8"),
        ({"--seed": "-1"}, "at least 0"),
        ({"--omega-m": "1.5"}, "omega_m 1.5 must be at most 1"),
        ({"--omega-b": "0.4"}, "omega_b 0.4 is more than omega_m"),
        ({"--device": "abacus"}, "--device abacus"),
    ],
)
def test_bad_input_is_one_line(changed: dict[str, str], match: str, tmp_path: Path, capsys) -> None:
    refused(tmp_path, changed, match, capsys)


def refused(folder: Path, changed: dict[str, str], match: str, capsys, out: str = "sim") -> None:
    before = sorted(folder.rglob("*"))
    asked = {"--grid": "16", "--box-size": "3", "--seed": "1"} | changed
    words = ["simulate", str(folder / out), *(w for pair in asked.items() for w in pair)]
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("bigbox: ") and said.count("\n") == 1
    assert re.search(match, said), said
    assert sorted(folder.rglob("*")) == before


def test_places_where_nothing_can_be_made(tmp_path: Path, capsys) -> None:
    (tmp_path / "there").mkdir()
    refused(tmp_path, {}, "exists already", capsys, "there")
    refused(tmp_path, {}, "no folder", capsys, "not/there")


def test_too_little_disk_or_memory(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    need = Options(16, 3.0, 1)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need.disk - 1))
        refused(tmp_path, {}, "files need .* free: choose another folder", capsys)
    memory = namedtuple("memory", "available")
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: memory(need.memory - 1))
        refused(tmp_path, {}, "of memory, .* smaller --grid", capsys)


def test_too_little_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, cuda = Options(64, 3.0, 1, mesh_factor=3), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (asked.gpu_memory, 0))
    run.check_memory(asked, cuda)
    with pytest.raises(BadInput, match="of the GPU's memory, .* smaller --grid"):
        run.check_memory(Options(64, 3.0, 1, mesh_factor=4), cuda)
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(asked.groups_memory - 1))
    with pytest.raises(BadInput, match="of memory, .* smaller --grid"):
        run.check_memory(asked, cuda)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "factor"), [(96, 3), (128, 1)], ids=["mostly the mesh", "mostly friends of friends"]
)
def test_memory_is_no_more_than_was_said(grid: int, factor: int, tmp_path: Path) -> None:
    """Of a process of its own, beyond what its libraries take."""
    code = """
import re, sys
from pathlib import Path
import numpy as np, torch
from bigbox.simulation import run
torch.set_num_threads(1)
torch.fft.rfft2(torch.zeros(8, 8))
k = np.geomspace(1e-3, 1e3, 50)
run.power_spectrum = lambda *_: (k, 100 * k**-2)
# Not getrusage: its peak is inherited from the process that started this one.
status = Path("/proc/self/status").read_text
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", status()).group(1))
grid, factor = map(int, sys.argv[2:])
asked = run.Options(grid, 0.09 * grid, 1, steps=2, mesh_factor=factor)
before = peak()
run.simulate(Path(sys.argv[1]), asked)
print(peak() - before, asked.memory)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sim"), str(grid), str(factor)],
        capture_output=True,
        text=True,
        check=True,
    )
    measured, said = map(int, done.stdout.split())
    assert 0.3 * said < measured <= said


def test_the_files_need_no_more_disk_than_was_said(made: Path) -> None:
    held = sum(p.stat().st_size for p in made.rglob("*") if p.is_file())
    assert held <= Options(GRID, SIDE, 7).disk
