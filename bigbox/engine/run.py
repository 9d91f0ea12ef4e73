"""The whole of `bigbox paint`: from the options to a painted box, on this rank and all others."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import replace
from typing import Any

import numpy as np

from bigbox.engine.assembly import Assembly
from bigbox.engine.begin import (
    PaintOptions,
    bricks_of,
    check_alike,
    check_model,
    device_of,
    discard,
    halo_painter_of,
    haloes_done,
    identity_of,
    painter_of,
    paints_haloes,
)
from bigbox.engine.drops import StepDrops
from bigbox.engine.haloes import SECONDS_BETWEEN_SAVES, Haloes
from bigbox.engine.loop import Engine
from bigbox.engine.mpi import World, abort_on_error, join_world
from bigbox.engine.overlaps import Overlaps
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.tally import describe, summary
from bigbox.engine.workers import Threads
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.painters import HaloPainter, Painter
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.windows import Gate, Windows
from bigbox.store.blocks import BlockReader
from bigbox.store.box import Box
from bigbox.store.haloes import BLOCK, HaloPainting, HaloReader, halo_state, start_haloes
from bigbox.store.painting import Painting
from bigbox.store.shards import DamagedBlock, DamagedTile

__all__ = ["PaintOptions", "make_engine", "paint"]

# Limits of what one rank keeps in hand; bigbox.plan adds them up.
OVERLAP_BYTES = 32 << 20
BLOCK_CACHE_BYTES = 128 << 20  # 125 blocks of 64³ hold the inputs of a brick of 8³ tiles
WINDOW_CACHE_BYTES = 64 << 20  # of dm, for windows: neighbours share nearly all of it
SUM_BYTES = 256 << 20  # 256 blocks of 32³ and 4 channels: beyond it sums go to the disk
TILES_AT_A_TIME = 1 << 17
STOP_FILE = "STOP"


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
    named = world.first(lambda: options.open())
    options = replace(options, box=named.path, realization=named.realization)
    threads = options.threads or max(1, int(world.cores))
    bricks = world.first(lambda: bricks_of(options, world.size))
    world.first(lambda: check_model(options))
    tiling = bricks.tiling
    assignment = Assignment(bricks, world.size)
    device = world.each(lambda: device_of(options, world, threads))
    painter = world.each(lambda: painter_of(options, tiling, device, threads))
    haloes = None
    if painter.input == "halo" and world.first(lambda: paints_haloes(options.open())):
        haloes = world.each(lambda: halo_painter_of(options, device, threads))
    for one in (painter, haloes) if haloes else (painter,):
        check_alike(world.gather(one.identity()))
        if world.rank == 0 and (why := getattr(one, "why_not_compiled", "")):
            print(f"{one.name} paints uncompiled: {why}", file=sys.stderr)
    windows = None
    if haloes:
        shape = tiling.shape
        windows = world.each(lambda: Windows(shape, haloes.window, haloes.stride, BLOCK))

    def start() -> tuple[int, int, dict[str, Any]]:
        box = options.open("r+")
        discard(options, box, painter, haloes, tiling)
        identity = identity_of(box, painter, haloes)
        told: dict[str, Any] = {"n_ranks": world.size, "device": device}

        def begin(check: bool) -> tuple[int, int]:
            halo_epoch = 0
            if haloes and windows and not haloes_done(box, haloes):
                halo_epoch = start_haloes(box, haloes, windows, check=check, **told)
            steps = painter.fields - 1
            return halo_epoch, Painting.start_run(
                box, identity, tiling, bricks, n_steps=steps, check=check, **told
            )

        begin(check=True)  # both, so that nothing is written where one of them is refused
        return *begin(check=False), identity

    halo_epoch, epoch, identity = world.first(start)

    def join() -> tuple[HaloPainting | None, Painting]:
        box = options.open("r+")
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
        box=options.open(),
        transport=world.transport(),
        batch=options.batch or painter.batch,
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
        stop.clear()
    if failures:
        raise failures[0]
    if stops and not complete:
        why = next((s for s in stops if s != "another rank"), stops[0])
        left = tiling.size - already - report["tiles"]
        windows = world.first(lambda: halo_painting.windows_left() if halo_painting else 0)
        rest = f" and {windows} windows of haloes" if windows else ""
        raise StoppedEarly(
            f"stopped by {why} with {left} of {tiling.size} tiles{rest} left; everything painted "
            "is safe, the same command goes on from here"
        )
    world.first(lambda: halo_painting.finish() if halo_painting else None)
    world.first(painting.finish)
    if options.drop_latents:
        world.first(painting.drop_latents)
    if world.rank == 0 and not options.quiet:
        print(describe(report, painting.box.place), file=sys.stderr)
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
    seconds_between_saves: float = SECONDS_BETWEEN_SAVES,
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
        gate = Gate(tiling, windows, painter.margin, halo_painting.final.copy())
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
            seconds_between_saves,
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


def _marked(damage: DamagedTile, haloes: bool) -> BigboxError:
    """What a damaged tile or block comes to once it is marked in a ledger."""
    if isinstance(damage, DamagedBlock) and not haloes:
        return BadInput(f"{damage}; bigbox verify marks it, and the same command paints it again")
    return StoppedEarly(f"{damage}; it is marked: the same command paints it again")
