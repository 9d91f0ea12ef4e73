"""The whole of `bigbox paint`: from the options to a painted box, on this rank and all others."""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigbox.engine.assembly import Assembly
from bigbox.engine.loop import Engine, StepDrops, Tally
from bigbox.engine.mpi import World, abort_on_error, join_world
from bigbox.engine.overlaps import Overlaps
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.workers import Threads
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.painters import make_painter
from bigbox.painters.base import Painter
from bigbox.store.blocks import BlockReader
from bigbox.store.box import Box
from bigbox.store.ledger import Ledger
from bigbox.store.painting import Painting
from bigbox.store.run import discard_painting, layout
from bigbox.store.shards import DamagedTile
from scheduler.bricks import Assignment, Bricks, default_edge
from scheduler.policy import Policy
from scheduler.tiling import Tiling

# Limits of what one rank keeps in hand; bigbox.plan adds them up.
OVERLAP_BYTES = 32 << 20
BLOCK_CACHE_BYTES = 128 << 20  # 125 blocks of 64³ hold the inputs of a brick of 8³ tiles
STOP_FILE = "STOP"


@dataclass(frozen=True)
class PaintOptions:
    """What `bigbox paint` was asked for; see its --help for the meaning of each."""

    box: Path
    painter: str = "gaussian"
    seed: int = 0
    realization: int = 0
    overlap_method: str = "conditioned"
    sampler: str = "dpmpp"
    steps: int | None = None
    batch: int = 16
    tile: int = 32
    overlap: int = 4
    colouring: str = "levels"
    device: str = "auto"
    threads: int | None = None
    discard: bool = False
    drop_latents: bool = False
    seconds_per_tile: float = 0.0
    quiet: bool = False


def paint(options: PaintOptions) -> dict[str, Any]:
    """Paints a box, or goes on with a painting that was stopped; returns the report's numbers.

    Raises:
        BadInput: the box, the options or the machine cannot be used (on rank 0; other ranks end
            with the same exit status and say nothing).
        StoppedEarly: a stop was asked for, or damage was found; the same command goes on.
    """
    world = join_world()
    stop = StopRequest(options.box / STOP_FILE if world.rank == 0 else None)
    stop.install()
    try:
        return abort_on_error(world, lambda: _paint(options, world, stop))
    except BigboxError as error:
        if world.rank > 0:
            raise SystemExit(error.exit_status) from None
        raise


def _paint(options: PaintOptions, world: World, stop: StopRequest) -> dict[str, Any]:
    threads = options.threads or max(1, int(world.cores))
    bricks = world.first(lambda: _bricks(options, world.size))
    tiling = bricks.tiling
    assignment = Assignment(bricks, world.size)
    device = world.each(lambda: _device(options, world, threads))
    painter = world.each(lambda: _painter(options, tiling, device, threads))
    identity = painter.identity()

    def start() -> int:
        if options.discard and not _resumes(options.box, identity, tiling):
            discard_painting(Box.open(options.box, "r+"))
        return Painting.start_run(
            Box.open(options.box, "r+"),
            identity,
            tiling,
            bricks,
            n_ranks=world.size,
            n_steps=painter.fields - 1,
            device=device,
        )

    epoch = world.first(start)
    painting = world.each(
        lambda: Painting.begin(
            Box.open(options.box, "r+"),
            identity,
            tiling,
            bricks,
            rank=world.rank,
            n_ranks=world.size,
            epoch=epoch,
            n_steps=painter.fields - 1,
        )
    )
    try:
        return _run(options, world, stop, assignment, painter, painting)
    finally:
        painting.close()


def _run(
    options: PaintOptions,
    world: World,
    stop: StopRequest,
    assignment: Assignment,
    painter: Painter,
    painting: Painting,
) -> dict[str, Any]:
    tiling = painting.tiling
    engine, already = make_engine(
        tiling,
        assignment,
        world.rank,
        painter=painter,
        painting=painting,
        box=Box.open(options.box),
        transport=world.transport(),
        batch=options.batch,
        stop=stop,
        colouring=options.colouring,
        show=world.rank == 0 and not options.quiet,
        # Ranks that share a core look for messages less often, or looking is all they do.
        seconds_between_polls=0.002 * max(1.0, 1 / world.cores),
    )
    world.gather(None)  # all ranks begin together
    began = time.monotonic()
    try:
        tally = engine.run()
    except BigboxError:  # not agreed on with the other ranks, who would wait for this one
        traceback.print_exc()
        world.abort(1)
        raise
    engine.progress.close()
    seconds = time.monotonic() - began
    failure = engine.failure
    if isinstance(failure, DamagedTile):
        failure = StoppedEarly(f"{failure}; it is marked: the same command paints it again")
    failures = [f for f in world.gather(failure) if f]
    stops = [s for s in world.gather(engine.stopping) if s]
    complete = not any(world.gather(engine.left()))
    report = summary(world.gather(tally), already, tiling.size, seconds)
    if world.rank == 0:
        (options.box / STOP_FILE).unlink(missing_ok=True)
    if failures:
        raise failures[0]
    if stops and not complete:
        why = next((s for s in stops if s != "another rank"), stops[0])
        left = tiling.size - already - report["tiles"]
        raise StoppedEarly(
            f"stopped by {why} with {left} of {tiling.size} tiles left; everything painted is "
            "safe, the same command goes on from here"
        )
    world.first(painting.finish)
    if options.drop_latents:
        world.first(painting.drop_latents)
    if world.rank == 0 and not options.quiet:
        print(describe(report, options.box), file=sys.stderr)
    return report


