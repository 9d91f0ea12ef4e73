"""Run one pass of the engine's loop: receive, collect, hand out. The same on 1 rank or on 4096.

::

    task ─next batch─► load ──────► compute ─────► store ────────► announce
    (the first that    (a thread)   the device     data, then      to the ranks that wait,
     has something)                                ledger records  and to all tasks here

The loop knows no kinds of work: windows of haloes, tiles and shards of tb are all tasks (see
`bigbox.engine.task`), and what one makes final is what another waits for.

Its own thread never blocks: it speaks with the other ranks, feeds the tasks' orders and passes work
on. One batch is loaded while one is computed (two on a GPU, one computing while the other's voxels
come and go; one on each of several cores) and a few are being stored.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.tally import Tally
from bigbox.engine.task import Task
from bigbox.engine.transport import Kind, Message, Transport
from bigbox.engine.workers import Workers
from bigbox.errors import BigboxError, of_system
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.orders import Outcome, next_work
from bigbox.store.shards import DamagedChunk

LONGEST_PAUSE = 0.05  # seconds in which no message of another rank is received
_NO_UNITS = np.empty(0, np.int64)


@dataclass
class _Job:
    """Units of a task on their way; none where another rank's mail or a chore is dealt with."""

    task: Task
    units: Ints
    future: Future[Any]


