"""verify reads every byte, names what is damaged, and the next paint makes it again."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.durable import Disk
from bigbox.store.recorded import painting_of
from bigbox.store.shards import EMPTY, decode_index, index_bytes
from bigbox.store.status import status
from bigbox.store.verify import Report
from bigbox.store.verify import verify as verify_recorded
from tests.faults.paint import Case, Run, check_complete, make_box

TILES = "latents/painted"


def verify(box: Box, **more: bool) -> Report:
    found = painting_of(box)
    assert found is not None
    return verify_recorded(found, **more)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case(make_box(tmp_path / "b.zarr", (9, 9, 6)), Tiling((9, 9, 6), 4, 1), 2)
    paint(case)
    return case


def paint(case: Case, steps: int = 10**9) -> None:
    run = Run(case, 2, random.Random(0), Disk())
    while steps and run.step():
        steps -= 1
    run.close()


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def repaired(case: Case) -> None:
    """Whatever was taken back is painted again, to the same bytes."""
    assert verify(case.box).revoked[TILES] == 0
    paint(case)
    assert verify(case.box).complete
    check_complete(case, with_zarr=True)


def test_a_whole_painting_is_intact_and_nothing_is_written(case: Case) -> None:
    files = {p: p.stat().st_mtime_ns for p in case.box.path.rglob("*")}
    report = verify(case.box)
    assert report.complete and report.intact and report.done[TILES] == report.total[TILES] == 18
    assert files == {p: p.stat().st_mtime_ns for p in case.box.path.rglob("*")}


def test_a_flipped_bit_in_a_tile(case: Case) -> None:
    path = case.brick_file(0)
    flip(path, 7)
    report = verify(case.box)
    (damage,) = report.damage
    assert damage.array == "latents/painted" and str(path) in str(damage)
    assert "checksum wrong at byte 0" in str(damage)
    assert report.revoked[TILES] == 1 and report.revoked["tb"] >= 1
    repaired(case)


@pytest.mark.parametrize("how", ["index", "cut", "gone"])
def test_a_damaged_brick(case: Case, how: str) -> None:
    path = case.brick_file(1)
    size = path.stat().st_size
    if how == "index":
        flip(path, size - 10)
    elif how == "cut":
        os.truncate(path, size // 2)
    else:
        path.unlink()
    report = verify(case.box)
    assert not report.intact and report.revoked[TILES] >= 1
    assert all("c.0.1.0" in d.file for d in report.damage)
    repaired(case)


@pytest.mark.parametrize("how", ["bit", "index", "cut", "gone", "other"])
def test_damage_in_tb_is_assembled_again_without_painting(case: Case, how: str) -> None:
    path = case.box.path / "tb" / "c.1.0.0"
    if how == "bit":
        flip(path, 3)
    elif how == "index":
        flip(path, path.stat().st_size - 3)
    elif how == "cut":
        os.truncate(path, 11)
    elif how == "gone":
        path.unlink()
    else:  # whole, but another shard's bytes: what a stale writer of another painting would leave
        path.write_bytes((case.box.path / "tb" / "c.0.0.0").read_bytes())
    report = verify(case.box)
    assert [d.array for d in report.damage] == ["tb"]
    assert (report.revoked[TILES], report.revoked["tb"]) == (0, 1)
    repaired(case)


def test_stale_bytes_with_a_good_checksum_are_seen(case: Case) -> None:
    path = case.brick_file(0)
    raw = bytearray(path.read_bytes())
    index = decode_index(bytes(raw[-index_bytes(8) :]), 8)
    one, other = index[index[:, 0] != EMPTY].tolist()[:2]
    raw[one[0] : sum(one)] = raw[other[0] : sum(other)]
    path.write_bytes(raw)
    assert "not the bytes that were recorded" in str(verify(case.box).damage[0])
    repaired(case)


def test_per_step_latents_that_are_gone_are_made_again(tmp_path: Path) -> None:
    case = Case(make_box(tmp_path / "s.zarr", (6, 6, 6)), Tiling((6, 6, 6), 4, 1), 1, n_steps=2)
    paint(case)
    last = int(np.argmax(case.tiling.coords(np.arange(8)).sum(1)))
    flip(case.brick_file(int(case.bricks.of_tile([last])[0])), 4)
    report = verify(case.box)
    assert len(report.damage) == 1 and report.revoked[TILES] == 8  # with all that it is made from
    repaired(case)


def test_holes_are_counted(case: Case, tmp_path: Path) -> None:
    half = Case(make_box(tmp_path / "h.zarr", (9, 9, 6)), case.tiling, 2)
    assert painting_of(half.box) is None
    paint(half, steps=3)
    report = verify(half.box)
    assert report.intact and not report.complete and 0 < report.done[TILES] < report.total[TILES]


def test_nothing_is_recorded_while_a_run_is_on_or_repair_is_off(case: Case) -> None:
    flip(case.brick_file(0), 7)
    report = verify(case.box, repair=False)
    assert report.damage and not report.revoked[TILES]
    run = Run(case, 1, random.Random(0), Disk())
    report = verify(case.box)
    run.close()
    assert report.damage and not report.revoked[TILES]
    assert "another run holds the lease" in report.notes[0]
    verify(case.box)
    repaired(case)


@pytest.mark.parametrize("how", ["bit", "cut", "gone"])
def test_damage_to_a_sealed_record_file_is_told_once(case: Case, how: str) -> None:
    paint(case)  # a run more, which seals the records of the first
    path = case.box.path / "ledger" / "records" / "e00001-r00000.bin"
    size = path.stat().st_size
    if how == "bit":
        flip(path, size // 2)
    elif how == "cut":
        os.truncate(path, size // 2)
    else:
        path.unlink()
    assert not status(case.box)["complete"]
    for repair in (False, True):
        report = verify(case.box, repair=repair)
        (damage,) = report.damage
        assert (damage.array, damage.file) == ("ledger", str(path))
        assert "rank 0 in run 1" in damage.what and f"of {size} bytes" in damage.why
        assert report.done[TILES] < report.total[TILES]
    assert verify(case.box).intact
    case.committed.clear()
    case.assembled.clear()
    repaired(case)


def test_a_brick_all_of_whose_tiles_were_taken_back_is_passed_over(case: Case) -> None:
    path = case.brick_file(1)
    path.write_bytes(b"")
    case.committed.clear()
    case.assembled.clear()
    assert verify(case.box).revoked[TILES] == len(case.bricks.tiles(1))
    repaired(case)
