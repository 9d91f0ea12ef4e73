"""What a box's ledgers tell: what is painted, by which runs, how much of it twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from bigbox.store.box import Box
from bigbox.store.haloes import done_of, halo_ledger, halo_state
from bigbox.store.ledger import BEGUN, SHARD, TILE, Ledger
from bigbox.store.run import layout

_TOLD = ("epoch", "kind", "host", "pid", "started", "n_ranks", "device")


def status(box: Box) -> dict[str, Any]:
    """Summary of the ledgers as JSON; reads only.

    {"painting": None, "haloes": ...} where tb is not painted, else also: identity, tiling, tiles,
    tiles_done, painted_again (tiles painted more than once, after a kill or damage), tb_shards,
    tb_shards_done, complete, and runs: [{epoch, kind, host, pid, started, last, n_ranks, device,
    tiles, tiles_begun, tiles_of_rank, tb_shards}].  What a run began and has no record of was lost
    when it was killed.  haloes: see `halo_status`.
    """
    haloes = halo_status(box)
    ledger = Ledger(box.place)
    run = ledger.run()
    if run is None:
        return {"painting": None, "haloes": haloes}
    tiling, bricks, tb = layout(run)
    state = ledger.state(bricks, tb.size)
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
        "runs": _runs(ledger, "tiles"),
        "haloes": haloes,
    }


def halo_status(box: Box) -> dict[str, Any] | None:
    """The haloes as JSON; None where the box has none.

    {"source"} for those that were ingested; else also: identity, description, windows,
    windows_left (to predict, were nothing in work), blocks, blocks_done, complete, and runs as in
    `status`, with windows (that it had to predict), windows_begun, blocks and blocks_of_rank.
    """
    found = halo_state(box)
    if found is None:
        if not box.has("halo"):
            return None
        return {"source": str(box.array("halo").attrs.get("source", "unknown")), "complete": True}
    run, layout, state = found
    windows = layout.windows
    return {
        "source": str(box.array("halo").attrs.get("source", "unknown")),
        "complete": bool(state.done.all()),
        "identity": run["identity"],
        "description": windows.describe(),
        "windows": windows.size,
        "windows_left": done_of(box, layout, state).left(),
        "blocks": windows.blocks.size,
        "blocks_done": int(state.done.sum()),
        "runs": _runs(halo_ledger(box), "blocks"),
    }


def _runs(ledger: Ledger, what: str) -> list[dict[str, Any]]:
    """Every run of a ledger; what: the name of what its TILE records are."""
    begun = "tiles_begun" if what == "tiles" else "windows_begun"
    runs: dict[int, dict[str, Any]] = {}
    for epoch in range(ledger.base(), ledger.newest() + 1):
        about = ledger.epoch(epoch)
        runs[epoch] = {
            key: about.get(key) for key in (*_TOLD, "windows") if key in _TOLD or key in about
        } | {"last": about.get("started"), what: 0, f"{what}_of_rank": {}, begun: 0}
        if what == "tiles":
            runs[epoch]["tb_shards"] = 0
    for source in ledger.sources():
        entry = runs[source.epoch]
        done = 0
        for block in ledger.blocks(source):
            done += int((block["kind"] == TILE).sum())
            entry[begun] += int(np.maximum(block["end"][block["kind"] == BEGUN], 1).sum())
            if what == "tiles":
                entry["tb_shards"] += int((block["kind"] == SHARD).sum())
        entry[what] += done
        entry[f"{what}_of_rank"][source.rank] = done
        written = datetime.fromtimestamp(source.path.stat().st_mtime, UTC)
        entry["last"] = max(entry["last"], written.isoformat(timespec="seconds"))
    return list(runs.values())
