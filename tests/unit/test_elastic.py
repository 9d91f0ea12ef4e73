"""Regions on workers: together they are the box; a poisoned one is set aside, the rest painted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigbox.cli import main, parser
from bigbox.engine.elastic import command_line, regions_of
from bigbox.engine.options import PaintOptions
from bigbox.scheduler.region import Region
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import tilings
from tests.boxes import new_box, scratch
from tests.faults.damaged import refused, tb

OPTIONS = ("--painter", "trivial", "--tile", "16", "--steps", "2", "--quiet")


@given(tilings(), st.integers(1, 4))
def test_regions_are_the_box(tiling: Tiling, edge: int) -> None:
    seen = np.zeros(tiling.size, int)
    for text, tiles in regions_of(tiling, edge):
        seen[tiles] += 1
        found = Region.read(text, tiling, voxel=1.0).tiles(tiling)
        assert found[tiles].all()
        if tiling.halved:  # else also those that they are painted from
            assert found.sum() == len(tiles)
    assert (seen == 1).all()
    worked(tiling.size)


def test_a_worker_is_told_what_decides_the_bytes() -> None:
    options = PaintOptions(
        Path("a.zarr"), painter="trivial", seed=7, realization=3, steps=2, tile=16, batch=8,
        quiet=True, workers="tcp://here:1", worker_tiles=4, drop_latents=True,
    )  # fmt: skip
    line = command_line(options, Path("w.zarr"), "0:4,0:4,0:4")
    found = PaintOptions(**{k: v for k, v in vars(parser().parse_args(line)).items() if k != "run"})
    assert (found.seed, found.realization, found.steps, found.tile, found.batch) == (7, 3, 2, 16, 8)
    assert (found.box, found.region, found.workers) == (Path("w.zarr"), "0:4,0:4,0:4", None)
    assert not found.drop_latents and found.painter == "trivial"


def test_what_workers_cannot_share_is_refused(tmp_path: Path, capsys) -> None:
    box, _ = new_box(tmp_path, (64, 64, 64), seed=3)
    at = ("--workers", "tcp://127.0.0.1:1")
    said = refused(capsys, "paint", box, "--painter", "trivial-halo", "--quiet", *at)
    assert "haloes are not all there" in said
    said = refused(capsys, "paint", box, *OPTIONS, *at, "--region", "0:8,0:8,0:8")
    assert "--region is not for --workers" in said
    assert not (box / "ledger").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_region_that_fails_three_times_is_set_aside(capsys) -> None:
    from distributed import LocalCluster

    with scratch() as folder:
        box, dm = new_box(folder, (192, 32, 32), seed=3)
        whole = shutil.copytree(box, folder / "whole.zarr")
        assert main(["paint", str(whole), *OPTIONS, "--overlap-method", "conditioned"]) == 0
        spoilt = Box.open(box, "r+").array("dm")
        spoilt[90, 8, 8] = (
            np.nan
        )  # in the chunk of voxels 64 to 127, which not all of the four regions read
        command = ["paint", str(box), *OPTIONS, "--overlap-method", "conditioned"]
        with LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster:
            command += ["--workers", cluster.scheduler_address, "--worker-tiles", "4"]
            capsys.readouterr()
            assert main(command) == 75
            said = capsys.readouterr().err
            assert "failed 3 times and are set aside" in said and "not finite" in said
            assert main(["status", str(box), "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert 0 < len(told["set_aside"]) < 4 and 0 < told["tiles_done"] < told["tiles"]
            assert main(["status", str(box)]) == 0
            assert told["set_aside"][0]["region"] in capsys.readouterr().out
            spoilt[90, 8, 8] = dm[90, 8, 8]
            assert main(command) == 0
        assert main(["status", str(box), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["set_aside"] == []
        assert main(["verify", str(box)]) == 0
        assert tb(box).tobytes() == tb(whole).tobytes()
