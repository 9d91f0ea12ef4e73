"""LODI as a painter: T_b from haloes with the trained network (paper sections 2.2 and 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from bigbox.diffusion import Context, Denoiser, Schedule
from bigbox.errors import BadInput
from bigbox.networks.lodi import TILE, Lodi, clean_estimate
from bigbox.networks.model import Model
from bigbox.networks.presets import LodiSize
from bigbox.networks.transforms import LogTransform
from bigbox.painters.calls import Call
from bigbox.painters.diffusion import DiffusionPainter
from bigbox.painters.precision import fast_dtype, ready, together

# The noise levels painted through; chosen as for the exact denoiser (bigbox/diffusion/schedule.py),
# within those that networks see in training.
SCHEDULES: dict[str, dict[str, Any]] = {
    "dpmpp-sde": {"gamma_min": -6.5, "gamma_max": 9.0, "skew": 0.4, "to_zero": True},
    "dpmpp": {"gamma_min": -6.5, "gamma_max": 11.0, "skew": 0.5, "to_zero": True},
    "ancestral": {"gamma_min": -9.0, "gamma_max": 8.0, "skew": 0.0, "to_zero": False},
}


@dataclass(frozen=True)
class NetworkDenoiser:
    """A trained network for one batch; what its condition adds is computed once, not at each step.

    call: the network's; prepared: Lodi.prepare's; known: normalised T_b (B, t, t, t) in float32,
    mask: bool, or None where nothing is known.
    """

    call: Call
    parametrisation: str
    gamma_ends: tuple[float, float]
    schedule: Schedule
    prepared: Tensor
    known: Tensor
    mask: Tensor | None

    def denoise(self, z: Tensor, step: int) -> Tensor:
        """The estimate of x0, (B, t, t, t) float32; known voxels are what they are."""
        low, high = self.gamma_ends
        level = (float(self.schedule.gammas[step]) - low) / (high - low)
        levels = torch.full((1,), level, device=z.device)
        output = self.call(z, levels, self.prepared).float()
        alpha = torch.tensor(float(self.schedule.alphas[step]))
        sigma = torch.tensor(float(self.schedule.sigmas[step]))
        x0 = clean_estimate(self.parametrisation, z, output, alpha, sigma)
        return x0 if self.mask is None else torch.where(self.mask, self.known, x0)


@dataclass(frozen=True)
class LodiFrame:
    """T_b in normalised logarithms; halo: (B, 4, t, t, t) in M_sun/h per (Mpc/h)^3."""

    painter: LodiPainter
    halo: Tensor

    def normalise(self, brightness: Tensor) -> Tensor:
        """Normalised logarithm of T_b in mK."""
        return self.painter.tb_log.forward(brightness)

    def brightness(self, x: Tensor) -> Tensor:
        """T_b in mK."""
        return self.painter.tb_log.inverse(x)

    def denoiser(self, context: Context, schedule: Schedule) -> Denoiser:
        """The network, told the haloes and the known voxels."""
        painter, known = self.painter, context.known
        halo = painter.halo_log.forward(self.halo)
        prepared = painter.network.prepare(halo, known.x0, known.mask)
        mask = known.mask if known.width.any() else None
        predicts = painter.network.size.parametrisation
        ends = painter.gamma_ends
        return NetworkDenoiser(painter.call, predicts, ends, schedule, prepared, known.x0, mask)


@dataclass(frozen=True)
class LodiPainter(DiffusionPainter):
    """Paints T_b (mK) on haloes with a trained network; see make_painter for the arguments."""

    model: Model | None = None
    compile: str = "auto"

    name: ClassVar[str] = "lodi"
    input: ClassVar[str] = "halo"
    margin: ClassVar[int] = 0
    channels: ClassVar[int] = 4
    inner: ClassVar[dict[str, int]] = {"cpu": 4, "cuda": 32}

    @cached_property
    def together(self) -> int:
        """Tiles that go through the network in one call; on a GPU as many as its memory takes."""
        assert self.model is not None
        return together(self.inner, LodiSize(**self.model.card["size"]), TILE, self.device)

    @property
    def batch(self) -> int:
        """One call, so that what waits for a batch waits no longer than it must."""
        return self.together

    def __post_init__(self) -> None:
        if self.model is None:
            raise BadInput("lodi painter: needs a trained model; give it with --model")
        if self.tile != TILE:
            raise BadInput(f"lodi painter: tile {self.tile}, the network paints {TILE}³ voxels")
        super().__post_init__()

    def _schedule_ends(self) -> dict[str, Any]:
        ends = SCHEDULES[self.sampler]
        low, high = self.gamma_ends
        return ends | {
            "gamma_min": max(low, ends["gamma_min"]),
            "gamma_max": min(high, ends["gamma_max"]),
        }

    def _own_identity(self) -> dict[str, Any]:
        assert self.model is not None
        return {
            "model": self.model.sha256,
            "trained_on": "; ".join(self.model.card.get("sources", [])),
            "dtype": str(self.dtype).removeprefix("torch."),
            "compiled": self.call.compiled,
        }

    def frame(self, condition: Tensor) -> LodiFrame:
        """Units for tiles on these haloes, (B, 4, t, t, t)."""
        return LodiFrame(self, condition)

    @property
    def gamma_ends(self) -> tuple[float, float]:
        """Noise levels between which the network was trained."""
        assert self.model is not None
        low, high = self.model.card["gamma"]
        return float(low), float(high)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return fast_dtype(self.device)

    @cached_property
    def network(self) -> Lodi:
        assert self.model is not None
        return ready(self.model.network, self.device, self.dtype)  # type: ignore[return-value]

    @cached_property
    @torch.inference_mode()
    def call(self) -> Call:
        """The network's call, of `together` tiles."""
        shape = (self.together, self.tile, self.tile, self.tile)
        z = torch.zeros(shape, device=self.device)
        halo = z[:, None].expand(-1, self.channels, -1, -1, -1)
        level = torch.zeros(1, device=self.device)
        example = (z, level, self.network.prepare(halo, z, z > 0))
        return Call(self.network, example, self.compile)

    @property
    def why_not_compiled(self) -> str:
        """What kept the network from being compiled, if anything."""
        return self.call.why_not

    @cached_property
    def halo_log(self) -> LogTransform:
        assert self.model is not None
        return self.model.transform("halo")

    @cached_property
    def tb_log(self) -> LogTransform:
        assert self.model is not None
        return self.model.transform("tb")
