"""Metadata that is wrong in any place, and systems that fail: one line, no traceback, no hang."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bigbox.cli import main
from bigbox.store.metadata import sealed_json
from tests.faults import fuzz
from tests.faults.damaged import HALOES, refused, tb
from tests.faults.fuzz import METADATA, survives

# Of the fuzz; the same ones in every run. BIGBOX_SEED has others tried, and more are tried by
# python -m tests.faults.fuzz.
CHANGES = 30


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_field_of_any_metadata_may_be_wrong(box: Path, painted: Path) -> None:
    seed = int(os.environ.get("BIGBOX_SEED", "1"))
    print(f"\nBIGBOX_SEED={seed}")
    assert not [*fuzz.at_random(painted, box, seed, lambda tried: tried < CHANGES)]


@pytest.mark.parametrize("name", [one for one in METADATA if one != "x/zarr.json"])
@pytest.mark.parametrize("how", ["deep", "folder", "loop", "device", "pipe", "large"])
def test_what_is_no_metadata_is_refused(box: Path, name: str, how: str) -> None:
    path = box / name
    path.unlink()
    if how == "deep":
        path.write_text('{"a":' * 100_000)
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "large":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(path if how == "loop" else "/dev/zero")
    for command in (["status", box], ["verify", box, "--dry-run"], ["paint", box, *HALOES]):
        survives(f"{name} {how}", *command)


SHAPES = {"zarr.json": "shape", "dm/zarr.json": "shape", "tb/zarr.json": "shape"}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("shape", [[10**6] * 3, [0] * 3, [64, 64], [-64] * 3, ["64"] * 3])
def test_shapes_that_cannot_be_are_refused(box: Path, name: str, shape: list[Any]) -> None:
    about = json.loads((box / name).read_text())
    (about["attributes"] if name == "zarr.json" else about)["shape"] = shape
    (box / name).write_text(json.dumps(about))
    assert main(["export", str(box), "--to", "npy", "--array", "tb" if "tb" in name else "dm",
                 "--out", str(box.parent / "e.npy")]) in (0, 2)  # fmt: skip
    if shape != ["64"] * 3 and name != "dm/zarr.json":
        assert not (box.parent / "e.npy").exists()
    survives(f"{name} {shape}", "status", box)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "pwritev", "fdatasync", "replace", "pread"])
def test_a_fault_that_may_pass_is_worth_a_restart(
    box: Path, painted: Path, capsys, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Status 75 and one line, and the same command goes on to the same bytes."""
    command = ["paint", str(box), *HALOES, "--discard"]
    real, calls = getattr(os, call), [0]

    def failing(*arguments: Any, **more: Any) -> Any:
        path = arguments[0]
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        calls[0] += str(box) in str(path)
        if str(box) in str(path) and calls[0] >= 12:
            raise OSError(number, os.strerror(number), str(path))
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        status = main(command)
    said = capsys.readouterr().err
    if calls[0] < 12:
        pytest.skip(f"{call} is called {calls[0]} times only")
    assert status == 75, said
    assert os.strerror(number) in said and "Traceback" not in said
    assert len([line for line in said.splitlines() if " warning: " not in line]) == 1, said
    assert main(command) == 0
    assert main(["verify", str(box)]) == 0
    assert tb(box).tobytes() == tb(painted).tobytes()


def test_a_disk_quota_is_a_full_disk(box: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "pwritev", full)
    said = refused(capsys, "paint", box, *HALOES, "--seed", "4", "--discard")
    assert "free space and run the same command again" in said


@pytest.mark.parametrize("value", [[10**6] * 3, 7, "x", {"omega_m": "x"}, {"h": float("nan")}])
def test_a_cosmology_that_is_none_is_refused(box: Path, capsys, value: object) -> None:
    about = json.loads((box / "zarr.json").read_text())
    about["attributes"]["cosmology"] = value
    (box / "zarr.json").write_text(json.dumps(about))
    for command in (["status", box], ["plan", box], ["paint", box, *HALOES]):
        assert f"{box}/zarr.json: damaged" in refused(capsys, *command)


@pytest.mark.parametrize("ledger", ["ledger", "halogen/ledger"])
def test_a_painting_of_another_size_is_refused(box: Path, capsys, ledger: str) -> None:
    """Else verify and paint make an array of that size: 31,250 blocks here."""
    path = box / ledger / "run.json"
    about = json.loads(path.read_text())
    del about["crc32c"]
    (about["windows"] if "halogen" in ledger else about["tiling"])["shape"] = [64, 10**6, 64]
    path.write_bytes(sealed_json(about))
    for command in (["status", box], ["verify", box], ["paint", box, *HALOES]):
        assert f"{path}: damaged" in refused(capsys, *command)
