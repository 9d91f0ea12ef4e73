"""What a painter is: the one call through which the engine paints a batch of tiles.

    TileBatch                                            result
    inputs  (B, C, n, n, n)  n = tile + 2 margin         (B, F, t, t, t)
    known   (B, F, t, t, t)  earlier tiles' voxels  -->  field 0: T_b (mK)
    width   (B, 3, 2)        how wide they are           fields 1 ...: step latents (latents method)

              width[b, 0] = (4, 0), width[b, 1] = (0, 5)
              +---+-----------+---+
              | k | k k k k k | k |   k: known, painted by earlier tiles; full cross-section
              | k +-----------+---+
      axis 1  | k |               |   the voxels to paint are always a cuboid, because a tile waits
         ^    | k |    to paint   |   only for face neighbours and a slab spans the whole face
         |    +---+---------------+
         +--> axis 0

Known voxels come back with the very bytes that they had in `known`. The bytes of a tile are a
function of its own voxels only: not of the batch's size, the slot, the companions, or the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS, OVERLAP_METHODS, PAINTERS, SAMPLERS
from bigbox.noise import MAX_STEP, check_key


@dataclass
class TileBatch:
    """B tiles of edge t to paint.

    tiles: int64 (B,), linear tile ids; origin: int64 (B, 3), voxel corners in the box;
    inputs: float32 (B, C, n, n, n) of the painter's input array, n = t + 2 margin, wrapped;
    known: float32 (B, F, t, t, t), earlier tiles' fields (T_b in mK first), 0 where unknown;
    width: int64 (B, 3, 2), voxels of the known slab at the low and the high face of each axis.
    """

    tiles: np.ndarray
    origin: np.ndarray
    inputs: np.ndarray
    known: np.ndarray
    width: np.ndarray

    def __len__(self) -> int:
        return len(self.tiles)


class Painter(Protocol):
    """Paints tiles; what it needs and what it gives is told by its attributes."""

    @property
    def name(self) -> str: ...

    @property
    def input(self) -> str:
        """The box's array that `inputs` is cut from: "dm", "halo", or "" for none."""
        ...

    @property
    def margin(self) -> int:
        """Voxels of input beyond the tile on every side."""
        ...

    @property
    def fields(self) -> int:
        """1, or 1 + the number of step latents that the latents method stores."""
        ...

    @property
    def batch(self) -> int:
        """Tiles that it is given at once, where nobody says how many."""
        ...

    @property
    def at_once(self) -> int:
        """Batches that it may be given side by side, in threads of their own."""
        ...

    @property
    def parallel(self) -> int:
        """Of these, how many it works on at full speed: 1 on a GPU, on a CPU one for each core."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that decides the painted bytes, as JSON values."""
        ...

    def paint(self, batch: TileBatch) -> np.ndarray:
        """float32 (B, F, t, t, t); known voxels are those of batch.known, bit for bit."""
        ...


class HaloPainter(Protocol):
    """Predicts the haloes in windows of dark matter (Mishra, Trotta & Viel 2025 (LODI), sec. 2.1).

        dm (B, n, n, n), 1 + delta, n = window + 2 margin  -->  log10 rho_h (B, C, w, w, w)

    The engine slides the window over the box and averages; see `bigbox.engine.haloes`. The bits of
    a window are a function of its own voxels only, as those of a tile are.
    """

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int:
        """Voxels of a window on each axis (64 in the paper)."""
        ...

    @property
    def stride(self) -> int:
        """The most voxels between neighbouring windows (16 in the paper)."""
        ...

    @property
    def margin(self) -> int:
        """Voxels of dm beyond the window on every side."""
        ...

    @property
    def channels(self) -> int:
        """Mass bins: 4."""
        ...

    @property
    def weights(self) -> np.ndarray:
        """int64 (window,), above 0 somewhere: the weight of a voxel in the average is the product
        over the axes. All ones is the paper's average."""
        ...

    @property
    def batch(self) -> int:
        """Windows that it is given at once; the last batch may be smaller."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that decides the haloes' bytes, stride and weights too, as JSON values."""
        ...

    def attributes(self) -> dict[str, Any]:
        """What the halo array says of itself (source, mass_edges, smoothing), as JSON values."""
        ...

    def predict(self, dm: np.ndarray) -> np.ndarray:
        """float32 (B, C, w, w, w): log10 of rho_h in (M_sun/h) / (Mpc/h)^3."""
        ...


def unknown_slices(width: np.ndarray, tile: int) -> tuple[slice, slice, slice]:
    """The cuboid of one tile that is still to paint; width: (3, 2)."""
    low, high = width[:, 0], tile - width[:, 1]
    return (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )


