"""Go on with half of a batch where there is no memory for all of it.

The bytes of a tile do not depend on the batch that it is painted in, so halving changes none. What
a network takes at a time is the painter's own, and fixed; a batch may be many of these.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.painters.base import StepBatch, TileBatch
from bigbox.store.shards import Float

LOG = logging.getLogger(__name__)


class WithinMemory:
    """Calls of a painter, on parts of a batch once a whole one was too much. what: for messages."""

    def __init__(self, what: str) -> None:
        self._what, self._most = what, 0

    def __call__(self, paint: Callable[[Any], Float], batch: Any) -> Float:
        """Return what `paint` makes of a batch. Raises BadInput where there is no memory for one.

        batch: a TileBatch, a StepBatch or an array, with a row for each tile or window.
        """
        count = len(batch)
        if not self._most or count <= self._most:
            try:
                return paint(batch)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if count == 1:
                    raise BadInput(
                        f"{self._what}: not enough memory for one at a time ({error}); give the"
                        " ranks more memory, or start fewer on a node"
                    ) from error
            self._most = -(-count // 2)
            _give_back()
            LOG.warning("%s: no memory for %d at a time; %d from now on", self._what, count,
                        self._most)  # fmt: skip
        parts = (slice(low, low + self._most) for low in range(0, count, self._most))
        return np.concatenate([self(paint, rows_of(batch, part)) for part in parts])


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory is what was wanting, of the machine or of a GPU."""
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in said  # torch on a CPU
    )


def rows_of(batch: Any, part: slice) -> Any:
    """Return some rows of a batch."""
    if isinstance(batch, np.ndarray):
        return batch[part]
    if isinstance(batch, TileBatch):
        rows = (batch.tiles, batch.origin, batch.inputs, batch.known, batch.width)
        tiles, origin, inputs, known, width = (one[part] for one in rows)
        return TileBatch(tiles=tiles, origin=origin, inputs=inputs, known=known, width=width)
    low, high, _ = part.indices(len(batch))
    inputs, given = batch.inputs[part], batch.given
    if given is not None:  # only some tiles' inputs come along
        inside = (given >= low) & (given < high)
        inputs, given = batch.inputs[inside], given[inside] - low
    return StepBatch(
        batch.tiles[part],
        batch.origin[part],
        inputs,
        batch.z[part],
        batch.previous[part],
        batch.step[part],
        None if batch.place is None else batch.place[part],
        given,
    )


def _give_back() -> None:
    """Have torch give back what it holds of a GPU's memory."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
