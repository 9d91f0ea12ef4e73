"""The numbers of `bigbox bench` on the disk: written by it, used by `bigbox plan`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.store.durable import DISK

PAINTER = "lodi"  # whose numbers they are


@dataclass(frozen=True)
class Speed:
    """What `bigbox bench` measured on one device."""

    bigbox: str
    torch: str
    host: str
    date: str
    device: str  # the GPU, or the processor
    kind: str
    threads: int  # of a processor, 1 with a GPU
    dtype: str  # of the networks
    model: str  # sha256 of LODI's weights
    steps: int  # network calls for a tile
    together: int  # tiles in one call
    compiled: bool
    matrix_product: float  # operations a second
    convolution: float
    copied: float  # bytes read and written a second, in memory
    written: float  # bytes a second, on the disk
    read: float
    lodi_operations: float  # of one call for one tile
    lodi_call: float  # its seconds, the network alone
    halogen_operations: float  # for one window
    halogen_window: float  # its seconds, the network alone
    tile: float  # seconds of a tile in the sampler loop
    engine_tile: float  # also through the engine, store and ledger, from first batch to last
    busy: float  # the painter's share of that time
    tiles: int  # painted to measure it

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        DISK.write_atomic(path, json.dumps(asdict(speed), indent=1).encode())
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
