"""In which precision and memory format a network paints; both decide bits."""

from __future__ import annotations

import copy

import torch
from torch import nn


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    where = torch.device(device)
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def ready(network: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """A copy of a network to paint with: on the device, channels last, without gradients.

    What the noise level does to it, its linear layers, stays in float32 at least: see
    ResidualBlock.
    """
    if torch.device(device).type == "cuda":
        # Both would let the bits of a tile depend on more than its voxels and the device.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    network = copy.deepcopy(network).to(device=device, dtype=dtype).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if isinstance(module, nn.Linear) and dtype.itemsize < 4:
            module.float()
    return network.requires_grad_(False)
