"""Resolve a painting once: box, tiling, painters, identities, ledgers; then one rank's hand on it.

Rank 0 looks at the ledgers and begins the runs (`Prepared`). What it finds goes to all ranks, so
that the ledger of a box is read once, however many ranks there are. Each rank then has a `Job`: all
that the tasks of the loop need.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from bigbox.engine.latents import assignment_of
from bigbox.engine.limits import Limits
from bigbox.engine.loop import Loop
from bigbox.engine.monitor import Monitor
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.task import Task
from bigbox.engine.transport import Transport
from bigbox.engine.windows import WindowTask
from bigbox.engine.workers import Threads, Workers
from bigbox.errors import BadInput, BigboxError, Busy, StoppedEarly
from bigbox.extensions import load
from bigbox.painters import HaloPainter, Painter
from bigbox.painters.models import Choice
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.meeting import Gate
from bigbox.scheduler.orders import tile_gate
from bigbox.scheduler.region import Region, tiles_needed
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.discard import discard as throw_away
from bigbox.store.durable import DISK, Disk
from bigbox.store.fields import HALO, PAINTED, STEPS, output_field
from bigbox.store.haloes import (
    BegunHaloes,
    HaloPainting,
    HaloReader,
    HaloStart,
    windows_done,
)
from bigbox.store.layouts import HaloLayout, Layout, LayoutT, PaintLayout
from bigbox.store.lease import LINGER, holder
from bigbox.store.mend import mend
from bigbox.store.painting import BegunPainting, Painting, PaintStart
from bigbox.store.recorded import Recorded, haloes_of, has_given_haloes, painting_of
from bigbox.store.run import Begun, first_difference, refuse_others
from bigbox.store.shards import DamagedChunk
from bigbox.store.watch import watch_path

# What an identity says of the machine: no longer of interest once all is painted.
LOG = logging.getLogger(__name__)
HOW = ("device", "dtype", "together", "compiled")


@dataclass(frozen=True)
class PaintSpec:
    """What is to be painted: the same on every rank."""

    layout: PaintLayout  # tiles, bricks, and fields
    painter: Painter  # of tiles
    haloes: HaloPainter | None = None  # None where the box has them, or they are of no interest
    halo_layout: HaloLayout | None = None
    batch: int = 16  # tiles
    colouring: str = "levels"  # order of the tiles
    task: str = "bigbox.engine.tiles:TileTask"  # that paints tiles, as the overlap method names it
    region: Region | None = None  # that is painted; None: the whole box
    model: Choice | None = None  # of trained networks
    haloes_only: bool = False  # no tb

    def assignment(self, n_ranks: int, limits: Limits) -> Assignment:
        """Return who paints what."""
        steps = getattr(self.painter, "steps", 0)
        return assignment_of(self.layout.bricks, n_ranks, steps, limits.latent_bytes)


@dataclass(frozen=True)
class Prepared:
    """What rank 0 has found and begun, for all ranks."""

    painting: BegunPainting | None  # None where haloes alone are painted
    haloes: BegunHaloes | None = None  # None where all are there
    halo_found: Recorded[HaloLayout] | None = None  # where bigbox has painted all of them


def whole_haloes(
    spec: PaintSpec, found: Recorded[HaloLayout] | None
) -> Recorded[HaloLayout] | None:
    """Return the ledger of haloes that are all there, and this painter's; None of others.

    Once all are there it no longer matters on what kind of device they were made.
    """
    if found is None or spec.haloes is None or not found.complete:
        return None
    return found if _is_of(found, spec.haloes.identity(), but=HOW) else None


def identity_of(spec: PaintSpec, box: Box, whole: Recorded[HaloLayout] | None) -> dict[str, Any]:
    """Return what decides the bytes of tb: the painter, and where its haloes are from.

    whole: the ledger of haloes that are all there.
    """
    identity = spec.painter.identity()
    if spec.haloes is not None:
        identity["halo"] = whole.identity if whole else spec.haloes.identity()
    elif spec.painter.input == HALO.name:
        source = box.require(HALO.name).attrs.get("source", "unknown")
        identity["halo"] = {"source": str(source)}
    return identity


class HaloesUnderWay(Busy):
    """Another run paints the haloes that this one needs, and not the tb that it is to paint."""


def prepare(
    spec: PaintSpec,
    box: Box,
    *,
    n_ranks: int = 1,
    device: str = "",
    discard: bool = False,
    discard_halo: bool = False,
    disk: Disk = DISK,
    linger: float = LINGER,
) -> Prepared:
    """Begin the runs of a painting, for rank 0 alone; nothing is written where one is refused.

    discard, discard_halo: throw away what is painted, but not what this very command has begun: a
    job that is requeued with its command line keeps what it painted before. Raises BadInput;
    HaloesUnderWay where there is something to wait for, and Busy where another run paints the same.
    """
    found = None
    if spec.haloes is not None or discard_halo:
        found = haloes_of(box, giving_up=discard_halo)
    given_up = _given_up(spec, box, found, discard_halo) if discard or discard_halo else []
    if given_up and not any(kind is HaloLayout for _, kind in given_up):
        _halo_start(spec, box, found)  # refused before anything has gone
    throw_away(given_up, disk=disk, linger=linger)
    found = haloes_of(box) if discard_halo else found
    if spec.haloes is not None and found and _is_of(found, spec.haloes.identity(), but=HOW):
        found = _mended(found, lambda: haloes_of(box), disk, linger)
    about = {"n_ranks": n_ranks, "device": device}
    if spec.haloes_only:
        whole, halo_start = _halo_start(spec, box, found)
        haloes = _begin_haloes(spec, halo_start, disk, about, linger)
        return Prepared(None, haloes, whole)
    painted = painting_of(box)
    identity = identity_of(spec, box, whole_haloes(spec, found))
    if painted and _is_of(painted, identity):
        painted = _mended(painted, lambda: painting_of(box), disk, linger)
    whole, halo_start = _halo_start(spec, box, found)
    start = PaintStart(box, spec.layout, identity_of(spec, box, whole), painted)
    start.check()  # both, so that nothing is written where one of them is refused
    try:
        haloes = _begin_haloes(spec, halo_start, disk, about, linger)
    except Busy as busy:
        at_work = holder(start.ledger) if start.ledger.path.exists() else {}
        if all(at_work.get(key) == busy.holder.get(key) for key in ("host", "pid")):
            raise  # one run, which paints this tb too
        raise HaloesUnderWay(str(busy), busy.holder) from busy
    try:
        # Few painters say more of tb.
        attributes = getattr(spec.painter, "attributes", dict)() | _forced(spec)
        painting = cast(BegunPainting, start.begin(disk, about, attributes, linger))
        return Prepared(painting, haloes, whole)
    except BaseException:
        _let_go(haloes)
        raise


def _is_of(found: Recorded[Any], identity: dict[str, Any], but: Container[str] = ()) -> bool:
    """Return whether a painting has this identity, all but some keys of it."""
    one, other = (
        {key: value for key, value in each.items() if key not in but}
        for each in (found.identity, json.loads(json.dumps(identity)))
    )
    return first_difference("", one, other) is None


def _mended(
    found: Recorded[LayoutT],
    again: Callable[[], Recorded[LayoutT] | None],
    disk: Disk,
    linger: float,
) -> Recorded[LayoutT] | None:
    """Return a painting as its ledger has it when what it has lost is taken back, and say so."""
    if not (lines := mend(found, disk=disk, linger=linger)):
        return found
    for line in lines:
        LOG.warning("%s", line)
    return again()


def _halo_start(
    spec: PaintSpec, box: Box, found: Recorded[HaloLayout] | None
) -> tuple[Recorded[HaloLayout] | None, HaloStart | None]:
    """Return the ledger of haloes that are all there, else the start of a run that paints them.

    found: what their ledger says. Raises BadInput where the run would be refused.
    """
    whole = whole_haloes(spec, found)
    if spec.haloes is not None and spec.halo_layout is not None and whole is None:
        start = HaloStart(box, spec.halo_layout, spec.haloes.identity(), found)
        start.check()
        return None, start
    if spec.painter.input:
        box.steps_between(spec.painter.input, spec.layout.grid)
    return whole, None


def _begin_haloes(
    spec: PaintSpec, start: HaloStart | None, disk: Disk, about: dict[str, Any], linger: float
) -> BegunHaloes | None:
    """Begin the run that paints the haloes; None where they are all there."""
    if start is None or spec.haloes is None:
        return None
    attributes = spec.haloes.attributes() | _forced(spec)
    return cast(BegunHaloes, start.begin(disk, about, attributes, linger))


def _forced(spec: PaintSpec) -> dict[str, Any]:
    """Return what arrays say of a model that paints what it does not know."""
    return {"forced": spec.model.forced} if spec.model and spec.model.forced else {}


def _let_go(begun: Begun[Any] | None) -> None:
    if begun is not None and begun.lease is not None:
        begun.lease.close()


def _given_up(
    spec: PaintSpec, box: Box, found: Recorded[HaloLayout] | None, discard_halo: bool
) -> list[tuple[Box, type[Layout]]]:
    """Return the paintings to be thrown away. Raises BadInput where the new one would be refused.

    found: the haloes' ledger, None where it is damaged too.
    """
    if spec.haloes_only and found is not None and spec.haloes is not None and not found.complete:
        if _is_of(found, spec.haloes.identity()):
            return []
    painted = painting_of(box, giving_up=True)
    if painted is not None and not painted.complete and not spec.haloes_only:
        same = _is_of(painted, identity_of(spec, box, whole_haloes(spec, found)))
        # Their ledger is damaged: it goes, whoever began what is painted on them.
        damaged = discard_halo and found is None and spec.haloes is not None
        if same and painted.layout.tiling == spec.layout.tiling and not damaged:
            return []
    refuse_others(box.place, spec.layout.arrays())
    if not discard_halo:
        return [(box, PaintLayout)]
    if has_given_haloes(box):
        raise BadInput(f"{box.path}/halo: was not painted by bigbox and is never discarded")
    boxes = [Box.open(box.path, "r+", realization) for realization in (0, *box.realizations())]
    on_them = [
        one
        for one in boxes
        if one.realization == box.realization
        or (
            found
            and (run := painting_of(one, giving_up=True))
            and run.identity.get("halo") == found.identity
        )
    ]
    return [*((one, PaintLayout) for one in on_them), (box, HaloLayout)]


class Job:
    """One rank's hand on a painting: all that its tasks need.

    `prepared` is not kept: what the ledgers say is packed by those who need it.
    """

    def __init__(
        self,
        box: Box,
        spec: PaintSpec,
        prepared: Prepared,
        rank: int = 0,
        n_ranks: int = 1,
        disk: Disk = DISK,
        limits: Limits | None = None,
    ) -> None:
        self.box, self.spec, self.rank, self.limits = box, spec, rank, limits or Limits()
        self.assignment = spec.assignment(n_ranks, self.limits)
        self.tiling = self.assignment.tiling
        done = np.zeros(self.tiling.size, bool)
        if prepared.painting is not None:
            done = prepared.painting.state.done[0]
        # Tiles that are to be finished, bool (tiles,); None: all.
        self.wanted = spec.region.tiles(self.tiling) if spec.region else None
        self.total = self.tiling.size if self.wanted is None else int(self.wanted.sum())
        self.already = int((done if self.wanted is None else done & self.wanted).sum())
        self.halo_painting: HaloPainting | None = None
        self.monitor: Monitor | None = None
        try:
            if (haloes := prepared.haloes) is not None:
                self.halo_painting = HaloPainting(box, haloes, self.assignment, rank, disk)
                if self.wanted is not None:
                    steps = getattr(spec.painter, "steps", 1)
                    tiles = np.flatnonzero(tiles_needed(self.tiling, self.wanted, done, steps))
                    self.halo_painting.only_under(self.tiling.grown(spec.painter.margin), tiles)
            self._painting: Painting | None = None
            if (begun := prepared.painting) is not None:
                self._painting = Painting(box, begun, rank, n_ranks, disk, self.assignment)
            self._blocks = self.halo_painting.reader if self.halo_painting is not None else None
            if prepared.halo_found is not None:
                self._blocks = prepared.halo_found.reader()
        except BaseException:
            if self.halo_painting is not None:
                self.halo_painting.close()
            if rank == 0:
                _let_go(prepared.haloes)
                _let_go(prepared.painting)
            raise

    @property
    def painting(self) -> Painting:
        """The handle of this rank on the painting of tb. Not to be asked for with haloes alone."""
        assert self._painting is not None
        return self._painting

    @property
    def hands(self) -> list[Painting | HaloPainting]:
        """The handles of this rank on what is painted."""
        return [one for one in (self._painting, self.halo_painting) if one is not None]

    def reader(self, name: str) -> CutoutReader:
        """Return a reader of an array of the box on the painting grid.

        Of haloes also while they are painted.
        """
        cache = self.limits.block_cache_bytes
        if name == HALO.name and self._blocks is not None:
            return HaloReader(self.box, self._blocks, cache)
        step = self.box.steps_between(name, self.spec.layout.grid)
        return CutoutReader(self.box.array(name), self.tiling.periodic, cache, step)

    def gate(self) -> Gate | None:
        """Return which tiles have all haloes under them; None where the haloes are all there."""
        if self.halo_painting is None:
            return None
        blocks, margin = self.halo_painting.layout.windows.blocks, self.spec.painter.margin
        final = self.halo_painting.was_done(HALO.name)
        return tile_gate(self.assignment, self.rank, margin, blocks, final)

    def tasks(self) -> list[Task]:
        """Return this rank's kinds of work, those that wait for nothing first."""
        found: list[Task] = []
        if self.halo_painting is not None and self.spec.haloes is not None:
            found.append(WindowTask(self, self.spec.haloes, self.halo_painting))
        if self.spec.haloes_only:
            return found
        found.append(self.tile_task())
        for name in self.spec.layout.fields:
            found.append(load(output_field(name).task)(self, name))
        return found

    def tile_task(self) -> Task:
        """Return the task that paints tiles."""
        task: Task = load(self.spec.task)(self)
        return task

    def loop(
        self,
        transport: Transport,
        stop: StopRequest,
        workers: Workers | None = None,
        show: bool = False,
        seconds_between_polls: float = 0.002,
        watched: bool = False,
    ) -> Loop:
        """Return the loop over this rank's tasks. watched: rank 0 writes down how all get on."""
        tasks = self.tasks()
        goals = [task.goal for task in tasks]
        if watched and self.rank == 0 and self.hands:
            ledger, epoch = self.hands[0].ledger, self.hands[0].epoch
            self.monitor = Monitor(watch_path(ledger, epoch), epoch, goals, transport.size)
        note = self.monitor.note if self.monitor is not None else None
        return Loop(
            tasks,
            transport,
            workers or Threads(),
            stop,
            Progress(goals, transport.size, show, note),
            on_damage=self.take_back,
            streams=self.spec.painter.streams,
            full_speed_streams=self.spec.painter.full_speed_streams,
            seconds_between_polls=seconds_between_polls,
        )

    def windows_left(self) -> int:
        """Return the windows that a run that begins after this one has to predict."""
        if self.halo_painting is None or (found := haloes_of(self.box)) is None:
            return 0
        return windows_done(found).left()

    def take_back(self, damage: DamagedChunk) -> None:
        """Mark a damaged chunk, so that the next run makes it again."""
        name = PAINTED.name if damage.array == STEPS.name else damage.array
        for painting in self.hands:
            if name in painting.names:
                painting.revoke({name: [damage.chunk]})

    def outcome_of(self, failure: BigboxError | None) -> BigboxError | None:
        """Return the error that ends a run; haloes of an earlier run stay as they are."""
        if not isinstance(failure, DamagedChunk):
            return failure
        if failure.array != HALO.name or self.halo_painting is not None:
            return StoppedEarly(f"{failure}; it is marked: the same command paints it again")
        return BadInput(f"{failure}; bigbox verify marks it, and the same command paints it again")

    def finish(self) -> None:
        """Check and note that all is done, for rank 0; of a region that leaves some, nothing."""
        part = self.wanted is not None and not self.wanted.all()
        if part and not all(hand.all_recorded() for hand in self.hands[:1]):
            return
        for hand in reversed(self.hands):
            hand.finish()

    def close(self) -> None:
        """Close every file and let go of the leases."""
        for hand in self.hands:
            hand.close()
