"""Define a task: one kind of work on one rank, as the loop drives it.

::

      order ─next batch─► load ────► compute ───► store ──────► stored ──► other ranks and tasks
                          (thread)   the device   (own thread)  what is final
                                        └► computed

Each line of the loop is the same for all tasks. What a task is asked for runs in threads, one call
at a time each, where that is said; all else is the loop's own thread's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbox.engine.progress import NO_GOAL, Goal
from bigbox.engine.transport import Parcel
from bigbox.errors import BadInput
from bigbox.painters.base import empty_array
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.orders import Order, Outcome
from bigbox.scheduler.tiling import Tiling
from bigbox.store.cutouts import CutoutReader
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.painters.base import Painter


class Task:
    """One kind of work on one rank.

    order: which units, and when. It names the field that they make final. goal: how many units
    there are, where progress is to be shown.
    """

    # Whether `compute` needs the device. Else load, compute and store run in one thread of the
    # task's own, one unit after the other.
    on_device = True
    stores_waiting = 2  # batches that may wait before the device pauses: bounds memory
    stopped = True  # whether a stop finds nothing more to do here

    def __init__(self, order: Order, goal: Goal = NO_GOAL) -> None:
        self.product, self.order, self.goal = order.product, order, goal

    def next_batch(self, idle: bool) -> Ints:
        """Return the next units, int64; empty where there are none now."""
        return self.order.next_batch(idle)

    def load(self, units: Ints) -> Any:
        """Read what the units need (in a thread of loads)."""
        return None

    def compute(self, units: Ints, loaded: Any) -> Any:
        """Make the units (in a thread of the device)."""
        raise NotImplementedError

    def computed(self, units: Ints, result: Any) -> None:
        """Take note of units that are made, and not durable yet."""

    def store(self, units: Ints, result: Any) -> Any:
        """Store them (in the task's own thread): durable when this returns."""
        raise NotImplementedError

    def stored(self, units: Ints, found: Any) -> Outcome:
        """Return what came of what `store`, `receive` or a job of `due` returned."""
        return self.order.done(units)

    def parcel(self, rank: int, chunks: Ints) -> Parcel:
        """Return what another rank gets along with the news that these chunks are final."""
        return Parcel()

    def unpack(self, parcel: Parcel) -> None:
        """Take what came along with chunks that another rank made final."""

    def receive(self, chunks: Ints, parcel: Parcel) -> Any:
        """Take mail of the same task on another rank (in the task's own thread)."""
        raise NotImplementedError

    def final(self, product: str, chunks: Ints) -> None:
        """Take note that chunks of a product are durable, made by any rank."""
        self.order.final(product, chunks)

    def due(self, stopping: bool, busy: bool) -> Callable[[], Any] | None:
        """Return what should be done now in the task's own thread, beside units.

        busy: whether units of the task are computed or stored.
        """
        return None


def check_finite(painter: str, tiling: Tiling, tiles: Ints, values: Float) -> Float:
    """Return what was painted, float32 (B, ...). Raises BadInput, naming the tile, for NaN or inf.

    Nothing of such a batch is recorded: a tile that counts as painted is finite.
    """
    if np.isfinite(values.sum(dtype=np.float64)):  # as no sum with one of them is
        return values
    odd = ~np.isfinite(values)
    row = int(np.argmax(odd.reshape(len(odd), -1).any(axis=1)))
    tile = int(tiles[row])
    raise BadInput(
        f"{painter} painter: {int(odd[row].sum())} of the {odd[row].size} values of tile {tile}"
        f" (voxels from {tuple(tiling.origin([tile])[0].tolist())}) came out NaN or infinite;"
        " nothing of it is recorded: the model's weights or transforms are damaged, or its input"
        " is far from what it was trained on; copy or train the model again, or use another --model"
    )


def read_inputs(
    reader: CutoutReader | None,
    painter: Painter,
    tiling: Tiling,
    origin: Ints,
    empty: Callable[[tuple[int, ...]], Any] = empty_array,
) -> Float:
    """Return what tiles are painted from, float32 (B, C, n, n, n), `margin` voxels round each.

    reader: of the painter's input, None where it has none. empty: makes the array.
    """
    edge = tiling.tile + 2 * painter.margin
    channels = 0 if reader is None else reader.channels
    inputs = empty((len(origin), channels, edge, edge, edge))
    if reader is not None:
        for row, corner in zip(inputs, (origin - painter.margin).tolist(), strict=True):
            reader.read(corner, (edge,) * 3, row)
    return inputs
