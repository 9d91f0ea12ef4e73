"""A small painted box, how to damage it, and what commands say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store.box import Box

N = 64
HALOES = ("--painter", "trivial-halo", "--halo-stride", "64", "--quiet")
TILES = ("--painter", "trivial", "--quiet")


def flip(path: Path, at: int = 5) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x41
    path.write_bytes(raw)


def tb(box: Path) -> np.ndarray:
    return Box.open(box).array("tb")[...]


def refused(capsys: pytest.CaptureFixture[str], *command: object, status: int = 2) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert main([*map(str, command)]) == status
    said = capsys.readouterr().err
    assert said.startswith("bigbox: ") and said.count("\n") == 1, said
    return said


def files(box: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(box.rglob("*")) if path.is_file()}
