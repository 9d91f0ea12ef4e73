"""HALOgen as a painter of haloes: dark matter in, log10 rho_h out, by windows (paper sec. 2.1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bigbox.data import default_model
from bigbox.devices import (
    device_name,
    on_gpu,
    own_stream,
    side_by_side,
    thread_pool,
    to_device,
    to_host,
)
from bigbox.networks.halogen import CHANNELS, STEP, STRIDE, WINDOW
from bigbox.networks.model import Model, load_model
from bigbox.painters.base import grid_in_identity
from bigbox.painters.network import NetworkPainter
from bigbox.painters.settings import HaloSettings
from bigbox.physics.interpolation import Scale
from bigbox.physics.smoothing import band, gaussian_kernel, smooth
from bigbox.scheduler.windows import fitting_window, usual_stride

# log10 rho_h under which predicted maps are zero (section 2.1.1).
CUT = 9.5


@dataclass(frozen=True)
class HalogenPainter(NetworkPainter):
    """HALOgen over windows.

    window: voxels on an edge, fewer in a box that is smaller; stride: voxels between windows, three
    quarters of one (the paper: one quarter); weighting: "flat", the paper's average, or "tent",
    which trusts a window's middle more than its edges; threads: windows side by side on a CPU.
    """

    model: Model
    window: int = WINDOW
    stride: int = STRIDE
    weighting: str = "tent"
    batch: int = 4
    device: str = "cpu"
    threads: int = 1
    compile: str = "auto"

    name: ClassVar[str] = "halogen"
    channels: ClassVar[int] = CHANNELS
    EDGE: ClassVar[int] = WINDOW
    TILES_PER_CALL: ClassVar[dict[str, int]] = {"cpu": 1, "cuda": 16}

    @classmethod
    def from_settings(cls, settings: HaloSettings) -> Self:
        """Return the painter of these settings, its model read."""
        model = load_model(settings.model or default_model(), cls.name)
        window = settings.window or int(model.card.get("window", WINDOW))
        if settings.box_shape:
            window = fitting_window(settings.box_shape, window, STEP)
        stride = settings.stride or usual_stride(window, STRIDE)
        painter = cls(**settings.of(cls) | {"model": model, "window": window, "stride": stride})
        if settings.batch is None and on_gpu(painter.device):
            return replace(painter, batch=painter.tiles_per_call)
        return painter

    @property
    def margin(self) -> int:
        """How far the smoothing of the density reaches, in voxels of dm."""
        return len(self._kernel) // 2

    @property
    def weights(self) -> np.ndarray:
        """int64 (window,): of a voxel in the average, by its place on an axis."""
        return window_weights(self.window, self.weighting)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the haloes' bytes, as JSON values."""
        return {
            "painter": self.name,
            "version": 5,
            **self.model_identity,
            "stride": self.stride,
            **grid_in_identity(self.grid),
            "weighting": self.weighting,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": device_name(self.device),
            "together": self.tiles_per_call,
            "compiled": self.compiled_network.compiled,
            **self.kernel_identity(),
        }

    def attributes(self) -> dict[str, Any]:
        """Return attributes of the halo array."""
        card = self.model.card
        return {
            "source": f"HALOgen, model {self.model.sha256[:12]}",
            "mass_edges": card["halo_mass_edges"],
            "smoothing": card["smoothing"],
            **(Scale(cut=10**CUT).attributes() if self.grid > 1 else {}),
        }

    def predict(self, dm: np.ndarray) -> np.ndarray:
        """Return log10 of rho_h in (M_sun/h) / (Mpc/h)^3, float32 (B, 4, w, w, w).

        dm: float32 (B, n, n, n), 1 + delta, not smoothed, n = grid w + 2 margin.
        """
        if len(dm) <= self.tiles_per_call:
            return self._one_call(dm, 0)
        result = np.empty((len(dm), CHANNELS, *(self.window,) * 3), dtype=np.float32)

        def one_call(first: int) -> None:
            made = self._one_call(dm, first)
            result[first : first + len(made)] = made

        side_by_side(self._pool, one_call, range(0, len(dm), self.tiles_per_call))
        return result

    def _one_call(self, dm: np.ndarray, first: int) -> np.ndarray:
        """Return what is made of up to `tiles_per_call` windows from the first."""
        part = np.arange(first, min(first + self.tiles_per_call, len(dm)))
        with own_stream(self.device):
            return self._predict(dm[np.resize(part, self.tiles_per_call)])[: len(part)]

    @torch.inference_mode()
    def _predict(self, dm: np.ndarray) -> np.ndarray:
        halo = self.model.transform("halo")
        return to_host(self.compiled_network(self._seen(dm)).float() * halo.std + halo.mean)

    def _seen(self, dm: np.ndarray) -> Tensor:
        """Return what the network sees: windows smoothed, without margins, and normalised.

        Float32 (B, 1, w, w, w) on the device. On a GPU smoothed by three matrix products, sums in
        float32.
        """
        normalise = self.model.transform("dm").forward
        if not on_gpu(self.device):
            return to_device(normalise(smooth(dm, self._kernel, self.grid)[:, None]), self.device)
        return normalise(smooth_on_device(to_device(dm, self.device), self._band))[:, None]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor | None:
        return thread_pool(self.threads, self.device)

    def _example(self, random: bool = False) -> tuple[Tensor, ...]:
        make = torch.randn if random else torch.zeros
        return (make((self.tiles_per_call, 1, *(self.window,) * 3), device=self.device),)

    @cached_property
    def _band(self) -> Tensor:
        """The kernel as a matrix (window, grid window + 2 margin), on the device."""
        return to_device(band(self._kernel, self.grid * self.window)[:: self.grid], self.device)

    @cached_property
    def _kernel(self) -> np.ndarray:
        return gaussian_kernel(self.model.card["smoothing"], self.model.card["voxel_size"])


