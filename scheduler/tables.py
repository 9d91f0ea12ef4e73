"""Look up which tiles wait for a tile, and where they stand: what every rank's policy looks up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Ints


class Tables:
    """What every rank's policy looks up, per axis; shared by all policies of one assignment.

    A step leads from a tile to one that waits for it: `shift` is added to the tile's cell (brick *
    edge^3 + slot), `bit` is the one the waiting tile clears.
    """

    def __init__(self, assignment: Assignment, colouring: str) -> None:
        stages.check_colouring(colouring)
        self.bricks, self.tiling = assignment.bricks, assignment.tiling
        self.colouring = colouring
        self.cell = self.bricks.cell_terms
        self.wait_type = np.dtype(np.uint8 if colouring == "levels" else np.uint32)
        # The bit above those of the 6 or 26 predecessors.
        self.gate = self.wait_type.type(1 << (6 if colouring == "levels" else 26))
        # Per axis (n, 2): shift and bit to the tiles that wait across the two faces; bit 0: none.
        self.face_shift, self.face_bit = zip(*map(self._faces, range(3)), strict=True)
        # Tiles of one kind on each axis look alike to those that wait for them.
        self.kind_lists = self._kinds()
        self._steps_of_kind: dict[int, tuple[tuple[int, int], ...]] = {}
        self.cell_lists = [c.tolist() for c in self.cell]
        self.place = assignment.place.data
        self.starved = self._starved(assignment)

    @staticmethod
    def _starved(assignment: Assignment) -> NDArray[np.bool_]:
        """Ranks with less than half the usual share, an eighth, of tiles that wait for nothing."""
        bricks, tiling = assignment.bricks, assignment.tiling
        x, y, z = (
            np.add.reduceat(tiling.colours(a) == 0, np.arange(0, n, bricks.edge), dtype=np.int64)
            for a, n in enumerate(tiling.counts)
        )
        free = (x[:, None, None] * y[:, None] * z).ravel()
        per_rank = np.bincount(assignment.brick_rank, free, assignment.n_ranks)
        return 16 * per_rank < assignment.counts()

    def _faces(self, axis: int) -> tuple[Ints, NDArray[np.uint8]]:
        cell, steps = self.cell[axis], stages.face_shifts(self.tiling, axis, True)
        bits = np.where(steps != 0, (2 << 2 * axis, 1 << 2 * axis), 0).astype(np.uint8)
        return cell[np.arange(len(cell))[:, None] + steps] - cell[:, None], bits

    def _kinds(self) -> list[list[int]]:
        """Return a number for each axis and tile, whose sum over the axes is the tile's kind.

        Of one kind are tiles with the same shifts, overlaps and colours of their neighbours. There
        are few: a tile in a brick is like the next but one.
        """
        found, radix = [], 1
        for axis, cell in enumerate(self.cell):
            near = (np.arange(len(cell))[:, None] + (-1, 0, 1)) % len(cell)
            shift, colour = cell[near] - cell[:, None], self.tiling.colours(axis)[near]
            looks = np.hstack([shift, colour, stages.overlapping(self.tiling, axis)])
            kinds, number = np.unique(looks, axis=0, return_inverse=True)
            found.append((radix * number.ravel()).tolist())
            radix *= len(kinds)
        return found

    def initial(self, tiles: Ints) -> NDArray[np.unsignedinteger]:
        """One bit for each tile that must be painted first."""
        before = stages.predecessors(self.tiling, tiles, self.colouring) >= 0
        bits = np.uint32(1) << np.arange(before.shape[1], dtype=np.uint32)
        return np.where(before, bits, 0).sum(axis=1, dtype=np.uint32).astype(self.wait_type)

    def steps(self, tiles: Ints) -> tuple[Ints, Ints, NDArray[np.unsignedinteger]]:
        """All tiles that wait for the given ones: row of the given one, cell, bit to clear."""
        at = np.unravel_index(tiles, self.tiling.counts)
        cell = self.cell[0][at[0]] + self.cell[1][at[1]] + self.cell[2][at[2]]
        if self.colouring == "levels":
            bit = np.concatenate([b[i] for b, i in zip(self.face_bit, at, strict=True)], axis=1)
            shift = np.concatenate([d[i] for d, i in zip(self.face_shift, at, strict=True)], axis=1)
            rows, column = np.nonzero(bit)
            return rows, cell[rows] + shift[rows, column], bit[rows, column]
        after = stages.successors(self.tiling, tiles, self.colouring)
        rows, column = np.nonzero(after >= 0)
        waiting = after[rows, column]
        back = (len(stages.OFFSETS) - 1 - column).astype(np.uint32)  # the opposite step
        return rows, self.bricks.cell(waiting), np.uint32(1) << back

    def steps_of(self, tile: int, cell: int) -> tuple[tuple[int, int], ...]:
        """Return shift and bit of the tiles that wait for one tile, looked up once for each kind.

        It is faster than numpy's fixed cost per call.
        """
        _, ny, nz = self.tiling.counts
        x, y, z = self.kind_lists
        kind = x[tile // (ny * nz)] + y[tile // nz % ny] + z[tile % nz]
        try:
            return self._steps_of_kind[kind]
        except KeyError:
            _, waiting, bit = self.steps(np.array([tile]))
            found = tuple(zip((waiting - cell).tolist(), bit.tolist(), strict=True))
            return self._steps_of_kind.setdefault(kind, found)

    @cached_property
    def _chains(self) -> list[list[tuple[Ints, NDArray[np.bool_]]]]:
        """Per axis: shifts along which a painted tile is waited for, and whether they lead on.

        One step down, one step up, or two steps up through the colours 0, 1, 2 where a ring of
        tiles has an odd count.
        """
        found = []
        for shift, bit in zip(self.face_shift, self.face_bit, strict=True):
            waits = bit > 0
            through = np.roll(waits[:, 1], -1) & waits[:, 1]
            twice = shift[:, 1] + np.roll(shift[:, 1], -1)
            chains = [(shift[:, 0], waits[:, 0]), (shift[:, 1], waits[:, 1]), (twice, through)]
            found.append([(d, ok) for d, ok in chains if ok.any()])
        return found

    def cone(self, tiles: Ints) -> Iterator[tuple[Ints, Ints]]:
        """All tiles that wait for the given ones, through others too: rows, cells, in pieces.

        Painting by levels, such a tile has a higher colour on each axis on which it differs.
        """
        at = np.unravel_index(tiles, self.tiling.counts)
        cell = self.cell[0][at[0]] + self.cell[1][at[1]] + self.cell[2][at[2]]
        for chains in product(*([None, *axis] for axis in self._chains)):
            rows, there = np.arange(len(tiles)), cell
            for i, chain in zip(at, chains, strict=True):
                if chain is not None:
                    ok = chain[1][i[rows]]
                    rows, there = rows[ok], there[ok]
                    there = there + chain[0][i[rows]]
            if any(chains):
                yield rows, there


@lru_cache(maxsize=4)
def tables_of(assignment: Assignment, colouring: str) -> Tables:
    """Return the tables of an assignment, made once for all of its ranks."""
    return Tables(assignment, colouring)
