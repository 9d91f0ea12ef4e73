"""Plans: counts are those of the tiling, memory is above what is measured, and limits are kept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.cli import main
from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.limits import Limits, limits_of
from bigbox.errors import BadInput
from bigbox.painters.registry import KEPT_BYTES
from bigbox.plan import Plan, begun_bricks, machine, make_plan, plan_region, refuse
from bigbox.plan.painting import least_rounds
from bigbox.scheduler import Assignment, Bricks, Tiling, default_edge
from bigbox.scheduler.region import Region
from bigbox.scheduler.stages import COLOURINGS, stage
from bigbox.store.box import Box
from bigbox.store.durable import DISK
from bigbox.store.layouts import PaintLayout
from bigbox.store.run import Start
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import tilings

LIMITS = Limits(overlap_bytes=64 << 20, block_cache_bytes=64 << 20)


def plan_of(n: int, **options: object) -> Plan:
    side = n * 12.5 / 128
    tiling = Tiling((n, n, n))
    return make_plan(tiling, (side,) * 3, limits=LIMITS, **options)  # type: ignore[arg-type]


@given(tiling=tilings(), colouring=st.sampled_from(COLOURINGS))
@settings(max_examples=30, deadline=None)
def test_stages_hold_every_tile_once(tiling: Tiling, colouring: str) -> None:
    made = make_plan(tiling, (1.0,) * 3, colouring=colouring, limits=LIMITS)
    slow = np.bincount(stage(tiling, np.arange(tiling.size), colouring), minlength=len(made.stages))
    assert list(made.stages) == slow.tolist()
    assert sum(made.stages) == tiling.size == made.most_tiles
    worked(tiling.size > 1)


@pytest.mark.parametrize(("ranks", "n"), [(1, 128), (3, 128), (7, 256), (64, 512)])
def test_ranks_share_the_tiles(ranks: int, n: int) -> None:
    made = plan_of(n, ranks=ranks)
    assert made.least_tiles <= made.tiling.size / ranks <= made.most_tiles
    assert made.seconds >= made.seconds_per_tile * made.tiling.size / ranks
    assert made.batches * made.batch >= made.most_tiles


def test_no_run_is_shorter_than_its_stages_allow() -> None:
    assert least_rounds((8, 24, 24, 8), 64, 1) == 4
    assert least_rounds((8, 24, 24, 8), 1, 64) == 64
    assert least_rounds((100, 100), 10, 30) == 30


def test_more_ranks_than_bricks_are_refused() -> None:
    with pytest.raises(BadInput, match="at most 125 ranks have something to paint"):
        plan_of(128, ranks=126)


@pytest.mark.parametrize("option", [{"batch": 32}, {"overlap_method": "latents"}])
def test_memory_grows_with_what_is_asked(option: dict) -> None:
    assert plan_of(256, **option).memory_per_rank > plan_of(256).memory_per_rank


def test_memory_hardly_grows_with_the_box() -> None:
    """The policy's bytes and the larger shards of tb, nothing else: a box of 8 times the voxels."""
    small, large = plan_of(512, ranks=4), plan_of(1024, ranks=4)
    grown = {k for k in small.memory if large.memory[k] > small.memory[k]}
    assert grown <= {"tb shard", "order"}
    assert large.memory_per_rank < 1.1 * small.memory_per_rank


