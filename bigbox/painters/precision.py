"""In which precision and memory format a network paints; both decide bits."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bigbox.devices import keep_freed_memory
from bigbox.networks.layers import Conv, PairConv


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

    dtype: of its convolutions of 2³ and 3³ voxels but for inlets and outlet. With bfloat16 all else
    is float32; float16 is eight times as fine, and then two parts only: the outlet, and what the
    noise level does to a network (linear layers; see `normalised`).

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
            if not (one_voxel or "inlet" in name or "outlet" in name):
                module.to(dtype)
        if dtype.itemsize < 4 and (isinstance(module, nn.Linear) or name == "outlet"):
            module.float()
    return network.requires_grad_(False)
