"""Check every stored byte of a painting against its checksums, and the ledger for holes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.blockwise import map_blocks
from bigbox.errors import Busy
from bigbox.scheduler.grid import Ints
from bigbox.store.durable import DISK, Disk
from bigbox.store.ledger import Ledger, State
from bigbox.store.mend import lost_metadata, take_back, was_dropped
from bigbox.store.product import Appended, Sharded
from bigbox.store.recorded import Recorded
from bigbox.store.shards import EMPTY, Float, check_shard, crc32c, read_chunk, read_index

# Files checked by one task: dask spends 200 microseconds on each.
AT_A_TIME = 16
NOT_FINITE = "NaN or infinite: painted so, give it up with bigbox paint --discard"

Crcs = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Damage:
    """One damaged thing: the array, the tile, shard or chunk in it, the file, and what is wrong.

    chunk is what to take back, -1 where that is nothing.
    """

    array: str
    what: str
    file: str
    why: str
    chunk: int = -1

    def __str__(self) -> str:
        return f"{self.array}: {self.what}: {self.why} ({self.file})"


@dataclass
class Report:
    """What `verify` found: chunks of each product by its name, and what is damaged."""

    total: dict[str, int]
    done: dict[str, int]
    damage: list[Damage] = field(default_factory=list)
    revoked: dict[str, int] = field(default_factory=dict)  # taken back, for the next paint
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing that is recorded as done is damaged."""
        return not self.damage

    @property
    def complete(self) -> bool:
        """Whether everything is done and intact."""
        return self.intact and self.done == self.total


def verify(found: Recorded[Any], *, repair: bool = True, disk: Disk = DISK) -> Report:
    """Read everything painted; what is damaged is taken back for the next paint.

    Nothing is recorded when `repair` is off, the store is read-only, or a run holds the lease.
    """
    ledger, products, state = found.ledger, found.products, found.state
    report = Report(
        {product.name: product.size for product in products},
        {p.name: int(done.sum()) for p, done in zip(products, state.done, strict=True)},
        revoked={product.name: 0 for product in products},
    )
    crcs = ledger.crcs([product.size for product in products])
    short = ledger.shortfalls()
    for source, good in short:
        what = f"records of rank {source.rank} in run {source.epoch}"
        why = f"{good} of {source.sealed} bytes are good; what the rest told of is made again"
        report.damage.append(Damage("ledger", what, str(source.path), why))
    lost = lost_metadata(found)
    for path in lost:
        why = "lost, damaged, or of another array"
        report.damage.append(Damage(path.parent.name, "zarr.json", str(path), why))
    appended = not was_dropped(found)
    if appended:
        begun = np.flatnonzero(state.ends)
        check = partial(_brick, products[0], state, crcs[0], ledger)
        report.damage += _damage(check, begun)
    else:
        report.notes.append("latents were removed: only tb is checked")
    for one, done, crc in zip(products[1:], state.done[1:], crcs[1:], strict=True):
        report.damage += _damage(partial(_shard, one, crc), np.flatnonzero(done))
    if not report.damage or not repair:
        return report
    if not appended:
        report.notes.append("tb cannot be made again without the latents: paint with --discard")
        return report
    damaged = {
        product.name: np.array(
            [d.chunk for d in report.damage if d.array == product.name and d.chunk >= 0], np.int64
        )
        for product in products
    }
    taken = found.layout.taken_back(found.place, damaged)
    reseal = {source.path.name: good for source, good in short}
    if not (reseal or lost or any(map(len, taken.values()))):
        return report
    try:
        why_not = take_back(disk, found, taken, reseal=reseal, files=lost)
    except Busy as busy:
        why_not = str(busy)
    if why_not:
        report.notes.append(f"nothing recorded: {why_not}")
        return report
    report.notes += [f"{path} is written again" for path in lost]
    after = ledger.state(products)
    for product, done in zip(products, after.done, strict=True):
        report.revoked[product.name] = report.done[product.name] - int(done.sum())
    return report


