"""HALOgen as a painter of haloes: dark matter in, log10 rho_h out, by windows (paper sec. 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from bigbox.networks.halogen import CHANNELS, WINDOW
from bigbox.networks.model import Model
from bigbox.networks.presets import HalogenSize
from bigbox.networks.transforms import LogTransform
from bigbox.painters.calls import Call, own_stream, to_device
from bigbox.painters.diffusion import device_name, side_by_side, thread_pool
from bigbox.painters.precision import fast_dtype, ready, together
from bigbox.physics.smoothing import gaussian_kernel, smooth

# log10 rho_h under which predicted maps are zero (section 2.1.1).
CUT = 9.5


@dataclass(frozen=True)
class HalogenPainter:
    """HALOgen over windows.

    stride: voxels between windows, 32, or 16 as in the paper, which is no better with these weights
    and takes eight times as long (tests/benchmarks/NETWORKS.md); weighting: "flat", the paper's
    average, or "tent", which trusts a window's middle more than its edges;
    batch: windows at once; threads: windows side by side on a CPU; compile: see painters/calls.py.
    """

    model: Model
    stride: int = 32
    weighting: str = "tent"
    batch: int = 4
    device: str = "cpu"
    threads: int = 1
    compile: str = "auto"

    name: ClassVar[str] = "halogen"
    window: ClassVar[int] = WINDOW
    channels: ClassVar[int] = CHANNELS
    inner: ClassVar[dict[str, int]] = {"cpu": 1, "cuda": 4}

    @property
    def margin(self) -> int:
        """How far the smoothing of the density reaches."""
        return len(self._kernel) // 2

    @cached_property
    def together(self) -> int:
        """Windows that go through the network in one call; the bits depend on the number."""
        return together(self.inner, HalogenSize(**self.model.card["size"]), WINDOW, self.device)

    @property
    def weights(self) -> np.ndarray:
        """int64 (window,): of a voxel in the average, by its place on an axis."""
        if self.weighting == "flat":
            return np.ones(WINDOW, dtype=np.int64)
        place = np.arange(WINDOW)
        return np.minimum(place + 1, WINDOW - place).astype(np.int64)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the haloes' bytes, as JSON values."""
        return {
            "painter": self.name,
            "version": 4,
            "model": self.model.sha256,
            "stride": self.stride,
            "weighting": self.weighting,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": device_name(self.device),
            "together": self.together,
            "compiled": self.call.compiled,
        }

    def attributes(self) -> dict[str, Any]:
        """What the halo array says of itself."""
        card = self.model.card
        return {
            "source": f"HALOgen, model {self.model.sha256[:12]}",
            "mass_edges": card["halo_mass_edges"],
            "smoothing": card["smoothing"],
        }

    def predict(self, dm: np.ndarray) -> np.ndarray:
        """float32 (B, 4, w, w, w): log10 of rho_h in (M_sun/h) / (Mpc/h)^3.

        dm: float32 (B, n, n, n), 1 + delta not smoothed, n = window + 2 margin.
        """
        result = np.empty((len(dm), CHANNELS, *(WINDOW,) * 3), dtype=np.float32)

        def some(first: int) -> None:
            part = np.arange(first, min(first + self.together, len(dm)))
            with own_stream(self.device):
                result[part] = self._predict(dm[np.resize(part, self.together)])[: len(part)]

        side_by_side(self._pool, some, range(0, len(dm), self.together))
        return result

    @torch.inference_mode()
    def _predict(self, dm: np.ndarray) -> np.ndarray:
        smoothed = smooth(dm, self._kernel)[:, None]
        x = to_device(self._dm_log.forward(smoothed), self.device)
        logs = self.call(x).float() * self._halo_log.std + self._halo_log.mean
        return logs.cpu().numpy()

    @cached_property
    def _pool(self) -> Any:
        return thread_pool(self.threads, self.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return fast_dtype(self.device)

    @cached_property
    def network(self) -> nn.Module:
        return ready(self.model.network, self.device, self.dtype)

    @cached_property
    @torch.inference_mode()
    def call(self) -> Call:
        """The network's call, of `together` windows."""
        shape = (self.together, 1, *(WINDOW,) * 3)
        example = torch.zeros(shape, device=self.device)
        return Call(self.network, (example,), self.compile)

    @property
    def why_not_compiled(self) -> str:
        """What kept the network from being compiled, if anything."""
        return self.call.why_not

    @cached_property
    def _kernel(self) -> np.ndarray:
        return gaussian_kernel(self.model.card["smoothing"], self.model.card["voxel_size"])

    @cached_property
    def _dm_log(self) -> LogTransform:
        return self.model.transform("dm")

    @cached_property
    def _halo_log(self) -> LogTransform:
        return self.model.transform("halo")


def paint_haloes(painter: HalogenPainter, dm: np.ndarray) -> np.ndarray:
    """rho_h of a whole periodic box in memory, by the plainest loop over its windows.

    dm: (N, N, N), 1 + delta, N at least a window. Returns float32 (4, N, N, N) in
    (M_sun/h) / (Mpc/h)^3. The engine does the same out of core and in any order.
    """
    n, margin, window = dm.shape[0], painter.margin, painter.window
    total, weight = np.zeros((CHANNELS, n, n, n)), np.zeros((n, n, n))
    one = painter.weights[:, None, None] * painter.weights[:, None] * painter.weights
    count = -(-n // painter.stride)
    for corner in np.ndindex(count, count, count):
        axes = [(c * n // count + np.arange(-margin, window + margin)) % n for c in corner]
        place = np.ix_(*(axis[margin : margin + window] for axis in axes))
        total[(slice(None), *place)] += painter.predict(dm[np.ix_(*axes)][None])[0] * one
        weight[place] += one
    logs = total / weight
    return np.where(logs >= CUT, 10**logs, 0.0).astype(np.float32)
