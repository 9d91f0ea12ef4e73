"""Checking every stored byte of a painting against its checksums, and the ledger for holes.

The painted haloes are checked likewise: they are a painting of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import dask
import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.haloes import halo_ledger, halo_state
from bigbox.store.lease import Lease
from bigbox.store.ledger import (
    REVOKE_TILE,
    Ledger,
    Records,
    RecordWriter,
    Source,
    State,
    make_records,
)
from bigbox.store.reader import ChunkArray, halo_blocks, painted_tiles
from bigbox.store.revoke import revocation, with_needed
from bigbox.store.run import claim, layout
from bigbox.store.shards import (
    CRC_BYTES,
    EMPTY,
    check_shard,
    decode_chunk,
    pread_all,
    read_index,
)
from bigbox.store.tbshards import TbShards

# Tasks given to dask at a time: it spends 200 microseconds on each.
TASKS = 1024

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Damage:
    """One damaged thing: the array, the tile, shard or chunk in it, the file, and what is wrong."""

    array: str
    what: str
    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.array}: {self.what}: {self.why} ({self.file})"


@dataclass
class Report:
    """What `verify` found."""

    tiles: int
    tiles_done: int
    shards: int
    shards_done: int
    damage: list[Damage] = field(default_factory=list)
    revoked_tiles: int = 0  # taken back, so that the next paint makes them again
    revoked_shards: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing that is recorded as done is damaged."""
        return not self.damage

    @property
    def complete(self) -> bool:
        """Whether every tile and every shard of tb is done and intact."""
        return self.intact and self.tiles_done == self.tiles and self.shards_done == self.shards


@dataclass
class _Found:
    damage: list[Damage]
    tiles: list[int]
    shards: list[int]


def verify(box: Box, *, repair: bool = True, disk: Disk | None = None) -> Report:
    """Read all painted tiles and all of tb; what is damaged is taken back for the next paint.

    Nothing is recorded when `repair` is off, the store is read-only, or a run holds the lease.
    Raises BadInput where the box has no painting.
    """
    disk = disk or DISK
    ledger = Ledger(box.place)
    run = ledger.run()
    if run is None:
        raise BadInput(f"{box.place}: has no painting; make one with: bigbox paint {box.path}")
    newest = ledger.newest()
    _, bricks, tb = layout(run)
    state = ledger.state(bricks, tb.size)
    report = Report(bricks.tiling.size, int(state.done.sum()), tb.size, int(state.shards.sum()))
    tile_crcs, shard_crcs = ledger.crcs(bricks.tiling.size, tb.size)
    short = ledger.shortfalls()
    found = _Found(_lost_records(short), [], [])
    latents = (box.place / "latents" / "painted" / "zarr.json").exists()
    if latents:
        begun = np.flatnonzero(state.ends)
        array = painted_tiles(box.place, bricks)
        for part in _threads(_check_bricks, begun, array, state, tile_crcs, ledger):
            _merge(found, part)
    else:
        report.notes.append("latents were removed: only tb is checked")
    for part in _threads(_check_shards, np.flatnonzero(state.shards), box, tb, shard_crcs):
        _merge(found, part)
    report.damage = found.damage
    if not found.damage or not repair:
        return report
    if not latents:
        report.notes.append("tb cannot be made again without the latents: paint with --discard")
        return report
    tiles = with_needed(box.place, bricks.tiling, int(run["n_steps"]), found.tiles)
    reseal = {source.path.name: good for source, good in short}
    why_not = _record(
        disk, ledger, newest, reseal, lambda epoch: revocation(epoch, tb, tiles, found.shards)
    )
    if why_not:
        report.notes.append(f"nothing recorded: {why_not}")
        return report
    after = ledger.state(bricks, tb.size)
    report.revoked_tiles = report.tiles_done - int(after.done.sum())
    report.revoked_shards = report.shards_done - int(after.shards.sum())
    return report


@dataclass
class HaloReport:
    """What `verify_haloes` found."""

    blocks: int
    blocks_done: int
    damage: list[Damage] = field(default_factory=list)
    revoked: int = 0  # blocks taken back, so that the next paint predicts them again
    notes: list[str] = field(default_factory=list)


def verify_haloes(box: Box, *, repair: bool = True, disk: Disk | None = None) -> HaloReport | None:
    """Read all painted haloes, as `verify` does; None where the box has none that were painted."""
    ledger = halo_ledger(box)
    newest = ledger.newest()
    told = halo_state(box)
    if told is None:
        return None
    _, layout, state = told
    array = halo_blocks(box.path, layout.bricks, layout.channels)
    report = HaloReport(len(state.done), int(state.done.sum()))
    crcs, _ = ledger.crcs(len(state.done), 0)
    short = ledger.shortfalls()
    found = _Found(_lost_records(short), [], [])
    for part in _threads(_check_bricks, np.flatnonzero(state.ends), array, state, crcs, ledger):
        _merge(found, part)
    report.damage = found.damage
    if not found.damage or not repair:
        return report
    blocks = np.unique(np.array(found.tiles, np.int64))
    reseal = {source.path.name: good for source, good in short}
    why_not = _record(
        disk or DISK,
        ledger,
        newest,
        reseal,
        lambda epoch: make_records(REVOKE_TILE, epoch, blocks),
    )
    if why_not:
        report.notes.append(f"nothing recorded: {why_not}")
        return report
    report.revoked = report.blocks_done - int(ledger.state(layout.bricks, 0).done.sum())
    return report


