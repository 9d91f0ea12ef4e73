"""The painting of haloes: its own run and ledger, and one rank's hand on it.

    gpc_box.zarr/
      halo/                 (channels, X, Y, Z), one inner chunk a block, append-only shards
      halogen/ledger/       who has predicted what: see `bigbox.store.ledger`
        sums/               sums of blocks that are not final: see `bigbox.store.savings`

A block is to haloes what a tile is to tb: done when its record (kind TILE) stands in this ledger.
A BEGUN record names the first window of a batch, its `end` how many there are. The ledger has a
lease and runs of its own, so that the haloes, once painted, serve any number of paintings of tb
without being touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import BigboxError
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.windoworder import Done, shard_ranks
from bigbox.scheduler.windows import Windows
from bigbox.store.blocks import BlockReader
from bigbox.store.box import AXES, KNOWN, Box
from bigbox.store.durable import DISK, Disk, explained
from bigbox.store.lease import LINGER
from bigbox.store.ledger import REVOKE_TILE, Ledger, State, make_records
from bigbox.store.metadata import array_metadata
from bigbox.store.reader import TileReader, halo_blocks
from bigbox.store.run import Made, begin_run, check_run, discard_run, make_group
from bigbox.store.savings import Savings, remove_unused, saved_sums, sums_directory
from bigbox.store.shards import Float
from bigbox.store.tbshards import default_edges
from bigbox.store.writing import Ints, RunWriter

if TYPE_CHECKING:
    from bigbox.painters.base import HaloPainter

Bool = npt.NDArray[np.bool_]

GROUP = "halogen"
# Voxels of a block on each axis: half a window, so that few are open, and the haloes under a tile
# are few bytes.
BLOCK = 32


@dataclass(frozen=True)
class HaloLayout:
    """What run.json of the haloes says: the windows, shards of `edge`^3 blocks, the channels."""

    windows: Windows
    edge: int
    channels: int

    @property
    def bricks(self) -> Bricks:
        """The blocks in shards."""
        return Bricks(self.windows.blocks, self.edge)

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for run.json."""
        return {
            "windows": {
                "shape": list(self.windows.shape),
                "window": self.windows.window,
                "stride": self.windows.stride,
            },
            "block": self.windows.block,
            "edge": self.edge,
            "channels": self.channels,
        }

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> HaloLayout:
        """The layout in run.json."""
        x, y, z = run["windows"]["shape"]
        windows = Windows(
            (x, y, z), run["windows"]["window"], run["windows"]["stride"], run["block"]
        )
        return cls(windows, int(run["edge"]), int(run["channels"]))


