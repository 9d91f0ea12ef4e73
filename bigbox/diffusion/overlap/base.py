"""What an overlap method is: what it shows to the denoiser, and what it does to z at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bigbox.diffusion.schedule import Schedule
    from bigbox.noise import Purpose


@dataclass(frozen=True)
class Known:
    """The voxels of a batch that earlier tiles have painted."""

    x0: Tensor  # (B, t, t, t) in the denoiser's units, 0 where unknown
    width: np.ndarray  # int64 (B, 3, 2), of the slabs at the low and high face of each axis
    steps: Tensor | None = None  # (B, T - 1, t, t, t), z of the steps 1 .. T - 1, where stored

    @classmethod
    def nothing(cls, x0: Tensor) -> Known:
        """Return no known voxels, for a batch shaped like x0."""
        import numpy as np

        return cls(x0.new_zeros(x0.shape), np.zeros((len(x0), 3, 2), np.int64))

    @cached_property
    def mask(self) -> Tensor:
        """Where voxels are known, bool (B, t, t, t)."""
        import numpy as np
        import torch

        tile = self.x0.shape[-1]
        place = np.arange(tile)
        inside = (place >= self.width[..., :1]) & (place < tile - self.width[..., 1:])  # (B, 3, t)
        x, y, z = inside.swapaxes(0, 1)
        unknown = x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]
        return torch.from_numpy(~unknown).to(self.x0.device)


@dataclass
class OverlapMethod:
    """A method at work on one batch; its class attributes say what it is."""

    help: ClassVar[str] = ""  # one line for `bigbox paint --help`
    offered: ClassVar[bool] = True  # on the command line
    stores_latents: ClassVar[bool] = False  # z of the steps 1 .. T - 1, for later tiles
    task: ClassVar[str] = "bigbox.engine.tiles:TileTask"  # what the engine works through
    # Whether all tiles go step by step together, each with a core of its own; else one after the
    # other, and the first to paint a voxel has it.
    together: ClassVar[bool] = False

    known: Known  # of the batch, whether it is shown or not
    schedule: Schedule
    noise: Callable[[Purpose, int], Tensor]  # (purpose, step) -> normals (B, t, t, t), by the voxel

    def __post_init__(self) -> None:
        """Begin the batch."""

    def shown(self) -> Known:
        """Return the known voxels that the denoiser is shown: none."""
        return Known.nothing(self.known.x0)

    def before_step(self, z: Tensor, step: int) -> None:
        """Change z (B, t, t, t), at noise level `step`, in place, before the denoiser sees it."""

    @property
    def latents(self) -> Tensor | None:
        """(B, T - 1, t, t, t), z of the steps 1 .. T - 1 as the denoiser saw it, if stored."""
        return None
