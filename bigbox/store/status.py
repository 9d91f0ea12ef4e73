"""Tell from a box's ledgers what is painted, by which runs, and how much of it twice."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from bigbox.store.box import Box
from bigbox.store.fields import HALO
from bigbox.store.haloes import windows_done
from bigbox.store.metadata import understood
from bigbox.store.recorded import Recorded, haloes_of, has_given_haloes, painting_of
from bigbox.store.records import BEGUN, made, seconds_after
from bigbox.store.set_aside import read_set_aside
from bigbox.store.watch import newest_watch

_OF_RUN = ("epoch", "kind", "host", "pid", "started", "n_ranks", "device")


def status(box: Box) -> dict[str, Any]:
    """Return a summary of the ledgers as JSON; reads only.

    {"painting": None, "haloes": ...} where tb is not painted, else also: identity, grid (voxels of
    dm on an axis for one that is painted), tiling, tiles, tiles_done, painted_again (tiles painted
    more than once, after a kill or damage), tb_shards, tb_shards_done, complete, and runs: [{epoch,
    kind, host, pid, started, last, n_ranks, device, tiles, tiles_begun, tiles_of_rank, tb_shards}],
    set_aside: [{region, tiles, why}], and watch: what the newest run last wrote down of itself,
    see `bigbox.store.watch`.
    What a run began and has no record of was lost when it was killed. haloes: see `halo_status`.
    """
    haloes = halo_status(box)
    found = painting_of(box)
    if found is None:
        return {"painting": None, "haloes": haloes}
    state, tiling = found.state, found.layout.tiling
    done = int(state.done[0].sum())
    return {
        "painting": "complete" if state.complete else "in progress",
        "complete": state.complete,
        "identity": found.identity,
        "grid": found.layout.grid,
        "tiling": found.run["tiling"],
        "description": tiling.describe(),
        "tiles": tiling.size,
        "tiles_done": done,
        "painted_again": state.written - done,
        "tb_shards": found.layout.shards.size,
        "tb_shards_done": int(state.done[1].sum()),
        "runs": _runs(found, "tiles", "tiles_begun"),
        "set_aside": [asdict(one) for one in read_set_aside(found, state.done[0])],
        "watch": newest_watch(found.ledger),
        "haloes": haloes,
    }


def halo_status(box: Box) -> dict[str, Any] | None:
    """Return a summary of the haloes as JSON; None where the box has none.

    {"source"} for those that were ingested; else also: identity, description, windows,
    windows_left (to predict, were nothing in work), blocks, blocks_done, complete, and runs as in
    `status`, with windows (that it had to predict), windows_begun, blocks and blocks_of_rank.
    """
    found = haloes_of(box)
    if not box.has(HALO.name) or (found is None and not has_given_haloes(box)):
        return None
    source = str(box.array(HALO.name).attrs.get("source", "unknown"))
    if found is None:
        return {"source": source, "complete": True}
    windows = found.layout.windows
    return {
        "source": source,
        "complete": found.complete,
        "identity": found.identity,
        "description": windows.describe(),
        "windows": windows.size,
        "windows_left": windows_done(found).left(),
        "blocks": windows.blocks.size,
        "blocks_done": int(found.state.done[0].sum()),
        "runs": _runs(found, "blocks", "windows_begun"),
    }


def _runs(found: Recorded[Any], what: str, begun: str) -> list[dict[str, Any]]:
    """Every run of a ledger; what, begun: names for chunks of product 0, and for BEGUN records."""
    ledger, runs = found.ledger, {}
    shards = {n: f"{product.name}_shards" for n, product in enumerate(found.products) if n}
    for epoch in range(ledger.base(), ledger.newest() + 1):
        about = ledger.epoch(epoch)
        with understood(ledger.epoch_path(epoch), ledger.way_out):
            datetime.fromisoformat(about["started"])
        run: dict[str, Any] = {key: about.get(key) for key in _OF_RUN}
        run |= {"windows": about["windows"]} if "windows" in about else {}
        run |= {"last": about.get("started"), what: 0, f"{what}_of_rank": {}, begun: 0}
        runs[epoch] = run | dict.fromkeys(shards.values(), 0)
    for source in ledger.sources():
        entry = runs[source.epoch]
        began = datetime.fromisoformat(entry["started"])
        done = worked = 0
        for block in ledger.blocks(source):
            worked = max(worked, int(seconds_after(began.timestamp(), block).max(initial=0)))
            done += int((block["kind"] == made(0)).sum())
            entry[begun] += int(np.maximum(block["end"][block["kind"] == BEGUN], 1).sum())
            for number, name in shards.items():
                entry[name] += int((block["kind"] == made(number)).sum())
        entry[what] += done
        entry[f"{what}_of_rank"][source.rank] = done
        last = (began + timedelta(seconds=worked)).isoformat(timespec="seconds")
        entry["last"] = max(entry["last"], last)
    return list(runs.values())
