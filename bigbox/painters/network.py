"""What painters with a trained network share: for which boxes, in which precision, how called.

On a GPU the layers are those of `bigbox.networks.fused`, chosen by `bigbox.painters.tuning`.
Code compiled by torch fuses norms, activations and what lies between convolutions. It takes a
minute to make, and 10 % off a tile on a CPU, so it must be asked for. It needs a C++ compiler on a
CPU, Triton on a GPU; where they are missing the network is called as it is.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bigbox.devices import capture, keep_freed_memory, on_gpu, own_stream
from bigbox.errors import BadInput
from bigbox.networks import fused
from bigbox.networks.identity import model_identity
from bigbox.networks.layers import Conv, PairConv
from bigbox.networks.model import Model
from bigbox.networks.presets import UNetSize
from bigbox.painters.tuning import (
    NETWORK_ERROR,
    Measured,
    Records,
    kernel_mode,
    network_error,
    warm_up,
)


class NetworkPainter(ABC):
    """Mixed into a frozen dataclass that has `model`, `device` and `compile`."""

    model: Model
    device: str
    compile: str

    name: ClassVar[str]  # also the model's kind
    EDGE: ClassVar[int]  # voxels of a tile or window
    TILES_PER_CALL: ClassVar[dict[str, int]]  # or windows; on a CPU, and at most on a GPU

    @abstractmethod
    def _example(self, random: bool = False) -> tuple[Tensor, ...]:
        """Return inputs of one call of the network, zeros or random numbers."""

    @property
    def grid(self) -> int:
        """Voxels of dm on an axis for one of the network's."""
        return int(self.model.card.get("grid", 1))

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
        with own_stream(self.device):
            self.kernels  # noqa: B018  the network is given them now
            return CompiledNetwork(self.network, self._example(), self.compile)

    @cached_property
    def model_identity(self) -> dict[str, Any]:
        """What of the model decides bytes: weights, and the numbers of its card."""
        return model_identity(self.model)

    @cached_property
    @torch.inference_mode()
    def kernels(self) -> tuple[str, str]:
        """Which kernels paint on a GPU, and what is to be said of it, if anything."""
        if not on_gpu(self.device):
            return "torch", ""
        with own_stream(self.device):
            return self._choose_kernels()

    def kernel_identity(self) -> dict[str, str]:
        """Return what of the kernels decides bits, on a GPU."""
        if not on_gpu(self.device) or self.compiled_network.compiled:
            return {}
        return {"kernels": self.kernels[0]}

    def _choose_kernels(self) -> tuple[str, str]:
        """Have the network use the kernels of a GPU that are asked for, or fall back and say why.

        Return which, and what is to be said of it. Raises BadInput where not even torch's own give
        what float32 gives.
        """
        asked, name = kernel_mode(), self.model.sha256[:12]
        modes = ("torch",) if self.compile == "on" else (asked, "cudnn", "torch")
        records, why = Records.of(self.device), ""
        for mode in dict.fromkeys(modes):
            chooser = {"auto": Measured(records), "own": fused.OwnKernel()}.get(mode)
            fused.use(self.network, chooser, on=mode != "torch")

            def error() -> dict[str, Any]:
                example = self._example(random=True)
                whole = self.model.network.float().eval()
                return {"error": network_error(self.network, whole, example)}

            try:
                if mode != "torch":
                    warm_up(partial(self.network, *self._example()), chooser)
                kind = f"{name}-{mode}-{self.tiles_per_call}-{str(self.dtype)[6:]}"
                found = records.get(kind, error)["error"]
            except BadInput:
                raise
            except Exception as trouble:  # compilers and drivers raise what they like
                found, why = float("inf"), f"{type(trouble).__name__}: {trouble}".splitlines()[0]
            if found < NETWORK_ERROR.get(self.dtype, 1e-3):
                summary = chooser.summary() if isinstance(chooser, Measured) else mode
                return summary, why
            why = why or f"off by {found:.1e} from float32"
            why = f"{mode} kernels cannot be used: {why}"
        raise BadInput(f"{self.device}: {why}; use other versions of torch, or --device cpu")

    @property
    def why_not_compiled(self) -> str:
        """What kept the network from being compiled, or from the kernels wanted, if anything."""
        return self.compiled_network.why_not or self.kernels[1]


