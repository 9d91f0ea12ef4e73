"""Do the whole of `bigbox paint`: from the options to a painted box, on all ranks."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bigbox.diffusion.overlap import overlap_method
from bigbox.engine.agree import begun, same_box, same_run
from bigbox.engine.job import Job
from bigbox.engine.limits import limits_of
from bigbox.engine.log import log_end, log_no_more, log_to
from bigbox.engine.mpi import World, abort_on_error, join_world, ranks_of_job
from bigbox.engine.options import PaintOptions, check_alike, choose_networks, device_of
from bigbox.engine.outside import outside_range
from bigbox.engine.prepared import PaintSpec, Prepared, prepare
from bigbox.engine.stop import StopRequest
from bigbox.engine.tally import describe, summary
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.scheduler.region import Region
from bigbox.scheduler.windows import Windows
from bigbox.store.fields import HALO
from bigbox.store.layouts import BLOCK, HaloLayout, PaintLayout
from bigbox.store.recorded import has_given_haloes

LOG = logging.getLogger(__name__)
STOP_FILE = "STOP"


def paint(options: PaintOptions, stop: StopRequest | None = None) -> dict[str, Any]:
    """Paint a box, or go on with a painting that was stopped; return the report's numbers.

    stop: asked whether to stop, its signals installed already.

    Raises
    ------
    BadInput
        The box, the options or the machine cannot be used (on rank 0; other ranks end with the same
        exit status and say nothing).
    StoppedEarly
        A stop was asked for, damage was found, or another run is at work on the same: the same
        command goes on.
    """
    work = partial(_paint, options)
    return on_all_ranks(options.box, work, options.log, stop)


def on_all_ranks(
    box: Path,
    work: Callable[[World, StopRequest], dict[str, Any]],
    log: Path | None = None,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Join all ranks, listen for a stop, and do the work; log: where it is written. As `paint`."""
    stop = stop or StopRequest()
    world = join_world()
    stop.file = box / STOP_FILE if world.rank == 0 else None
    written = None
    try:
        with stop.listening():
            written = world.each(lambda: log_to(log, world.rank))
            return abort_on_error(world, lambda: work(world, stop))
    except BigboxError as error:
        log_end(written, error)
        if world.rank > 0:
            raise SystemExit(error.exit_status) from None
        raise
    finally:
        log_no_more(written)


def _paint(options: PaintOptions, world: World, stop: StopRequest) -> dict[str, Any]:
    world.first(options.check)
    named = world.first(lambda: options.open())
    same_box(world, named.path)
    options = replace(options, box=named.path, realization=named.realization)
    if world.rank == 0 and not options.quiet and world.size < (tasks := ranks_of_job()):
        LOG.info("painting on %d of the %d tasks of this job", world.size, tasks)
    if options.workers is not None:
        return _on_workers(options, world, stop)
    job = _begin(options, world, stop)
    if job is None:
        return {}
    began = {
        "event": "begin",
        "box": str(job.box.place),
        "run": max((hand.epoch for hand in job.hands[:1]), default=0),
    }
    began |= {"ranks": world.size, "tiles": job.total, "already": job.already}
    LOG.info("painting begins", extra={"data": began})
    try:
        report = run_job(world, stop, job, quiet=options.quiet, drop_latents=options.drop_latents)
        done = {"event": "end", "status": 0, **report}
        LOG.info("painting ends", extra={"data": done})
        return report
    finally:
        job.close()


def _on_workers(options: PaintOptions, world: World, stop: StopRequest) -> dict[str, Any]:
    """Have workers of dask paint regions; this process hands them out."""
    from bigbox.engine.elastic import check_can_be_shared, paint_on_workers

    if world.size > 1:
        raise BadInput(f"--workers is for one rank, this run has {world.size}: leave out mpirun")
    check_can_be_shared(options)

    def begin(mine: PaintOptions) -> Job:
        job = _begin(mine, world, stop)
        assert job is not None  # haloes alone are refused with --workers
        return job

    report = paint_on_workers(options, stop, begin)
    if not options.quiet:
        LOG.info("%s", describe(report, options.box))
    return report


@contextmanager
def _watched(job: Job) -> Iterator[None]:
    """Have it written down how the run ended, where it is written down at all."""
    state, said = "done", ""
    try:
        yield
    except BaseException as error:
        state = "stopped" if isinstance(error, StoppedEarly) else "failed"
        said = str(error) or type(error).__name__
        raise
    finally:
        if job.monitor is not None:
            job.monitor.end(state, said)


