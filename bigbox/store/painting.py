"""One rank's hand on a painting in progress: tiles in, tiles out, tb assembled, nothing ever lost.

    commit_tiles:  shard data + index -> fsync -> (new name -> fsync of the directory)
                                               -> record -> fsync          only now is a tile done
    assemble:      tb shard without a name -> fsync -> rename -> fsync of the directory -> record

A brick's file is begun anew by each run that appends to it: the committed prefix is copied, so a
rank of an earlier run that is still alive writes into a file without a name.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.lease import Lease
from bigbox.store.ledger import (
    BEGUN,
    COMPLETE,
    SHARD,
    TILE,
    Ledger,
    RecordWriter,
    make_records,
)
from bigbox.store.reader import TileReader, brick_path
from bigbox.store.revoke import revocation, steps_path, with_needed
from bigbox.store.run import layout, start_run
from bigbox.store.shards import (
    CRC_BYTES,
    AppendShard,
    DamagedTile,
    Float,
    crc32c,
    decode_chunk,
    empty_index,
    read_index,
    write_shard,
)
from bigbox.store.tbshards import Slices
from scheduler.bricks import Assignment, Bricks
from scheduler.tiling import Tiling

Ints = npt.NDArray[np.int64]

# Bricks held open for appending between commits.
OPEN_BRICKS = 32
# Tiles handed out at a time by done_tiles.
CHUNK = 1 << 17


class Painting:
    """A rank's handle on run `epoch` of a painting.  Thread safe; use `begin`, then `close`.

    Commits go one at a time, and hold a lock while the data becomes durable; nothing else waits
    for that: records have a short lock of their own, in `RecordWriter`.
    """

    start_run = staticmethod(start_run)

    def __init__(
        self,
        box: Box,
        identity: Mapping[str, Any],
        bricks: Bricks,
        rank: int,
        n_ranks: int,
        epoch: int,
        disk: Disk,
    ) -> None:
        self.box = box
        self.bricks = bricks
        self.tiling = bricks.tiling
        self.rank = rank
        self.epoch = epoch
        self._disk = disk
        self._ledger = Ledger(box.path)
        self._tmp = self._ledger.tmp_of(epoch)
        self._lock = Lock()  # of the bricks open for appending
        self._broken = ""
        self._cause: BigboxError | None = None
        self._made = count(1)
        self._lease = Lease.join(disk, self._ledger, epoch)
        try:
            run = self._ledger.run()
            if run is None:
                raise BigboxError(f"{box.path}: run {epoch} has no painting to join")
            tiling, stored, self.tb = layout(run)
            same = json.loads(json.dumps(dict(identity))) == run["identity"]
            if not same or tiling != bricks.tiling or stored.edge != bricks.edge:
                raise BigboxError(f"{box.path}: rank {rank} does not paint what run {epoch} paints")
            self.n_steps = int(run["n_steps"])
            self._brick_rank = Assignment(bricks, n_ranks).brick_rank
            state = self._ledger.state(bricks, self.tb.size)
            self._done = np.packbits(state.done)
            self._done_shards = np.flatnonzero(state.shards)
            self._ends = state.ends
            self._begun: set[int] = set()
            self._bricks_open: OrderedDict[int, AppendShard] = OrderedDict()
            self._records = RecordWriter(disk, self._ledger, epoch, rank)
            self._reader = TileReader(box.path, bricks, self._ends, self._ledger)
            with explained(box.path / "latents"), self._lease.fenced(epoch):
                self._cut_torn_tails()
        except BaseException:
            self._lease.close()
            raise

    @classmethod
    def begin(
        cls,
        box: Box,
        identity: Mapping[str, Any],
        tiling: Tiling,
        bricks: Bricks,
        *,
        rank: int = 0,
        n_ranks: int = 1,
        epoch: int | None = None,
        n_steps: int = 0,
        device: str = "",
        disk: Disk | None = None,
    ) -> Painting:
        """Join run `epoch` as one of its ranks; a lone rank may leave starting it to this call.

        Raises StoppedEarly where a newer run has started since.
        """
        disk = disk or DISK
        if epoch is None:
            if n_ranks != 1:
                raise ValueError(f"{n_ranks} ranks: rank 0 calls start_run and sends its number")
            epoch = start_run(
                box, identity, tiling, bricks, n_steps=n_steps, device=device, disk=disk
            )
        return cls(box, identity, bricks, rank, n_ranks, epoch, disk)

    # ------------------------------------------------------------------------ what is done

    def done_tiles(self) -> Iterator[Ints]:
        """Tiles of all ranks that were done when this run began, ascending, some at a time."""
        for low in range(0, len(self._done), CHUNK // 8):
            found = np.flatnonzero(np.unpackbits(self._done[low : low + CHUNK // 8]))
            if len(found):
                yield found + low * 8

    def done_shards(self) -> Ints:
        """Shards of tb that were done when this run began, ascending."""
        return self._done_shards

    @property
    def tb_shards(self) -> int:
        """Number of shards of tb."""
        return self.tb.size

    def tb_shard_slices(self, i: int) -> Slices:
        """The voxels of a shard of tb."""
        return self.tb.slices(i)

    def tiles_of_tb_shard(self, i: int) -> Ints:
        """The tiles that shard i of tb is made of, ascending."""
        return self.tb.tiles(i)

    def tb_shards_of_tiles(self, tiles: npt.ArrayLike) -> Ints:
        """The shards of tb that each tile goes into: (M,) -> (M, W), -1 padded."""
        return self.tb.of_tiles(tiles)

    # ------------------------------------------------------------------------ tiles

    def begin_tiles(self, tiles: npt.ArrayLike) -> None:
        """Note that these tiles are being painted, so that the ledger tells what a kill costs."""
        with self._writing(0):
            self._records.append(make_records(BEGUN, self.epoch, tiles), sync=False)

    def commit_tiles(self, tiles: npt.ArrayLike, fields: npt.NDArray[np.float32]) -> None:
        """Store painted tiles for good: they are done when this returns.

        tiles: (M,) of this rank's bricks; fields: float32 (M, 1 + n_steps, t, t, t), field 0 T_b in
        mK, the others the per-step latents.  Raises BadInput on a full disk, StoppedEarly where a
        newer run has started; after any failure this handle commits nothing more.
        """
        tiles = np.atleast_1d(np.asarray(tiles, np.int64))
        t = self.tiling.tile
        expected = (len(tiles), 1 + self.n_steps, t, t, t)
        if fields.shape != expected or fields.dtype != np.float32:
            raise ValueError(
                f"fields are {fields.dtype} {fields.shape}, must be float32 {expected}"
            )
        brick_of, slot_of = np.divmod(self.bricks.cell(tiles), self.bricks.slots)
        if (self._brick_rank[brick_of] != self.rank).any() or len(np.unique(tiles)) != len(tiles):
            raise ValueError(f"tiles {tiles.tolist()}: twice, or not all of rank {self.rank}")
        if not len(tiles):
            return
        with self._lock, self._writing(fields.nbytes):
            places = np.zeros((3, len(tiles)), np.uint64)  # offset, committed end, crc32c
            touched_bricks = np.unique(brick_of).tolist()
            touched: list[AppendShard] = []
            steps: list[tuple[Path, Path]] = []
            try:
                for brick in touched_bricks:
                    shard = self._appender(brick)
                    touched.append(shard)
                    mine = np.flatnonzero(brick_of == brick)
                    offsets, crcs = shard.append(
                        slot_of[mine].tolist(), [fields[m, 0] for m in mine]
                    )
                    places[0, mine], places[1, mine], places[2, mine] = offsets, shard.end, crcs
                if self.n_steps:
                    steps = self._write_steps(tiles, fields[:, 1:])
                for shard in touched:
                    shard.sync()
                if any([shard.publish() for shard in touched]):
                    self._disk.fsync_dir(self.box.path / "latents" / "painted")
                if steps:
                    for temporary, path in steps:
                        self._disk.replace(temporary, path)
                    self._disk.fsync_dir(self.box.path / "latents" / "steps")
                self._append_records(make_records(TILE, self.epoch, tiles, *places))
            except OSError:
                for shard in touched:
                    with suppress(OSError):
                        shard.undo()
                for temporary, _ in steps:
                    with suppress(OSError):
                        self._disk.unlink(temporary)
                raise
            for brick, shard in zip(touched_bricks, touched, strict=True):
                self._begun.add(brick)
                self._ends[brick] = shard.end
            while len(self._bricks_open) > OPEN_BRICKS:
                self._bricks_open.popitem(last=False)[1].close()

    def read_tile(self, tile: int) -> Float:
        """T_b of a tile that is done, by any rank: (t, t, t) float32 mK, read-only; DamagedTile."""
        return self._reader.read(int(tile))

    def read_fields(self, tile: int) -> Float:
        """All fields of a tile that is done: (1 + n_steps, t, t, t) float32; DamagedTile."""
        first = self.read_tile(tile)
        if not self.n_steps:
            return first[None]
        path = self._steps_path(int(tile))
        try:
            values = decode_chunk(path.read_bytes())
        except FileNotFoundError:
            raise DamagedTile("latents/steps", int(tile), str(path), "file missing") from None
        if values is None or values.size != self.n_steps * first.size:
            raise DamagedTile("latents/steps", int(tile), str(path), "cut or its checksum wrong")
        return np.concatenate([first[None], values.reshape(self.n_steps, *first.shape)])

    def drop_steps(self, tiles: npt.ArrayLike) -> None:
        """Remove the per-step latents of tiles that no tile needs any more."""
        place = self.box.path / "latents" / "steps"
        with explained(place):
            for tile in np.atleast_1d(np.asarray(tiles, np.int64)).tolist():
                # By way of this run's own directory, so that a run that lost the lease removes
                # nothing of its successor's.
                dead = self._temporary("dead")
                try:
                    self._disk.replace(self._steps_path(tile), dead)
                except FileNotFoundError:
                    self._check()
                    continue
                self._disk.unlink(dead)

    def revoke(self, tiles: npt.ArrayLike) -> Ints:
        """Take tiles back, with the shards of tb they go into: the next run paints them again.

        Returns the tiles taken back.  In the stored-latents mode these include every earlier tile
        that must be painted again because its per-step latents are gone.
        """
        taken = with_needed(self.box.path, self.tiling, self.n_steps, tiles)
        with self._writing(0):
            self._append_records(revocation(self.epoch, self.tb, taken))
        return taken

    # ------------------------------------------------------------------------ tb

    def assemble(self, i: int) -> None:
        """Make shard i of tb from its tiles, which must all be done: it is done when this returns.

        Raises DamagedTile, BadInput on a full disk, StoppedEarly where a newer run has started.
        """
        values = np.empty(tuple(s.stop - s.start for s in self.tb.slices(i)), np.float32)
        filled = 0
        for tile, parts in self.tb.pieces(i):
            whole = self.read_tile(tile)
            for inside, target in parts:
                values[target] = whole[inside]
                filled += values[target].size
        if filled != values.size:
            raise BigboxError(
                f"tb shard {i}: its tiles own {filled} of its {values.size} voxels; please report"
            )
        x, y, z = self.tb.coords(i)
        path = self.box.path / "tb" / f"c.{x}.{y}.{z}"
        temporary = self._temporary("tb")
        with self._writing(values.nbytes):
            file = self._disk.open(temporary, exclusive=True)
            try:
                size, crc = write_shard(
                    self._disk, file, values, (self.tb.shard,) * 3, (self.tb.chunk,) * 3
                )
                self._disk.fsync(file)
            except OSError:
                with suppress(OSError):
                    self._disk.unlink(temporary)
                raise
            finally:
                self._disk.close(file)
            self._disk.replace(temporary, path)
            self._disk.fsync_dir(path.parent)
            self._append_records(make_records(SHARD, self.epoch, i, end=size, crc=crc))

    def finish(self) -> None:
        """Note that the painting is complete, for rank 0 when all is done; checks that it is.

        Raises BigboxError naming the first tile or shard that has no record.
        """
        state = self._ledger.state(self.bricks, self.tb.size)
        for name, done in (("tile", state.done), ("tb shard", state.shards)):
            if not done.all():
                raise BigboxError(
                    f"{self.box.path}: not complete: {int((~done).sum())} of {len(done)} {name}s"
                    f" have no record, the first is {name} {int(np.argmin(done))}"
                )
        with self._lock, self._writing(0):
            if self.n_steps:
                place = self.box.path / "latents" / "steps"
                for name in os.listdir(place):
                    if name.startswith("c."):
                        self._disk.unlink(place / name)
            self._append_records(make_records(COMPLETE, self.epoch, 0))

    def drop_latents(self) -> None:
        """Remove the painted tiles of a painting that is complete: tb stays, and can no longer be
        made again from them."""
        with self._lock, self._writing(0):
            with suppress(FileNotFoundError):
                self._disk.replace(self.box.path / "latents", self._tmp / "latents")
                self._disk.fsync_dir(self.box.path)
            self._disk.remove_tree(self._tmp / "latents")

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

    def __enter__(self) -> Painting:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------ inside

    @contextmanager
    def _writing(self, needed: int) -> Iterator[None]:
        """While something is written: the lease is checked, a failure ends the writing for good."""
        self._check()
        try:
            with explained(self.box.path, needed), self._lease.fenced(self.epoch):
                yield
        except BaseException as error:
            self._broken = str(error) or type(error).__name__
            self._cause = error if isinstance(error, BigboxError) else None
            raise

    def _check(self) -> None:
        if self._cause:
            raise self._cause  # the full disk is the news, in whichever thread it is met first
        if self._broken:
            raise BigboxError(f"{self.box.path}: an earlier write failed ({self._broken})")
        self._lease.check(self.epoch)

    def _append_records(self, records: npt.NDArray[np.void]) -> None:
        self._lease.check(self.epoch)
        self._records.append(records)

    def _temporary(self, name: str) -> Path:
        return self._tmp / f"r{self.rank:05d}-{next(self._made)}-{name}"

    def _steps_path(self, tile: int) -> Path:
        return steps_path(self.box.path, self.tiling, tile)

    def _write_steps(self, tiles: Ints, steps: npt.NDArray[np.float32]) -> list[tuple[Path, Path]]:
        written = []
        for tile, values in zip(tiles.tolist(), steps, strict=True):
            values = np.ascontiguousarray(values, "<f4")
            temporary = self._temporary("steps")
            written.append((temporary, self._steps_path(tile)))
            file = self._disk.open(temporary, exclusive=True)
            try:
                crc = crc32c(values).to_bytes(CRC_BYTES, "little")
                self._disk.write_at(file, 0, [values, crc])
                self._disk.fsync(file)
            finally:
                self._disk.close(file)
        return written

    def _appender(self, brick: int) -> AppendShard:
        """The brick's file, begun anew where this run has not appended to it yet."""
        shard = self._bricks_open.get(brick)
        if shard is not None:
            self._bricks_open.move_to_end(brick)
            return shard
        path = brick_path(self.box.path, self.bricks, brick)
        end = int(self._ends[brick])
        slots = self.bricks.slots
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
                index = read_index(fd, end, self.bricks.slots)
            finally:
                os.close(fd)
        if index is None:
            size = 4 * self.tiling.tile**3 + CRC_BYTES
            index = self._ledger.brick_index(self.bricks, brick, size)
        return index

    def _cut_torn_tails(self) -> None:
        """Cut this rank's bricks back to what is committed: a killed run leaves more behind it."""
        for brick in np.flatnonzero(self._brick_rank == self.rank).tolist():
            path = brick_path(self.box.path, self.bricks, brick)
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
