"""Regions that failed too often and were left for later, so that the rest of a box is painted.

    ledger/set_aside.json   region, tiles, and why, of each

Once its tiles are done a region counts no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bigbox.store.ledger import Bool
from bigbox.store.metadata import read_sealed, sealed_json, understood
from bigbox.store.recorded import Recorded
from bigbox.store.writer import RunWriter

NAME = "set_aside.json"


@dataclass(frozen=True)
class SetAside:
    """A region (voxels of dm), its tiles, and the last word of what failed."""

    region: str
    tiles: list[int]
    why: str


def write_set_aside(run: RunWriter[Any], found: Sequence[SetAside]) -> None:
    """Note the regions of a run that are set aside, in place of those of earlier runs."""
    data = sealed_json({"regions": [asdict(one) for one in found]})
    with run.writing(len(data)):
        run._disk.write_atomic(run.ledger.path / NAME, data, run.temporary("set-aside"))


def read_set_aside(found: Recorded[Any], done: Bool) -> list[SetAside]:
    """Return the regions that are set aside and not done since. Raises BadInput."""
    path = found.ledger.path / NAME
    noted = read_sealed(path, "remove it: nothing else depends on it")
    with understood(path):
        regions = [SetAside(**one) for one in (noted or {}).get("regions", [])]
        return [one for one in regions if not done[one.tiles].all()]
