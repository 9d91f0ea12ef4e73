"""One rank's hand in a run: its lease, its records, and the append-only shards it alone writes.

    shard data + index -> fsync -> (new name -> fsync of the directory) -> record -> fsync
                                                                  only now is a tile or block done

A brick's file is begun anew by each run that appends to it: the committed prefix is copied, so a
rank of an earlier run that is still alive writes into a file without a name.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.store.durable import Disk, explained
from bigbox.store.lease import Lease
from bigbox.store.ledger import BEGUN, TILE, Ledger, RecordWriter, State, make_records
from bigbox.store.reader import ChunkArray, TileReader
from bigbox.store.shards import AppendShard, Float, empty_index, read_index

Ints = npt.NDArray[np.int64]

# Bricks held open for appending between commits.
OPEN_BRICKS = 32
# Tiles handed out at a time by `done_chunks`.
CHUNK = 1 << 17


class RunWriter:
    """A rank's handle on run `epoch` of one ledger.  Thread safe.

    Commits go one at a time, and hold a lock while the data becomes durable; nothing else waits
    for that: records have a short lock of their own, in `RecordWriter`.

    place: the group that holds the ledger.  A subclass calls `_join` next, or lets go of the lease.
    """

    def __init__(self, place: Path, rank: int, epoch: int, disk: Disk) -> None:
        self.rank = rank
        self.epoch = epoch
        self._place = place
        self._disk = disk
        self._ledger = Ledger(place)
        self._tmp = self._ledger.tmp_of(epoch)
        self._lock = Lock()  # of the bricks open for appending
        self._broken = ""
        self._cause: BigboxError | None = None
        self._made = count(1)
        self._lease = Lease.join(disk, self._ledger, epoch)

    def _join(self, array: ChunkArray, brick_rank: npt.NDArray[np.int32], state: State) -> None:
        """Take up the work: array: what is written; brick_rank: the rank of every brick; state:
        what the ledger says is done."""
        self._array = array
        self._brick_rank = brick_rank
        self._done = np.packbits(state.done)
        self._ends = state.ends
        self._begun: set[int] = set()
        self._bricks_open: OrderedDict[int, AppendShard] = OrderedDict()
        self._records = RecordWriter(self._disk, self._ledger, self.epoch, self.rank)
        self._reader = TileReader(array, self._ends, self._ledger)
        with explained(array.place), self._lease.fenced(self.epoch):
            self._cut_torn_tails()

    def _done_chunks(self) -> Iterator[Ints]:
        """What all ranks had done when this run began, ascending, some at a time."""
        for low in range(0, len(self._done), CHUNK // 8):
            found = np.flatnonzero(np.unpackbits(self._done[low : low + CHUNK // 8]))
            if len(found):
                yield found + low * 8

    def _note_begun(self, what: npt.ArrayLike, count: int = 1) -> None:
        """Note what is being worked on, so that the ledger tells what a kill costs; count: how many
        things each record stands for."""
        with self._writing(0):
            self._records.append(make_records(BEGUN, self.epoch, what, end=count), sync=False)

    def _own(self, items: npt.ArrayLike) -> Ints:
        """Distinct items of this rank's bricks as an array; raises ValueError for others."""
        items = np.atleast_1d(np.asarray(items, np.int64))
        brick = self._array.bricks.of_tile(items)
        if (self._brick_rank[brick] != self.rank).any() or len(np.unique(items)) != len(items):
            what = self._array.damaged.what
            raise ValueError(f"{what}s {items.tolist()}: twice, or not all of rank {self.rank}")
        return items

    def _commit(
        self, items: Ints, chunks: Sequence[Float], also: Callable[[], None] = lambda: None
    ) -> None:
        """Store chunks for good; under `_lock` and `_writing`.

        also: puts in place what else must be durable before the record.
        """
        bricks = self._array.bricks
        brick_of, slot_of = np.divmod(bricks.cell(items), bricks.slots)
        places = np.zeros((3, len(items)), np.uint64)  # offset, committed end, crc32c
        touched_bricks = np.unique(brick_of).tolist()
        touched: list[AppendShard] = []
        try:
            for brick in touched_bricks:
                shard = self._appender(brick)
                touched.append(shard)
                mine = np.flatnonzero(brick_of == brick)
                offsets, crcs = shard.append(
                    slot_of[mine].tolist(), [chunks[m] for m in mine.tolist()]
                )
                places[0, mine], places[1, mine], places[2, mine] = offsets, shard.end, crcs
            for shard in touched:
                shard.sync()
            if any([shard.publish() for shard in touched]):
                self._disk.fsync_dir(self._array.place)
            also()
            self._append_records(make_records(TILE, self.epoch, items, *places))
        except OSError:
            for shard in touched:
                with suppress(OSError):
                    shard.undo()
            raise
        for brick, shard in zip(touched_bricks, touched, strict=True):
            self._begun.add(brick)
            self._ends[brick] = shard.end
        while len(self._bricks_open) > OPEN_BRICKS:
            self._bricks_open.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close every file and let go of the lease."""
        self._broken = self._broken or "closed"
        with self._lock:
            for shard in self._bricks_open.values():
                shard.close()
            self._bricks_open.clear()
            self._records.close()
            self._reader.close()
            self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------ inside

    @contextmanager
    def _writing(self, needed: int) -> Iterator[None]:
        """While something is written: the lease is checked, a failure ends the writing for good."""
        self._check()
        try:
            with explained(self._place, needed), self._lease.fenced(self.epoch):
                yield
        except BaseException as error:
            self._broken = str(error) or type(error).__name__
            self._cause = error if isinstance(error, BigboxError) else None
            raise

    def _check(self) -> None:
        if self._cause:
            raise self._cause  # the full disk is the news, in whichever thread it is met first
        if self._broken:
            raise BigboxError(f"{self._place}: an earlier write failed ({self._broken})")
        self._lease.check(self.epoch)

    def _append_records(self, records: npt.NDArray[np.void]) -> None:
        self._lease.check(self.epoch)
        self._records.append(records)

    def _temporary(self, name: str) -> Path:
        return self._tmp / f"r{self.rank:05d}-{next(self._made)}-{name}"

    def _appender(self, brick: int) -> AppendShard:
        """The brick's file, begun anew where this run has not appended to it yet."""
        shard = self._bricks_open.get(brick)
        if shard is not None:
            self._bricks_open.move_to_end(brick)
            return shard
        path = self._array.path(brick)
        end = int(self._ends[brick])
        slots = self._array.bricks.slots
        if brick in self._begun:
            shard = AppendShard.resume(self._disk, path, end, slots)
        else:
            index = empty_index(slots)
            if end:
                index = self._committed_index(brick, path, end)
            shard = AppendShard.start(self._disk, path, self._temporary("brick"), end, index)
        self._bricks_open[brick] = shard
        return shard

    def _committed_index(self, brick: int, path: Path, end: int) -> npt.NDArray[np.uint64]:
        index = None
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                index = read_index(fd, end, self._array.bricks.slots)
            finally:
                os.close(fd)
        if index is None:
            index = self._ledger.brick_index(self._array.bricks, brick, self._array.chunk_bytes)
        return index

    def _cut_torn_tails(self) -> None:
        """Cut this rank's bricks back to what is committed: a killed run leaves more behind it."""
        for brick in np.flatnonzero(self._brick_rank == self.rank).tolist():
            path = self._array.path(brick)
            end = int(self._ends[brick])
            try:
                if os.stat(path).st_size <= end:
                    continue
                file = self._disk.open(path)
            except FileNotFoundError:
                continue
            try:
                # Opened before the check: if this run has been overtaken, either the check says so
                # or the file is one that its successor no longer uses.
                self._lease.check(self.epoch)
                if end:
                    self._disk.truncate(file, end)
                else:
                    dead = self._temporary("dead")
                    self._disk.replace(path, dead)
                    self._disk.unlink(dead)
            finally:
                self._disk.close(file)