def _begin(options: PaintOptions, world: World, stop: StopRequest) -> Job | None:
    """Agree on what is painted, begin it, and take this rank's hand on it.

    None where there are haloes, and nothing else is asked for.
    """
    threads = options.threads or max(1, int(world.cores))
    choice = world.first(lambda: choose_networks(options, options.open()))
    if choice is not None:
        options = replace(options, model=choice.folder)

    def look() -> tuple[PaintLayout, bool, Region | None]:
        box = options.open()
        layout = options.layout(box, world.size)
        return layout, not has_given_haloes(box), options.region_of(box, layout.tiling)

    layout, may_paint_haloes, region = world.first(look)
    device = world.each(lambda: device_of(options, world, threads))
    painter = world.each(lambda: options.painter_of(layout.tiling, device, threads))
    layout = replace(layout, n_steps=painter.fields - 1)
    haloes = halo_layout = None
    paints_haloes = painter.input == HALO.name and may_paint_haloes
    if options.haloes_only and not paints_haloes:
        return world.first(lambda: _no_haloes(options, painter.input))
    if paints_haloes:
        haloes = predictor = world.each(
            lambda: options.halo_painter_of(layout.tiling, device, threads)
        )

        def windows() -> Windows:
            return Windows(layout.tiling.shape, predictor.window, predictor.stride, BLOCK)

        halo_layout = HaloLayout.new(world.each(windows), haloes.channels, grid=layout.grid)
    for one in (painter, haloes) if haloes else (painter,):
        check_alike(world.gather(one.identity()))
        if world.rank == 0 and (why := getattr(one, "why_not_compiled", "")):
            LOG.warning("%s paints more slowly: %s", one.name, why)
    spec = PaintSpec(
        layout,
        painter,
        haloes,
        halo_layout,
        options.batch or painter.batch,
        options.colouring,
        overlap_method(options.method).task,
        region,
        choice,
        options.haloes_only,
    )
    if choice is not None and world.rank == 0 and not options.quiet:
        for line in choice.words():
            LOG.info("%s", line)

    def begin(linger: float) -> Prepared:
        return prepare(
            spec,
            options.open("r+"),
            n_ranks=world.size,
            device=device,
            discard=options.discard,
            discard_halo=options.discard_halo,
            linger=linger,
        )

    prepared = begun(world, stop, begin, world.rank == 0 and not options.quiet)
    same_run(world, options.box, options.realization, prepared)
    limits, place = limits_of(options.latent_memory), (world.rank, world.size)
    return world.each(lambda: Job(options.open("r+"), spec, prepared, *place, limits=limits))


def _no_haloes(options: PaintOptions, reads: str) -> None:
    """Say that there is nothing to do where the box has haloes that bigbox has not painted."""
    if reads != HALO.name:
        raise BadInput(f"--haloes-only: painter {options.painter} paints tb without haloes")
    if not options.quiet:
        words = "has haloes that were not painted by bigbox, nothing was left to do"
        LOG.info("%s %s", options.box, words)


def run_job(
    world: World, stop: StopRequest, job: Job, *, quiet: bool = False, drop_latents: bool = False
) -> dict[str, Any]:
    """Do a job's tasks to their end; return the report's numbers. Raises StoppedEarly."""
    with _watched(job):
        return _run(world, stop, job, quiet, drop_latents)


def _run(
    world: World, stop: StopRequest, job: Job, quiet: bool, drop_latents: bool
) -> dict[str, Any]:
    loop = job.loop(
        world.transport(),
        stop,
        show=world.rank == 0 and not quiet,
        watched=True,
        # Ranks that share a core look for messages less often, or looking is all they do.
        seconds_between_polls=0.002 * max(1.0, 1 / world.cores),
    )
    world.gather(0)  # all ranks begin together
    began = time.monotonic()
    try:
        tally = loop.run()
    except BigboxError:  # not agreed on with the other ranks, who would wait for this one
        traceback.print_exc()
        world.abort(1)
        raise
    loop.progress.close()
    seconds = time.monotonic() - began
    failures = [f for f in world.gather(job.outcome_of(loop.failure)) if f]
    stops = [s for s in world.gather(loop.stopping) if s]
    complete = not any(world.gather(loop.left()))
    already, total = job.already, job.total
    report = summary(world.gather(tally), already, total, seconds)
    if world.rank == 0:
        stop.clear()
    if failures:
        raise failures[0]
    if stops and not complete:
        why = next((s for s in stops if s != "another rank"), stops[0])
        tiles = f"{total - already - report['tiles']} of {total} tiles"
        windows = world.first(job.windows_left)
        left = [] if job.spec.haloes_only else [tiles]
        left += [f"{windows} windows of haloes"] if windows else []
        raise StoppedEarly(
            f"stopped by {why} with {' and '.join(left)} left; everything painted is safe, the same"
            " command goes on from here"
        )
    world.first(job.finish)
    outside = outside_range(job, world)
    if drop_latents:
        world.first(job.painting.drop_latents)
    if not job.spec.haloes_only and world.first(lambda: job.painting.all_recorded()):
        world.first(job.box.consolidate)
    if world.rank == 0 and not quiet:
        haloes_only = job.spec.haloes_only
        place = job.box.path if haloes_only else job.box.place
        LOG.info("%s", describe(report, place, haloes_only))
    if world.rank == 0 and outside:
        LOG.warning("%s: %s", job.box.place, outside)
    return report
