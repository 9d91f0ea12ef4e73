"""What is NaN or infinite does not count as painted, and where it does, it is told."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store.box import Box
from bigbox.store.recorded import Recorded, haloes_of, painting_of
from bigbox.store.records import RECORD, checks, made
from bigbox.store.shards import EMPTY, crc32c
from bigbox.testing.painters import TrivialHaloes, TrivialOnHaloes, TrivialPainter
from tests.faults.damaged import HALOES, refused, tb

# ---------------------------------------------------------------- values that are not finite


METHODS = {
    "conditioned": ("trivial", "conditioned"),
    "joint": ("trivial", "joint"),
    "on haloes": ("trivial-halo", "conditioned"),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("how", METHODS)
def test_a_tile_that_is_not_finite_is_not_painted(
    box: Path, capsys, monkeypatch: pytest.MonkeyPatch, how: str, value: float
) -> None:
    painter, method = METHODS[how]
    command = ["paint", box, "--painter", painter, "--overlap-method", method, "--steps", "2",
               "--quiet", "--seed", "3", "--discard", "--batch", "2",
               "--halo-stride", "64"]  # fmt: skip
    on = TrivialOnHaloes if painter == "trivial-halo" else TrivialPainter
    own, calls = on._signal, count()

    def one_is_odd(self: TrivialPainter, inputs: np.ndarray) -> np.ndarray:
        values = own(self, inputs)
        if next(calls) == 5:
            values[16, 17, 18] = value
        return values

    monkeypatch.setattr(on, "_signal", one_is_odd)
    said = refused(capsys, *command)
    assert "of the 32768 values of tile" in said or "of the 65536 values of tile" in said
    assert "NaN or infinite" in said and "voxels from" in said
    found = painting_of(Box.open(box))
    assert found is not None and 0 < found.state.done[0].size > found.state.done[0].sum()
    assert main(["verify", str(box)]) == 0
    monkeypatch.setattr(on, "_signal", own)
    assert main([*map(str, command)]) == 0
    assert np.isfinite(tb(box)).all()


def test_haloes_that_are_not_finite_are_not_painted(
    box: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = TrivialHaloes.predict

    def odd(self: TrivialHaloes, dm: np.ndarray) -> np.ndarray:
        logs = predict(self, dm)
        logs[0, 1, 2, 3, 4] = np.nan
        return logs

    monkeypatch.setattr(TrivialHaloes, "predict", odd)
    said = refused(capsys, "paint", box, *HALOES[:2], "--discard-halo", "--halo-stride", "32")
    assert "window" in said and "nan" in said
    haloes = haloes_of(Box.open(box))
    assert haloes is not None and not haloes.state.done[0].any()


@pytest.mark.parametrize("name", ["tb", "halo"])
def test_a_map_that_is_not_finite_is_told(box: Path, capsys, name: str) -> None:
    """As earlier versions have painted it: all checksums and records are right."""
    array = Box.open(box, "r+").array(name)
    found = haloes_of(Box.open(box)) if name == "halo" else painting_of(Box.open(box))
    assert found is not None
    assert main(["verify", str(box)]) == 0
    rewritten(found, name, np.inf)
    assert np.isinf(array[...]).sum() == 1
    capsys.readouterr()
    assert main(["verify", str(box)]) == 2
    said = capsys.readouterr().err
    assert f"{name}: " in said and "1 values are NaN or infinite" in said
    said = refused(capsys, "export", box, "--to", "npy", "--array", name)
    assert "1 values are NaN or infinite" in said
    assert main(["export", str(box), "--to", "npy", "--array", name, "--partial"]) == 0


def rewritten(found: Recorded[Any], name: str, value: float) -> None:
    """Put one value into chunk 0 of a product, and set its checksums and its record right."""
    number = [p.name for p in found.products].index(name)
    product, ledger = found.products[number], found.ledger
    path = product.file(0)
    raw = bytearray(path.read_bytes())
    slots = product.bricks.slots if number == 0 else (product.edges[0] // product.edges[1]) ** 3
    index = np.frombuffer(raw[-16 * slots - 4 : -4], "<u8").reshape(slots, 2)
    slot = int(product.bricks.slot(np.array([0]))[0]) if number == 0 else 0
    at, size = map(int, index[slot])
    values = np.frombuffer(raw[at : at + size - 4], "<f4").copy()
    values[7] = value
    raw[at : at + size] = values.tobytes() + crc32c(values).to_bytes(4, "little")
    path.write_bytes(raw)
    crcs = [bytes(raw[int(a + n) - 4 : int(a + n)]) for a, n in index if a != EMPTY]
    crc = crc32c(values) if number == 0 else crc32c(b"".join(crcs))
    file = next(ledger.records_path.glob("*.bin"))
    records = np.frombuffer(file.read_bytes(), RECORD).copy()
    mine = (records["kind"] == made(number)) & (records["index"] == 0)
    records["crc"][mine] = crc
    records["check"] = checks(records)
    file.write_bytes(records.tobytes())
