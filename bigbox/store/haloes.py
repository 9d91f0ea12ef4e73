"""Begin a painting of haloes, and one rank's hand on it.

    gpc_box.zarr/
      halo/                 (channels, X, Y, Z), one inner chunk a block, append-only files
      halogen/ledger/       who has predicted what: see `bigbox.store.ledger`
        sums/               sums of blocks that are not final: see `bigbox.store.saved_sums`

A block is to haloes what a tile is to tb. A BEGUN record names the first window of a batch, its
`end` how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.grid import Grid, Ints, in_chunks
from bigbox.scheduler.meeting import Meeting
from bigbox.scheduler.window_order import WindowsDone
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.durable import DISK, Disk
from bigbox.store.fields import HALO
from bigbox.store.layouts import HaloLayout
from bigbox.store.ledger import State
from bigbox.store.product import ChunkReader
from bigbox.store.recorded import Recorded
from bigbox.store.run import Begun, Start
from bigbox.store.saved_sums import SavedSums, SumsFile, saved_sums, sums_directory
from bigbox.store.shards import Float
from bigbox.store.slots import remove_others
from bigbox.store.writer import RunWriter

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BegunHaloes(Begun[HaloLayout]):
    """A run that paints haloes and has begun, for all ranks."""

    sums: SavedSums  # that it goes on from
    windows_left: int  # that it has to predict


class HaloStart(Start[HaloLayout]):
    """The start of a run that paints haloes: it also goes on from the sums of blocks."""

    def tidy(self, disk: Disk, epoch: int) -> None:
        """Remove sums that nobody goes on from."""
        place = sums_directory(self.ledger)
        disk.make_dir(place)
        used = {self._sums.files[i].name for i in np.unique(self._sums.file).tolist()}
        remove_others(disk, place, used, self.ledger.tmp_of(epoch))

    def begun(self, begun: Begun[HaloLayout]) -> BegunHaloes:
        """Return the run with the sums that it goes on from."""
        return BegunHaloes(**vars(begun), sums=self._sums, windows_left=self._left)

    def to_note(self, state: State, fresh: bool) -> dict[str, Any]:
        """Return how many windows are to be predicted."""
        windows, final = self.layout.windows, state.done[0]
        nothing = SavedSums.nothing(windows.most_per_block)
        self._sums = nothing if fresh else saved_sums(self.ledger, nothing.bits, final)
        self._left = WindowsDone(windows, final, *self._sums.included()).left()
        return {"windows": self._left}


def windows_done(found: Recorded[HaloLayout]) -> WindowsDone:
    """Return what is done of the windows, with the sums that earlier runs have saved."""
    windows, final = found.layout.windows, found.state.done[0]
    saved = saved_sums(found.ledger, windows.most_per_block, final)
    return WindowsDone(windows, final, *saved.included())


class HaloPainting(RunWriter[HaloLayout]):
    """A rank's handle on a run that paints haloes. Then `close`.

    Thread safe, but for sums: those are one thread's. windows_done: what all ranks had done when
    the run began.
    """

    def __init__(
        self,
        box: Box,
        begun: BegunHaloes,
        assignment: Assignment,
        rank: int = 0,
        disk: Disk = DISK,
    ) -> None:
        saved, windows, edge = begun.sums, begun.layout.windows, begun.layout.edge
        ranks = assignment.rank_of_middle(Grid.regular(windows.shape, edge * windows.block))
        super().__init__(box, begun, rank, ranks, disk)
        self.windows_done = WindowsDone(windows, begun.state.done[0], *saved.included())
        self.windows_left = begun.windows_left
        block = self.products[0].bricks.of_tile(saved.lines["key"].astype(np.int64))
        mine = saved.only(ranks[block] == rank)
        self.sums = SumsFile(self, disk, mine)

    def only_under(self, items: Grid, some: Ints) -> None:
        """Leave out the blocks that do not lie under some items of a grid, and their windows."""
        done = self.windows_done
        other = np.ones(len(done.final), bool)
        meeting = Meeting(items, self.layout.windows.blocks)
        for part in in_chunks(some):
            other[meeting.touched(part)] = False
        self.windows_done = replace(done, final=done.final | other)
        self.windows_left = self.windows_done.left()

    def close(self) -> None:
        """Close every file and let go of the lease."""
        self.sums.close()
        super().close()

    def finish(self) -> None:
        """Check that every block has a record, for rank 0 when all is done; sums go."""
        self.check_complete()
        with self.writing(0):
            dead = self.temporary("sums")
            self._disk.replace(sums_directory(self.ledger), dead)
            self._disk.remove_tree(dead)


class HaloReader(CutoutReader):
    """Cut-outs of painted haloes, of blocks that are final, safe while they are being painted."""

    def __init__(self, box: Box, blocks: ChunkReader, cache_bytes: int) -> None:
        super().__init__(box.array(HALO.name), (True, True, True), cache_bytes)
        self._of_blocks, self._grid = blocks, blocks.product.bricks.grid

    def _fetch(self, key: tuple[int, ...]) -> Float:
        return self._of_blocks.read(int(self._grid.index(key)))
