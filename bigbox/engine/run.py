"""The whole of `bigbox paint`: from the options to a painted box, on this rank and all others."""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.engine.assembly import Assembly
from bigbox.engine.drops import StepDrops
from bigbox.engine.haloes import Haloes
from bigbox.engine.loop import Engine
from bigbox.engine.mpi import World, abort_on_error, join_world
from bigbox.engine.overlaps import Overlaps
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.tally import describe, summary
from bigbox.engine.workers import Threads
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.painters import HaloPainter, Painter, make_halo_painter, make_painter
from bigbox.store.blocks import BlockReader
from bigbox.store.box import Box
from bigbox.store.haloes import (
    BLOCK,
    HaloPainting,
    HaloReader,
    discard_haloes,
    halo_state,
    start_haloes,
)
from bigbox.store.ledger import Ledger
from bigbox.store.painting import Painting
from bigbox.store.run import discard_painting, layout
from bigbox.store.shards import DamagedBlock, DamagedTile
from scheduler.bricks import Assignment, Bricks, default_edge
from scheduler.policy import Policy
from scheduler.tiling import Tiling
from scheduler.windows import Gate, Windows

# Limits of what one rank keeps in hand; bigbox.plan adds them up.
OVERLAP_BYTES = 32 << 20
BLOCK_CACHE_BYTES = 128 << 20  # 125 blocks of 64³ hold the inputs of a brick of 8³ tiles
WINDOW_CACHE_BYTES = 64 << 20  # of dm, for windows: neighbours share nearly all of it
SUM_BYTES = 256 << 20  # 256 blocks of 32³ and 4 channels: beyond it sums go to the disk
TILES_AT_A_TIME = 1 << 17
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
    halo_stride: int | None = None
    discard: bool = False
    discard_halo: bool = False
    drop_latents: bool = False
    seconds_per_tile: float = 0.0
    seconds_per_window: float = 0.0
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
    haloes = None
    if painter.input == "halo" and world.first(lambda: _paints_haloes(options.box)):
        haloes = world.each(lambda: _halo_painter(options, device, threads))
    windows = None
    if haloes:
        shape = tiling.shape
        windows = world.each(lambda: Windows(shape, haloes.window, haloes.stride, BLOCK))

    def start() -> tuple[int, int, dict[str, Any]]:
        box = Box.open(options.box, "r+")
        _discard(options, box, painter, haloes, tiling)
        halo_epoch = 0
        if haloes and windows and not _haloes_done(box, haloes):
            halo_epoch = start_haloes(
                box,
                haloes.identity(),
                windows,
                channels=haloes.channels,
                attributes=haloes.attributes(),
                n_ranks=world.size,
                device=device,
            )
        identity = _identity(box, painter, haloes)
        epoch = Painting.start_run(
            box,
            identity,
            tiling,
            bricks,
            n_ranks=world.size,
            n_steps=painter.fields - 1,
            device=device,
        )
        return halo_epoch, epoch, identity

    halo_epoch, epoch, identity = world.first(start)

    def join() -> tuple[HaloPainting | None, Painting]:
        box = Box.open(options.box, "r+")
        halo_painting = None
        if halo_epoch:
            halo_painting = HaloPainting(box, assignment, world.rank, halo_epoch)
        return halo_painting, Painting.begin(
            box,
            identity,
            tiling,
            bricks,
            rank=world.rank,
            n_ranks=world.size,
            epoch=epoch,
            n_steps=painter.fields - 1,
        )

    halo_painting, painting = world.each(join)
    try:
        return _run(options, world, stop, assignment, painter, painting, haloes, halo_painting)
    finally:
        painting.close()
        if halo_painting:
            halo_painting.close()


