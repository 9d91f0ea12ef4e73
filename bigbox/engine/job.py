"""One rank's hand on a painting that is begun (`prepared.py`): all that the loop's tasks need."""

from __future__ import annotations

import numpy as np

from bigbox.engine.limits import Limits
from bigbox.engine.loop import Loop
from bigbox.engine.monitor import Monitor
from bigbox.engine.prepared import PaintSpec, Prepared, let_go
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.task import Task
from bigbox.engine.transport import Transport
from bigbox.engine.windows import WindowTask
from bigbox.engine.workers import Threads, Workers
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.extensions import load
from bigbox.scheduler.meeting import Gate
from bigbox.scheduler.orders import tile_gate
from bigbox.scheduler.region import tiles_needed
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.durable import DISK, Disk
from bigbox.store.fields import HALO, PAINTED, STEPS, output_field
from bigbox.store.haloes import (
    HaloPainting,
    HaloReader,
    windows_done,
)
from bigbox.store.painting import Painting
from bigbox.store.recorded import haloes_of
from bigbox.store.shards import DamagedChunk
from bigbox.store.watch import watch_path


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
                let_go(prepared.haloes)
                let_go(prepared.painting)
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
