"""What painters with a trained network share: its precision, how it is called, and for how many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bigbox.data import default_model
from bigbox.devices import on_gpu
from bigbox.errors import BadInput
from bigbox.networks.model import Model, read_card
from bigbox.networks.presets import HalogenSize
from bigbox.painters.compiled import CompiledNetwork
from bigbox.painters.precision import fast_dtype, ready
from bigbox.painters.settings import HaloSettings, PainterSettings
from bigbox.store.box import Box

SAME_VOXEL = 0.05  # relative difference of voxel sizes that a model may be used at
SAME_REDSHIFT = 0.05


class NetworkPainter(ABC):
    """Mixed into a frozen dataclass that has `model`, `device` and `compile`."""

    model: Model
    device: str
    compile: str

    name: ClassVar[str]  # also the model's kind
    EDGE: ClassVar[int]  # voxels of a tile or window
    TILES_PER_CALL: ClassVar[dict[str, int]]  # or windows; on a CPU, and at most on a GPU

    @classmethod
    def check_box(cls, box: Box, settings: PainterSettings | HaloSettings) -> None:
        """Raise BadInput unless the network was trained for boxes like this one."""
        folder = settings.model or default_model()
        check_box(folder, read_card(folder, cls.name), box)

    @abstractmethod
    def _example(self) -> tuple[Tensor, ...]:
        """Return inputs of one call of the network."""

    @cached_property
    def tiles_per_call(self) -> int:
        """Tiles, or windows, in one call of the network; the bits depend on the number."""
        if not on_gpu(self.device):
            return self.TILES_PER_CALL["cpu"]
        size: Any = self.model.network.size
        each = activation_bytes(size, self.EDGE)
        return tiles_on_gpu(each, self.TILES_PER_CALL["cuda"], self.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return fast_dtype(self.device)

    @cached_property
    def network(self) -> Any:
        """The network on the device, in the precision that it paints in."""
        return ready(self.model.network, self.device, self.dtype)

    @cached_property
    @torch.inference_mode()
    def compiled_network(self) -> CompiledNetwork:
        """The network as it is called, for `tiles_per_call`."""
        return CompiledNetwork(self.network, self._example(), self.compile)

    @property
    def why_not_compiled(self) -> str:
        """What kept the network from being compiled, if anything."""
        return self.compiled_network.why_not


def tiles_on_gpu(bytes_each: int, most: int, device: str) -> int:
    """Return how many tiles or windows of so many bytes of work go through a network in one call.

    A power of two, at most `most`, that takes half of the GPU's memory at most. Of all its memory,
    not of what is free now: the number decides bits, and every GPU of a kind must come to the same.
    """
    half = torch.cuda.get_device_properties(device).total_memory // 2
    return max(1, min(most, 1 << max(0, (half // bytes_each).bit_length() - 1)))


def activation_bytes(size: HalogenSize, edge: int) -> int:
    """Return bytes of a U-Net at work on one tile or window, about 24 maps at full resolution."""
    return 24 * 2 * size.widths[0] * (edge // size.patch) ** 3


def check_box(folder: Path, card: dict[str, Any], box: Box) -> None:
    """Refuse a box that the model in `folder`, with this card, was not trained for.

    A network knows one resolution, redshift and smoothing. At others it paints something else,
    without a sign of it. Raises BadInput.
    """
    what, way = f"model {folder}/{card['kind']}", "or --force, if you know better"
    if abs(box.voxel / card["voxel_size"] - 1) > SAME_VOXEL:
        raise BadInput(
            f"{box.path}: voxels of {box.voxel:.5g} Mpc/h, {what} was trained at "
            f"{card['voxel_size']:.5g} (within {SAME_VOXEL:.0%}); ingest with another --grid, {way}"
        )
    if abs(box.redshift - card["redshift"]) > SAME_REDSHIFT:
        raise BadInput(
            f"{box.path}: redshift {box.redshift:.4g}, {what} was trained at "
            f"{card['redshift']:.4g} (within {SAME_REDSHIFT}); train one for this redshift, {way}"
        )
    if card["kind"] != "lodi" or not box.has("halo"):
        return
    halo: dict[str, Any] = box.array("halo").attrs.asdict()
    radius = halo.get("smoothing")
    if radius is not None and abs(radius - card["smoothing"]) > 1e-3:
        raise BadInput(
            f"{box.path}/halo: smoothed over {radius:.4g} Mpc/h, {what} was trained on haloes "
            f"smoothed over {card['smoothing']:.4g}; ingest with that --smoothing, {way}"
        )
    edges, lower = halo.get("mass_edges"), card["halo_mass_edges"]
    if edges is not None and not np.allclose(edges[: len(lower)], lower, rtol=1e-6):
        raise BadInput(
            f"{box.path}/halo: mass bins from {edges} M_sun/h, {what} was trained on {lower}; "
            f"ingest it again, {way}"
        )