def default_shard_edge(shape: Sequence[int], block: int = BLOCK) -> int:
    """Blocks along a shard of halo: as many voxels as a shard of tb has."""
    return max(1, default_edges(max(shape))[0] // block)


def halo_ledger(box: Box) -> Ledger:
    """The ledger of the haloes of a box, which may be empty."""
    return Ledger(box.path / GROUP)


def halo_state(box: Box) -> tuple[dict[str, Any], HaloLayout, State] | None:
    """run.json of the painting of haloes, its layout and what is done; None where there is none."""
    ledger = halo_ledger(box)
    run = ledger.run()
    if run is None:
        return None
    layout = HaloLayout.from_run(run)
    return run, layout, ledger.state(layout.bricks, 0)


def start_haloes(
    box: Box,
    painter: HaloPainter,
    windows: Windows,
    *,
    n_ranks: int = 1,
    device: str = "",
    edge: int | None = None,
    disk: Disk | None = None,
    linger: float = LINGER,
    check: bool = False,
) -> int:
    """Begin a run of the painting of haloes; returns its number (epoch).  For rank 0 alone.

    windows: its block is the default of a painting that is new, one that has begun keeps its own;
    edge: blocks along a shard, likewise; check: only see whether it would be refused.
    Raises BadInput as `bigbox.store.run.start_run` does.
    """
    disk = disk or DISK
    identity = json.loads(json.dumps(painter.identity()))
    channels = painter.channels
    edge = edge or default_shard_edge(windows.shape, windows.block)
    layout = HaloLayout(windows, edge, channels)
    found = halo_state(box)
    left = windows.size
    same = found is not None and found[0]["identity"] == identity
    if found is not None and same:
        layout = found[1]
        left = done_of(box, layout, found[2]).left()

    def files(tmp: Path) -> dict[Path, bytes]:
        about = {**painter.attributes(), "painting": identity}
        return {tmp / "halo": halo_metadata(layout, about)}

    what = Made(box.path, ("halo",), _done, "haloes are painted", "--discard-halo", GROUP)
    about = {"kind": "halo", "n_ranks": n_ranks, "device": device, "windows": left}
    wanted = {"identity": identity, **layout.as_dict()}
    if check:
        with suppress(FileNotFoundError):  # of a painting that another command gives up just now
            check_run(what, wanted)
        return 0
    make_group(disk, box.path / GROUP)
    epoch = begin_run(what, wanted, files, about, disk, linger)
    ledger = halo_ledger(box)
    with explained(ledger.path):
        disk.make_dir(sums_directory(ledger))
        if found is not None and same:
            used = saved_sums(ledger, _bits(layout.windows), found[2].done)
            made = count(1)
            remove_unused(
                disk, ledger, used, lambda name: ledger.tmp_of(epoch) / f"start-{next(made)}-{name}"
            )
    return epoch


def _bits(windows: Windows) -> int:
    """Bits of the windows that can be in the sums of a block."""
    return int(np.prod(windows.ordinals))


def done_of(box: Box, layout: HaloLayout, state: State) -> Done:
    """What is done of the haloes of a box: final blocks, and sums that were saved of others."""
    saved = saved_sums(halo_ledger(box), _bits(layout.windows), state.done)
    return Done(layout.windows, state.done, *saved.included())


def discard_haloes(box: Box, *, disk: Disk | None = None, linger: float = LINGER) -> bool:
    """Give up the painted haloes; what was painted on them is the caller's to give up first.

    Returns whether there were any.  Raises BadInput while a run holds the lease.
    """
    return discard_run(box.path / GROUP, box.path, ("halo",), disk or DISK, linger)


def halo_metadata(layout: HaloLayout, about: Mapping[str, Any]) -> bytes:
    """zarr.json of halo, one inner chunk a block, NaN where not painted yet."""
    units, long_name = KNOWN["halo"]
    block = layout.windows.block
    return array_metadata(
        (layout.channels, *layout.windows.shape),
        (layout.channels, block, block, block),
        shard=(layout.channels, *(layout.edge * block,) * 3),
        names=("channel", *AXES),
        attributes={"units": units, "long_name": long_name, **about},
        separator=".",
    )


def _done(ledger: Ledger, run: Mapping[str, Any]) -> int:
    return int(ledger.state(HaloLayout.from_run(run).bricks, 0).done.sum())


class HaloPainting(RunWriter):
    """A rank's handle on run `epoch` of the painting of haloes.  Then `close`.

    Thread safe, but for sums: those are one thread's.  final: bool[blocks], what all ranks had done
    when this run began.
    """

    def __init__(
        self, box: Box, assignment: Assignment, rank: int, epoch: int, disk: Disk | None = None
    ) -> None:
        super().__init__(box.path / GROUP, rank, epoch, disk or DISK)
        try:
            run = self._ledger.run()
            if run is None:
                raise BigboxError(f"{box.path}: run {epoch} has no painting of haloes to join")
            self.layout = HaloLayout.from_run(run)
            state = self._ledger.state(self.layout.bricks, 0)
            self.final = state.done
            array = halo_blocks(box.path, self.layout.bricks, self.layout.channels)
            _, ranks = shard_ranks(self.layout.windows, self.layout.edge, assignment)
            self._join(array, ranks, state)
            self._saved = saved_sums(self._ledger, _bits(self.layout.windows), state.done)
            mine = self.rank_of(self._saved.lines["block"].astype(np.int64)) == rank
            self._savings = Savings(
                self._disk,
                self._ledger,
                epoch,
                rank,
                array.shape,
                self._saved.only(mine),
                self._temporary,
            )
        except BaseException:
            self._lease.close()
            raise

    def rank_of(self, blocks: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The rank that writes each block: (M,) -> int32 (M,)."""
        return self._brick_rank[self._array.bricks.of_tile(blocks)]

    def own_blocks(self) -> Ints:
        """The blocks that this rank writes, ascending."""
        mine = np.flatnonzero(self._brick_rank == self.rank).tolist()
        found = [self._array.bricks.tiles(brick) for brick in mine]
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)

    def begin_windows(self, windows: Ints) -> None:
        """Note that these windows are being predicted: one record a batch, there are very many."""
        self._note_begun(windows[:1], len(windows))

    def commit_blocks(self, blocks: npt.ArrayLike, values: npt.NDArray[np.float32]) -> None:
        """Store final blocks of this rank for good: they are done when this returns.

        values: float32 (M, channels, b, b, b), (M_sun/h) / (Mpc/h)^3, NaN beyond the box's end.
        Raises BadInput on a full disk, StoppedEarly where a newer run has started; after any
        failure this handle commits nothing more.
        """
        blocks = self._own(blocks)
        expected = (len(blocks), *self._array.shape)
        if values.shape != expected or values.dtype != np.float32:
            raise ValueError(
                f"blocks are {values.dtype} {values.shape}, must be float32 {expected}"
            )
        with self._lock, self._writing(values.nbytes):
            self._commit(blocks, list(values))

    def read_block(self, block: int) -> Float:
        """A block that is done, by any rank: (channels, b, b, b), read-only; DamagedBlock."""
        return self._reader.read(int(block))

    def revoke(self, blocks: npt.ArrayLike) -> None:
        """Take blocks back: the next run predicts them again, to the same bytes."""
        with self._writing(0):
            self._append_records(make_records(REVOKE_TILE, self.epoch, blocks))

    def done_of(self, blocks: Ints) -> Done:
        """What all ranks had done of these blocks when this run began; blocks: ascending."""
        found, included = self._saved.included()
        here = np.isin(found, blocks)
        return Done(self.layout.windows, self.final, found[here], included[here])

    def put_aside(self, block: int, windows: Bool, sums: Ints) -> None:
        """Keep the sums of a block that is not final, int64 (channels, b, b, b), on the disk;
        windows: which are in them, see `bigbox.scheduler.windows.Windows.ordinals_of`."""
        with self._writing(sums.nbytes):
            self._savings.put(block, windows, sums)

    def put_back(self, block: int) -> tuple[Bool, Ints] | None:
        """Windows and sums that were put aside, or that an earlier run left; None without any."""
        with self._writing(0):
            return self._savings.take(block)

    def forget_sums(self, blocks: Iterable[int]) -> None:
        """These blocks are final, or another rank has their sums."""
        for block in blocks:
            self._savings.forget(block)

    def save_sums(self, held: Sequence[tuple[int, Bool, Ints]]) -> None:
        """Make all sums durable, those put aside and those held: a run that begins after this one
        goes on from them.  held: blocks, windows, sums."""
        with self._writing(sum(sums.nbytes for _, _, sums in held)):
            self._savings.save(held)

    def close(self) -> None:
        """Close every file and let go of the lease."""
        self._savings.close()
        super().close()

    def finish(self) -> None:
        """Check that every block has a record, for rank 0 when all is done; sums go."""
        done = self._ledger.state(self.layout.bricks, 0).done
        if not done.all():
            raise BigboxError(
                f"{self._place}: not complete: {int((~done).sum())} of {len(done)} blocks have no"
                f" record, the first is block {int(np.argmin(done))}"
            )
        with self._writing(0):
            dead = self._temporary("sums")
            self._disk.replace(sums_directory(self._ledger), dead)
            self._disk.remove_tree(dead)

    def windows_left(self) -> int:
        """Windows that a run that begins after this one has to predict; reads the ledger."""
        state = self._ledger.state(self.layout.bricks, 0)
        return done_of(Box.open(self._place.parent), self.layout, state).left()


class HaloReader(BlockReader):
    """Cut-outs of painted haloes, safe while they are being painted: of blocks that are final.

    found: as `halo_state` gives it; painting: this rank's hand where a run is on, which knows what
    it has appended itself.  Raises DamagedBlock.
    """

    def __init__(
        self,
        box: Box,
        found: tuple[dict[str, Any], HaloLayout, State],
        painting: HaloPainting | None,
        cache_bytes: int,
    ) -> None:
        super().__init__(box.array("halo"), (True, True, True), cache_bytes)
        _, layout, state = found
        self._grid = layout.windows.blocks
        self._read: Callable[[int], Float]
        if painting is not None:
            self._read = painting.read_block
        else:
            array = halo_blocks(box.path, layout.bricks, layout.channels)
            self._read = TileReader(array, state.ends, halo_ledger(box)).read

    def _fetch(self, key: tuple[int, ...]) -> Float:
        return self._read(int(self._grid.index(key)))