def make_engine(
    tiling: Tiling,
    assignment: Assignment,
    rank: int,
    *,
    painter: Painter,
    painting: Painting,
    box: Box,
    transport: Any,
    batch: int,
    stop: StopRequest,
    workers: Any = None,
    colouring: str = "levels",
    show: bool = False,
    seconds_between_polls: float = 0.002,
    overlap_bytes: int = OVERLAP_BYTES,
) -> tuple[Engine, int]:
    """One rank's engine, told what earlier runs have done; and how many tiles that was."""
    policy = Policy(assignment, rank, colouring)
    assembly = Assembly(painting, tiling, assignment, rank)
    drops = StepDrops(painting, assignment, rank) if painter.fields > 1 else None
    already = 0
    for tiles in painting.done_tiles():
        already += len(tiles)
        policy.restore(tiles)
        assembly.done(tiles)
        if drops:
            drops.done(tiles, drop=False)
    reader = None
    if painter.input:
        reader = BlockReader(box.array(painter.input), tiling.periodic, BLOCK_CACHE_BYTES)
    engine = Engine(
        tiling=tiling,
        assignment=assignment,
        rank=rank,
        policy=policy,
        painter=painter,
        painting=painting,
        reader=reader,
        overlaps=Overlaps(tiling, painter.fields, overlap_bytes, painting.read_fields),
        assembly=assembly,
        transport=transport,
        workers=workers or Threads(),
        batch=batch,
        stop=stop,
        progress=Progress(tiling.size, already, transport.size, show),
        seconds_between_polls=seconds_between_polls,
        drops=drops,
    )
    return engine, already


def _bricks(options: PaintOptions, n_ranks: int) -> Bricks:
    """The box cut into tiles and bricks; a painting that has begun keeps its bricks."""
    box = Box.open(options.box)
    box.require("dm")
    tiling = Tiling(box.shape, options.tile, options.overlap)
    run = Ledger(box.path).run()
    if run is not None:
        begun, bricks, _ = layout(run)
        if begun == tiling:
            return bricks
    return Bricks(tiling, default_edge(tiling, n_ranks))


def _resumes(path: Path, identity: dict[str, Any], tiling: Tiling) -> bool:
    """Whether the box holds the very painting that is asked for, not yet complete.

    Its bytes are those that a new start would give, and a job that is requeued with `--discard` in
    its command line must not lose what it painted before.
    """
    run = Ledger(path).run()
    if run is None:
        return False
    begun, bricks, tb = layout(run)
    same = begun == tiling and run["identity"] == json.loads(json.dumps(identity))
    return same and not Ledger(path).state(bricks, tb.size).complete


def _device(options: PaintOptions, world: World, threads: int) -> str:
    """The device of this rank's painter: one GPU a rank by local rank, or the CPU's share."""
    if options.painter == "trivial":
        return "cpu"
    import torch

    torch.set_num_threads(threads)
    if options.device not in ("auto", "cuda"):
        try:
            torch.empty(1, device=options.device)
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"device {options.device}: {str(error).splitlines()[0]}") from None
        return options.device
    if torch.cuda.is_available():
        return f"cuda:{world.local_rank % torch.cuda.device_count()}"
    if options.device == "cuda":
        raise BadInput(
            "device cuda: torch sees no GPU here; use --device cpu, or torch's GPU build"
        )
    return "cpu"


def _painter(options: PaintOptions, tiling: Tiling, device: str, threads: int) -> Painter:
    return make_painter(
        options.painter,
        seed=options.seed,
        realization=options.realization,
        overlap_method=options.overlap_method,
        sampler=options.sampler,
        steps=options.steps,
        tile=tiling.tile,
        box_shape=tiling.shape,
        device=device,
        threads=threads,
        seconds_per_tile=options.seconds_per_tile,
    )


def summary(tallies: list[Tally], already: int, total: int, seconds: float) -> dict[str, Any]:
    """The numbers of a run over all ranks; `busy` is the painters' share of the time from the
    first batch that any rank began to the last that any ended."""
    span = max(t.last_paint for t in tallies) - min(t.first_paint for t in tallies)
    painting = sum(t.painting_s for t in tallies)
    tiles = sum(t.tiles for t in tallies)
    return {
        "tiles": tiles,
        "already": already,
        "total": total,
        "ranks": len(tallies),
        "batches": sum(t.batches for t in tallies),
        "shards": sum(t.shards for t in tallies),
        "seconds": seconds,
        "painting_seconds": painting,
        "span": span if tiles else 0.0,
        "busy": painting / (span * len(tallies)) if tiles else 0.0,
    }


def describe(report: dict[str, Any], box: Path) -> str:
    """The last line of a run, for people."""
    if not report["tiles"]:
        return f"{box} is painted: all {report['total']} tiles were done, nothing was left to do"
    return (
        f"painted {report['tiles']} tiles of {box} in {report['seconds']:.1f} s on "
        f"{report['ranks']} rank{'s' if report['ranks'] > 1 else ''} "
        f"({report['tiles'] / report['seconds']:.1f} tiles/s, painters busy "
        f"{100 * report['busy']:.1f} % of the time)"
    )
