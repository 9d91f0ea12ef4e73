"""Haloes painted once for many realizations of tb: where they stand, what is refused, given up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bigbox
from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.store.box import Box, realization_path
from bigbox.store.haloes import HaloReader
from bigbox.store.recorded import haloes_of
from bigbox.store.shards import DamagedChunk

N = 64
PAINT = ("--painter", "trivial-halo", "--halo-stride", "64", "--quiet")


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box with realizations 0 and 2; tests that change it take a copy."""
    path = new_box(tmp_path_factory.mktemp("realizations") / "b.zarr")
    assert main(["paint", str(path), *PAINT]) == 0
    assert main(["paint", str(path), *PAINT, "--realization", "2"]) == 0
    return path


def new_box(path: Path) -> Path:
    box = Box.create(path, (N,) * 3, box_size=N * 12.5 / 128, redshift=0.0)
    density = np.random.default_rng(3).lognormal(size=(N,) * 3).astype(np.float32)
    box.create_array("dm")[...] = density
    return path


def copy_of(path: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(path, folder / "copy.zarr"))


def test_a_realization_stands_beside_the_first(painted: Path, capsys) -> None:
    first, second = bigbox.open(painted), bigbox.open(painted, realization=2)
    assert (first.halo.values == second.halo.values).all() and (first.halo.values > 0).any()
    assert not (first.tb.values == second.tb.values).any()
    place = realization_path(painted, 2)
    by_path = Box.open(place)
    assert by_path.path == painted and by_path.place == place and by_path.realization == 2
    assert by_path.names() == ["dm", "halo", "tb"] and Box.open(painted).realizations() == [2]
    haloes = haloes_of(Box.open(painted))
    assert haloes is not None and haloes.complete
    assert not (painted / "halogen" / "ledger" / "epochs" / "00002.json").exists(), "painted once"


def test_the_noise_is_that_of_the_realization_alone(painted: Path, tmp_path: Path) -> None:
    path = new_box(tmp_path / "alone.zarr")
    assert main(["paint", str(path), *PAINT, "--realization", "2"]) == 0
    assert not Box.open(path).has("tb")
    alone = bigbox.open(path, realization=2).tb.values
    assert alone.tobytes() == bigbox.open(painted, realization=2).tb.values.tobytes()


