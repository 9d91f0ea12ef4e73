"""Begin a painting of haloes, and one rank's hand on it.

    gpc_box.zarr/
      halo/                 (channels, X, Y, Z), one inner chunk a block, append-only files
      halogen/ledger/       who has predicted what: see `bigbox.store.ledger`
        sums/               sums of blocks that are not final: see `bigbox.store.saved_sums`

A block is to haloes what a tile is to tb. A BEGUN record names the first window of a batch, its
`end` how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Grid, Ints
from bigbox.scheduler.window_order import WindowsDone
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.fields import HALO
from bigbox.store.layouts import (
    HaloLayout,
    Recorded,
    halo_ledger,
    haloes_of,
    saved_of,
    windows_done,
)
from bigbox.store.lease import LINGER, Lease
from bigbox.store.product import ChunkReader
from bigbox.store.run import Begun, Start, discard_run
from bigbox.store.saved_sums import SavedSums, SumsFile, remove_unused, sums_directory
from bigbox.store.shards import Float
from bigbox.store.writer import RunWriter

Bool = npt.NDArray[np.bool_]


def start_haloes(
    box: Box,
    layout: HaloLayout,
    identity: Mapping[str, Any],
    found: Recorded[HaloLayout] | None = None,
) -> Start[HaloLayout]:
    """Return the start of a run that paints haloes, for rank 0: see `bigbox.store.run.Start`."""
    look, ledger = lambda: haloes_of(box), halo_ledger(box)
    return Start(box.path, ledger, layout, identity, look, found, keeps_layout=True)


@dataclass(frozen=True)
class BegunHaloes:
    """A run that paints haloes and has begun, for all ranks.

    Parameters
    ----------
    run : the run.
    sums : the saved sums that it goes on from.
    windows_left : windows that it has to predict.
    """

    run: Begun[HaloLayout]
    sums: SavedSums
    windows_left: int


def begin_haloes(
    start: Start[HaloLayout],
    disk: Disk,
    about: Mapping[str, Any],
    attributes: Mapping[str, Any],
    linger: float = LINGER,
) -> tuple[BegunHaloes, Lease]:
    """Begin a run that paints haloes; return it with the first rank's lease."""
    ledger = start.ledger
    found = start.found if start.difference is None else None
    windows = start.layout.windows
    left = windows.size
    if found is not None:
        saved = saved_of(ledger, found.layout, found.state)
        left = windows_done(found.layout, found.state, saved).left()
    begun, lease = start.begin(disk, {**about, "windows": left}, attributes, linger)
    try:
        with explained(ledger.path), lease.fenced():
            disk.make_dir(sums_directory(ledger))
            saved = saved_of(ledger, begun.layout, begun.state)
            made, tmp = count(1), ledger.tmp_of(begun.epoch)
            remove_unused(disk, ledger, saved, lambda name: tmp / f"start-{next(made)}-{name}")
    except BaseException:
        lease.close()
        raise
    return BegunHaloes(begun, saved, left), lease


def discard_haloes(box: Box, *, disk: Disk = DISK, linger: float = LINGER) -> bool:
    """Give up the painted haloes; what was painted on them is the caller's to give up first.

    Returns whether there were any. Raises BadInput while a run holds the lease.
    """
    return discard_run(halo_ledger(box), box.path, (HALO.name,), disk, linger)


class HaloPainting(RunWriter[HaloLayout]):
    """A rank's handle on a run that paints haloes. Then `close`.

    Thread safe, but for sums: those are one thread's.
    """

    def __init__(
        self,
        box: Box,
        begun: BegunHaloes,
        assignment: Assignment,
        rank: int = 0,
        disk: Disk = DISK,
        lease: Lease | None = None,
    ) -> None:
        run, saved = begun.run, begun.sums
        windows, edge = run.layout.windows, run.layout.edge
        ranks = assignment.rank_of_middle(Grid.regular(windows.shape, edge * windows.block))
        super().__init__(box.path, halo_ledger(box), run, rank, ranks, disk, lease)
        self.state, self.saved, self.windows_left = run.state, saved, begun.windows_left
        block = self.products[0].bricks.of_tile(saved.lines["block"].astype(np.int64))
        self._sums = SumsFile(
            disk,
            self.ledger,
            self.epoch,
            rank,
            self.products[0].shape,
            saved.only(ranks[block] == rank),
            self.temporary,
        )

    def done_of(self, blocks: Ints) -> WindowsDone:
        """Return what all ranks had done of these blocks when the run began; blocks: ascending."""
        return windows_done(self.layout, self.state, self.saved, blocks)

    def put_aside(self, block: int, windows: Bool, sums: Ints) -> None:
        """Keep the sums of a block that is not final, int64 (channels, b, b, b), on the disk.

        windows: which are in them, by `Windows.meeting.places`.
        """
        with self.writing(sums.nbytes):
            self._sums.put(block, windows, sums)

    def put_back(self, block: int) -> tuple[Bool, Ints] | None:
        """Return windows and sums that were put aside, or left by an earlier run; None if none."""
        with self.writing(0):
            return self._sums.take(block)

    def forget_sums(self, blocks: Iterable[int]) -> None:
        """Let go of blocks that are final, or whose sums another rank has."""
        for block in blocks:
            self._sums.forget(block)

    def save_sums(self, held: Sequence[tuple[int, Bool, Ints]]) -> None:
        """Make all sums durable, those put aside and those held, for a later run to go on from.

        held: blocks, windows, sums.
        """
        with self.writing(sum(sums.nbytes for _, _, sums in held)):
            self._sums.save(held)

    def close(self) -> None:
        """Close every file and let go of the lease."""
        self._sums.close()
        super().close()

    def finish(self) -> None:
        """Check that every block has a record, for rank 0 when all is done; sums go."""
        self.check_complete()
        with self.writing(0):
            dead = self.temporary("sums")
            self._disk.replace(sums_directory(self.ledger), dead)
            self._disk.remove_tree(dead)


class HaloReader(CutoutReader):
    """Cut-outs of painted haloes, of blocks that are final, safe while they are being painted.

    Parameters
    ----------
    box : the box.
    reader : of the blocks.
    grid : of the blocks.
    cache_bytes : see `CutoutReader`.
    """

    def __init__(self, box: Box, reader: ChunkReader, grid: Grid, cache_bytes: int) -> None:
        super().__init__(box.array(HALO.name), (True, True, True), cache_bytes)
        self._grid, self._reader = grid, reader

    @classmethod
    def of(cls, box: Box, found: Recorded[HaloLayout], cache_bytes: int) -> HaloReader:
        """Return a reader of haloes that no run is painting now. Raises DamagedChunk later."""
        product = found.products[0]
        reader = ChunkReader(product, found.state.ends, found.ledger)
        return cls(box, reader, found.layout.windows.blocks, cache_bytes)

    def _fetch(self, key: tuple[int, ...]) -> Float:
        return self._reader.read(int(self._grid.index(key)))
