"""Files of a box are damaged, lost, or not its own: never taken for none; the way out is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bigbox.cli import main
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.layouts import HaloLayout, PaintLayout
from bigbox.store.lease import Lease
from bigbox.store.metadata import read_sealed, sealed_json
from bigbox.store.recorded import haloes_of, painting_of
from tests.faults.damaged import HALOES, files, flip, refused, tb


@contextmanager
def a_run_at_work(box: Box, kind: type[HaloLayout | PaintLayout]) -> Iterator[None]:
    lease = Lease.exclusive(DISK, kind.ledger(box), linger=0.0)
    lease.share(0.0)
    try:
        yield
    finally:
        lease.close()


# ---------------------------------------------------------------- whose an array is


def test_haloes_begun_and_not_recorded_are_painted(box: Path, capsys) -> None:
    """The moment between the name of halo/ and run.json of its ledger."""
    truth = tb(box)
    shutil.rmtree(box / "halogen" / "ledger" / "records")
    (box / "halogen" / "ledger" / "records").mkdir()
    (box / "halogen" / "ledger" / "run.json").unlink()
    for name in ("tb", "latents", "ledger"):
        shutil.rmtree(box / name)
    assert main(["status", str(box)]) == 0
    assert "nothing is painted" in capsys.readouterr().out
    assert "is not painted to its end: nothing there" in refused(
        capsys, "export", box, "--to", "npy", "--array", "halo"
    )
    assert main(["paint", str(box), *HALOES]) == 0
    assert tb(box).tobytes() == truth.tobytes()
    assert main(["verify", str(box)]) == 0


def test_old_haloes_are_not_taken_for_ingested_ones(box: Path) -> None:
    """A discard that was killed when it had its number, and halo/ had not gone."""
    from bigbox.store.ledger import State
    from bigbox.store.run import claim

    ledger = HaloLayout.ledger(Box.open(box))
    claim(DISK, ledger, {"kind": "discard", "n_ranks": 0}, State.nothing([], ledger.newest()), True)
    assert haloes_of(Box.open(box)) is None and Box.open(box).has("halo")
    new = ["paint", str(box), *HALOES[:2], "--halo-stride", "32", "--quiet", "--discard"]
    assert main(new) == 0
    haloes, run = haloes_of(Box.open(box)), painting_of(Box.open(box))
    assert haloes is not None and haloes.identity["stride"] == 32
    assert run is not None and run.identity["halo"] == haloes.identity


# ---------------------------------------------------------------- the ledger


LEDGER_FILES = ("run.json", "epochs/00001.json")


@pytest.mark.parametrize("name", LEDGER_FILES)
@pytest.mark.parametrize("ledger", ["ledger", "halogen/ledger"])
@pytest.mark.parametrize("how", ["flip", "digit", "empty", "deep", "folder"])
def test_a_damaged_ledger_is_not_none(box: Path, capsys, ledger: str, name: str, how: str) -> None:
    path, truth = box / ledger / name, tb(box)
    if how == "flip":
        flip(path)
    elif how == "digit":  # it is JSON still
        text = path.read_text()
        at = text.index('"version": 1' if name == "run.json" else '"n_ranks": 1') + 11
        path.write_text(f"{text[:at]}7{text[at + 1 :]}")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "deep":
        path.write_text("[" * 100_000)
    else:
        path.unlink()
        path.mkdir()
    option = "--discard-halo" if ledger.startswith("halogen") else "--discard"
    before = files(box)
    for command in (["status", box], ["verify", box], ["paint", box, *HALOES],
                    ["paint", box, *HALOES, "--seed", "9"]):  # fmt: skip
        said = refused(capsys, *command)
        assert str(path) in said and "damaged" in said and f"bigbox paint {option}" in said
    assert files(box) == before
    assert main(["paint", str(box), *HALOES, option]) == 0
    assert tb(box).tobytes() == truth.tobytes()


@pytest.mark.parametrize("lost", ["run.json", "epochs/00001.json", "epochs", ""])
def test_a_lost_ledger_is_not_none(box: Path, capsys, lost: str) -> None:
    path = box / "ledger" / lost if lost else box / "ledger"
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    for command in (["status", box], ["paint", box, *HALOES, "--seed", "9"]):
        said = refused(capsys, *command)
        assert "lost" in said and "bigbox paint --discard" in said
    truth = tb(box)
    assert main(["paint", str(box), *HALOES, "--discard"]) == 0
    assert tb(box).tobytes() == truth.tobytes()


def test_boxes_without_checksums_open(box: Path) -> None:
    for path in [*box.rglob("run.json"), *box.rglob("epochs/*.json")]:
        about = json.loads(path.read_text())
        assert about.pop("crc32c")
        path.write_text(json.dumps(about))
    assert main(["paint", str(box), *HALOES]) == 0
    assert main(["verify", str(box)]) == 0


def test_a_checksum_tells_any_changed_byte(tmp_path: Path) -> None:
    value = {"a": 1.5, "b": [None, {"c": "µ"}], "d": float("inf")}
    path, raw = tmp_path / "x.json", sealed_json(value)
    path.write_bytes(raw)
    assert read_sealed(path, "") == value
    for at in range(len(raw)):
        for bit in (1, 0x20):
            changed = bytearray(raw)
            changed[at] ^= bit
            path.write_bytes(changed)
            try:
                found = read_sealed(path, "")
            except ValueError:
                continue
            found = {key: found[key] for key in found if key[:2] not in ("cr", "Cr", "br")}
            assert found.items() >= value.items(), changed  # the checksum's own name, or a space


# ---------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("busy", ["tb of realization 1", "haloes"])
def test_a_refused_discard_has_destroyed_nothing(box: Path, capsys, busy: str) -> None:
    assert main(["paint", str(box), *HALOES, "--realization", "1"]) == 0
    command = ["paint", box, *HALOES[:2], "--halo-stride", "32", "--quiet", "--discard-halo"]
    where = Box.open(box, realization=1 if "tb" in busy else 0)
    arrays = {path: raw for path, raw in files(box).items() if "c." in path.name}
    with a_run_at_work(where, PaintLayout if "tb" in busy else HaloLayout):
        assert "another run holds the lease" in refused(capsys, *command, status=75)
    assert {path: raw for path, raw in files(box).items() if "c." in path.name} == arrays
    assert main(["verify", str(box)]) == 0
    assert main([*map(str, command)]) == 0


def test_a_discard_that_would_be_refused_later_begins_nothing(box: Path, capsys) -> None:
    """tb of realization 0 is a truth: the new haloes could not be painted on."""
    shutil.rmtree(box / "tb")
    shutil.rmtree(box / "ledger")
    shutil.rmtree(box / "latents")
    Box.open(box, "r+").create_array("tb", attributes={"source": "gas: x"})[...] = 0.25
    before = files(box)
    said = refused(capsys, "paint", box, *HALOES, "--seed", "3", "--discard-halo")
    assert "was not painted by bigbox" in said
    assert files(box) == before


# ---------------------------------------------------------------- links


@pytest.fixture
def home(place: Path) -> Path:
    """A folder that no box must touch."""
    folder = place / "home"
    (folder / "photos").mkdir(parents=True)
    for name in ("thesis.tex", "photos/a.jpg", "e00000-backup.tar", "e00001-photo.raw"):
        (folder / name).write_text("years of work")
    return folder


LINKED = ("ledger/tmp", "ledger/tmp/e00001", "ledger/tmp/e00002", "ledger/records", "ledger/epochs",
          "ledger/tmp/gone-0123456789abcdef", "ledger", "ledger/lease.lock", "ledger/field",
          "halogen", "halogen/ledger", "halogen/ledger/tmp", "halogen/ledger/sums")  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_no_link_is_followed_among_the_records(box: Path, home: Path, name: str) -> None:
    path, before = box / name, files(home)
    flip(box / "tb" / "c.0.0.0", 100)  # something for verify to record
    flip(next((box / "halo").glob("c.*")), 100)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(home / "thesis.tex" if "lock" in name else home)
    for command in (["verify", box], ["paint", box, *HALOES],
                    ["paint", box, *HALOES, "--seed", "2", "--discard-halo"]):  # fmt: skip
        status = main([*map(str, command)])
        assert status == 2 or (status == 0 and command[0] == "paint")
        assert files(home) == before and sorted(home.iterdir()) == sorted({
            *(home / p.relative_to(home).parts[0] for p in before)
        })  # fmt: skip


def test_a_link_among_the_records_is_damage(box: Path, capsys) -> None:
    path = next((box / "ledger" / "records").iterdir())
    path.unlink()
    path.symlink_to("/nowhere/x")
    for command in (["status", box], ["verify", box], ["paint", box, *HALOES]):
        assert f"{path}: damaged (a link" in refused(capsys, *command)


def test_a_folder_in_the_place_of_haloes_is_named(box: Path, capsys) -> None:
    path = next((box / "halo").glob("c.*"))
    path.unlink()
    path.mkdir()
    assert main(["paint", str(box), *HALOES]) == 2
    assert f"{path}: is a folder, where a file was: remove it" in capsys.readouterr().err
    path.rmdir()
    assert main(["paint", str(box), *HALOES]) == 0 and main(["verify", str(box)]) == 0


def test_only_names_of_its_own_are_removed(box: Path) -> None:
    mine = [box / "ledger" / "tmp" / "notes.txt", box / "ledger" / "records" / "e00001-photo.raw"]
    for path in mine:
        path.write_text("mine")
    assert main(["paint", str(box), *HALOES, "--seed", "2", "--discard"]) == 0
    assert [path.read_text() for path in mine] == ["mine", "mine"]


@pytest.mark.parametrize("disk", ["this", "another"])
@pytest.mark.parametrize("method", ["conditioned", "latents", "joint"])
def test_latents_may_be_a_link(
    box: Path, place: Path, tmp_path: Path, method: str, disk: str
) -> None:
    elsewhere = (place if disk == "this" else tmp_path) / "elsewhere"
    if disk == "another":  # where the system has one
        assert box.stat().st_dev != tmp_path.stat().st_dev or not Path("/dev/shm").is_dir()
    how = ("--painter", "trivial", "--quiet", "--overlap-method", method, "--steps", "2")
    assert main(["paint", str(box), *how, "--discard"]) == 0
    shutil.move(box / "latents", elsewhere)
    (box / "latents").symlink_to(elsewhere)
    (elsewhere / "notes.txt").write_text("mine")
    truth = tb(box)
    flip(next((elsewhere / "painted").glob("c.*")), 100)
    assert main(["verify", str(box)]) == 2
    assert main(["paint", str(box), *how]) == 0 and tb(box).tobytes() == truth.tobytes()
    assert main(["verify", str(box)]) == 0
    assert main(["paint", str(box), *how, "--seed", "2", "--discard"]) == 0
    assert (box / "latents").is_symlink() and list((elsewhere / "painted").glob("c.*"))
    assert (tb(box) != truth).any() and main(["verify", str(box)]) == 0
    assert main(["paint", str(box), *how, "--seed", "2", "--drop-latents"]) == 0
    assert [path.name for path in elsewhere.rglob("*")] == ["notes.txt"]
    assert main(["verify", str(box)]) == 0
    assert main(["paint", str(box), *how, "--discard"]) == 0
    assert tb(box).tobytes() == truth.tobytes()


def test_latents_of_another_box_are_not_its_own(box: Path, painted: Path, capsys) -> None:
    shutil.rmtree(box / "latents")
    (box / "latents").symlink_to(painted / "latents")
    before = files(painted)
    for more in (["--seed", "2", "--discard"], ["--drop-latents"]):
        assert "belongs to another box" in refused(capsys, "paint", box, *HALOES, *more)
    assert files(painted) == before


def test_other_haloes_are_refused_before_tb_has_gone(box: Path, capsys) -> None:
    before = files(box)
    command = ("paint", box, *HALOES[:2], "--halo-stride", "16", "--seed", "3", "--discard")
    assert "haloes are painted with stride = 64" in refused(capsys, *command)
    assert files(box) == before
