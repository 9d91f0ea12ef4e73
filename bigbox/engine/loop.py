"""One pass of the engine's loop: receive, collect, hand out. The same loop on 1 rank or on 4096.

    policy ─next batch─► load ───► paint ───► commit ──────────► announce ──► assemble
             (thread:)   inputs,   the        data, then         slabs to     `tb` shards whose
                         slabs     device     ledger records     other ranks  tiles are all durable

    haloes ─next batch─► load ───► predict ─► add ─► tiles whose haloes are final may be painted
                         dm        the same   (see `bigbox.engine.haloes`; only where there are no
                                   device     haloes yet)

The device predicts haloes first: windows wait for nothing, so all ranks are busy until theirs are
done, and each then paints the tiles that it can. Tiles first would leave ranks waiting for windows
that others come to late: 18 % of the time on 64 ranks (`bigbox.scheduler.simulate`), against 1 %.

The engine's own thread never blocks: it speaks with the other ranks, feeds the policy and passes
work on. One batch is loaded while one is painted (two on a GPU, one computing while the other's
voxels come and go; one on each of several cores) and up to two are being committed. Other ranks are
told of a tile only when its record stands in the ledger, so whatever they build on it can never
outlive it.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigbox.engine.assembly import Assembly
from bigbox.engine.drops import StepDrops
from bigbox.engine.haloes import Haloes
from bigbox.engine.overlaps import Overlaps
from bigbox.engine.progress import Progress
from bigbox.engine.stop import StopRequest
from bigbox.engine.tally import Tally
from bigbox.engine.transport import Kind, Message, Slab, Transport, decode
from bigbox.engine.workers import Workers
from bigbox.errors import BigboxError
from bigbox.painters.base import Painter, TileBatch
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.stages import predecessors
from bigbox.scheduler.tiling import Tiling
from bigbox.store.blocks import BlockReader
from bigbox.store.haloes import HaloPainting
from bigbox.store.painting import Painting
from bigbox.store.shards import DamagedBlock, DamagedTile

# Batches that may wait for the disk before painting pauses: bounds the memory of write-behind.
COMMITS_WAITING = 2
LONGEST_PAUSE = 0.05  # seconds in which no message of another rank is received


@dataclass
class _Batch:
    """A batch on its way: what was painted, and what is owed to other ranks once it is durable.

    Where it is one of windows, `tiles` are these.
    """

    tiles: np.ndarray
    future: Future[Any]
    windows: bool = False
    owed: dict[int, list[Slab]] = field(default_factory=lambda: defaultdict(list))


class Engine:
    """One rank of a painting. `run` goes on until everything is done or a stop is asked for."""

    def __init__(
        self,
        *,
        tiling: Tiling,
        assignment: Assignment,
        rank: int,
        policy: Policy,
        painter: Painter,
        painting: Painting,
        reader: BlockReader | None,
        overlaps: Overlaps,
        assembly: Assembly,
        transport: Transport,
        workers: Workers,
        batch: int,
        stop: StopRequest,
        progress: Progress,
        seconds_between_polls: float = 0.002,
        drops: StepDrops | None = None,
        haloes: Haloes | None = None,
    ):
        self.tiling, self.assignment, self.rank = tiling, assignment, rank
        self.policy, self.painter, self.painting = policy, painter, painting
        self.reader, self.overlaps, self.assembly = reader, overlaps, assembly
        self.transport, self.workers, self.batch = transport, workers, batch
        self.stop, self.progress = stop, progress
        self.tally = Tally(parallel=painter.parallel)
        self.failure: BigboxError | None = None
        self.stopping = ""
        self._between_polls = seconds_between_polls
        self._drops = drops
        self.haloes = haloes
        self._loading: _Batch | None = None
        self._painting: dict[int, _Batch] = {}  # by slot
        self._committing: deque[_Batch] = deque()
        self._assembling: tuple[int, Future[Any]] | None = None
        self._commit_error: BigboxError | None = None
        self._told = self._began = 0.0
        self._closing = False

    def run(self) -> Tally:
        """Passes until this rank, and then every rank, has finished or stopped."""
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
        """Seconds until other ranks are listened to again: a hundredth of what a batch takes, so
        that a message comes in good time and looking for it costs a painter on a CPU nothing. The
        end of a job here ends the pause."""
        if self.transport.size == 1:
            return LONGEST_PAUSE
        batch = self.tally.painting_s / max(1, self.tally.batches)
        return max(self._between_polls, min(LONGEST_PAUSE, batch / 100))

    def left(self) -> int:
        """Tiles, shards of `tb`, windows and blocks of haloes that this rank has not done."""
        haloes = self.haloes.left if self.haloes else 0
        return self.policy.remaining + self.assembly.remaining + len(self._committing) + haloes

    def idle(self) -> bool:
        """Nothing in flight, and nothing left to do (or a stop is asked for)."""
        adding = self.haloes is not None and self.haloes.busy
        busy = self._painting or self._committing or self._assembling or adding
        if self.stopping:
            loaded = self._loading is None or self._loading.future.done()
            return not busy and loaded and (self.haloes is None or self.haloes.saved_last)
        return not (busy or self._loading or self.left())

    def one_pass(self) -> bool:
        """Everything that can be done without waiting, once; True if anything was."""
        if not self._closing:
            self._look_for_stop()
        moved = self._receive()
        moved |= self._collect_painted()
        moved |= self._collect_committed()
        moved |= self._collect_assembled()
        moved |= self._collect_added()
        if not self.stopping:
            moved |= self._start_painting()
            moved |= self._start_loading()
            moved |= self._start_assembling()
        if self.haloes and not self._closing:
            self.haloes.save_when_due(bool(self.stopping), bool(self._painting))
        if not self._closing:
            self._report()
        return moved

    # ---- other ranks -----------------------------------------------------------------------

    def _receive(self) -> bool:
        blocks = self.transport.poll()
        for block in blocks:
            message = decode(block, self.overlaps.slab_shape)
            if message.kind is Kind.STOP:
                self.stopping = self.stopping or "another rank"
            elif message.kind is Kind.PROGRESS:
                self.progress.update(*message.tiles.tolist())
            elif message.kind is Kind.HALO:
                self._halo_final(message.tiles)
            elif message.kind is Kind.SUMS:
                if self.haloes and not self.haloes.saved_last:  # else it is lost
                    self.haloes.receive(message)
            else:
                self.overlaps.keep(message.slabs, durable=True)
                self.policy.arrived(message.tiles)
                self._durable_somewhere(message.tiles)
        return bool(blocks)

    def _durable_somewhere(self, tiles: np.ndarray) -> None:
        self.assembly.done(tiles)
        if self._drops:
            self._guarded(self._drops.done, tiles)

    def _halo_final(self, blocks: np.ndarray) -> None:
        if self.haloes:
            self.policy.opened(self.haloes.final(blocks))

    def _announce(self, done: _Batch) -> None:
        """Tells every rank that waits for these tiles, with the slabs that it needs."""
        concerned: dict[int, set[int]] = defaultdict(set)
        rows, readers = self.policy.readers(done.tiles)
        for tile, rank in zip(done.tiles[rows].tolist(), readers.tolist(), strict=True):
            concerned[rank].add(tile)
        groups = [self.assembly.writers(done.tiles)]
        if self._drops:
            before = predecessors(self.tiling, done.tiles)
            groups.append(np.where(before >= 0, self.assignment.rank_of(np.maximum(before, 0)), -1))
        for tile, ranks in zip(done.tiles.tolist(), np.hstack(groups).tolist(), strict=True):
            for rank in set(ranks) - {-1, self.rank}:
                concerned[rank].add(tile)
        for rank in sorted(concerned):
            tiles = np.array(sorted(concerned[rank]), dtype=np.int64)
            message = Message(Kind.DONE, tiles, done.owed.get(rank, []))
            self.transport.send(rank, message.encode())

    def _look_for_stop(self) -> None:
        if not self.stopping and (why := self.stop.asked()):
            self._stop(why)

    def _stop(self, why: str) -> None:
        """Stops all ranks once what they have in flight is durable."""
        if self.stopping:
            return
        self.stopping = why
        if self._closing:  # all is done here; nothing is sent any more
            return
        for rank in set(range(self.transport.size)) - {self.rank}:
            self.transport.send(rank, Message(Kind.STOP, np.array([], np.int64)).encode())

    def _report(self, final: bool = False) -> None:
        """Tells rank 0 how far this rank is, seldom enough that rank 0 is not flooded."""
        now = time.monotonic()
        if final or now - self._told > max(0.5, self.transport.size / 500):
            self._told = now
            if self.rank == 0:
                self.progress.update(0, self.tally.tiles, self.tally.windows)
            else:
                counts = np.array([self.rank, self.tally.tiles, self.tally.windows], np.int64)
                self.transport.send(0, Message(Kind.PROGRESS, counts).encode())

    # ---- what has ended --------------------------------------------------------------------

    def _result(self, future: Future[Any]) -> tuple[bool, Any]:
        """Whether a job came to its end, and what it returned; a failure stops all ranks."""
        try:
            return True, future.result()
        except DamagedTile as damage:
            self._fail(damage)
            what: Painting | HaloPainting | None = self.painting
            if isinstance(damage, DamagedBlock):
                what = self.haloes.painting if self.haloes else None
            if what:
                self._guarded(what.revoke, np.array([damage.tile]))
        except BigboxError as error:
            self._fail(error)
        return False, None

    def _guarded(self, what: Callable[..., Any], *args: Any) -> None:
        """Does it in this thread; a failure stops all ranks instead of leaving them waiting."""
        try:
            what(*args)
        except BigboxError as error:
            self._fail(error)

    def _fail(self, error: BigboxError) -> None:
        self.failure = self.failure or error
        self._stop("an error")

    def _collect_painted(self) -> bool:
        done = next((s for s, b in self._painting.items() if b.future.done()), None)
        if done is None:
            return False
        batch = self._painting.pop(done)
        painted, fields = self._result(batch.future)
        if painted and batch.windows and self.haloes:
            self.haloes.add(batch.tiles, fields)
        elif painted:
            mine = []
            waiting, slabs = self.overlaps.cut(batch.tiles, fields)
            for rank, slab in zip(self.assignment.rank_of(waiting).tolist(), slabs, strict=True):
                if rank == self.rank:
                    mine.append(slab)
                else:
                    batch.owed[rank].append(slab)
            self.overlaps.keep(mine, durable=False)
            self.policy.done(batch.tiles)
            batch.future = self.workers.submit("commit", self._commit, batch.tiles, fields)
            self._committing.append(batch)
        return True

    def _collect_committed(self) -> bool:
        if not self._committing or not self._committing[0].future.done():
            return False
        batch = self._committing.popleft()
        committed, _ = self._result(batch.future)
        if committed:
            self.tally.tiles += len(batch.tiles)
            self.overlaps.now_durable(batch.tiles)
            self._announce(batch)
            self._durable_somewhere(batch.tiles)
        return True

    def _collect_assembled(self) -> bool:
        if self._assembling is None or not self._assembling[1].done():
            return False
        assembled, _ = self._result(self._assembling[1])
        self._assembling = None
        if assembled:
            self.assembly.written()
            self.tally.shards += 1
        return True

    def _collect_added(self) -> bool:
        if self.haloes is None or (future := self.haloes.added()) is None:
            return False
        added, outcome = self._result(future)
        if added:
            self.tally.windows += outcome.windows
            self.haloes.blocks_left -= len(outcome.final)
            for rank, message in self.haloes.messages(outcome):
                self.transport.send(rank, message.encode())
            self._halo_final(np.array(outcome.final, np.int64))
        return True

    # ---- what can start --------------------------------------------------------------------

    def _start_loading(self) -> bool:
        if self._loading is not None:
            return False
        if self.haloes and not self.haloes.behind and len(windows := self.haloes.next_batch()):
            future = self.workers.submit("load", self.haloes.load, windows)
            self._loading = _Batch(windows, future, windows=True)
            return True
        # A batch that is not full would waste a device that has others to work on: the tiles under
        # way may soon make it full.
        idle = len(self._painting) < self.painter.parallel
        tiles = self.policy.next_batch(self.batch, partial=idle)
        if not len(tiles):
            return False
        self._loading = _Batch(tiles, self.workers.submit("load", self._load, tiles))
        return True

    def _load(self, tiles: np.ndarray) -> TileBatch:
        """Inputs and known voxels of a batch. Inputs reach `margin` voxels beyond the tile."""
        origin = self.tiling.origin(tiles)
        edge = self.tiling.tile + 2 * self.painter.margin
        if self.reader is None:
            inputs = np.zeros((len(tiles), 0, edge, edge, edge), dtype=np.float32)
        else:
            corner = origin - self.painter.margin
            inputs = np.stack([self.reader.read(tuple(c), (edge,) * 3) for c in corner.tolist()])
            inputs = inputs.reshape(len(tiles), -1, edge, edge, edge)
        known, width = self.overlaps.known(tiles)
        return TileBatch(tiles=tiles, origin=origin, inputs=inputs, known=known, width=width)

    def _start_painting(self) -> bool:
        batch = self._loading
        full = len(self._painting) >= self.painter.at_once
        if full or batch is None or not batch.future.done():
            return False
        behind = len(self._committing) >= COMMITS_WAITING
        if batch.windows and self.haloes:
            behind = self.haloes.behind
        if behind:
            return False
        self._loading = None
        ready, loaded = self._result(batch.future)
        if ready:
            job = self._predict if batch.windows else self._paint
            # A queue for each of the batches that are painted side by side.
            slot = min(set(range(self.painter.at_once)) - set(self._painting))
            future = self.workers.submit(f"paint {slot}", job, batch.tiles, loaded)
            self._painting[slot] = _Batch(batch.tiles, future, batch.windows)
        return True

    def _paint(self, tiles: np.ndarray, batch: TileBatch) -> np.ndarray:
        self.painting.begin_tiles(tiles)
        return self.tally.timed(self._began, self.painter.paint, batch)

    def _predict(self, windows: np.ndarray, dm: np.ndarray) -> np.ndarray:
        assert self.haloes is not None
        return self.tally.timed(self._began, self.haloes.predict, windows, dm)

    def _commit(self, tiles: np.ndarray, fields: np.ndarray) -> None:
        """Makes a batch durable, unless an earlier one failed: what waits for a tile must never
        be recorded before it."""
        if self._commit_error is not None:
            raise self._commit_error
        try:
            self.painting.commit_tiles(tiles, fields)
        except BigboxError as error:
            self._commit_error = error
            raise

    def _start_assembling(self) -> bool:
        if self._assembling is not None or (shard := self.assembly.next()) is None:
            return False
        self._assembling = (
            shard,
            self.workers.submit("assemble", self.painting.assemble, shard),
        )
        return True