def _damage(check: Callable[[int], Iterator[Damage]], files: Ints) -> list[Damage]:
    """Return what is wrong with files, given by their numbers, in several threads."""

    def all_of(some: Ints) -> list[Damage]:
        return [damage for file in some.tolist() for damage in check(file)]

    return [damage for part in map_blocks(all_of, _parts(files)) for damage in part]


def _parts(items: Ints) -> Iterator[Ints]:
    for i in range(0, len(items), AT_A_TIME):
        yield items[i : i + AT_A_TIME]


def _brick(
    product: Appended, state: State, crcs: Crcs, ledger: Ledger, brick: int
) -> Iterator[Damage]:
    file, inside = product.file(brick), product.bricks.tiles(brick)
    chunks = inside[state.done[0][inside]]

    def damage(chunk: int, why: str, taken: bool = True) -> Damage:
        what = f"{product.noun} {chunk} {product.coords(chunk)}"
        return Damage(product.name, what, str(file), why, chunk if taken else -1)

    if not len(chunks):  # all were taken back
        return
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield from (damage(chunk, "file missing") for chunk in chunks.tolist())
        return
    try:
        slots = product.bricks.slot(chunks).tolist()
        index = read_index(fd, int(state.ends[brick]), product.bricks.slots)
        if index is None:
            # The next append of a run gives the file a new index, made from the records.  One
            # chunk to append is enough; the others are checked by their records.
            taken = bool(state.done[0][inside].all())
            yield damage(int(chunks[0]), "index cut or checksum wrong", taken)
            index = product.recorded_index(ledger, brick)
        for chunk, slot in zip(chunks.tolist(), slots, strict=True):
            values, why = _good(fd, int(index[slot, 0]), product.chunk_bytes, int(crcs[chunk]))
            if values is None:
                yield damage(chunk, why)
            elif product.field.spans_box:  # tiles may be NaN beyond what they own
                cube = values.reshape(product.shape)
                if count := _not_finite(cube, product.grid.extent(chunk)):
                    yield damage(chunk, f"{count} values are {NOT_FINITE}", taken=False)
    finally:
        os.close(fd)


def _good(fd: int, offset: int, size: int, crc: int) -> tuple[Float | None, str]:
    """Return the values of a chunk, or what is wrong with it."""
    if offset == int(EMPTY):
        return None, "not in the file's index"
    values, why = read_chunk(fd, offset, size)
    if values is not None and crc32c(values) != crc:
        return None, f"not the bytes that were recorded, at byte {offset}"
    return values, why


def _not_finite(cube: Float, inside: Sequence[int] | Ints) -> int:
    """Return how many values (..., n, n, n) are not finite in the first so many on each axis."""
    x, y, z = (slice(max(0, int(n))) for n in inside)
    part = cube[..., x, y, z]
    return int(part.size - np.count_nonzero(np.isfinite(part)))


def _shard(product: Sharded, crcs: Crcs, shard: int) -> Iterator[Damage]:
    """Check a shard that is written whole."""
    at, path, edge = product.coords(shard), product.file(shard), product.edges[1]
    side = product.edges[0] // edge
    odd: dict[int, int] = {}

    def chunk(slot: int) -> tuple[int, ...]:
        inner = np.unravel_index(slot, (side,) * 3)
        return tuple(int(a * side + b) for a, b in zip(at, inner, strict=True))

    def look(slot: int, values: Float) -> None:
        inside = np.subtract(product.shards.shape, np.multiply(chunk(slot), edge))
        if count := _not_finite(values.reshape((edge,) * 3), inside):
            odd[slot] = count

    def damage(what: str, why: str, taken: bool = True) -> Damage:
        return Damage(product.name, what, str(path), why, shard if taken else -1)

    bad, _, crc, fault = check_shard(path, side**3, look)
    if not bad and not fault and crc != int(crcs[shard]):
        fault = "not the bytes that were recorded"
    if fault:
        yield damage(f"shard {at}", fault)
    for slot in bad:
        yield damage(f"chunk {chunk(slot)}", "checksum wrong")
    for slot, count in odd.items():
        yield damage(f"chunk {chunk(slot)}", f"{count} values are {NOT_FINITE}", taken=False)
