"""One rank's hand in a run: its lease, its records, and the files that it alone writes.

A brick's file is begun anew by each run that appends to it: the committed prefix is copied, so a
rank of an earlier run that is still alive writes into a file without a name.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Generic

import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput, BigboxError
from bigbox.scheduler.grid import CHUNK, Ints
from bigbox.store.box import Box
from bigbox.store.durable import Disk, explained
from bigbox.store.layouts import LayoutT
from bigbox.store.lease import Lease
from bigbox.store.product import ChunkReader, Sharded
from bigbox.store.records import BEGUN, Records, RecordWriter, made, make_records, revoked
from bigbox.store.run import Begun
from bigbox.store.shards import AppendShard, Float, empty_index, read_index, write_shard

# Bricks held open for appending between commits.
OPEN_BRICKS = 32


class RunWriter(Generic[LayoutT]):
    """A rank's handle on a run of one ledger. Thread safe.

    Commits go one at a time, and hold a lock while the data becomes durable. Nothing else waits for
    that: records have a short lock of their own, in `RecordWriter`. After any failure this handle
    writes nothing more. brick_rank: int32 (bricks,), the rank of every brick of product 0.
    """

    def __init__(
        self,
        box: Box,
        begun: Begun[LayoutT],
        rank: int,
        brick_rank: npt.NDArray[np.int32],
        disk: Disk,
    ) -> None:
        self.rank, self.epoch, self.layout = rank, begun.epoch, begun.layout
        self.place, self.ledger = begun.layout.place(box), begun.layout.ledger(box)
        self.products = begun.layout.products(self.place)
        self.names = {product.name: n for n, product in enumerate(self.products)}
        self._disk = disk
        self._tmp = self.ledger.tmp_of(begun.epoch)
        self._latents = self.place / "latents"
        self._tmp_of_latents = self.ledger.tmp_for(self._latents, begun.epoch)
        self._lock = Lock()  # of the bricks open for appending
        self._broken = ""
        self._cause: BigboxError | None = None
        self._made = count(1)
        self._brick_rank = brick_rank
        self._done = [np.packbits(done) for done in begun.state.done]
        self._ends = begun.state.ends.copy()
        self._begun: set[int] = set()
        self._open: OrderedDict[int, AppendShard] = OrderedDict()
        lease = None if rank else begun.lease
        self._lease = lease or Lease.shared(disk, self.ledger, begun.epoch)
        try:
            self._records = RecordWriter(disk, self.ledger.records_path, begun.epoch, rank)
            self.reader = ChunkReader(self.products[0], self._ends, self.ledger)
            with explained(self.products[0].path), self._lease.fenced():
                self._cut_torn_tails()
        except BaseException:
            self._lease.close()
            raise

    # ------------------------------------------------------------------------ what is done

    def done_before(self, name: str) -> Iterator[Ints]:
        """Yield chunks of a product that were done when the run began, ascending, in parts."""
        packed = self._done[self.names[name]]
        for low in range(0, len(packed), CHUNK // 8):
            found = np.flatnonzero(np.unpackbits(packed[low : low + CHUNK // 8]))
            if len(found):
                yield found + low * 8

    def was_done(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which chunks of a product were done when the run began, bool (chunks,)."""
        number = self.names[name]
        return np.unpackbits(self._done[number], count=self.products[number].size).astype(bool)

    def note_begun(self, chunks: npt.ArrayLike, count: int = 1) -> None:
        """Note what is being worked on, so that the ledger tells what a kill costs.

        count: how many things each record stands for.
        """
        with self.writing(0):
            self._records.append(make_records(BEGUN, self.epoch, chunks, end=count), sync=False)

    def revoke(self, chunks: Mapping[str, npt.ArrayLike]) -> dict[str, Ints]:
        """Take chunks back, by product, with all that goes with them: the next run makes them.

        Returns what was taken back.
        """
        taken = self.layout.taken_back(
            self.place, {name: np.atleast_1d(np.asarray(c, np.int64)) for name, c in chunks.items()}
        )
        with self.writing(0):
            self._record(revocation(self.epoch, self.names, taken))
        return taken

    def all_recorded(self) -> bool:
        """Return whether every chunk of every product is done."""
        return all(bool(done.all()) for done in self.ledger.state(self.products).done)

    def check_complete(self) -> None:
        """Raise BigboxError naming the first chunk that has no record, for rank 0 at the end."""
        state = self.ledger.state(self.products)
        for product, done in zip(self.products, state.done, strict=True):
            if not done.all():
                raise BigboxError(
                    f"{self.place}: not complete: {int((~done).sum())} of {len(done)}"
                    f" {product.noun}s have no record, the first is {product.noun}"
                    f" {int(np.argmin(done))}"
                )

    # ------------------------------------------------------------------------ writing

    def append(self, chunks: npt.ArrayLike, values: Sequence[Float]) -> None:
        """Store chunks of product 0 for good: they are done when this returns.

        chunks: (M,) of this rank's bricks; values: float32 of the product's shape for each. Raises
        BadInput on a full disk, StoppedEarly where a newer run has started.
        """
        product = self.products[0]
        chunks = self._own(chunks)
        for one in values:
            check_float32(f"a {product.noun} is", one, product.shape)
        if len(chunks):
            with self._lock, self.writing(sum(one.nbytes for one in values)):
                self._append(chunks, values)

    def _append(
        self, chunks: Ints, values: Sequence[Float], also: Callable[[], None] = lambda: None
    ) -> None:
        """Append, under the lock; also: puts in place what must be durable before the record."""
        bricks = self.products[0].bricks
        brick_of, slot_of = np.divmod(bricks.cell(chunks), bricks.slots)
        places = np.zeros((3, len(chunks)), np.uint64)  # offset, committed end, crc32c
        touched_bricks = np.unique(brick_of).tolist()
        touched: list[AppendShard] = []
        try:
            for brick in touched_bricks:
                shard = self._appender(brick)
                touched.append(shard)
                mine = np.flatnonzero(brick_of == brick)
                offsets, crcs = shard.append(
                    slot_of[mine].tolist(), [values[m] for m in mine.tolist()]
                )
                places[0, mine], places[1, mine], places[2, mine] = offsets, shard.end, crcs
            for shard in touched:
                shard.sync()
            if any([shard.publish() for shard in touched]):
                self._disk.fsync_dir(self.products[0].path)
            also()
            self._record(make_records(made(0), self.epoch, chunks, *places))
        except OSError:
            for shard in touched:
                with suppress(OSError):
                    shard.undo()
            raise
        for brick, shard in zip(touched_bricks, touched, strict=True):
            self._begun.add(brick)
            self._ends[brick] = shard.end
        while len(self._open) > OPEN_BRICKS:
            self._open.popitem(last=False)[1].close()

    def write(self, name: str, shard: int, values: Float, whole: bool = True) -> None:
        """Store a whole shard of a field for good: it is done when this returns.

        values: float32, the part of the shard in the box; whole: whether none of it is missing,
        else it can be read, and is not done. Raises as `append`.
        """
        number = self.names[name]
        product = self.products[number]
        if not isinstance(product, Sharded):
            raise ValueError(f"{name} is not written in whole shards")
        check_float32(f"{product.noun} {shard} is", values, product.shards.extent(shard))
        if whole and not np.isfinite(values).all():
            raise BadInput(
                f"{product.path}: {product.noun} {product.coords(shard)} would hold"
                f" {int((~np.isfinite(values)).sum())} values that are NaN or infinite, and is not"
                " written: the tiles under it were painted so; give the painting up with:"
                " bigbox paint --discard"
            )
        temporary = self.temporary(name.replace("/", "-"))
        with self.writing(values.nbytes):
            outer, inner = product.edges
            size, crc = self._write_file(
                temporary,
                lambda file: write_shard(self._disk, file, values, (outer,) * 3, (inner,) * 3),
            )
            path = product.file(shard)
            self._disk.replace(temporary, path)
            self._disk.fsync_dir(path.parent)
            if whole:
                self._record(make_records(made(number), self.epoch, shard, end=size, crc=crc))

    def _write_file(self, path: Path, what: Callable[..., tuple[int, int]]) -> tuple[int, int]:
        """Write and sync a new file; where that fails the file goes."""
        file = self._disk.open(path, exclusive=True)
        try:
            found = what(file)
            self._disk.fsync(file)
        except OSError:
            with suppress(OSError):
                self._disk.unlink(path)
            raise
        finally:
            self._disk.close(file)
        return found

    def close(self) -> None:
        """Close every file and let go of the lease."""
        self._broken = self._broken or "closed"
        with self._lock:
            for shard in self._open.values():
                shard.close()
            self._open.clear()
            self._records.close()
            self.reader.close()
            self._lease.close()

    @contextmanager
    def writing(self, needed: int) -> Iterator[None]:
        """Check the lease while `needed` bytes are written; a failure ends the writing for good."""
        self.check()
        try:
            with explained(self.place, needed), self._lease.fenced():
                yield
        except BaseException as error:
            self._broken = str(error) or type(error).__name__
            self._cause = error if isinstance(error, BigboxError) else None
            raise

    def check(self) -> None:
        """Raise where this handle must write nothing more."""
        if self._cause:
            raise self._cause  # the full disk is the news, in whichever thread it is met first
        if self._broken:
            raise BigboxError(f"{self.place}: an earlier write failed ({self._broken})")
        self._lease.check()

    def temporary(self, name: str, to: Path | None = None) -> Path:
        """Return a new path in the run's own directory, for a file that has no name yet.

        to: where it will stand, or has stood, where that may be on another file system.
        """
        tmp = self._tmp_of_latents if to and to.is_relative_to(self._latents) else self._tmp
        return tmp / f"r{self.rank:05d}-{next(self._made)}-{name}"

    # ------------------------------------------------------------------------ inside

    def _own(self, chunks: npt.ArrayLike) -> Ints:
        """Distinct chunks of this rank's bricks as an array; raises ValueError for others."""
        chunks = np.atleast_1d(np.asarray(chunks, np.int64))
        brick, noun = self.products[0].file_of(chunks), self.products[0].noun
        if (self._brick_rank[brick] != self.rank).any() or len(np.unique(chunks)) != len(chunks):
            raise ValueError(f"{noun}s {chunks.tolist()}: twice, or not all of rank {self.rank}")
        return chunks

    def _record(self, records: Records) -> None:
        self._lease.check()
        self._records.append(records)

    def _appender(self, brick: int) -> AppendShard:
        """Return the brick's file, begun anew where this run has not appended to it yet."""
        shard = self._open.get(brick)
        if shard is not None:
            self._open.move_to_end(brick)
            return shard
        product = self.products[0]
        path, end, slots = product.file(brick), int(self._ends[brick]), product.bricks.slots
        if brick in self._begun:
            shard = AppendShard.resume(self._disk, path, end, slots)
        else:
            index = self._committed_index(brick, path, end) if end else empty_index(slots)
            shard = AppendShard.start(self._disk, path, self.temporary("brick", path), end, index)
        self._open[brick] = shard
        return shard

    def _committed_index(self, brick: int, path: Path, end: int) -> npt.NDArray[np.uint64]:
        index = None
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                index = read_index(fd, end, self.products[0].bricks.slots)
            except IsADirectoryError as error:
                raise BadInput(f"{path}: is a folder, where a file was: remove it") from error
            finally:
                os.close(fd)
        if index is None:
            index = self.products[0].recorded_index(self.ledger, brick)
        return index

    def _cut_torn_tails(self) -> None:
        """Cut this rank's bricks back to what is committed: a killed run leaves more behind it."""
        for brick in np.flatnonzero(self._brick_rank == self.rank).tolist():
            path = self.products[0].file(brick)
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
                self._lease.check()
                if end:
                    self._disk.truncate(file, end)
                else:
                    dead = self.temporary("dead", path)
                    self._disk.replace(path, dead)
                    self._disk.unlink(dead)
            finally:
                self._disk.close(file)


def check_float32(what: str, values: Float, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless values are float32 of that shape; what: as "a tile is"."""
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"{what} {values.dtype} {values.shape}, must be float32 {shape}")


def revocation(epoch: int, names: Mapping[str, int], chunks: Mapping[str, Ints]) -> Records:
    """Return the records that take chunks back; names: numbers of the products."""
    return np.concatenate(
        [make_records(revoked(names[name]), epoch, some) for name, some in chunks.items()]
    )