def paste_known(fields: np.ndarray, known: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The known voxels with what was painted between them, for one tile.

    fields, known: float32 (F, t, t, t); width: (3, 2). Returns a new array like `known`.
    """
    result = np.array(known, dtype=np.float32, copy=True)
    unknown = (slice(None), *unknown_slices(width, known.shape[-1]))
    result[unknown] = fields[unknown]
    return result


def check_batch(painter: Painter, batch: TileBatch, tile: int, channels: int) -> None:
    """Raise BadInput unless the arrays of a batch have the shapes that the painter asks for."""
    edge = tile + 2 * painter.margin
    wanted = {
        "origin": (len(batch), 3),
        "inputs": (len(batch), channels, edge, edge, edge),
        "known": (len(batch), painter.fields, tile, tile, tile),
        "width": (len(batch), 3, 2),
    }
    for name, shape in wanted.items():
        given = getattr(batch, name).shape
        if given != shape:
            raise BadInput(f"{painter.name} painter: {name} has shape {given}, not {shape}")


def make_painter(
    name: str,
    *,
    seed: int,
    box_shape: tuple[int, int, int],
    realization: int = 0,
    overlap_method: str = "conditioned",
    sampler: str = DEFAULT_SAMPLER,
    steps: int | None = None,
    tile: int = 32,
    device: str = "cpu",
    threads: int = 1,
    seconds_per_tile: float = 0.0,
    model: Path | None = None,
    compile: str = "auto",
) -> Painter:
    """The painter of that name, ready to paint.

    box_shape: voxels, for the noise's periodic wrap; steps: network calls per tile, by default
    those of DEFAULT_STEPS; device: a torch device; threads: of the CPU, for one painter;
    seconds_per_tile: the trivial painter's least time for one tile; model: folder of the lodi
    painter's networks, by default those that bigbox ships; compile: them or not, see calls.py. The
    trivial painter imports no torch, so that many ranks fit on one machine. Raises BadInput.
    """
    if sampler not in SAMPLERS:
        raise BadInput(f"sampler: {sampler!r} is not one of {', '.join(SAMPLERS)}")
    if overlap_method not in (*OVERLAP_METHODS, "independent"):
        raise BadInput(
            f"overlap method: {overlap_method!r} is not one of {', '.join(OVERLAP_METHODS)}"
        )
    steps = DEFAULT_STEPS[sampler] if steps is None else steps
    if not 1 <= steps < MAX_STEP:
        enough = f"{DEFAULT_STEPS[sampler]} do for {sampler}"
        raise BadInput(f"steps: {steps} is outside 1 .. {MAX_STEP - 1}; {enough}")
    check_key(seed, realization)
    if name in ("trivial", "trivial-halo"):
        from bigbox.painters.trivial import TrivialOnHaloes, TrivialPainter

        trivial = TrivialPainter if name == "trivial" else TrivialOnHaloes
        return trivial(
            seed=seed,
            realization=realization,
            box_shape=box_shape,
            tile=tile,
            latents=steps - 1 if overlap_method == "latents" else 0,
            seconds_per_tile=seconds_per_tile,
        )
    if name in ("gaussian", "lodi"):
        make: Callable[..., Painter] = (
            _gaussian_painter() if name == "gaussian" else _lodi(model, compile)
        )
        return make(
            seed=seed,
            realization=realization,
            box_shape=box_shape,
            tile=tile,
            overlap_method=overlap_method,
            sampler=sampler,
            steps=steps,
            device=device,
            threads=threads,
        )
    raise BadInput(f"painter: {name!r} is not one of {', '.join(PAINTERS)}")


def make_halo_painter(
    name: str,
    *,
    stride: int | None = None,
    weighting: str | None = None,
    batch: int | None = None,
    window: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    seconds_per_window: float = 0.0,
    model: Path | None = None,
    compile: str = "auto",
) -> HaloPainter:
    """The painter of haloes that goes with the painter of that name, where its input is "halo".

    stride, window: voxels, batch: windows at once, weighting: of a window's voxels in the average
    (lodi only); by default the painter's own. Raises BadInput.
    """
    if name == "trivial-halo":
        from bigbox.painters.trivial import TrivialHaloes

        told = {"stride": stride, "batch": batch, "window": window}
        own = {key: value for key, value in told.items() if value is not None}
        return TrivialHaloes(seconds_per_window=seconds_per_window, **own)
    if name == "lodi":
        from bigbox.data import default_model
        from bigbox.networks.model import load_model
        from bigbox.painters.halogen import HalogenPainter

        halogen = load_model(model or default_model(), "halogen")
        wanted = {"stride": stride, "weighting": weighting, "batch": batch}
        given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        return HalogenPainter(halogen, device=device, threads=threads, compile=compile, **given)
    raise BadInput(
        f"painter {name}: paints no haloes, and the box has none: ingest it with --halos"
    )


def _lodi(model: Path | None, compile: str) -> Callable[..., Painter]:
    from bigbox.data import default_model
    from bigbox.networks.model import load_model
    from bigbox.painters.lodi import LodiPainter

    return partial(LodiPainter, model=load_model(model or default_model(), "lodi"), compile=compile)


def _gaussian_painter() -> Callable[..., Painter]:
    from bigbox.painters.gaussian import GaussianPainter

    return GaussianPainter
