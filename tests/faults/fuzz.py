"""Put wrong values in any place of any metadata of a box, and see what is said.

    python -m tests.faults.fuzz [--seconds 300] [--seed S]     places and values at random
    python -m tests.faults.fuzz --all [--every K]              all of them, or each K-th

Whatever a value is, a command ends with a known status, in minutes at most, in one line where it
refuses the box.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bigbox.cli import main
from bigbox.store.metadata import sealed_json
from tests.boxes import new_box, scratch
from tests.faults.damaged import HALOES, N

WRONG: tuple[Any, ...] = (
    None, "x", -1, 0, 10**6, 10**30, 1e308, float("nan"), [], [[]], {}, {"a": 1}, True,
    [10**6] * 3, "\x1b[31m",
)  # fmt: skip
METADATA = ("zarr.json", "dm/zarr.json", "halo/zarr.json", "tb/zarr.json", "x/zarr.json",
            "latents/zarr.json", "latents/painted/zarr.json", "ledger/run.json",
            "ledger/epochs/00001.json", "halogen/ledger/run.json")  # fmt: skip

Change = tuple[str, tuple[Any, ...], Any]
"""A file, a place in its JSON, and what is put there; ...: nothing is."""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all values in JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        yield (*at, key)
        if isinstance(one, (dict, list)):
            yield from places(one, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return JSON with another value in one place; without it where new is ... ."""
    found = inside = copy.deepcopy(value)
    for key in at[:-1]:
        inside = inside[key]
    if new is ...:
        del inside[at[-1]]
    else:
        inside[at[-1]] = new
    return found


def survives(where: str, *command: object) -> None:
    """Assert that the command ends with a known status, and one line where it is refused."""
    said, began = io.StringIO(), time.monotonic()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main([*map(str, command)])
    except BaseException as error:
        raise AssertionError(f"{where}: {command[0]}: {type(error).__name__}: {error}") from error
    lines = said.getvalue()
    assert time.monotonic() - began < 240, f"{where}: {command[0]} hangs"
    assert status in (0, 2, 75), f"{where}: {command[0]}: {status} {lines}"
    assert "Traceback" not in lines and "\x1b" not in lines, where
    if status == 2 and command[0] != "verify":
        assert lines.count("bigbox: ") == lines.count("\n") >= 1, f"{where}: {lines}"


def every_change(painted: Path) -> list[Change]:
    """Return all changes there are of a box's metadata."""
    return [
        (name, at, new)
        for name in METADATA
        for at in places(json.loads((painted / name).read_text()))
        for new in (..., *WRONG)
    ]


def try_change(change: Change, painted: Path, box: Path, paint: bool, of: str = "") -> None:
    """Change one place of `box`, a copy of `painted`, look at it, and set it right again."""
    name, at, new = change
    where = f"{of}{name} {'.'.join(map(str, at))} = {new!r}"
    about = changed(json.loads((painted / name).read_text()), at, new)
    sealed = about.pop("crc32c", None) is not None
    (box / name).write_bytes(sealed_json(about) if sealed else json.dumps(about).encode())
    survives(where, "status", box)
    survives(where, "verify", box, "--dry-run")
    survives(where, "plan", box, "--painter", "trivial")
    if paint:
        survives(where, "paint", box, *HALOES)
        shutil.rmtree(box)
        shutil.copytree(painted, box)
    else:
        shutil.copyfile(painted / name, box / name)


def at_random(painted: Path, box: Path, seed: int, go_on: Callable[[int], bool]) -> Iterator[str]:
    """Try changes for as long as go_on(number tried) says; yield what went wrong."""
    rng, tried = random.Random(seed), 0
    names = {name: json.loads((painted / name).read_text()) for name in METADATA}
    while go_on(tried):
        name = rng.choice(METADATA)
        at, new = rng.choice([*places(names[name])]), rng.choice((..., *WRONG))
        yield from _wrong((name, at, new), painted, box, rng.random() < 0.5, f"seed {seed}: ")
        tried += 1
    print(f"{tried} changes tried, seed {seed}")


def _wrong(change: Change, painted: Path, box: Path, paint: bool, of: str = "") -> Iterator[str]:
    try:
        try_change(change, painted, box, paint, of)
    except AssertionError as error:
        shutil.rmtree(box)
        shutil.copytree(painted, box)
        yield str(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("BIGBOX_SEED", "1")))
    parser.add_argument("--all", action="store_true", help="every place, every value")
    parser.add_argument("--every", type=int, default=1, help="of all, each K-th only")
    options = parser.parse_args()
    bad = 0
    with scratch() as folder:
        painted, _ = new_box(folder, (N, N, N), seed=3)
        assert main(["paint", str(painted), *HALOES]) == 0
        box = shutil.copytree(painted, folder / "other" / "box.zarr")
        if options.all:
            chosen = every_change(painted)[options.seed % options.every :: options.every]
            lines = (line for one in chosen for line in _wrong(one, painted, box, paint=False))
        else:
            end = time.monotonic() + options.seconds
            lines = at_random(painted, box, options.seed, lambda _: time.monotonic() < end)
        for line in lines:
            print(line, flush=True)
            bad += 1
        if options.all:
            print(f"{len(chosen)} changes tried")
    print(f"{bad} end wrong")
    sys.exit(bool(bad))
