"""A little serial painting over the real store, whose bytes show any wrong or stale overlap."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.stages import known, predecessors, successors
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.durable import Disk
from bigbox.store.layouts import PaintLayout
from bigbox.store.painting import Painting
from bigbox.store.recorded import painting_of
from bigbox.store.run import Start
from bigbox.store.shards import EMPTY, decode_chunk, read_index
from tests.reference.tilings import level, owned

Float = npt.NDArray[np.float32]
TB_EDGES = (4, 2)


@lru_cache(maxsize=64)
def slabs(tiling: Tiling, tile: int) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """Known slabs of a tile: (neighbour, the slab in this tile, the slab in the neighbour)."""
    found = []
    widths, near = known(tiling, [tile])[0], tiling.neighbours([tile])[0]
    for axis in range(3):
        for side in range(2):
            w, t = int(widths[axis, side]), tiling.tile
            if w:
                low, high = slice(0, w), slice(t - w, t)
                mine, theirs = [slice(None)] * 3, [slice(None)] * 3
                mine[axis], theirs[axis] = (low, high) if side == 0 else (high, low)
                found.append((int(near[axis, side]), tuple(mine), tuple(theirs)))
    return found


def painted(tiling: Tiling, tile: int, seed: int, fields_of: Callable[[int], Float]) -> Float:
    """All fields of a tile (1 + n_steps, t, t, t), from those of the tiles it overlaps."""
    t = tiling.tile
    out: Float = np.random.default_rng([seed, tile]).random((t, t, t), dtype=np.float32)
    paste = []
    for near, mine, theirs in slabs(tiling, tile):
        fields = fields_of(near)
        if len(fields) > 1:  # the stored latents of the neighbour must be its own
            out += fields[1].sum(dtype=np.float32)
        paste.append((mine, fields[0][theirs]))
    if paste:
        mean = np.concatenate([v.ravel() for _, v in paste]).astype(np.float64).mean()
        out += np.float32(0.5 * mean)
    for mine, values in paste:
        out[mine] = values
    return out


@lru_cache(maxsize=32)
def waits_for(tiling: Tiling) -> list[set[int]]:
    """The tiles that each tile waits for."""
    return [{p for p in row if p >= 0} for row in predecessors(tiling, range(tiling.size)).tolist()]


@lru_cache(maxsize=32)
def reference(tiling: Tiling, seed: int, n_steps: int) -> tuple[Float, Float]:
    """(fields of all tiles (tiles, 1 + n_steps, t, t, t), tb), painted with no store at all."""
    t = tiling.tile
    fields = np.full((tiling.size, 1 + n_steps, t, t, t), np.nan, np.float32)
    tb = np.full(tiling.shape, np.nan, np.float32)
    for tile in np.argsort(level(tiling, np.arange(tiling.size)), kind="stable").tolist():
        fields[tile, 0] = painted(tiling, tile, seed, lambda near: fields[near])
        fields[tile, 1:] = 2 * fields[tile, 0]
        origin = tiling.origin([tile])[0]
        own = owned(tiling, tile)
        where = [
            (int(origin[a]) + np.arange(own[a].start, own[a].stop)) % tiling.shape[a]
            for a in range(3)
        ]
        tb[np.ix_(*where)] = fields[tile, 0][own]
    return fields, tb


@dataclass
class Case:
    """One painting of one box, and what its runs were told is done for good."""

    box: Box
    tiling: Tiling
    edge: int
    seed: int = 1
    n_steps: int = 0
    committed: set[int] = field(default_factory=set)
    assembled: set[int] = field(default_factory=set)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"painter": "test", "seed": self.seed}

    @property
    def bricks(self) -> Bricks:
        return Bricks(self.tiling, self.edge)

    @property
    def layout(self) -> PaintLayout:
        return PaintLayout(self.bricks, self.n_steps, TB_EDGES)

    def brick_file(self, brick: int) -> Path:
        return self.layout.products(self.box.path)[0].file(brick)

    @property
    def truth(self) -> tuple[Float, Float]:
        return reference(self.tiling, self.seed, self.n_steps)


class Run:
    """All ranks of one run, in one process, driven step by step."""

    def __init__(self, case: Case, n_ranks: int, rng: random.Random, disk: Disk) -> None:
        self.case = case
        self.rng = rng
        self.ranks: list[Painting] = []
        bricks = case.bricks
        self.owner = Assignment(bricks, n_ranks).rank_of(np.arange(case.tiling.size))
        start = Start(case.box, case.layout, case.identity)
        begun = start.begin(disk, {"n_ranks": n_ranks, "device": ""}, linger=0.0)
        self.epoch = begun.epoch
        try:
            for rank in range(n_ranks):
                self.ranks.append(Painting(case.box, begun, rank, n_ranks, disk))
        except BaseException:
            self.drop()
            raise
        self.done = {int(t) for part in self.ranks[0].done_before("latents/painted") for t in part}
        self.shards = {int(i) for part in self.ranks[0].done_before("tb") for i in part}
        meeting = case.layout.shards_of_tiles.inverse
        self.made_of = [set(meeting.touched([i]).tolist()) for i in range(meeting.a.size)]

    def check(self) -> None:
        """What this run takes for done is there and right, and what was promised is done."""
        case = self.case
        fields, tb = case.truth
        assert case.committed <= self.done, f"lost tiles {case.committed - self.done}"
        assert case.assembled <= self.shards, f"lost shards {case.assembled - self.shards}"
        for tile in sorted(self.done):
            assert np.array_equal(self.ranks[0].reader.read(tile), fields[tile, 0]), tile
            if case.n_steps and self.needed(tile):
                assert np.array_equal(self.ranks[0].read_fields(tile), fields[tile]), tile
        for i in sorted(self.shards):
            assert np.array_equal(read_tb(case, i), tb[case.layout.shards.slices(i)]), i

    def needed(self, tile: int) -> bool:
        """Whether a tile that is not done waits for this one."""
        after = successors(self.case.tiling, [tile])[0]
        return any(int(a) not in self.done for a in after if a >= 0)

    def step(self) -> bool:
        """Paint a few tiles, or make a shard of tb, or finish; False when all is done."""
        case, rng = self.case, self.rng
        before = waits_for(case.tiling)
        ready = [
            t for t in range(case.tiling.size) if t not in self.done and before[t] <= self.done
        ]
        shards = [
            i
            for i in range(len(self.made_of))
            if i not in self.shards and self.made_of[i] <= self.done
        ]
        if shards and (not ready or rng.random() < 0.3):
            i = rng.choice(shards)
            hand = rng.choice(self.ranks)
            hand.write("tb", i, hand.assembled(i))
            self.shards.add(i)
            case.assembled.add(i)
            return True
        if ready:
            rank = self.owner[rng.choice(ready)]
            mine = [t for t in ready if self.owner[t] == rank]
            self.paint(int(rank), rng.sample(mine, min(len(mine), rng.randint(1, 4))))
            return True
        self.ranks[0].finish()
        return False

    def paint(self, rank: int, tiles: list[int]) -> None:
        case, painting = self.case, self.ranks[rank]
        painting.note_begun(tiles)
        fields = np.empty((len(tiles), 1 + case.n_steps, *(case.tiling.tile,) * 3), np.float32)
        for row, tile in zip(fields, tiles, strict=True):
            row[0] = painted(case.tiling, tile, case.seed, painting.read_fields)
            row[1:] = 2 * row[0]
        painting.commit_tiles(tiles, fields)
        case.committed.update(tiles)
        self.done.update(tiles)
        if case.n_steps:
            before = {int(p) for p in predecessors(case.tiling, tiles).ravel() if p >= 0}
            free = [p for p in sorted(before | set(tiles)) if not self.needed(p)]
            painting.drop_steps(free)

    def drop(self) -> None:
        """The processes are gone: only their reading descriptors, that no test disk knows of."""
        for painting in self.ranks:
            painting.reader.close()

    def close(self) -> None:
        for painting in self.ranks:
            with suppress(OSError):
                painting.close()


def read_tb(case: Case, i: int) -> Float:
    """A shard of tb decoded here, all its checksums looked at; the part inside the box."""
    found = painting_of(case.box)
    assert found is not None
    shards, (shard, chunk) = found.layout.shards, found.layout.edges
    side = shard // chunk
    at = shards.coords(i).tolist()
    fd = os.open(case.box.path / "tb" / "c.{}.{}.{}".format(*at), os.O_RDONLY)
    try:
        index = read_index(fd, os.fstat(fd).st_size, side**3)
        assert index is not None
        out = np.full((shard,) * 3, np.nan, np.float32)
        for slot in range(side**3):
            if index[slot, 0] == EMPTY:
                continue
            values = decode_chunk(os.pread(fd, int(index[slot, 1]), int(index[slot, 0])))
            assert values is not None
            low = np.array(np.unravel_index(slot, (side,) * 3)) * chunk
            part = tuple(slice(a, a + chunk) for a in low.tolist())
            out[part] = values.reshape((chunk,) * 3)
    finally:
        os.close(fd)
    return out[tuple(slice(0, n) for n in shards.extent(i))]


def check_complete(case: Case, *, with_zarr: bool) -> None:
    """The ledger says complete, and every byte of tb is the reference's."""
    found = painting_of(case.box)
    assert found is not None
    assert found.state.complete and found.complete
    assert not found.ledger.shortfalls(), "what was sealed was durable"
    truth = case.truth[1]
    shards = found.layout.shards
    for i in range(shards.size):
        assert np.array_equal(read_tb(case, i), truth[shards.slices(i)])
    if with_zarr:
        assert np.array_equal(case.box.array("tb")[:], truth)
        latents = case.box.array("latents/painted")[:]
        assert np.array_equal(latents.reshape(case.truth[0][:, 0].shape), case.truth[0][:, 0])


def make_box(path: Path, shape: tuple[int, int, int]) -> Box:
    """An empty box of unit voxels."""
    return Box.create(path, shape, tuple(float(n) for n in shape), 0.0)
