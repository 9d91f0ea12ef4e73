"""Make the fields of the box, shard by shard, once all that a shard is made of is durable.

`AssembleTask` makes tb of tiles. Another field is a row of the table of fields and a subclass of
`ShardTask`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bigbox.engine.task import Task
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.meeting import Meeting
from bigbox.scheduler.orders import MapOrder
from bigbox.store.cutouts import CutoutReader
from bigbox.store.fields import PAINTED, TB
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.engine.job import Job


class ShardTask(Task):
    """Shards of one field, each made of a region of another product, with `margin` voxels round it.

    A subclass says what it reads, and `make`s a shard. product: the name of the field.
    """

    on_device = False
    reads = TB.name
    margin = 0
    part: npt.NDArray[np.bool_] | None = None  # chunks of what is read that are made; None: all

    def __init__(self, job: Job, product: str) -> None:
        self.job, self.painting = job, job.painting
        done = self.painting.was_done(product)
        meeting = self.made_of()
        order = MapOrder(product, self.reads, meeting, job.assignment, job.rank, done, self.part)
        for chunks in self.painting.done_before(self.reads):
            order.final(self.reads, chunks)
        super().__init__(order)

    def made_of(self) -> Meeting:
        """Return which chunks of the product that is read go into which shards."""
        shards = self.painting.layout.shards
        return Meeting(shards.grown(self.margin), shards).inverse

    def make(self, shard: int) -> Float:
        """Return a shard, float32, the part of it in the box."""
        raise NotImplementedError

    def read(self, shard: int) -> Float:
        """Return tb under a shard, `margin` voxels round it, float32 mK, wrapped."""
        shards = self.painting.layout.shards
        origin = shards.origin(shard) - self.margin
        shape = [n + 2 * self.margin for n in shards.extent(shard)]
        return self._reader.read(origin.tolist(), shape)

    @cached_property
    def _reader(self) -> CutoutReader:
        """One for all shards: margins lie in chunks of their neighbours."""
        return self.job.reader(self.reads)

    def compute(self, units: Ints, loaded: Any) -> list[Float]:
        """Make shards."""
        return [self.make(shard) for shard in units.tolist()]

    def store(self, units: Ints, result: list[npt.NDArray[Any]]) -> None:
        """Write shards."""
        for shard, values in zip(units.tolist(), result, strict=True):
            self.painting.write(self.product, shard, values, self.is_whole(shard))

    def is_whole(self, shard: int) -> bool:
        """Return whether all that a shard is made of is there."""
        return True


class AssembleTask(ShardTask):
    """Shards of tb, put together from what each tile owns."""

    reads = PAINTED.name

    def __init__(self, job: Job, product: str) -> None:
        self.part, self._there = job.wanted, None
        if job.wanted is not None:
            self._there = job.wanted | job.painting.was_done(PAINTED.name)
        super().__init__(job, product)

    def made_of(self) -> Meeting:
        """Return which tiles go into which shards."""
        return self.painting.layout.shards_of_tiles

    def make(self, shard: int) -> Float:
        """Return a shard of tb, float32 mK, NaN where a region leaves it unpainted."""
        return self.painting.assembled(shard, self._there)

    def is_whole(self, shard: int) -> bool:
        """Return whether all tiles of a shard are there."""
        return self._there is None or bool(self._there[self.made_of().inverse.touched(shard)].all())