@pytest.mark.parametrize("how", ["option", "path"])
def test_every_command_reaches_it(painted: Path, tmp_path: Path, capsys, how: str) -> None:
    path = str(painted if how == "option" else realization_path(painted, 2))
    more = ["--realization", "2"] if how == "option" else []
    assert main(["status", path, "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identity"]["realization"] == 2 and found["haloes"]["complete"]
    assert main(["verify", path, *more]) == 0
    assert "8 of 8 blocks of haloes" in capsys.readouterr().out
    out = tmp_path / "tb.npy"
    assert main(["export", path, "--to", "npy", "--out", str(out), *more]) == 0
    assert np.load(out).tobytes() == bigbox.open(painted, realization=2).tb.values.tobytes()
    assert main(["plot", path, "--out", str(tmp_path / "p.png"), *more]) == 0


def test_a_realization_that_is_not_there(painted: Path, capsys) -> None:
    assert main(["status", str(painted), "--realization", "7"]) == 2
    assert "has no realization 7; paint it with" in capsys.readouterr().err
    with pytest.raises(BadInput, match="is realization 2, 3 was asked for"):
        Box.open(realization_path(painted, 2), realization=3)


def test_other_haloes_are_refused_and_nothing_is_written(painted: Path, capsys) -> None:
    before = sorted(painted.rglob("*"))
    command = ["paint", str(painted), *PAINT[:2], "--halo-stride", "32", "--realization", "5"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "haloes are painted with stride = 64, this run asks for 32" in said
    assert "--discard-halo" in said and said.count("\n") == 1
    assert sorted(painted.rglob("*")) == before


def test_discard_keeps_the_haloes(painted: Path, tmp_path: Path) -> None:
    path = copy_of(painted, tmp_path)
    halo = bigbox.open(path).halo.values.tobytes()
    assert main(["paint", str(path), *PAINT, "--seed", "8", "--discard"]) == 0
    assert bigbox.open(path).halo.values.tobytes() == halo
    assert not (path / "halogen" / "ledger" / "epochs" / "00002.json").exists()
    assert (bigbox.open(path).tb.values != bigbox.open(painted).tb.values).any()


def test_discarding_haloes_gives_up_what_was_painted_on_them(painted: Path, tmp_path: Path) -> None:
    path = copy_of(painted, tmp_path)
    command = ["paint", str(path), *PAINT[:2], "--halo-stride", "32", "--quiet", "--discard-halo"]
    assert main(command) == 0
    assert not Box.open(path, realization=2).has("tb")
    assert (bigbox.open(path).halo.values != bigbox.open(painted).halo.values).any()


def test_haloes_that_were_ingested_are_used_and_kept(tmp_path: Path, capsys) -> None:
    path = new_box(tmp_path / "b.zarr")
    halo = np.random.default_rng(4).random((4, N, N, N), np.float32) * 1e10
    array = Box.open(path, "r+").create_array(
        "halo", channels=4, attributes={"source": "catalogue: x"}
    )
    array[...] = halo
    assert main(["paint", str(path), *PAINT]) == 0
    assert not (path / "halogen").exists()
    assert bigbox.open(path).halo.values.tobytes() == halo.tobytes()
    assert main(["status", str(path)]) == 0
    assert "catalogue: x" in capsys.readouterr().out
    assert main(["paint", str(path), *PAINT, "--seed", "2", "--discard-halo"]) == 2
    assert "not painted by bigbox and is never discarded" in capsys.readouterr().err


def test_a_truth_is_never_painted_over(tmp_path: Path, capsys) -> None:
    path = new_box(tmp_path / "b.zarr")
    Box.open(path, "r+").create_array("tb", attributes={"source": "gas: x"})[...] = 0.25
    before = sorted(path.rglob("*"))
    for more in ([], ["--discard"], ["--discard-halo"]):
        assert main(["paint", str(path), *PAINT, *more]) == 2
        said = capsys.readouterr().err
        assert "was not painted by bigbox" in said and "--realization 1" in said
        assert sorted(path.rglob("*")) == before
    assert main(["paint", str(path), *PAINT, "--realization", "1"]) == 0
    assert (bigbox.open(path).tb.values == 0.25).all()
    assert np.isfinite(bigbox.open(path, realization=1).tb.values).all()


def test_damaged_haloes_are_predicted_again(painted: Path, tmp_path: Path, capsys) -> None:
    path = copy_of(painted, tmp_path)
    halo = bigbox.open(path).halo.values.tobytes()
    file = sorted((path / "halo").glob("c.*"))[0]
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    box = Box.open(path)
    with pytest.raises(DamagedChunk, match="halo: block 0 is damaged"):
        HaloReader(box, haloes_of(box).reader(), 1 << 20).read((0, 0, 0), (N, N, N))
    # A painting meets the damage, and says how it is mended.
    assert main(["paint", str(path), *PAINT, "--realization", "3"]) == 2
    assert "bigbox verify marks it" in capsys.readouterr().err
    assert main(["verify", str(path)]) == 2
    assert "1 blocks of haloes are taken back" in capsys.readouterr().err
    assert main(["paint", str(path), *PAINT, "--realization", "3"]) == 0
    assert bigbox.open(path).halo.values.tobytes() == halo
    assert main(["verify", str(path), "--realization", "3"]) == 0


def test_a_box_smaller_than_a_window_is_refused(tmp_path: Path, capsys) -> None:
    box = Box.create(tmp_path / "b.zarr", (56,) * 3, box_size=5.0, redshift=0.0)
    box.create_array("dm")[...] = 1.0
    assert main(["paint", str(box.path), *PAINT]) == 2
    assert "box is 56 voxels on axis x, less than a window of 64" in capsys.readouterr().err
    assert not (box.path / "ledger").exists() and not (box.path / "halogen").exists()
