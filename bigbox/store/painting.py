"""One rank's hand on a painting in progress: tiles in, tiles out, tb assembled, nothing ever lost.

commit_tiles:  as in `bigbox.store.writing`, the step latents in place before the record
assemble:      tb shard without a name -> fsync -> rename -> fsync of the directory -> record
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.ledger import COMPLETE, SHARD, make_records
from bigbox.store.reader import painted_tiles
from bigbox.store.revoke import revocation, steps_path, with_needed
from bigbox.store.run import layout, start_run
from bigbox.store.shards import (
    CRC_BYTES,
    DamagedTile,
    Float,
    crc32c,
    decode_chunk,
    write_shard,
)
from bigbox.store.tbshards import Slices
from bigbox.store.writing import Ints, RunWriter


class Painting(RunWriter):
    """A rank's handle on run `epoch` of a painting.  Thread safe; use `begin`, then `close`."""

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
        super().__init__(box.place, rank, epoch, disk)
        self.box = box
        self.bricks = bricks
        self.tiling = bricks.tiling
        try:
            run = self._ledger.run()
            if run is None:
                raise BigboxError(f"{box.place}: run {epoch} has no painting to join")
            tiling, stored, self.tb = layout(run)
            same = json.loads(json.dumps(dict(identity))) == run["identity"]
            if not same or tiling != bricks.tiling or stored.edge != bricks.edge:
                raise BigboxError(
                    f"{box.place}: rank {rank} does not paint what run {epoch} paints"
                )
            self.n_steps = int(run["n_steps"])
            state = self._ledger.state(bricks, self.tb.size)
            self._done_shards = np.flatnonzero(state.shards)
            brick_rank = Assignment(bricks, n_ranks).brick_rank
            self._join(painted_tiles(box.place, bricks), brick_rank, state)
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
        return self._done_chunks()

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
        self._note_begun(tiles)

    def commit_tiles(self, tiles: npt.ArrayLike, fields: npt.NDArray[np.float32]) -> None:
        """Store painted tiles for good: they are done when this returns.

        tiles: (M,) of this rank's bricks; fields: float32 (M, 1 + n_steps, t, t, t), field 0 T_b in
        mK, the others the per-step latents.  Raises BadInput on a full disk, StoppedEarly where a
        newer run has started; after any failure this handle commits nothing more.
        """
        tiles = self._own(tiles)
        t = self.tiling.tile
        expected = (len(tiles), 1 + self.n_steps, t, t, t)
        if fields.shape != expected or fields.dtype != np.float32:
            raise ValueError(
                f"fields are {fields.dtype} {fields.shape}, must be float32 {expected}"
            )
        if not len(tiles):
            return
        with self._lock, self._writing(fields.nbytes), self._steps_of(tiles, fields) as place:
            self._commit(tiles, [field[0] for field in fields], place)

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
        place = self.box.place / "latents" / "steps"
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
        taken = with_needed(self.box.place, self.tiling, self.n_steps, tiles)
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
        path = self.box.place / "tb" / f"c.{x}.{y}.{z}"
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
                    f"{self.box.place}: not complete: {int((~done).sum())} of {len(done)} {name}s"
                    f" have no record, the first is {name} {int(np.argmin(done))}"
                )
        with self._lock, self._writing(0):
            if self.n_steps:
                place = self.box.place / "latents" / "steps"
                for name in os.listdir(place):
                    if name.startswith("c."):
                        self._disk.unlink(place / name)
            self._append_records(make_records(COMPLETE, self.epoch, 0))

    def drop_latents(self) -> None:
        """Remove the painted tiles of a painting that is complete: tb stays, and can no longer be
        made again from them."""
        with self._lock, self._writing(0):
            with suppress(FileNotFoundError):
                self._disk.replace(self.box.place / "latents", self._tmp / "latents")
                self._disk.fsync_dir(self.box.place)
            self._disk.remove_tree(self._tmp / "latents")

    # ------------------------------------------------------------------------ inside

    def _steps_path(self, tile: int) -> Path:
        return steps_path(self.box.place, self.tiling, tile)

    @contextmanager
    def _steps_of(
        self, tiles: Ints, fields: npt.NDArray[np.float32]
    ) -> Iterator[Callable[[], None]]:
        """Writes the step latents without a name; gives what puts them in their places."""
        written: list[tuple[Path, Path]] = []

        def place() -> None:
            for temporary, path in written:
                self._disk.replace(temporary, path)
            if written:
                self._disk.fsync_dir(self.box.place / "latents" / "steps")

        try:
            for tile, values in zip(tiles.tolist(), fields[:, 1:], strict=True):
                if not self.n_steps:
                    break
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
            yield place
        except OSError:
            for temporary, _ in written:
                with suppress(OSError):
                    self._disk.unlink(temporary)
            raise