def _run(
    options: PaintOptions,
    world: World,
    stop: StopRequest,
    assignment: Assignment,
    painter: Painter,
    painting: Painting,
    haloes: HaloPainter | None,
    halo_painting: HaloPainting | None,
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
        halo_painter=haloes,
        halo_painting=halo_painting,
        # Ranks that share a core look for messages less often, or looking is all they do.
        seconds_between_polls=0.002 * max(1.0, 1 / world.cores),
    )
    # All ranks begin together.
    engine.progress.windows = sum(world.gather(engine.haloes.total if engine.haloes else 0))
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
        failure = _marked(failure, engine.haloes is not None)
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
        windows = engine.progress.windows - report["windows"]
        rest = f" and {windows} of {engine.progress.windows} windows" if windows else ""
        raise StoppedEarly(
            f"stopped by {why} with {left} of {tiling.size} tiles{rest} left; everything painted "
            "is safe, the same command goes on from here"
        )
    world.first(lambda: halo_painting.finish() if halo_painting else None)
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
    halo_painter: HaloPainter | None = None,
    halo_painting: HaloPainting | None = None,
    sum_bytes: int = SUM_BYTES,
) -> tuple[Engine, int]:
    """One rank's engine, told what earlier runs have done; and how many tiles that was."""
    workers = workers or Threads()
    policy = Policy(assignment, rank, colouring, gated=halo_painting is not None)
    assembly = Assembly(painting, tiling, assignment, rank)
    drops = StepDrops(painting, assignment, rank) if painter.fields > 1 else None
    already = 0
    for tiles in painting.done_tiles():
        already += len(tiles)
        policy.restore(tiles)
        assembly.done(tiles)
        if drops:
            drops.done(tiles, drop=False)
    haloes = None
    if halo_painter and halo_painting:
        windows = halo_painting.layout.windows
        gate = Gate(tiling, windows, painter.margin, halo_painting.done.copy())
        own = assignment.tiles_of(rank)
        for part in np.array_split(own, 1 + len(own) // TILES_AT_A_TIME):
            policy.opened(part[gate.is_open(part)])
        haloes = Haloes(
            halo_painter,
            halo_painting,
            assignment,
            rank,
            gate,
            BlockReader(box.array("dm"), tiling.periodic, WINDOW_CACHE_BYTES),
            workers,
            sum_bytes,
        )
    reader: BlockReader | None = None
    if painter.input == "halo" and (found := halo_state(box)):
        reader = HaloReader(box, found, halo_painting, BLOCK_CACHE_BYTES)
    elif painter.input:
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
        workers=workers,
        batch=batch,
        stop=stop,
        progress=Progress(tiling.size, already, transport.size, show),
        seconds_between_polls=seconds_between_polls,
        drops=drops,
        haloes=haloes,
    )
    return engine, already


def _paints_haloes(path: Path) -> bool:
    """Whether the haloes of the box are bigbox's to paint: it has none, or they are a painting."""
    box = Box.open(path)
    return halo_state(box) is not None or not box.has("halo")


def _haloes_done(box: Box, painter: HaloPainter) -> bool:
    """Whether these very haloes are painted to their end; others are refused by what comes next."""
    found = halo_state(box)
    if found is None:
        return False
    run, _, state = found
    same = run["identity"] == json.loads(json.dumps(painter.identity()))
    return same and bool(state.done.all())


def _identity(box: Box, painter: Painter, haloes: HaloPainter | None) -> dict[str, Any]:
    """What decides the bytes of tb: the painter's, and where the haloes that it reads are from."""
    identity = painter.identity()
    if haloes:
        identity["halo"] = haloes.identity()
    elif painter.input == "halo":
        identity["halo"] = {"source": str(box.require("halo").attrs.get("source", "unknown"))}
    return identity


def _discard(
    options: PaintOptions,
    box: Box,
    painter: Painter,
    haloes: HaloPainter | None,
    tiling: Tiling,
) -> None:
    """Throw away what the options say; not what this very command has begun.

    A job that is requeued with --discard in its command line must not lose what it painted before.
    """
    if not options.discard and not options.discard_halo:
        return
    if _resumes(box, _identity(box, painter, haloes), tiling):
        return
    if options.discard_halo:
        if halo_state(box) is None and box.has("halo"):
            raise BadInput(f"{box.path}/halo: was not painted by bigbox and is never discarded")
        discard_painting(box)
        discard_haloes(box)
    else:
        discard_painting(box)


def _marked(damage: DamagedTile, haloes: bool) -> BigboxError:
    """What a damaged tile or block comes to once it is marked in a ledger."""
    if isinstance(damage, DamagedBlock) and not haloes:
        return BadInput(f"{damage}; bigbox verify marks it, and the same command paints it again")
    return StoppedEarly(f"{damage}; it is marked: the same command paints it again")


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


def _resumes(box: Box, identity: dict[str, Any], tiling: Tiling) -> bool:
    """Whether the box holds the very painting that is asked for, not yet complete: its bytes are
    those that a new start would give."""
    run = Ledger(box.path).run()
    if run is None:
        return False
    begun, bricks, tb = layout(run)
    same = begun == tiling and run["identity"] == json.loads(json.dumps(identity))
    return same and not Ledger(box.path).state(bricks, tb.size).complete


def _device(options: PaintOptions, world: World, threads: int) -> str:
    """The device of this rank's painter: one GPU a rank by local rank, or the CPU's share."""
    if options.painter.startswith("trivial"):
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


def _halo_painter(options: PaintOptions, device: str, threads: int) -> HaloPainter:
    return make_halo_painter(
        options.painter,
        stride=options.halo_stride,
        device=device,
        threads=threads,
        seconds_per_window=options.seconds_per_window,
    )
