"""Make shards of tb again from the painted tiles: no painter is needed for that."""

from __future__ import annotations

import numpy as np

from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk
from bigbox.store.fields import TB
from bigbox.store.lease import LINGER
from bigbox.store.mend import was_dropped
from bigbox.store.painting import Painting, PaintStart
from bigbox.store.recorded import painting_of


def remake_shards(box: Box, *, disk: Disk = DISK, linger: float = LINGER) -> int:
    """Write the shards of tb that are not done and whose tiles all are; return how many.

    Raises BadInput where a run holds the lease.
    """
    found = painting_of(box)
    if found is None or was_dropped(found):
        return 0
    tiles, shards = found.state.done[0], found.state.done[1]
    made_of = found.layout.shards_of_tiles.inverse
    missing = [
        shard
        for shard in np.flatnonzero(~shards).tolist()
        if tiles[made_of.touched(np.array([shard]))].all()
    ]
    if not missing:
        return 0
    start = PaintStart(box, found.layout, found.identity, found)
    begun = start.begin(disk, {"kind": "repair", "n_ranks": 1, "device": ""}, linger=linger)
    painting = Painting(box, begun, disk=disk)
    try:
        for shard in missing:
            painting.write(TB.name, shard, painting.assembled(shard))
        if painting.all_recorded():
            painting.finish()
    finally:
        painting.close()
    return len(missing)
