"""What a box's ledger tells: what is painted, by which runs, how much of it twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bigbox.store.box import Box
from bigbox.store.ledger import BEGUN, SHARD, TILE, Ledger
from bigbox.store.run import layout


def status(box: Box) -> dict[str, Any]:
    """Summary of the ledger as JSON; reads only.

    {"painting": None} where there is none, else also: identity, tiling, tiles, tiles_done,
    painted_again (tiles painted more than once, after a kill or damage), tb_shards,
    tb_shards_done, complete, and runs: [{epoch, kind, host, pid, started, last, n_ranks, device,
    tiles, tiles_begun, tiles_of_rank, tb_shards}].  What a run began and has no record of was lost
    when it was killed.
    """
    ledger = Ledger(box.path)
    run = ledger.run()
    if run is None:
        return {"painting": None}
    tiling, bricks, tb = layout(run)
    state = ledger.state(bricks, tb.size)
    runs: dict[int, dict[str, Any]] = {}
    for epoch in range(ledger.base(), ledger.newest() + 1):
        about = ledger.epoch(epoch)
        runs[epoch] = {
            key: about.get(key)
            for key in ("epoch", "kind", "host", "pid", "started", "n_ranks", "device")
        } | {"last": about.get("started"), "tiles": 0, "tiles_of_rank": {}, "tb_shards": 0}
        runs[epoch] |= {"tiles_begun": 0}
    for source in ledger.sources():
        entry = runs[source.epoch]
        tiles = 0
        for block in ledger.blocks(source):
            tiles += int((block["kind"] == TILE).sum())
            entry["tb_shards"] += int((block["kind"] == SHARD).sum())
            entry["tiles_begun"] += int((block["kind"] == BEGUN).sum())
        entry["tiles"] += tiles
        entry["tiles_of_rank"][source.rank] = tiles
        written = datetime.fromtimestamp(source.path.stat().st_mtime, UTC)
        entry["last"] = max(entry["last"], written.isoformat(timespec="seconds"))
    done = int(state.done.sum())
    return {
        "painting": "complete" if state.complete else "in progress",
        "complete": state.complete,
        "identity": run["identity"],
        "tiling": run["tiling"],
        "description": tiling.describe(),
        "tiles": tiling.size,
        "tiles_done": done,
        "painted_again": state.painted - done,
        "tb_shards": tb.size,
        "tb_shards_done": int(state.shards.sum()),
        "runs": list(runs.values()),
    }