def window_weights(window: int, weighting: str) -> np.ndarray:
    """Return weights of voxels by their place on an axis of a window, int64 (window,)."""
    place = np.arange(window)
    tent = np.minimum(place + 1, window - place).astype(np.int64)
    return tent if weighting == "tent" else np.ones_like(tent)


def smooth_on_device(dm: Tensor, matrix: Tensor) -> Tensor:
    """Return `smooth` of (B, n, n, n) by its banded matrix (w, n): float32 (B, w, w, w)."""
    w, n = matrix.shape
    x = dm @ matrix.T  # (B, n, n, w)
    x = matrix @ x  # (B, n, w, w)
    return (matrix @ x.reshape(len(x), n, w * w)).reshape(len(x), w, w, w)


def paint_haloes(painter: HalogenPainter, dm: np.ndarray) -> np.ndarray:
    """Return rho_h of a periodic box in memory, float32 (4, N, N, N), (M_sun/h) / (Mpc/h)^3.

    By the plainest loop over its windows; the engine does the same out of core and in any order.
    dm: 1 + delta, N times the painter's grid on each axis, N at least a window.
    """
    grid, margin, window = painter.grid, painter.margin, painter.window
    n = dm.shape[0] // grid
    total, weight = np.zeros((CHANNELS, n, n, n)), np.zeros((n, n, n))
    one = painter.weights[:, None, None] * painter.weights[:, None] * painter.weights
    count = -(-n // painter.stride)
    for corner in np.ndindex(count, count, count):
        first = [c * n // count for c in corner]
        place = np.ix_(*((a + np.arange(window)) % n for a in first))
        fine = np.arange(-margin, grid * window + margin)
        under = np.ix_(*((grid * a + fine) % len(dm) for a in first))
        total[(slice(None), *place)] += painter.predict(dm[under][None])[0] * one
        weight[place] += one
    logs = total / weight
    return np.where(logs >= CUT, 10**logs, 0.0).astype(np.float32)
