"""Names and numbers that survive: files beside boxes of dotted names, times of a copied box."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.store import records
from bigbox.store.box import Box
from bigbox.store.records import TIMES, make_records, seconds_after
from bigbox.store.status import status


def box_of(place: Path, seed: int = 0) -> Path:
    rho = np.random.default_rng(seed).gamma(0.5, 3.0, (40, 40, 40)).astype(np.float32)
    np.save(place.with_name("rho.npy"), rho)
    given = ["ingest", str(place.with_name("rho.npy")), str(place), "--box-size", "4"]
    assert main(given) == 0
    place.with_name("rho.npy").unlink()
    return place


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("run_z0.5", "run_z0.5"), ("run_z0.0", "run_z0.0"), ("box.zarr", "box"), ("box", "box"),
        ("a.b.zarr", "a.b"), ("L25.N256", "L25.N256"),
    ],
)  # fmt: skip
def test_only_zarr_is_an_ending(name: str, stem: str, tmp_path: Path) -> None:
    box = Box.create(tmp_path / name, (4, 4, 4), 1.0, 0.0)
    assert box.stem == stem


def test_outputs_of_boxes_with_dots_in_their_names(tmp_path: Path) -> None:
    """Reported as mace#964 of others: what stands after the dot is lost, files are overwritten."""
    for seed, name in enumerate(("run_z0.5", "run_z0.0")):
        place = str(box_of(tmp_path / name, seed))
        assert main(["plot", place]) == 0
        for to in ("npy", "hdf5", "ome-zarr"):
            assert main(["export", place, "--to", to]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"run_z0.{z}{end}"
        for z in (0, 5)
        for end in ("", ".png", "_dm.npy", ".hdf5", "_dm.ome.zarr")
    )
    a, b = (np.load(tmp_path / f"run_z0.{z}_dm.npy") for z in (0, 5))
    assert (a != b).any()


def test_boxes_that_differ_in_their_ending_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """run and run.zarr, and run_r0001 beside realization 1 of run.zarr."""
    first = box_of(tmp_path / "run.zarr")
    assert main(["plot", str(first)]) == 0
    picture = (tmp_path / "run.png").read_bytes()
    second = box_of(tmp_path / "run", 1)
    for command in ("plot", "validate"):
        capsys.readouterr()
        assert main([command, str(second)]) == 2
        text = capsys.readouterr().err
        assert "is also the name for" in text and text.endswith("give --out\n"), text
    assert main(["plot", str(second), "--out", str(tmp_path / "other.png")]) == 0
    assert (tmp_path / "run.png").read_bytes() == picture
    third = box_of(tmp_path / "run_r0001", 2)
    paint = ["--realization", "1", "--painter", "trivial", "--tile", "20", "--quiet"]
    assert main(["paint", str(first), *paint]) == 0
    assert main(["plot", str(third)]) == 2
    assert main(["plot", str(first), "--realization", "1"]) == 2


@pytest.mark.parametrize("start", [0.0, 1.7e9, TIMES - 1.0, 3 * TIMES + 5.0])
def test_the_time_of_a_record(start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for after, want in ((0, 0), (1, 1), (86400 * 90, 86400 * 90), (-5, 0)):
        monkeypatch.setattr(records.time, "time", lambda after=after: start + after + 0.9)
        made = make_records(1, 1, [3, 4])
        if int(start + after) % TIMES:  # 0 stands for none
            assert seconds_after(start, made).tolist() == [want, want]
    made["time"] = 0
    assert seconds_after(start, made).tolist() == [0, 0]


def test_a_copy_of_a_box_tells_the_same_times(tmp_path: Path) -> None:
    """Reported as rclone#3453: a copy has times of its own."""
    box = box_of(tmp_path / "b.zarr")
    assert main(["paint", str(box), "--painter", "trivial", "--tile", "20", "--quiet"]) == 0
    before = status(Box.open(box))
    then = time.time() + 4000
    for path in box.rglob("*"):
        os.utime(path, (then, then))
    assert status(Box.open(box)) == before