def _lost_records(short: list[tuple[Source, int]]) -> list[Damage]:
    found = []
    for source, good in short:
        what = f"records of rank {source.rank} in run {source.epoch}"
        why = f"{good} of {source.sealed} bytes are good; what the rest told of is made again"
        found.append(Damage("ledger", what, str(source.path), why))
    return found


def _record(
    disk: Disk,
    ledger: Ledger,
    newest: int,
    reseal: dict[str, int],
    records: Callable[[int], Records],
) -> str:
    """Write REVOKE records as a run of its own; returns why that could not be."""
    if not os.access(ledger.path, os.W_OK):
        return "the store is read-only"
    try:
        with explained(ledger.path):
            lease = Lease.exclusive(disk, ledger, linger=0.0)
    except BadInput as error:
        return str(error)
    try:
        if ledger.newest() != newest:
            return "a run painted meanwhile; verify again"
        with explained(ledger.path):
            epoch = claim(disk, ledger, {"kind": "verify", "n_ranks": 1}, reseal=reseal)
            revoked = records(epoch)
            if len(revoked):
                writer = RecordWriter(disk, ledger, epoch, 0)
                try:
                    writer.append(revoked)
                finally:
                    writer.close()
    finally:
        lease.close()
    return ""


def _threads(check: object, work: Ints, *arguments: object) -> list[_Found]:
    """Run `check` over pieces of `work` on dask's threads."""
    pieces = np.array_split(work, min(len(work), TASKS)) if len(work) else []
    task = dask.delayed(check, pure=False)
    # Wrapped so that dask does not look into (or copy) the big arguments.
    rest = [dask.delayed(a, pure=False, traverse=False) for a in arguments]
    return list(dask.compute(*[task(p, *rest) for p in pieces], scheduler="threads"))


def _merge(found: _Found, part: _Found) -> None:
    found.damage += part.damage
    found.tiles += part.tiles
    found.shards += part.shards


def _check_bricks(
    work: Ints, array: ChunkArray, state: State, crcs: npt.NDArray[np.uint32], ledger: Ledger
) -> _Found:
    found = _Found([], [], [])
    bricks, size = array.bricks, array.chunk_bytes
    for brick in work.tolist():
        tiles = bricks.tiles(brick)
        tiles = tiles[state.done[tiles]]
        if not len(tiles):  # all were taken back
            continue
        path = array.path(brick)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            for tile in tiles.tolist():
                _bad_tile(found, array, tile, str(path), "file missing")
            continue
        try:
            index = read_index(fd, int(state.ends[brick]), bricks.slots)
            if index is None:
                why = "index cut or checksum wrong"
                _bad_tile(found, array, int(tiles[0]), str(path), why)
                # The next append of a run gives the file a new index, made from the records.  One
                # tile to append is enough; the other chunks are checked by their records.
                if not state.done[bricks.tiles(brick)].all():
                    found.tiles.pop()
                index = ledger.brick_index(bricks, brick, size)
            for tile, slot in zip(tiles.tolist(), bricks.slot(tiles).tolist(), strict=True):
                why = _chunk_fault(fd, int(index[slot, 0]), size, int(crcs[tile]))
                if why:
                    _bad_tile(found, array, tile, str(path), why)
        finally:
            os.close(fd)
    return found


def _chunk_fault(fd: int, offset: int, size: int, crc: int) -> str:
    if offset == int(EMPTY):
        return "not in the file's index"
    raw = pread_all(fd, size, offset)
    if len(raw) < size:
        return f"file cut inside it, at byte {offset + len(raw)}"
    if decode_chunk(raw) is None:
        return f"checksum wrong at byte {offset}"
    if int.from_bytes(raw[-CRC_BYTES:], "little") != crc:
        return f"not the bytes that were recorded, at byte {offset}"
    return ""


def _bad_tile(found: _Found, array: ChunkArray, tile: int, file: str, why: str) -> None:
    at = tuple(array.bricks.tiling.coords(tile).tolist())
    found.damage.append(Damage(array.name, f"{array.damaged.what} {tile} {at}", file, why))
    found.tiles.append(tile)


def _check_shards(work: Ints, box: Box, tb: TbShards, crcs: npt.NDArray[np.uint32]) -> _Found:
    found = _Found([], [], [])
    side = tb.shard // tb.chunk
    for i in work.tolist():
        at = tb.coords(i)
        path = box.place / "tb" / "c.{}.{}.{}".format(*at)
        bad, _, crc, fault = check_shard(path, side**3)
        if not bad and not fault and crc != int(crcs[i]):
            fault = "not the bytes that were recorded"
        for slot in bad:
            inner = np.unravel_index(slot, (side,) * 3)
            chunk = tuple(int(a * side + b) for a, b in zip(at, inner, strict=True))
            found.damage.append(Damage("tb", f"chunk {chunk}", str(path), "checksum wrong"))
        if fault:
            found.damage.append(Damage("tb", f"shard {at}", str(path), fault))
        if bad or fault:
            found.shards.append(i)
    return found