def test_limits_are_kept_and_named() -> None:
    made = plan_of(256, ranks=4)
    one = made.memory_per_rank
    refuse(made, memory=4 * one, disk=1e12)
    refuse(made, memory=2 * one, disk=1e12, ranks_per_node=2)
    refuse(made, memory=None, disk=None)
    with pytest.raises(BadInput, match=r"memory: 4 ranks .* at most 3 ranks a node") as caught:
        refuse(made, memory=4 * one - 1, disk=None)
    assert f"{4 * one / 1e9:.1f} GB" in str(caught.value)
    with pytest.raises(BadInput, match="a smaller --batch"):
        refuse(made, memory=one // 2, disk=None)
    total = made.dm_bytes + made.disk.bytes + 4 * made.disk.brick_bytes
    refuse(made, memory=None, disk=total)
    refuse(made, memory=None, disk=0, written=total)
    with pytest.raises(BadInput, match=r"disk: 0.3 GB are still to be .*, 0.1 GB are free"):
        refuse(made, memory=None, disk=1e8)
    with pytest.raises(BadInput, match="disk: "):
        refuse(made, memory=None, disk=total - 1)


def test_inputs_that_stay_on_a_gpu_are_bounded() -> None:
    for n, wanted in ((64, 27 * 4 * 4 * 32**3), (1024, KEPT_BYTES)):
        tiling = Tiling((n, n, n), 32, 6, halved=True)
        options = {"painter": "lodi", "overlap_method": "joint", "haloes": False}
        made = make_plan(tiling, (1.0,) * 3, **options)  # type: ignore[arg-type]
        assert made.kept_bytes == wanted
    assert plan_of(64, painter="lodi").kept_bytes == 0


def test_step_latents_count_as_disk() -> None:
    made = plan_of(256, overlap_method="latents", steps=4)
    need = made.dm_bytes + made.disk.bytes + made.disk.steps_bytes + made.disk.brick_bytes
    assert made.disk.steps_bytes > 2 * made.disk.painted_bytes
    refuse(made, memory=None, disk=need)
    with pytest.raises(BadInput, match="per-step latents"):
        refuse(made, memory=None, disk=need - 1)


@pytest.mark.parametrize(("n", "ranks"), [(128, 1), (256, 3), (512, 64)])
def test_the_bricks_are_those_of_paint(n: int, ranks: int) -> None:
    tiling = Tiling((n, n, n))
    made = plan_of(n, ranks=ranks)
    assert made.edge == default_edge(tiling, ranks)
    counts = Assignment(Bricks(tiling, made.edge), ranks).counts()
    assert (made.least_tiles, made.most_tiles) == (counts.min(), counts.max())


def test_a_painting_that_has_begun_keeps_its_bricks(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (128,) * 3, 12.5, 0.0)
    tiling = Tiling(box.shape)
    assert begun_bricks(box.path, tiling) is None
    start = Start(box, PaintLayout(Bricks(tiling, 2)), {"painter": "x"})
    start.begin(DISK, {}).lease.close()
    assert begun_bricks(box.path, Tiling(box.shape, 32, 6)) is None
    begun = begun_bricks(box.path, tiling)
    assert begun == Bricks(tiling, 2) != Bricks(tiling, default_edge(tiling, 5))
    made = make_plan(tiling, box.box_size, ranks=5, limits=LIMITS, bricks=begun)
    assert made.edge == 2
    assert made.most_tiles == Assignment(Bricks(tiling, 2), 5).counts().max()


@pytest.mark.parametrize(("n", "mib"), [(512, 417), (1024, 459)])
def test_projected_memory_is_just_above_that_of_large_boxes(n: int, mib: int) -> None:
    """Peaks of a rank as `tests.benchmarks.engine out_of_core` measured them with these caches."""
    projected = plan_of(n, ranks=2).memory_per_rank
    assert mib * 2**20 < projected < 1.15 * mib * 2**20


def test_projected_memory_is_just_above_that_of_tiles_together() -> None:
    """The same with 0.2 GB for the field; four times the cross-section adds what orders take."""
    how = {"ranks": 2, "painter": "gaussian", "overlap_method": "joint", "steps": 2}
    made = [
        make_plan(tiling_for("joint", shape), (50.0,) * 3, limits=limits_of(0.2), **how)  # type: ignore[arg-type]
        for shape in ((512,) * 3, (1024,) * 3)
    ]
    small, large = (one.memory_per_rank for one in made)
    assert 685 * 2**20 < small < 1.15 * 685 * 2**20
    assert small < large < 1.02 * small


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_control_groups", lambda: [(3 << 30, 1 << 30), (1 << 50, 0)])
    assert machine.available_memory() <= 2 << 30
    monkeypatch.setattr(machine, "_control_groups", lambda: [(1, 2)])
    assert machine.available_memory() == 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000", "memory.current": "600", "stat": "inactive_file 100"}, (1000, 500)),
        ({"memory.max": "max", "memory.current": "600", "stat": "inactive_file 100"}, None),
        (
            {"memory.limit_in_bytes": "9", "memory.usage_in_bytes": "4", "stat": "cache 2"},
            (9, 4),
        ),
    ],
)
def test_control_groups_are_read(
    files: dict[str, str], expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / ("memory.stat" if name == "stat" else name)).write_text(text + "\n")
    found = machine._control_groups(tmp_path)
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("painter", "grid"), [("trivial", 1), ("gaussian", 1), ("trivial-halo", 2)]
)
def test_projected_memory_is_above_the_measured(painter: str, grid: int, tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (64 * grid,) * 3, 6.25 * grid, 0.0)
    box.create_array("dm")[:] = np.float32(1)
    options = ["--painter", painter, "--batch", "8", "--steps", "2", "--threads", "1", "--quiet"]
    options += ["--painting-grid", str(grid)]
    # VmHWM, because ru_maxrss of a new process begins with what its parent had.
    code = (
        "import re, sys; from bigbox.cli import main; status = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]);"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "paint", str(box.path), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = 1024 * int(done.stdout)
    projected = plan_of(64, painter=painter, batch=8, grid=grid).memory_per_rank
    assert measured < projected


@pytest.mark.slow
def test_memory_of_tiles_together_does_not_grow_with_the_box(tmp_path: Path) -> None:
    """The same share of little memory for four times the tiles; the plan is above both."""
    limits = Limits(latent_bytes=8 << 20, block_cache_bytes=8 << 20)  # less than either box needs
    code = (
        "import re, sys; from dataclasses import replace; from bigbox import cli;"
        "from bigbox.engine import run; from bigbox.engine.limits import Limits;"
        f"run.limits_of = lambda gb: Limits(latent_bytes={limits.latent_bytes},"
        f" block_cache_bytes={limits.block_cache_bytes});"
        "status = cli.main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]);"
        "sys.exit(status)"
    )
    measured = []
    for side in (260, 520):
        shape = (52, side, side)
        box = Box.create(tmp_path / f"{side}.zarr", shape, tuple(0.1 * n for n in shape), 0.0)
        box.create_array("dm")[:] = np.float32(1)
        options = ["--painter", "trivial", "--batch", "16", "--steps", "2", "--quiet"]
        command = [sys.executable, "-c", code, "paint", str(box.path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured.append(1024 * int(done.stdout))
        how = {"painter": "trivial", "overlap_method": "joint", "steps": 2, "batch": 16}
        tiling = tiling_for("joint", shape)
        made = make_plan(tiling, box.box_size, limits=limits, **how)  # type: ignore[arg-type]
        assert measured[-1] < made.memory_per_rank
    assert measured[1] < 1.1 * measured[0]


def test_files_and_bytes_are_above_the_written(tmp_path: Path) -> None:
    box = Box.create(tmp_path / "b.zarr", (64,) * 3, 6.25, 0.0)
    box.create_array("dm")[:] = np.float32(1)
    before = machine.written_bytes(box.path)
    options = ["--painter", "trivial", "--quiet"]
    subprocess.run([sys.executable, "-m", "bigbox", "paint", str(box.path), *options], check=True)
    made = plan_of(64, painter="trivial")
    tb = [p for p in (box.path / "tb").iterdir() if p.name.startswith("c.")]
    tiles = [p for p in (box.path / "latents" / "painted").iterdir() if p.name.startswith("c.")]
    assert len(tb) + len(tiles) == made.disk.files
    assert sum(p.stat().st_size for p in tb + tiles) <= made.disk.bytes
    assert machine.written_bytes(box.path) > before


def test_a_gigaparsec_is_planned_without_torch() -> None:
    code = (
        "import sys; from bigbox.cli import main;"
        "status = main(['plan', '--shape', '10240', '--box-size', '1000', '--ranks', '64',"
        " '--ranks-per-node', '1', '--memory', '100', '--disk', '100000']);"
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "197 x 197 x 197 = 7,645,373 tiles" in done.stdout  # of the painting grid
    assert "61,162,984 tiles instead of 7,645,373" in done.stdout


def test_what_the_painting_grid_saves(capsys: pytest.CaptureFixture[str]) -> None:
    """An eighth of the voxels and files; dm is as large; windows read more of it."""
    told = ["plan", "--shape", "1024", "--box-size", "100", "--painter", "trivial-halo"]
    told += ["--memory", "100", "--disk", "1000"]
    assert main([*told, "--painting-grid", "2"]) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("grid")]
    assert "one voxel painted for 2 of dm on each axis, of 0.1953 Mpc/h" in line
    assert "1,073,741,824 voxels instead of 134,217,728" in line
    assert "64,000 tiles instead of 8,000" in line
    assert main(told) == 0
    assert "instead of" not in capsys.readouterr().out
    made, every = (
        plan_of(512, grid=2, painter="trivial-halo"),
        plan_of(1024, painter="trivial-halo"),
    )
    assert made.dm_bytes == every.dm_bytes == 4 * 1024**3
    assert 7 < every.disk.bytes / made.disk.bytes < 9 and 7 < every.seconds / made.seconds < 9
    assert made.memory["windows"] > every.memory["windows"]
    assert made.memory["dm blocks"] == 2 * every.memory["dm blocks"]


def test_steps_and_tiles_scale_the_time() -> None:
    base = plan_of(128)
    assert plan_of(128, steps=24).seconds_per_tile == 2 * base.seconds_per_tile
    assert replace(base, batch=4).batches == -(-125 // 4)


def test_a_region_is_planned() -> None:
    """What takes part is the region and, where tiles go together, a layer of them a step."""
    tiling = Tiling((2600, 2600, 2600), 32, 6, halved=True)
    plan = make_plan(tiling, (260.0,) * 3, ranks=8)
    region = Region((3, 3, 3), (774, 774, 774))
    found = plan_region(plan, region, 12)
    assert (found.finished, found.taking_part) == (30**3, 52**3)
    shells = [(30 + 2 * d) ** 3 - (28 + 2 * d) ** 3 for d in range(1, 12)]
    whole = 30**3 + sum(shell * (12 - d) / 12 for d, shell in enumerate(shells, start=1))
    assert found.calls == pytest.approx(whole)
    assert found.over == pytest.approx((52 * 26 / 774) ** 3)
    assert found.seconds == pytest.approx(plan.seconds_per_tile * whole / 8)
    stages = make_plan(Tiling((2240,) * 3), (224.0,) * 3, overlap_method="conditioned", ranks=8)
    assert plan_region(stages, region, 12).taking_part == plan_region(stages, region, 12).finished
