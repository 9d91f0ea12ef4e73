"""LODI as a painter: T_b from haloes with the trained network (paper sections 2.2 and 2.4)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bigbox.data import default_model
from bigbox.devices import on_gpu
from bigbox.diffusion.overlap import Known, OverlapMethod
from bigbox.diffusion.schedule import STRAIGHT_PATH, Schedule
from bigbox.errors import BadInput
from bigbox.networks.lodi import TILE, clean_estimate
from bigbox.networks.model import Model, load_model
from bigbox.painters.base import StepBatch, TileBatch
from bigbox.painters.diffusion import DenoiserUnits, DiffusionPainter
from bigbox.painters.network import NetworkPainter
from bigbox.painters.registry import KEPT_BYTES
from bigbox.painters.settings import PainterSettings
from bigbox.painters.stepper import Stepper
from bigbox.painters.tuning import kernel_mode
from bigbox.physics.interpolation import Scale

# The noise levels painted through; chosen as for the exact denoiser (bigbox/diffusion/schedule.py),
# within those that networks see in training.
SCHEDULES: dict[str, dict[str, Any]] = {
    "dpmpp-sde": {"gamma_min": -6.5, "gamma_max": 9.0, "skew": 0.4, "to_zero": True},
    "dpmpp": {"gamma_min": -6.5, "gamma_max": 11.0, "skew": 0.5, "to_zero": True},
    "ancestral": {"gamma_min": -9.0, "gamma_max": 8.0, "skew": 0.0, "to_zero": False},
    **STRAIGHT_PATH,
}


@dataclass(frozen=True)
class NetworkDenoiser:
    """A trained network for one batch, shown the known voxels in normalised T_b.

    prepared: Lodi.prepare's; what the condition adds is computed once, not at each step.
    """

    painter: LodiPainter
    known: Known
    prepared: Tensor

    def denoise(self, z: Tensor, step: int | np.ndarray) -> Tensor:
        """Return the estimate of x0, float32 (B, t, t, t); known voxels are what they are."""
        painter, schedule, known = self.painter, self.painter.schedule, self.known
        low, high = painter.gamma_ends
        level, alpha, sigma = (
            torch.from_numpy(np.atleast_1d(values[step]).astype(np.float32)).to(z.device)
            for values in ((schedule.gammas - low) / (high - low), schedule.alphas, schedule.sigmas)
        )
        output = painter.compiled_network(z, level, self.prepared).float()
        alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
        x0 = clean_estimate(painter.network.size.parametrisation, z, output, alpha, sigma)
        return torch.where(known.mask, known.x0, x0) if known.width.any() else x0


@dataclass(frozen=True)
class LodiPainter(NetworkPainter, DiffusionPainter):
    """Paints T_b (mK) on haloes with a trained network; see PainterSettings for the arguments."""

    model: Model = field(kw_only=True)
    compile: str = "auto"

    name: ClassVar[str] = "lodi"
    input: ClassVar[str] = "halo"
    margin: ClassVar[int] = 0
    channels: ClassVar[int] = 4
    EDGE: ClassVar[int] = TILE
    TILES_PER_CALL: ClassVar[dict[str, int]] = {"cpu": 4, "cuda": 128}

    def __post_init__(self) -> None:
        if self.tile != TILE:
            raise BadInput(f"lodi painter: tile {self.tile}, the network paints {TILE}³ voxels")
        shows = self.method.shown is not OverlapMethod.shown
        if shows and not self.model.network.size.masked:  # type: ignore[union-attr]
            raise BadInput(
                f"lodi painter: method {self.overlap_method} shows the network what is known, and "
                "this model was trained without; use --overlap-method joint"
            )

    @classmethod
    def from_settings(cls, settings: PainterSettings, **own: Any) -> Self:
        """Return the painter of these settings, its model read."""
        model = load_model(settings.model or default_model(), cls.name)
        return super().from_settings(settings, model=model, **own)

    @property
    def batch(self) -> int:
        """One call, so that what waits for a batch waits no longer than it must."""
        return self.tiles_per_call

    @cached_property
    def schedule(self) -> Schedule:
        """The noise levels, within those of the training."""
        (low, high), ends = self.gamma_ends, SCHEDULES[self.sampler]
        low, high = max(low, ends["gamma_min"]), min(high, ends["gamma_max"])
        return Schedule(self.steps, **ends | {"gamma_min": low, "gamma_max": high})

    def _own_identity(self) -> dict[str, Any]:
        return {
            **self.model_identity,
            "trained_on": "; ".join(self.model.card.get("sources", [])),  # a note only
            "dtype": str(self.dtype).removeprefix("torch."),
            "compiled": self.compiled_network.compiled,
            **self.kernel_identity(),
        }

    def attributes(self) -> dict[str, Any]:
        """Return attributes of tb: how it is interpolated where it is not on dm's own grid."""
        scale = Scale(floor=self.model.transform("tb").floor)
        return scale.attributes() if self.grid > 1 else {}

    @property
    def graphs(self) -> bool:
        """Whether a step is one graph: on a GPU whose kernels of noise and layers can be had."""
        return on_gpu(self.device) and kernel_mode() != "torch"

    def _advance(self, batch: StepBatch, part: np.ndarray) -> np.ndarray:
        if not self.graphs:
            return super()._advance(batch, part)
        return self._stepper().advance(batch, part)

    def _paint(self, batch: TileBatch, part: np.ndarray) -> np.ndarray:
        method = self.method
        if not self.graphs or method.before_step is not OverlapMethod.before_step:
            return super()._paint(batch, part)
        return self._stepper().paint(batch, part, method.shown is not OverlapMethod.shown)

    def _stepper(self) -> Stepper:
        """Return the buffers and graphs of this thread."""
        found: Stepper | None = getattr(self._steppers, "of_thread", None)
        if found is None:
            found = self._steppers.of_thread = Stepper(self)
        return found

    def keep(self, tiles: int) -> range:
        """Make room on a GPU for the inputs of so many tiles; return the numbers of the places."""
        if not self.graphs:
            return range(0)
        each = 4 * self.channels * self.tile**3
        free, _ = torch.cuda.mem_get_info(torch.device(self.device))
        return self.make_room(min(tiles, KEPT_BYTES // each, free // 8 // each))

    def make_room(self, places: int) -> range:
        """Make so many places for inputs of tiles on the device, in place of any before."""
        shape = (places, self.channels, *(self.tile,) * 3)
        self.__dict__["kept"] = torch.zeros(shape, device=self.device)
        return range(places)

    @cached_property
    def kept(self) -> Tensor:
        """Inputs of tiles by place, float32 (places, C, t, t, t); all steppers'."""
        return torch.zeros((0, self.channels, *(self.tile,) * 3), device=self.device)

    @cached_property
    def _steppers(self) -> threading.local:
        return threading.local()

    def units(self, condition: Tensor) -> DenoiserUnits:
        """Return normalised logarithms, for haloes (B, 4, t, t, t) in M_sun/h per (Mpc/h)^3."""

        def denoiser(known: Known) -> NetworkDenoiser:
            halo = self.model.transform("halo").forward(condition)
            prepared = self.network.prepare(halo, known.x0, known.mask)
            return NetworkDenoiser(self, known, prepared)

        tb = self.model.transform("tb")
        return DenoiserUnits(tb.forward, tb.inverse, denoiser)

    @property
    def gamma_ends(self) -> tuple[float, float]:
        """Noise levels between which the network was trained."""
        low, high = self.model.card["gamma"]
        return float(low), float(high)

    def _example(self, random: bool = False) -> tuple[Tensor, ...]:
        make = torch.randn if random else torch.zeros
        z = make((self.tiles_per_call, *(TILE,) * 3), device=self.device)
        halo = z[:, None].expand(-1, self.channels, -1, -1, -1)
        each = len(z) if self.method.together or on_gpu(self.device) else 1
        level = make(each, device=self.device).sigmoid() if random else make(each, device=z.device)
        return z, level, self.network.prepare(halo, z, z > 0)
