"""Say where a painter keeps the inputs of tiles, so that they come to the device once, not T times.

    step    T    T-1   ...   1
    given   x     .     .    .      the first time a tile comes up here
    place   3     3     3    3      and then it is free for another tile

A painter with no place left is given a tile's inputs at each step. With places for all, or for
those at a front, that is none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bigbox.scheduler.grid import Ints


class KeptInputs:
    """Places of a painter. One thread asks for some, another gives them back."""

    def __init__(self, places: Iterable[int] = ()) -> None:
        self._free = list(places)[::-1]
        self._at: dict[int, int] = {}

    def places(self, tiles: Ints) -> tuple[Ints, Ints]:
        """Return the place of each tile, -1 for none, and the rows whose inputs must be given."""
        place, given = np.full(len(tiles), -1, np.int64), []
        for row, tile in enumerate(tiles.tolist()):
            if tile not in self._at:
                given.append(row)
                if self._free:
                    self._at[tile] = self._free.pop()
            place[row] = self._at.get(tile, -1)
        return place, np.array(given, np.int64)

    def forget(self, tiles: Iterable[int]) -> None:
        """Free the places of tiles that do not come up again."""
        for tile in tiles:
            if tile in self._at:
                self._free.append(self._at.pop(tile))
