"""Average over overlapping windows in integers, so that no order of adding can change the result.

    sum   += weight x round(2^24 log10 rho_h)         for every window that covers a voxel, int64
    mean   = sum / (2^24 x sum of the weights)        once all of them have
    rho_h  = 10^mean, or 0 where mean < 9.5           paper section 2.1

Sums of floats depend on the order of adding, hence on ranks and batches; those of integers do not.
2^-24 of a dex is below what float32 tells apart in rho_h.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput, BigboxError
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.window_order import Bool, WindowOrder
from bigbox.store.shards import Float

if TYPE_CHECKING:
    from bigbox.store.saved_sums import SumsFile
    from bigbox.store.slots import Held

SCALE = 1 << 24
# log10 of (M_sun/h) / (Mpc/h)^3 under which a voxel holds no halo (Mishra, Trotta & Viel 2025
# (LODI), section 2.1).
CUT = 9.5
# |log10 rho_h| beyond which a prediction is none, but a fault of the network; float32 ends there.
SANE = 38.0


class Sums:
    """Sums of the blocks that one rank has a part in, at most `limit_bytes` of them in memory.

    One block is always held. weights: int64 (window,), of a voxel in the average, on one axis;
    aside: takes what does not fit, and has what earlier runs have left. Raises BadInput for weights
    that leave a voxel without any, or that could overflow.
    """

    def __init__(
        self,
        order: WindowOrder,
        weights: npt.ArrayLike,
        channels: int,
        aside: SumsFile,
        limit_bytes: int,
    ) -> None:
        self._order = order
        self._windows = windows = order.windows
        self._weights = np.asarray(weights, np.int64)
        self._shape = (channels, *(windows.block,) * 3)
        self._aside = aside
        self._limit = limit_bytes
        self._open: OrderedDict[int, tuple[Bool, Ints]] = OrderedDict()
        if self._weights.shape != (windows.window,) or self._weights.min() < 0:
            raise BadInput(f"weights of windows: {windows.window} whole numbers from 0 are needed")
        self._coverage = [windows.coverage(axis, self._weights) for axis in range(3)]
        if min(int(c.min()) for c in self._coverage) < 1:
            raise BadInput("weights of windows: some voxels of the box get none; lower the stride")
        if float(np.prod([float(c.max()) for c in self._coverage])) * SCALE * SANE >= 2.0**63:
            raise BadInput("weights of windows: too large for sums of 64 bits; divide them")
        edge = (windows.window,) * 3
        self._scaled = np.empty((channels, *edge), np.float64)
        self._fixed = np.empty((channels, *edge), np.int64)
        self._plain = bool((self._weights == 1).all())

    def add(self, window: int, logs: Float) -> list[int]:
        """Add a window, float32 (C, w, w, w) log10 rho_h; return the blocks that are complete."""
        least, most = float(logs.min()), float(logs.max())
        if not (-SANE <= least and most <= SANE):
            raise BadInput(
                f"window {window}: the painter of haloes predicts log10 rho_h from {least:g} to "
                f"{most:g}, beyond +-{SANE:g}; check the model"
            )
        np.multiply(logs, SCALE, out=self._scaled, dtype=np.float64)
        np.rint(self._scaled, out=self._scaled)
        fixed = self._fixed
        np.copyto(fixed, self._scaled, casting="unsafe")  # they are whole numbers
        if not self._plain:
            x, y, z = (self._weights.reshape(s) for s in ((-1, 1, 1), (-1, 1), (-1,)))
            fixed *= x * y * z
        here = self._order.blocks_of(window)
        for block, inside, target in self._windows.meeting.pieces(window):
            if block in here:
                self._held(block)[1][(slice(None), *target)] += fixed[(slice(None), *inside)]
        for block, place in here.items():
            self._held(block)[0][place] = True
        return self._order.add(list(here))

    def add_sums(self, block: int, windows: Bool, sums: Ints) -> list[int]:
        """Add what another rank has summed up over some windows; return as `add` does."""
        count = int(np.count_nonzero(windows))
        if not self._order.awaits(block, count) or (self._held(block)[0] & windows).any():
            raise BigboxError(f"block {block}: sums of windows that it has; please report")
        union, total = self._held(block)
        union |= windows
        total += sums.reshape(self._shape)
        return self._order.add([block], count)

    def take(self, block: int) -> tuple[Bool, Ints]:
        """Return the sums of a block that is complete here, and their windows; they are gone."""
        self._held(block)
        return self._open.pop(block)

    def held(self) -> list[Held]:
        """Return what is in memory: blocks, windows as packed bits, sums."""
        return [(block, np.packbits(w), sums) for block, (w, sums) in self._open.items()]

    def density(self, block: int, sums: Ints) -> Float:
        """Return rho_h of a final block, float32 (C, b, b, b), NaN beyond the box's end."""
        inside = tuple(slice(0, n) for n in self._windows.blocks.extent(block))
        low = self._windows.blocks.origin(block).tolist()
        x, y, z = (
            cover[a + s.start : a + s.stop]
            for cover, a, s in zip(self._coverage, low, inside, strict=True)
        )
        total = (x[:, None, None] * y[:, None] * z) * np.float64(SCALE)
        mean = sums[(slice(None), *inside)] / total
        found = np.full(self._shape, np.nan, np.float32)
        found[(slice(None), *inside)] = np.where(mean >= CUT, 10.0**mean, 0.0)
        return found

    def _held(self, block: int) -> tuple[Bool, Ints]:
        entry = self._open.get(block)
        if entry is not None:
            self._open.move_to_end(block)
            return entry
        most = self._windows.most_per_block
        if (found := self._aside.take(block)) is not None:
            entry = np.unpackbits(found[0], count=most).astype(bool), found[1]
        else:
            entry = np.zeros(most, bool), np.zeros(self._shape, np.int64)
        self._open[block] = entry
        while len(self._open) > 1 and len(self._open) * entry[1].nbytes > self._limit:
            oldest = next(iter(self._open))
            windows, sums = self._open.pop(oldest)
            self._aside.put(oldest, np.packbits(windows), sums)
        return entry