def tiles_on_gpu(bytes_each: int, most: int, device: str) -> int:
    """Return how many tiles or windows of so many bytes of work go through a network in one call.

    A power of two, at most `most`, that takes half of the GPU's memory at most. Of all its memory,
    not of what is free now: the number decides bits, and every GPU of a kind must come to the same.
    """
    half = torch.cuda.get_device_properties(device).total_memory // 2
    return max(1, min(most, 1 << max(0, (half // bytes_each).bit_length() - 1)))


def activation_bytes(size: UNetSize, edge: int) -> int:
    """Return bytes of a U-Net at work on one tile or window, about 24 maps at full resolution."""
    return 24 * 2 * size.widths[0] * (edge // size.patch) ** 3


def fast_dtype(device: str) -> torch.dtype:
    """Return float16 on a GPU, bfloat16 on a CPU that multiplies it in hardware, else float32.

    The slow and large 3-D convolutions in bfloat16 that torch 2.9 has with cuDNN before 9.15 do not
    concern float16.
    """
    if torch.device(device).type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def ready(network: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a network to paint with: on the device, channels last, without gradients.

    dtype: of its convolutions of 2³ and 3³ voxels but for inlets, outlet and linear filters. With
    bfloat16 all else is float32; float16 is eight times as fine, and then two parts only: the
    outlet, and what the noise level does to a network (linear layers; see `normalised`).

    What networks round shows in T_b. With all of LODI in bfloat16 but its linear layers, haloes
    came out 0.2 % fainter of a call at gamma = 3, and 0.4 % of P(k) was lost; with all of HALOgen
    but its outlet, 0.2 % of P(k) at 9 h/Mpc. The outlet matters most, then the inlet and what
    passes by the large convolutions through those of one voxel.
    """
    where = torch.device(device).type
    network = copy.deepcopy(network)
    if where == "cuda":
        # Both would let the bits of a tile depend on more than its voxels and the device.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    else:
        keep_freed_memory()
        if isinstance(inlet := network.inlet, Conv):
            network.inlet = PairConv(inlet)
    between = torch.float32 if dtype == torch.bfloat16 else dtype
    network.to(device=device, dtype=between).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            one_voxel = module.kernel_size == (1, 1, 1)
            if one_voxel and where == "cpu":
                # Such a kernel knows no dilation, but is left to oneDNN for it; else torch takes
                # loops of its own on one thread, five times as slow in float32.
                module.dilation = (2, 2, 2)
            if not (one_voxel or any(part in name for part in ("inlet", "outlet", "filters"))):
                module.to(dtype)
        if dtype.itemsize < 4 and (isinstance(module, nn.Linear) or name == "outlet"):
            module.float()
    return network.requires_grad_(False)


class CompiledNetwork:
    """A network for inputs that always have the shapes and types of `example`, compiled or not.

    wanted: "on", "off", or "auto", which is off; compiled: whether it is; why_not: what kept it
    from being, if anything; network: as it is called at last.
    """

    def __init__(self, network: nn.Module, example: tuple[Tensor, ...], wanted: str):
        self.network: Any = network
        self._graphs = threading.local()
        self.compiled, self.why_not = False, ""
        if wanted == "on":
            self._compile(example)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return network(*inputs); on a GPU this thread's next call overwrites the result."""
        if not inputs[0].is_cuda:
            result: Tensor = self.network(*inputs)
            return result
        captured = getattr(self._graphs, "captured", None)
        if captured is None:
            places = [given.clone() for given in inputs]
            graph, result = capture(partial(self.network, *places))
            captured = self._graphs.captured = graph, places, result
        graph, places, result = captured
        for place, given in zip(places, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        return result

    def _compile(self, example: tuple[Tensor, ...]) -> None:
        """Compile and try it. Weights are frozen into the code, in the layout that it wants."""
        cpu = not example[0].is_cuda
        compiled: Any = torch.compile(
            self.network, dynamic=False, options={"freezing": True} if cpu else None
        )
        try:
            with torch.no_grad():
                compiled(*example)
        except Exception as error:  # the compilers and torch raise what they like
            lines = [line for line in str(error).splitlines() if line.strip()]
            self.why_not = f"{type(error).__name__}: {lines[0] if lines else 'no more is said'}"
            torch.compiler.reset()
            return
        self.network, self.compiled = compiled, True
