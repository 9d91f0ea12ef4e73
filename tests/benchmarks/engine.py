"""What the engine costs and how far it scales: one table, from real runs on this machine.

    python -m tests.benchmarks.engine                 every row (about an hour, 30 GB of disk)
    python -m tests.benchmarks.engine overhead plan   only these
    python -m tests.benchmarks.engine --scratch /fast/disk --out engine.json

Nothing here is asserted; the numbers are for reading.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.job import Job
from bigbox.engine.prepared import prepare
from bigbox.engine.stop import StopRequest
from bigbox.engine.transport import Transport
from bigbox.engine.workers import Threads
from bigbox.names import DEFAULT_STEPS
from bigbox.painters import TileBatch, make_painter
from bigbox.painters.base import StepBatch
from bigbox.scheduler.bricks import Assignment, Bricks, default_edge
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.simulate import CostModel, simulate
from bigbox.scheduler.stages import COLOURINGS, known
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.testing.painters import TrivialOnHaloes
from bigbox.testing.ranks import spec_of

GPC = 10_240  # voxels on a side of 1 Gpc/h at 0.098 Mpc/h
Row = tuple[str, str]


def flat_box(path: Path, shape: int) -> Path:
    """A box whose density is 1 + a little keyed structure, written block by block."""
    box = Box.create(path, (shape,) * 3, box_size=shape * 12.5 / 128, redshift=0.0)
    dm = box.create_array("dm")
    edge = (dm.shards or dm.chunks)[0]
    wave = 1 + 0.5 * np.sin(np.arange(shape) * 0.3).astype(np.float32)
    for x in range(0, shape, edge):
        for y in range(0, shape, edge):
            plane = wave[x : x + edge, None, None] * wave[None, y : y + edge, None]
            dm[x : x + edge, y : y + edge] = plane * wave
    return path


def paint(path: Path, ranks: int, *options: str, data_limit: int = 0) -> dict[str, Any]:
    """Runs `bigbox paint` for real; returns the report, wall and CPU time of all ranks in seconds,
    and the largest peak memory of a rank in MiB."""
    report = path.parent / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks.measured_rank", str(report), "paint"]
    if ranks > 1:
        mpirun = Path(sys.executable).parent / "mpirun"
        command = [str(mpirun if mpirun.exists() else "mpirun"), "-n", str(ranks), *command]

    def cap() -> None:
        if data_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))

    began = time.monotonic()
    subprocess.run([*command, str(path), *options], check=True, preexec_fn=cap)
    wall = time.monotonic() - began
    each = [json.loads(f.read_text()) for f in report.parent.glob("report.json.*")]
    result: dict[str, Any] = json.loads(report.read_text()) | {"wall": wall}
    result["peak_mib"] = max(one["peak_mib"] for one in each)
    result["cpu"] = sum(one["cpu"] for one in each)
    for file in report.parent.glob("report.json*"):
        file.unlink()
    return result


def painter(scratch: Path) -> list[Row]:
    """CPU time of the Gaussian painter for a tile of 32³, batch 16, one thread, no engine."""
    import torch

    torch.set_num_threads(1)
    tiling = Tiling((336,) * 3)
    rng = np.random.default_rng(0)
    rows = []
    for sampler, overlap_method in (
        ("dpmpp-sde", "conditioned"),
        ("dpmpp", "conditioned"),
        ("ancestral", "conditioned"),
        ("ancestral", "overwrite"),
    ):
        made = make_painter(
            "gaussian",
            seed=0,
            box_shape=tiling.shape,
            sampler=sampler,
            overlap_method=overlap_method,
        )
        seconds = []
        for _ in range(6):
            tiles = rng.choice(tiling.size, 16, replace=False)  # of all stages
            edge = 32 + 2 * made.margin
            batch = TileBatch(
                tiles=tiles,
                origin=tiling.origin(tiles),
                inputs=rng.gamma(0.5, 2.0, (16, 1, edge, edge, edge)).astype(np.float32),
                known=rng.normal(0.05, 0.02, (16, 1, 32, 32, 32)).astype(np.float32),
                width=known(tiling, tiles),
            )
            began = time.process_time()
            made.paint(batch)
            seconds.append((time.process_time() - began) / 16)
        # The first batch makes the matrices that all later ones use.
        took = f"{1000 * float(np.median(seconds[1:])):.1f} ms"
        rows.append((f"{sampler}, {overlap_method}, {DEFAULT_STEPS[sampler]} calls", took))
    return rows


def overhead(scratch: Path) -> list[Row]:
    """Engine, store and ledger beside a painter of 50 ms a tile, one rank, batch 16."""
    path = flat_box(scratch / "overhead.zarr", 336)  # 12³ tiles
    options = ("--painter", "trivial", "--seconds-per-tile", "0.05", "--batch", "16", "--quiet")
    got = paint(path, 1, *options)
    alone = got["tiles"] * 0.05
    return [
        ("tiles, batches", f"{got['tiles']}, {got['batches']}"),
        ("painter alone (50 ms a tile)", f"{alone:.2f} s"),
        ("engine + store + ledger, first batch to box complete", f"{got['seconds']:.2f} s"),
        ("overhead", f"{100 * (got['seconds'] / alone - 1):.2f} %"),
    ]


@dataclass(frozen=True)
class AtOnce(TrivialOnHaloes):
    """Stands for a GPU that takes no time: inputs stay on it, its memory for batches is reused."""

    most_kept: int = 4096
    streams: int = 2

    def advance(self, batch: StepBatch) -> np.ndarray:
        """Return numbers that are there."""
        return self._made[: len(batch)]

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array that no batch uses any more, or a new one."""
        arrays = self._pool.setdefault(shape, [])
        free = (one for one in arrays if sys.getrefcount(one) == 3)  # the list, `one`, and the call
        if (found := next(free, None)) is None:
            arrays.append(found := np.empty(shape, np.float32))
        return found.view()

    @cached_property
    def _made(self) -> np.ndarray:
        return np.full((self.batch_size, 2, *(self.tile,) * 3), 0.5, np.float32)

    @cached_property
    def _pool(self) -> dict[tuple[int, ...], list[np.ndarray]]:
        return {}

    batch_size: ClassVar[int] = 128


