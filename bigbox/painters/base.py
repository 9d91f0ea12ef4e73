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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bigbox.errors import BadInput

if TYPE_CHECKING:
    import numpy as np


@dataclass
class _Batch:
    """B tiles of edge t, and what they are painted from."""

    tiles: np.ndarray  # int64 (B,), linear tile ids
    origin: np.ndarray  # int64 (B, 3), voxel corners in the box, on the painting grid
    inputs: np.ndarray  # float32 (B, C, n, n, n) of the painter's input array, wrapped

    def __len__(self) -> int:
        return len(self.tiles)


@dataclass
class TileBatch(_Batch):
    """B tiles of edge t to paint."""

    known: np.ndarray  # float32 (B, F, t, t, t), earlier tiles' fields (mK), 0 where unknown
    width: np.ndarray  # int64 (B, 3, 2), voxels of the known slab at each axis' low and high face


@dataclass
class StepBatch(_Batch):
    """B tiles of edge t to take one denoising step on, each from a step of its own.

    z and previous are of no interest at the first step, which begins with keyed noise. A painter
    that keeps inputs is given those of a tile once: `inputs` is of the K tiles in `given` alone.
    """

    z: np.ndarray  # float32 (B, t, t, t), the noisy field under each tile at its step
    previous: np.ndarray  # float32 (B, t, t, t), the step before's estimate x0 of the tile
    step: np.ndarray  # int64 (B,), noise level: T at first, 1 at last
    place: np.ndarray | None = None  # int64 (B,), where a tile's inputs are kept, -1: nowhere
    given: np.ndarray | None = None  # int64 (K,), rows whose inputs are given; None: all


class _Painter(Protocol):
    """What painters of tiles and of haloes have in common; attributes are only read."""

    name: str  # as in the identity
    grid: int  # voxels of dm on an axis for one of its own, of which tiles and windows are
    margin: int  # voxels of input beyond the tile, or window, on every side
    batch: int  # tiles, or windows, where the user does not choose; the last may have less

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the bytes (of haloes: stride, weights too), as JSON."""


class Painter(_Painter, Protocol):
    """Paints tiles; its attributes say what it needs and what it gives.

    Input is given on the painting grid: of an array that has more, every so many voxels.
    """

    input: str  # the box's array that `inputs` is cut from: "dm", "halo", or "" for none
    fields: int  # 1, or 1 + the number of step latents that the latents method stores
    streams: int  # batches worked on side by side, in threads of their own
    full_speed_streams: int  # of these, at full speed: 1 on a GPU, on a CPU one for each core

    def paint(self, batch: TileBatch) -> np.ndarray:
        """Return float32 (B, F, t, t, t), with known voxels those of batch.known, bit for bit."""


class StepPainter(Painter, Protocol):
    """Paints tiles step by step too, all of a box together (the overlap method `joint`).

    It may have two methods more. `keep(tiles)` makes room on its device for the inputs of so many
    tiles, or of fewer, and returns the numbers of the places: `place` of a batch names them.
    `empty(shape)` makes a float32 array for a batch, in memory that the device reads from well.
    """

    steps: int  # T

    def advance(self, batch: StepBatch) -> np.ndarray:
        """Return z at step - 1, T_b in mK where that is 0, and x0: float32 (B, 2, t, t, t)."""


class HaloPainter(_Painter, Protocol):
    """Predicts the haloes in windows of dark matter (Mishra, Trotta & Viel 2025 (LODI), sec. 2.1).

        dm (B, n, n, n), 1 + delta, n = grid window + 2 margin  -->  log10 rho_h (B, C, w, w, w)

    dm is given with all its voxels, and the margin is of these; all else is on the painting grid.
    The engine slides the window over the box and averages. The bits of a window are a function of
    its own voxels only, as those of a tile are.
    """

    window: int  # voxels on each axis (64 in the paper)
    stride: int  # the most voxels between neighbouring windows (16 in the paper)
    channels: int  # mass bins: 4
    weights: np.ndarray  # int64 (window,), a voxel's weight is the product over the axes

    def attributes(self) -> dict[str, Any]:
        """Return attributes of the halo array (source, mass_edges, smoothing), as JSON values."""

    def predict(self, dm: np.ndarray) -> np.ndarray:
        """Return log10 of rho_h in (M_sun/h) / (Mpc/h)^3, float32 (B, C, w, w, w)."""


def empty_array(shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 array for a batch, of any values, where a painter makes none itself."""
    import numpy as np

    return np.empty(shape, np.float32)


def grid_in_identity(grid: int) -> dict[str, int]:
    """Return what an identity says of the painting grid: nothing of dm's own, as of old."""
    return {"grid": grid} if grid > 1 else {}


def unknown_slices(width: np.ndarray, tile: int) -> tuple[slice, slice, slice]:
    """Return the cuboid of one tile that is still to paint; width: (3, 2)."""
    x, y, z = (slice(low, tile - high) for low, high in width.tolist())
    return x, y, z


def paste_known(fields: np.ndarray, known: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the known voxels with what was painted between them, for one tile (F, t, t, t)."""
    result = known.astype("float32")
    unknown = (..., *unknown_slices(width, known.shape[-1]))
    result[unknown] = fields[unknown]
    return result


def check_batch(painter: Any, batch: TileBatch | StepBatch) -> None:
    """Raise BadInput unless the arrays of a batch have the shapes that the painter asks for.

    painter: a Painter that has `tile` and, of its input, `channels`.
    """
    tile, channels, edge = (painter.tile,) * 3, painter.channels, painter.tile + 2 * painter.margin
    wanted: dict[str, tuple[int, ...]] = {"origin": (3,), "inputs": (channels, edge, edge, edge)}
    if isinstance(batch, StepBatch):
        wanted |= {"z": tile, "previous": tile, "step": ()}
    else:
        wanted |= {"known": (painter.fields, *tile), "width": (3, 2)}
    for name, rest in wanted.items():
        given, shape = getattr(batch, name).shape, (len(batch), *rest)
        if name == "inputs" and isinstance(batch, StepBatch) and batch.given is not None:
            shape = (len(batch.given), *rest)
        if given != shape:
            raise BadInput(f"{painter.name} painter: {name} has shape {given}, not {shape}")