class Loop:
    """One rank of a painting. `run` goes on until everything is done or a stop is asked for.

    Parameters
    ----------
    tasks : kinds of work, those that wait for nothing first; the same on every rank.
    transport : how ranks speak.
    workers : who does the slow work.
    stop : asked once a pass whether to stop.
    progress : shows how far all ranks are.
    on_damage : takes back a stored chunk that was found damaged, so that the next run makes it.
    streams : batches on the device side by side.
    full_speed_streams : of these, how many it works on at full speed.
    seconds_between_polls : the least pause of a rank that has nothing to do.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        transport: Transport,
        workers: Workers,
        stop: StopRequest,
        progress: Progress,
        *,
        on_damage: Callable[[DamagedChunk], None] = lambda damage: None,
        streams: int = 1,
        full_speed_streams: int = 1,
        seconds_between_polls: float = 0.002,
    ) -> None:
        self.tasks, self.transport, self.workers = list(tasks), transport, workers
        self.rank = transport.rank
        self.stop, self.progress = stop, progress
        self.tally = Tally(full_speed_streams=full_speed_streams)
        self.failure: BigboxError | None = None
        self.stopping = ""
        self._on_damage = on_damage
        self._streams, self._full_speed = streams, full_speed_streams
        self._between_polls = seconds_between_polls
        self._device = [task for task in self.tasks if task.on_device]
        self._loading: _Job | None = None
        self._computing: dict[int, _Job] = {}  # by stream
        self._storing: dict[Task, deque[_Job]] = {task: deque() for task in self.tasks}
        self._reported = self._began = 0.0
        self._closing = False

    def run(self) -> Tally:
        """Pass until this rank, and then every rank, has finished or stopped."""
        self._began = time.monotonic()
        finished = False
        while not finished:
            if not self.one_pass():
                self.workers.wait(self._pause())
            if self.idle() and not self._closing:
                self._report(final=True)
                # From here on this rank sends nothing, so nothing is under way when all have come
                # as far.
                self._closing = True
            finished = self._closing and self.transport.sent() and self.transport.finished()
        self.workers.close()
        return self.tally

    def _pause(self) -> float:
        """Return the seconds until other ranks are listened to again.

        A hundredth of what a batch takes: a message comes in good time, and looking for it costs a
        painter on a CPU nothing. The end of a job here ends the pause.
        """
        if self.transport.size == 1:
            return LONGEST_PAUSE
        batch = self.tally.painting_s / max(1, self.tally.batches)
        return max(self._between_polls, min(LONGEST_PAUSE, batch / 100))

    def left(self) -> int:
        """Return how much this rank has not done."""
        storing = sum(map(len, self._storing.values()))
        return storing + sum(task.order.remaining for task in self.tasks)

    def idle(self) -> bool:
        """Return whether nothing is in flight, and nothing left to do (or a stop is asked for)."""
        busy = self._computing or any(self._storing.values())
        if self.stopping:
            loaded = self._loading is None or self._loading.future.done()
            return not busy and loaded and all(task.stopped for task in self.tasks)
        return not (busy or self._loading or self.left())

    def one_pass(self) -> bool:
        """Do everything that can be done without waiting, once; return whether anything was."""
        if not self._closing and not self.stopping and (why := self.stop.asked()):
            self._stop(why)
        moved = self._receive()
        moved |= self._collect_computed()
        for task in self.tasks:
            moved |= self._collect_stored(task)
        if not self.stopping:
            moved |= self._start_computing()
            moved |= self._start_loading()
            for task in self.tasks:
                moved |= self._start_without_device(task)
        if not self._closing:
            for task in self.tasks:
                busy = bool(self._storing[task]) or any(
                    job.task is task for job in self._computing.values()
                )
                if (chore := task.due(bool(self.stopping), busy)) is not None:
                    self._store(task, _NO_UNITS, chore)
            self._report()
        return moved

    # ---- other ranks -----------------------------------------------------------------------

    def _receive(self) -> bool:
        blocks = self.transport.poll()
        for block in blocks:
            message = Message.decode(block)
            task = self.tasks[message.task]
            if message.kind is Kind.STOP:
                self.stopping = self.stopping or "another rank"
            elif message.kind is Kind.PROGRESS:
                self.progress.update(*message.chunks.tolist())
            elif message.kind is Kind.FINAL:
                task.unpack(message.parcel)
                self._final(task.product, message.chunks)
            elif not (self.stopping and task.stopped):  # else it is lost
                self._store(task, _NO_UNITS, task.receive, message.chunks, message.parcel)
        return bool(blocks)

    def _settle(self, task: Task, outcome: Outcome) -> None:
        """Tell what came of a task's units to the ranks and the tasks that it concerns."""
        number = self.tasks.index(task)
        for mail in outcome.mail:
            self._send(mail.to, Message(Kind.MAIL, number, *mail.what))
        if not len(outcome.final):
            return
        self.tally.final[task.product] += len(outcome.final)
        concerned: dict[int, set[int]] = defaultdict(set)
        for one in self.tasks:
            rows, ranks = one.order.readers(task.product, outcome.final)
            for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
                concerned[rank].add(row)
        for rank in sorted(concerned):
            chunks = outcome.final[sorted(concerned[rank])]
            self._send(rank, Message(Kind.FINAL, number, chunks, task.parcel(rank, chunks)))
        self._final(task.product, outcome.final)

    def _final(self, product: str, chunks: Ints) -> None:
        for task in self.tasks:
            try:
                task.final(product, chunks)
            except BigboxError as error:  # stops all ranks instead of leaving them waiting
                self._fail(error)

    def _send(self, rank: int, message: Message) -> None:
        self.transport.send(rank, message.encode())

    def _stop(self, why: str) -> None:
        """Stop all ranks once what they have in flight is durable."""
        if self.stopping:
            return
        self.stopping = why
        if self._closing:  # all is done here; nothing is sent any more
            return
        for rank in set(range(self.transport.size)) - {self.rank}:
            self._send(rank, Message(Kind.STOP))

    def _report(self, final: bool = False) -> None:
        """Tell rank 0 how far this rank is, seldom enough that rank 0 is not flooded."""
        now = time.monotonic()
        if final or now - self._reported > max(0.5, self.transport.size / 500):
            self._reported = now
            busy = round(1000 * self.tally.painting_s)
            counts = [busy, *(self.tally.units[task.product] for task in self.tasks)]
            if self.rank == 0:
                self.progress.update(0, *counts)
            else:
                self._send(0, Message(Kind.PROGRESS, chunks=np.array([self.rank, *counts])))

    # ---- what has ended --------------------------------------------------------------------

    def _result(self, future: Future[Any]) -> tuple[bool, Any]:
        """Whether a job came to its end, and what it returned; a failure stops all ranks."""
        try:
            return True, future.result()
        except DamagedChunk as damage:
            self._fail(damage)
            try:
                self._on_damage(damage)
            except BigboxError as error:
                self._fail(error)
        except BigboxError as error:
            self._fail(error)
        except (OSError, MemoryError) as error:
            if (fault := of_system(error)) is None:
                raise
            self._fail(fault)
        return False, None

    def _fail(self, error: BigboxError) -> None:
        self.failure = self.failure or error
        self._stop("an error")

    def _collect_computed(self) -> bool:
        done = next((s for s, job in self._computing.items() if job.future.done()), None)
        if done is None:
            return False
        job = self._computing.pop(done)
        computed, result = self._result(job.future)
        if computed:
            job.task.computed(job.units, result)
            self._store(job.task, job.units, job.task.store, job.units, result)
        return True

    def _collect_stored(self, task: Task) -> bool:
        if not self._storing[task] or not self._storing[task][0].future.done():
            return False
        job = self._storing[task].popleft()
        stored, found = self._result(job.future)
        if stored:
            self.tally.units[task.product] += len(job.units)
            self._settle(task, task.stored(job.units, found))
        return True

    # ---- what can start --------------------------------------------------------------------

    def _store(self, task: Task, units: Ints, what: Callable[..., Any], *arguments: Any) -> None:
        """Have something done in the thread of a task's stores."""
        future = self.workers.submit(task.product, what, *arguments)
        self._storing[task].append(_Job(task, units, future))

    def _behind(self, task: Task) -> bool:
        return len(self._storing[task]) >= task.stores_waiting

    def _start_loading(self) -> bool:
        if self._loading is not None:
            return False
        # While a task is behind with storing, the next one may use the device.
        tasks = [t for t in self._device[:-1] if not self._behind(t)] + self._device[-1:]
        found = next_work(tasks, idle=len(self._computing) < self._full_speed)
        if found is None:
            return False
        task, units = found
        self._loading = _Job(task, units, self.workers.submit("load", task.load, units))
        return True

    def _start_computing(self) -> bool:
        job = self._loading
        if job is None or not job.future.done() or len(self._computing) >= self._streams:
            return False
        if self._behind(job.task):
            return False
        self._loading = None
        ready, loaded = self._result(job.future)
        if ready:
            # A queue for each of the batches that are computed side by side.
            stream = min(set(range(self._streams)) - set(self._computing))
            timed, compute = self.tally.timed, job.task.compute
            future = self.workers.submit(
                f"device {stream}", timed, self._began, compute, job.units, loaded
            )
            self._computing[stream] = _Job(job.task, job.units, future)
        return True

    def _start_without_device(self, task: Task) -> bool:
        if task.on_device or self._storing[task] or not len(units := task.next_batch(idle=True)):
            return False
        self._store(task, units, self._whole, task, units)
        return True

    @staticmethod
    def _whole(task: Task, units: Ints) -> Any:
        return task.store(units, task.compute(units, task.load(units)))