class TimedThreads(Threads):
    """Counts the CPU time of each queue's jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def submit(self, queue: str, job: Callable[..., Any], *args: Any) -> Future[Any]:
        """Queue a job, to be timed."""

        def timed() -> Any:
            began = time.thread_time()
            try:
                return job(*args)
            finally:
                self.seconds[queue] += time.thread_time() - began

        return super().submit(queue, timed)


def joint(scratch: Path) -> list[Row]:
    """CPU time of the engine for a tile and step, joint, beside a painter that takes none.

    256³ voxels, 1000 tiles, 12 steps, batches of 128, haloes from the box.
    """
    shape, steps = (256,) * 3, 12
    path = flat_box(scratch / "joint.zarr", shape[0])
    halo = Box.open(path, "r+").create_array("halo", channels=4)
    random = np.random.default_rng(0)
    for x in range(0, shape[0], 128):
        halo[:, x : x + 128] = 10 ** random.normal(10, 1, (4, 128, *shape[1:])).astype(np.float32)
    tiling, box = tiling_for("joint", shape), Box.open(path, "r+")
    made = AtOnce(seed=1, box_shape=shape, steps=steps)
    spec = spec_of(made, tiling, default_edge(tiling, 1), batch=made.batch_size)
    job = Job(box, spec, prepare(spec, box, linger=0.0))
    workers = TimedThreads()
    loop = job.loop(Transport(), StopRequest(), workers)
    whole, alone = time.process_time(), time.thread_time()
    tally = loop.run()
    whole, alone = time.process_time() - whole, time.thread_time() - alone
    job.finish()
    job.close()
    parts = {"all": whole, "the loop's own": alone, **workers.seconds}
    each = {name: 1000 * s / (tiling.size * steps) for name, s in parts.items()}
    rows = [(f"{name}, ms a tile and step", f"{ms:.4f}") for name, ms in each.items()]
    return [("tiles, batches", f"{tiling.size}, {tally.batches}"), *rows]


def ranks64(scratch: Path) -> list[Row]:
    """64 real MPI ranks, a painter that sleeps, and the simulator's word for it.

    Tiles of 16³ in batches of 4, 0.2 s a step or 0.2 s a tile: what is measured is waiting, and 64
    ranks share the cores of one machine, which tiles of 32³ fill with their own bytes.
    """
    rows, ranks, batch = [], 64, 4
    for method, shape, steps in (("joint", 160, 4), ("conditioned", 384, 1)):
        path = flat_box(scratch / f"{method}.zarr", shape)
        each = 0.2 * steps
        options = ("--painter", "trivial", "--seconds-per-tile", str(each), "--batch", str(batch))
        options += ("--tile", "16", "--overlap-method", method, "--steps", str(steps))
        got = paint(path, ranks, *options, "--quiet")
        tiling = tiling_for(method, (shape,) * 3, 16)
        cost = CostModel(seconds_per_tile=each, batch=batch, latency=0.06, filled=False)
        together = steps if tiling.halved else 0
        said = simulate(tiling, default_edge(tiling, ranks), ranks, cost, steps=together)
        measured = got["tiles"] * each / (ranks * got["span"])
        rows += [
            (f"{method}: tiles, ranks", f"{got['tiles']}, {ranks}"),
            (f"{method}: measured efficiency", f"{100 * measured:.1f} %"),
            (f"{method}: simulated efficiency", f"{100 * said.efficiency:.1f} %"),
            (f"{method}: peak memory of a rank", f"{got['peak_mib']:.0f} MiB"),
        ]
    return rows


def out_of_core(scratch: Path) -> list[Row]:
    """The Gaussian painter on two ranks, each capped (RLIMIT_DATA) at 1.5 GiB."""
    rows, peaks = [], []
    for shape in (512, 1024):
        path = flat_box(scratch / f"core{shape}.zarr", shape)
        options = ("--painter", "gaussian", "--steps", "2", "--batch", "16")
        options += ("--latent-memory", "0.2")  # less than either box needs
        got = paint(path, 2, "--quiet", *options, data_limit=1536 << 20)
        peaks.append(got["peak_mib"])
        rows.append((f"{shape}³: {got['tiles']} tiles", f"{got['wall']:.0f} s"))
        rows.append((f"{shape}³: peak memory of a rank", f"{got['peak_mib']:.0f} MiB"))
        shutil.rmtree(path)
    rows.append(("peak at 1024³ over peak at 512³", f"{peaks[1] / peaks[0]:.3f}"))
    return rows


def repeated(scratch: Path) -> list[Row]:
    """The shipped networks, dm to T_b, on the shipped box, 2³ and 4³ copies of it: 128³ to 512³.

    Two ranks of 2 GiB each (RLIMIT_DATA), 2 calls a tile.
    """
    rows = []
    for name, got in painted_copies(scratch, 2, "--steps", "2", data_limit=2048 << 20):
        each = f"{2000 * got['seconds'] / got['tiles']:.1f}"
        rows.append(
            (f"{name}: tiles, s, core ms a tile", f"{got['tiles']}, {got['seconds']:.1f}, {each}")
        )
        rows.append((f"{name}: peak memory of a rank", f"{got['peak_mib']:.0f} MiB"))
    return rows


def painted_copies(
    scratch: Path, ranks: int, *options: str, copies: Sequence[int] = (1, 2, 4), **limits: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """So many copies on each axis of the shipped box, painted from dm: the side of the whole, and
    what `paint` reports."""
    once = scratch / "once.zarr"
    subprocess.run([sys.executable, "-m", "bigbox", "ingest", "quickstart", str(once)], check=True)
    for n in copies:
        box = repeat_box(once, scratch / f"times{n}.zarr", n)
        yield f"{128 * n}³", paint(box, ranks, "--quiet", *options, **limits)
        shutil.rmtree(box)


def repeat_box(path: Path, out: Path, copies: int) -> Path:
    """A box whose dm is `copies` times that of another, side by side on each axis."""
    once = Box.open(path)
    dm = np.asarray(once.array("dm")[...])
    n = len(dm)
    size = copies * once.box_size[0]
    box = Box.create(
        out, (copies * n,) * 3, size, once.redshift, cosmology=once.attributes["cosmology"]
    )
    array = box.create_array("dm")
    edge = (array.shards or array.chunks)[0]
    for corner in np.ndindex(*(-(-copies * n // edge),) * 3):
        axes = [np.arange(c * edge, min((c + 1) * edge, copies * n)) for c in corner]
        where = tuple(slice(axis[0], axis[-1] + 1) for axis in axes)
        array[where] = dm[np.ix_(*(axis % n for axis in axes))]
    return out


def plan(scratch: Path) -> list[Row]:
    """`bigbox plan` for 10 240³ on 64 ranks: seconds and peak memory."""
    report = scratch / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks.measured_rank", str(report), "plan"]
    command += ["--shape", str(GPC), "--box-size", "1000", "--ranks", "64"]
    command += ["--ranks-per-node", "4", "--memory", "64", "--disk", "20000"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    peak = max(json.loads(f.read_text())["peak_mib"] for f in scratch.glob("report.json.*"))
    return [("seconds, peak memory", f"{seconds:.2f} s, {peak:.0f} MiB")]


def policy(scratch: Path) -> list[Row]:
    """Decisions a second of the ordering policy on one core."""
    rows = []
    for colouring, batch in itertools.product(COLOURINGS, (1, 16, 64)):
        tiling = Tiling((28 * 40,) * 3)
        one = Policy(Assignment(Bricks(tiling, 8), 1), 0, colouring)
        began = time.monotonic()
        decided = 0
        while one.remaining and time.monotonic() - began < 10:
            tiles = one.next_batch(batch, partial=True)
            one.done(tiles)
            decided += len(tiles)
        per_second = decided / (time.monotonic() - began)
        rows.append((f"{colouring}, batch {batch}", f"{per_second:,.0f} tiles/s"))
    return rows


def simulator(scratch: Path) -> list[Row]:
    """Efficiency of 10 240³ (painting grid of 5120³, joint) on R ranks, and what it is made of.

    What is lost is lost by uneven shares, which are known for the whole box: so it is in parts with
    as many tiles a rank as 4096 ranks have, simulated with 50 ms a tile, batch 32, 20 ms latency.
    """
    rows = []
    for ranks in (64, 512, 4096):
        tiling = tiling_for("joint", (GPC // 2,) * 3)
        counts = Assignment(Bricks(tiling, default_edge(tiling, ranks)), ranks).counts()
        even = f"{100 * counts.mean() / counts.max():.2f} %"
        rows.append((f"{ranks} ranks: mean over most tiles, {counts.max():,}", even))
    for ranks, side in ((8, 650), (27, 988), (64, 1274)):
        began = time.process_time()
        tiling = tiling_for("joint", (side,) * 3)
        edge = default_edge(tiling, ranks)
        counts = Assignment(Bricks(tiling, edge), ranks).counts()
        cost = CostModel(seconds_per_tile=0.05, batch=32, latency=0.02)
        said = 100 * simulate(tiling, edge, ranks, cost, steps=12).efficiency
        took, even = time.process_time() - began, 100 * counts.mean() / counts.max()
        words = f"{said:.2f} %, by shares alone {even:.2f} % ({took:.0f} s)"
        rows.append((f"{ranks} ranks, {tiling.size / ranks:.0f} tiles each, simulated", words))
    return rows


ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "painter": painter,
    "overhead": overhead,
    "joint": joint,
    "policy": policy,
    "plan": plan,
    "simulator": simulator,
    "ranks64": ranks64,
    "out_of_core": out_of_core,
    "repeated": repeated,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], default=list(ROWS))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    results: dict[str, list[Row]] = {}
    print(f"{os.cpu_count()} cores\n\n| measurement | value |\n|---|---|", flush=True)
    for name in options.rows:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            results[name] = ROWS[name](Path(folder))
        first_line = (ROWS[name].__doc__ or "").splitlines()[0]
        print(f"| **{name}**: {first_line} | |")
        for row in results[name]:
            print(f"| {row[0]} | {row[1]} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
