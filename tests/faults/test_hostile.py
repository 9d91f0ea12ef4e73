"""Metadata that is wrong in any place, and systems that fail: one line, no traceback, no hang."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bigbox.cli import main
from bigbox.store.metadata import sealed_json
from tests.faults.damaged import HALOES, refused, tb

WRONG: tuple[Any, ...] = (
    None, "x", -1, 0, 10**6, 10**30, 1e308, float("nan"), [], [[]], {}, {"a": 1}, True,
    [10**6] * 3, "\x1b[31m",
)  # fmt: skip
METADATA = ("zarr.json", "dm/zarr.json", "halo/zarr.json", "tb/zarr.json", "x/zarr.json",
            "latents/zarr.json", "latents/painted/zarr.json", "ledger/run.json",
            "ledger/epochs/00001.json", "halogen/ledger/run.json")  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        yield (*at, key)
        if isinstance(one, (dict, list)):
            yield from places(one, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """JSON with another value in one place; without it where new is ... ."""
    found = inside = copy.deepcopy(value)
    for key in at[:-1]:
        inside = inside[key]
    if new is ...:
        del inside[at[-1]]
    else:
        inside[at[-1]] = new
    return found


def survives(capsys: pytest.CaptureFixture[str], where: str, *command: object) -> None:
    """The command ends with a known status, and one line where it is refused."""
    capsys.readouterr()
    began = time.monotonic()
    try:
        status = main([*map(str, command)])
    except BaseException as error:
        raise AssertionError(f"{where}: {command[0]}: {type(error).__name__}: {error}") from error
    assert time.monotonic() - began < 60, f"{where}: {command[0]} hangs"
    said = capsys.readouterr().err
    assert status in (0, 2, 75), f"{where}: {command[0]}: {status} {said}"
    assert "Traceback" not in said and "\x1b" not in said, where
    if status == 2 and command[0] != "verify":
        assert said.count("bigbox: ") == said.count("\n") >= 1, f"{where}: {said}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_field_of_any_metadata_may_be_wrong(box: Path, painted: Path, capsys) -> None:
    seed = int(os.environ.get("BIGBOX_SEED", random.randrange(2**32)))
    rng, tried, began = random.Random(seed), 0, time.monotonic()
    print(f"\nBIGBOX_SEED={seed}")
    while time.monotonic() - began < float(os.environ.get("BIGBOX_FUZZ_SECONDS", "10")):
        name = rng.choice(METADATA)
        value = json.loads((painted / name).read_text())
        at, new = rng.choice(list(places(value))), rng.choice((..., *WRONG))
        about = changed(value, at, new)
        sealed = about.pop("crc32c", None) is not None
        raw = sealed_json(about) if sealed else json.dumps(about).encode()
        where = f"BIGBOX_SEED={seed}: {name} {'.'.join(map(str, at))} = {new!r}"
        (box / name).write_bytes(raw)
        survives(capsys, where, "status", box)
        survives(capsys, where, "verify", box, "--dry-run")
        survives(capsys, where, "plan", box, "--painter", "trivial")
        if rng.random() < 0.5:
            survives(capsys, where, "paint", box, *HALOES)
        shutil.rmtree(box)
        shutil.copytree(painted, box)
        tried += 1
    print(f"{tried} changes tried")
    assert tried >= 5


@pytest.mark.parametrize("name", [one for one in METADATA if one != "x/zarr.json"])
@pytest.mark.parametrize("how", ["deep", "folder", "loop", "device", "pipe", "large"])
def test_what_is_no_metadata_is_refused(box: Path, capsys, name: str, how: str) -> None:
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
        survives(capsys, f"{name} {how}", *command)


SHAPES = {"zarr.json": "shape", "dm/zarr.json": "shape", "tb/zarr.json": "shape"}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("shape", [[10**6] * 3, [0] * 3, [64, 64], [-64] * 3, ["64"] * 3])
def test_shapes_that_cannot_be_are_refused(box: Path, capsys, name: str, shape: list[Any]) -> None:
    about = json.loads((box / name).read_text())
    (about["attributes"] if name == "zarr.json" else about)["shape"] = shape
    (box / name).write_text(json.dumps(about))
    assert main(["export", str(box), "--to", "npy", "--array", "tb" if "tb" in name else "dm",
                 "--out", str(box.parent / "e.npy")]) in (0, 2)  # fmt: skip
    if shape != ["64"] * 3 and name != "dm/zarr.json":
        assert not (box.parent / "e.npy").exists()
    survives(capsys, f"{name} {shape}", "status", box)


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
    assert os.strerror(number) in said and said.count("bigbox: ") == said.count("\n") == 1
    assert main(command) == 0
    assert main(["verify", str(box)]) == 0
    assert tb(box).tobytes() == tb(painted).tobytes()


def test_a_disk_quota_is_a_full_disk(box: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "pwritev", full)
    said = refused(capsys, "paint", box, *HALOES, "--seed", "4", "--discard")
    assert "free space and run the same command again" in said
