"""The numbers of `bigbox bench` on the disk: written by it, used by `bigbox plan`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from bigbox.errors import BadInput

PAINTER = "lodi"  # whose numbers they are


@dataclass(frozen=True)
class Speed:
    """What `bigbox bench` measured on one device.

    device: the GPU, or the processor; threads: of it, 1 with a GPU; dtype: of the networks; model:
    sha256 of LODI's weights; steps: network calls per tile, `together`: tiles in one call.

    Rates a second: matrix_product, convolution (operations), copied (bytes read and written),
    written, read (bytes, of the disk). lodi_operations: of one call for one tile,
    halogen_operations: for one window; lodi_call, halogen_window: their seconds, the network alone;
    tile: seconds of a tile in the sampler loop; engine_tile: the same through the engine, store and
    ledger, from the first batch to the last; busy: the painter's share of that time; tiles: painted
    to measure it.
    """

    bigbox: str
    torch: str
    host: str
    date: str
    device: str
    kind: str
    threads: int
    dtype: str
    model: str
    steps: int
    together: int
    compiled: bool
    matrix_product: float
    convolution: float
    copied: float
    written: float
    read: float
    lodi_operations: float
    lodi_call: float
    halogen_operations: float
    halogen_window: float
    tile: float
    engine_tile: float
    busy: float
    tiles: int

    def seconds_per_tile(self, steps: int) -> float:
        """Return the time of a tile on one rank, a GPU or one core, for so many network calls."""
        return self.engine_tile * steps / self.steps * self.threads

    @property
    def seconds_per_window(self) -> float:
        """Of one rank, a GPU or one core."""
        return self.halogen_window * self.threads

    def where(self) -> str:
        """Return in words, for people, what they were measured on."""
        return f"measured by bigbox bench on {self.device}, {self.date[:10]}"


def default_path() -> Path:
    """Return where bench leaves its numbers: bigbox/bench.json in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "bigbox" / "bench.json"


def save_speed(speed: Speed, path: Path) -> None:
    """Write the numbers, an older file replaced in one step. Raises BadInput."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(speed), indent=1))
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; choose another --out") from None


def load_speed(path: Path | None = None) -> Speed | None:
    """Return the numbers of `path`, or without it those of this user's last bench, if any.

    Raises BadInput where a file was named and is none of bench's.
    """
    try:
        return Speed(**json.loads((path or default_path()).read_text()))
    except (OSError, ValueError, TypeError) as error:
        if path is None:
            return None
        raise BadInput(f"{path}: not the numbers of bigbox bench ({error})") from None
