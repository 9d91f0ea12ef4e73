"""A finished painting loses parts: each is told, made again, and never read as if it were there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store.box import Box
from tests.faults.damaged import HALOES, files, flip, refused, tb


def first(folder: Path) -> Path:
    return sorted(folder.glob("c.*"))[0]


def swap(folder: Path) -> None:
    one, other = sorted(folder.glob("c.*"))[:2]
    one.write_bytes(other.read_bytes())


LOSSES: dict[str, Callable[[Path], object]] = {
    "tb": lambda box: shutil.rmtree(box / "tb"),
    "zarr.json of tb": lambda box: (box / "tb" / "zarr.json").unlink(),
    "zarr.json of tb, empty": lambda box: (box / "tb" / "zarr.json").write_bytes(b""),
    "zarr.json of tb, of another": lambda box: shutil.copy(box / "dm/zarr.json", box / "tb"),
    "a shard of tb": lambda box: first(box / "tb").unlink(),
    "a shard of tb, empty": lambda box: first(box / "tb").write_bytes(b""),
    "a file of tiles": lambda box: first(box / "latents" / "painted").unlink(),
    "a file of tiles, cut": lambda box: first(box / "latents" / "painted").write_bytes(b"x" * 999),
    "zarr.json of tiles": lambda box: (box / "latents" / "painted" / "zarr.json").unlink(),
    "zarr.json of latents": lambda box: (box / "latents" / "zarr.json").unlink(),
    "a file of haloes": lambda box: first(box / "halo").unlink(),
    "zarr.json of haloes": lambda box: (box / "halo" / "zarr.json").unlink(),
    "zarr.json of haloes, empty": lambda box: (box / "halo" / "zarr.json").write_bytes(b""),
    "haloes": lambda box: shutil.rmtree(box / "halo"),
    "tmp": lambda box: shutil.rmtree(box / "ledger" / "tmp"),
    "zarr.json of the ledger": lambda box: (box / "ledger" / "zarr.json").unlink(),
    "lease.lock": lambda box: (box / "ledger" / "lease.lock").unlink(),
}
# Of these nothing is made again: no data is lost.
HARMLESS = ("tmp", "zarr.json of the ledger", "lease.lock")


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_lost_is_made_again_by_the_same_command(
    box: Path, painted: Path, capsys, what: str
) -> None:
    LOSSES[what](box)
    assert main(["paint", str(box), *HALOES]) == 0
    said = capsys.readouterr().err
    assert ("lost" in said) == (what not in HARMLESS), said
    assert tb(box).tobytes() == tb(painted).tobytes()
    halo = Box.open(box).array("halo")
    assert halo[...].tobytes() == Box.open(painted).array("halo")[...].tobytes()
    assert dict(halo.attrs) == dict(Box.open(painted).array("halo").attrs)
    assert main(["verify", str(box)]) == 0


@pytest.mark.parametrize("what", [one for one in LOSSES if one not in HARMLESS])
def test_verify_tells_what_is_lost(box: Path, painted: Path, capsys, what: str) -> None:
    LOSSES[what](box)
    before = files(box)
    assert main(["verify", str(box), "--dry-run"]) == 2
    assert files(box) == before
    assert main(["verify", str(box)]) == 2
    assert main(["paint", str(box), *HALOES]) == 0
    assert main(["verify", str(box)]) == 0
    assert tb(box).tobytes() == tb(painted).tobytes()


@pytest.mark.parametrize("what", ["tb", "a shard of tb", "a shard of tb, empty"])
def test_tb_without_its_tiles_cannot_be_made_again(box: Path, capsys, what: str) -> None:
    assert main(["paint", str(box), *HALOES, "--drop-latents"]) == 0
    assert main(["verify", str(box)]) == 0
    LOSSES[what](box)
    said = refused(capsys, "paint", box, *HALOES)
    assert "--drop-latents" in said and "bigbox paint --discard" in said
    assert main(["verify", str(box)]) == 2
    assert main(["paint", str(box), *HALOES, "--discard"]) == 0
    assert main(["verify", str(box)]) == 0


def test_verify_says_of_nothing_that_it_is_written_again_which_is_not(box: Path, capsys) -> None:
    assert main(["paint", str(box), *HALOES, "--drop-latents"]) == 0
    LOSSES["zarr.json of tb"](box)
    capsys.readouterr()
    assert main(["verify", str(box)]) == 2
    said = capsys.readouterr()
    assert not (box / "tb" / "zarr.json").exists()
    assert "written again" not in said.out + said.err


@pytest.mark.parametrize("name", ["x", "y", "z"])
@pytest.mark.parametrize("how", ["gone", "flip", "metadata"])
def test_coordinates_are_checked_and_written_again(box: Path, name: str, how: str) -> None:
    wanted = Box.open(box).array(name)[...]
    if how == "gone":
        shutil.rmtree(box / name)
    else:
        flip(box / name / ("c/0" if how == "flip" else "zarr.json"), 40)
    assert main(["verify", str(box)]) == 2
    assert main(["verify", str(box)]) == 0
    assert np.array_equal(Box.open(box).array(name)[...], wanted)
