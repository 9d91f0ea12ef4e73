"""One rank's hand on a painting of tb: tiles in, tiles out, tb assembled.

Tiles are appended and shards of tb written as in `bigbox.store.product`; step latents are put in
place before the record of their tile.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Ints
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.fields import STEPS
from bigbox.store.latents import empty_linked, fence_linked, linked, on_other_disk
from bigbox.store.layouts import PaintLayout
from bigbox.store.records import COMPLETE, make_records
from bigbox.store.run import Begun, Start
from bigbox.store.saved_field import FIELD, FieldFile, SavedField, whole_save
from bigbox.store.shards import CRC_BYTES, DamagedChunk, Float, crc32c, decode_chunk
from bigbox.store.slots import remove_others
from bigbox.store.writer import RunWriter, check_float32


@dataclass(frozen=True)
class BegunPainting(Begun[PaintLayout]):
    """A run that paints tb and has begun, for all ranks."""

    field: tuple[str, ...] = ()  # indices of the save of the noisy field that it goes on from


class PaintStart(Start[PaintLayout]):
    """The start of a run that paints tb: it also goes on from a save of the noisy field."""

    def tidy(self, disk: Disk, epoch: int) -> None:
        """Remove saves that this run does not go on from."""
        self._saved: tuple[str, ...] = ()
        if self.layout.tiling.halved:
            place = self.ledger.path / FIELD
            disk.make_dir(place)
            self._saved = whole_save(self.ledger)
            used = {name.split(".", 1)[0] for name in self._saved}
            remove_others(disk, place, used, self.ledger.tmp_of(epoch))

    def begun(self, begun: Begun[PaintLayout]) -> BegunPainting:
        """Return the run with the save that it goes on from."""
        return BegunPainting(**vars(begun), field=self._saved)


class Painting(RunWriter[PaintLayout]):
    """A rank's handle on a run that paints tb. Thread safe; then `close`."""

    def __init__(
        self,
        box: Box,
        begun: Begun[PaintLayout],
        rank: int = 0,
        n_ranks: int = 1,
        disk: Disk = DISK,
        assignment: Assignment | None = None,
    ) -> None:
        assignment = assignment or Assignment(begun.layout.bricks, n_ranks)
        super().__init__(box, begun, rank, assignment.brick_rank, disk)
        self.saved = begun.field if isinstance(begun, BegunPainting) else ()
        self._field: FieldFile | None = None

    def field_file(self, shape: tuple[int, ...], before: SavedField | None) -> FieldFile:
        """Return the place on the disk for arrays of tiles that are painted together.

        before: a save that this run goes on from.
        """
        self._field = FieldFile(self, self._disk, shape, before)
        return self._field

    def close(self) -> None:
        """Close every file and let go of the lease."""
        if self._field is not None:
            self._field.close()
        super().close()

    def commit_tiles(self, tiles: npt.ArrayLike, fields: Float) -> None:
        """Store painted tiles for good: they are done when this returns.

        tiles: (M,) of this rank's bricks; fields: float32 (M, 1 + n_steps, t, t, t), field 0 T_b in
        mK, the others the per-step latents. Raises as `RunWriter.append`.
        """
        tiles = self._own(tiles)
        expected = (len(tiles), 1 + self.layout.n_steps, *self.products[0].shape)
        check_float32("fields are", fields, expected)
        if len(tiles):
            with self._lock, self.writing(fields.nbytes):
                self._commit(tiles, fields)

    def _commit(self, tiles: Ints, fields: Float) -> None:
        """Write the step latents without a name, and put them in place before the records."""
        steps: list[tuple[Path, Path]] = []

        def place() -> None:
            for temporary, path in steps:
                self._disk.replace(temporary, path)
            if steps:
                self._disk.fsync_dir(self.place / STEPS.name)

        try:
            for tile, values in zip(tiles.tolist(), fields[:, 1:], strict=True):
                if self.layout.n_steps:
                    path = self.layout.steps_file(self.place, tile)
                    temporary = self.temporary("steps", path)
                    steps.append((temporary, path))
                    self._write_steps(temporary, np.ascontiguousarray(values, "<f4"))
            self._append(tiles, [field[0] for field in fields], place)
        except OSError:
            for temporary, _ in steps:
                with suppress(OSError):
                    self._disk.unlink(temporary)
            raise

    def read_fields(self, tile: int) -> Float:
        """Return all fields of a tile that is done: float32 (1 + n_steps, t, t, t).

        Raises DamagedChunk.
        """
        first = self.reader.read(tile)
        if not self.layout.n_steps:
            return first[None]
        path = self.layout.steps_file(self.place, int(tile))
        try:
            values = decode_chunk(path.read_bytes())
        except FileNotFoundError:
            raise DamagedChunk(STEPS.name, "tile", int(tile), str(path), "file missing") from None
        if values is None or values.size != self.layout.n_steps * first.size:
            why = "cut or its checksum wrong"
            raise DamagedChunk(STEPS.name, "tile", int(tile), str(path), why)
        return np.concatenate([first[None], values.reshape(-1, *first.shape)])

    def drop_steps(self, tiles: npt.ArrayLike) -> None:
        """Remove the per-step latents of tiles that no tile needs any more."""
        with explained(self.place / STEPS.name):
            for tile in np.atleast_1d(np.asarray(tiles, np.int64)).tolist():
                # By way of this run's own directory, so that a run that lost the lease removes
                # nothing of its successor's.
                path = self.layout.steps_file(self.place, tile)
                dead = self.temporary("dead", path)
                try:
                    self._disk.replace(path, dead)
                except FileNotFoundError:
                    self.check()
                    continue
                self._disk.unlink(dead)

    def assembled(self, shard: int, only: npt.NDArray[np.bool_] | None = None) -> Float:
        """Return a shard of tb, float32 mK, of its tiles, which must all be done.

        only: bool (tiles,), where only some are; NaN where another tile is missing. Raises
        DamagedChunk.
        """
        meeting = self.layout.shards_of_tiles.inverse
        values = np.empty(self.layout.shards.extent(shard), np.float32)
        filled, held = 0, -1
        for tile, there, inside in sorted(meeting.pieces(shard), key=lambda piece: piece[0]):
            if only is not None and not only[tile]:
                values[there] = np.nan
            else:
                if tile != held:
                    whole, held = self.reader.read(tile), tile
                values[there] = whole[inside]
            filled += values[there].size
        if filled != values.size:
            raise BigboxError(
                f"tb shard {shard}: its tiles own {filled} of its {values.size} voxels; please"
                " report"
            )
        return values

    def finish(self) -> None:
        """Check that all is done, and note it, for rank 0; step latents go."""
        self.check_complete()
        with self._lock, self.writing(0):
            if self.layout.n_steps:
                place = self.place / STEPS.name
                for name in os.listdir(place):
                    if re.fullmatch(r"c(\.\d+){7}", name):
                        self._disk.unlink(place / name)
            if (field := self.ledger.path / FIELD).exists():
                dead = self.temporary("field")
                self._disk.replace(field, dead)
                self._disk.remove_tree(dead)
            self._record(make_records(COMPLETE, self.epoch, 0))

    def drop_latents(self) -> None:
        """Remove the painted tiles of a painting that is complete.

        tb stays, and can no longer be made again from them.
        """
        with self._lock, self.writing(0):
            if link := linked(self.place):
                empty_linked(self._disk, link)
                if on_other_disk(self.place):
                    fence_linked(self._disk, link, self.epoch)
                self._disk.unlink(link)
                return
            with suppress(FileNotFoundError):
                self._disk.replace(self.place / "latents", self._tmp / "latents")
                self._disk.fsync_dir(self.place)
            self._disk.remove_tree(self._tmp / "latents")

    def _write_steps(self, path: Path, values: Float) -> None:
        crc = crc32c(values).to_bytes(CRC_BYTES, "little")
        self._write_file(path, lambda file: (self._disk.write_at(file, 0, [values, crc]), 0))
