"""The numbers of `bigbox bench` on the disk: written by it, used by `bigbox plan`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bigbox.data import cache_folder
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
    grid: int = 1  # voxels of dm on an axis for one that is painted
    start: float = 0.0  # seconds until the painters are ready: kernels chosen, code compiled
    copies: float = 0.0  # share of LODI's call in which voxels are copied or change their layout
    kernels: str = ""  # which kernels paint, on a GPU
    # Of the networks' parts: seconds and operations, for one tile or window.
    layers: dict[str, list[float]] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU that was measured."""
        return self.kind == "cuda"

    def seconds_per_tile(self, steps: int, threads: int = 1) -> float:
        """Return the time of a tile on one rank, for so many network calls.

        A rank is a GPU, or so many threads of a CPU, each as fast as those measured.
        """
        return self.engine_tile * steps / self.steps * self._shares(threads)

    def seconds_per_window(self, threads: int = 1) -> float:
        """Return the time of a window on one rank."""
        return self.halogen_window * self._shares(threads)

    def _shares(self, threads: int) -> float:
        return 1.0 if self.on_gpu else self.threads / threads

    def where(self) -> str:
        """Return in words, for people, what they were measured on."""
        return f"measured by bigbox bench on {self.device}, {self.date[:10]}"


def default_path() -> Path:
    """Return where bench leaves its numbers: bigbox/bench.json in the user's cache folder."""
    return cache_folder() / "bench.json"


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
