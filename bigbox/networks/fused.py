"""The layers of both networks on a GPU, channels last from the first to the last.

    block   norm + modulation + SiLU ─► convolution ─► ... ─► convolution + bias + residual
            2 kernels, 3 passes         1              1      1

Tensors are (B, C, x, y, z) whose memory is (B, x, y, z, C). cuDNN's convolution takes and gives
that, but torch's norms, poolings and interpolations for a GPU do not: each would be copied to and
fro. So these are Triton kernels (`triton_kernels.py`); the plain functions here named `plain_...`
are what they must give. A convolution is cuDNN's or an own kernel, see `Convolution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks.launching import kernels, launch

CHANNEL_MULTIPLE = 16  # a tensor core's step through the channels of a sum, of two bytes each
FEW_CHANNELS = 2  # a convolution of no more channels is a product with a matrix of its 27 taps
MOST_BLOCKS = 65535  # of a launch, on its second axis
DENSE = 64  # channels up to which groups are joined to one block-diagonal convolution
NORM_SPLITS, NORM_ROWS = 8, 64  # shares of the voxels of a tile, and the fewest voxels of one

_ENABLED = True  # whether changes of resolution on a GPU are made by kernels


def use(network: nn.Module, chooser: Chooser | None = None, on: bool = True) -> None:
    """Have a network that only paints use these, in place, or plain layers again.

    chooser: see `Convolution`.
    """
    global _ENABLED
    _ENABLED = on
    for module in network.modules():
        if not isinstance(module, nn.Conv3d) or module.stride != (1, 1, 1):
            continue
        if module.kernel_size not in ((1, 1, 1), (3, 3, 3)):  # LODI's linear filters
            continue
        # Beside bfloat16 some stay float32: these are multiplied in float16, as fine as TF32.
        fine = module.weight.dtype == torch.float32
        dtype = torch.float16 if fine and module.weight.is_cuda else module.weight.dtype
        fast = Convolution(module, chooser or Chooser(), dtype, fine) if on else None
        layer: Any = module
        layer.fast = fast


def painting(x: Tensor) -> bool:
    """Whether x is on a GPU, in a network that only paints."""
    ours = (
        _ENABLED and x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    )
    return ours and kernels() is not None


def rows(x: Tensor) -> Tensor:
    """Return the memory (B, x, y, z, C) of a tensor (B, C, x, y, z), a copy unless it is so."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def columns(x: Tensor) -> Tensor:
    """Invert `rows`, without a copy."""
    return x.permute(0, 4, 1, 2, 3)


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


# --- norm, modulation, SiLU ---------------------------------------------------------------------


def plain_norm(
    layer: nn.GroupNorm,
    x: Tensor,
    bias: Tensor | None = None,
    modulation: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """Normalise x + bias, scale by 1 + modulation[:, :C], shift by modulation[:, C:], SiLU."""
    voxels = (..., None, None, None)
    h = x.float() if bias is None else x.float() + bias.float()[voxels]
    weight, offset = layer.weight.float(), layer.bias.float()
    h = functional.group_norm(h, layer.num_groups, weight, offset, layer.eps)
    if modulation is not None:
        c = x.shape[1]
        h = h * (1 + modulation[:, :c][voxels]) + modulation[:, c:][voxels]
    return functional.silu(h) if silu else h


def normalise(
    layer: nn.GroupNorm,
    x: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    modulation: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """Return `plain_norm` in the type `dtype`, by two kernels."""
    h = rows(x)
    batch, *space, channels = h.shape
    share, voxels = channels // layer.num_groups, math.prod(space)
    code, padded = kernels(), _power_of_two(channels)
    if code is None or share & (share - 1):
        plain = plain_norm(layer, x, bias, modulation, silu)
        return plain.to(dtype, memory_format=torch.channels_last_3d)
    splits = 1 << (min(NORM_SPLITS, max(1, voxels // NORM_ROWS)).bit_length() - 1)
    block = max(16, min(128, 8192 // padded))
    sums = h.new_empty((batch, splits, 2, channels), dtype=torch.float32)
    has_bias = bias is not None
    told = {"C": channels, "CP": padded, "SPLITS": splits, "HAS_BIAS": has_bias}
    small = max(16, block // 4)
    rounds = -(-voxels // (splits * small))
    launch(code.moments, (batch, splits), h, bias, sums, voxels, **told, BLOCK=small, ROUNDS=rounds)
    out = torch.empty_like(h, dtype=dtype)
    each = 0 if modulation is None or len(modulation) == 1 else 2 * channels
    if modulation is not None:
        modulation = modulation.float().contiguous()
    launch(
        code.normalise, (batch, -(-voxels // block)),
        h, bias, sums, layer.weight, layer.bias, modulation, out, voxels, each, layer.eps,
        float(share * voxels), **told, SHARE=share, BLOCK=block,
        MODULATED=modulation is not None, SILU=silu,
    )  # fmt: skip
    return columns(out)


# --- sums, changes of resolution ----------------------------------------------------------------


def add(x: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """Return x + bias + residual in the residual's type, in one pass."""
    code = kernels()
    if bias is None:
        return residual + x
    if code is None:
        return (x.float() + bias.float()[..., None, None, None] + residual).to(residual.dtype)
    h, more = rows(x), rows(residual)
    out, block = torch.empty_like(more), 1024
    launch(
        code.add,
        (-(-h.numel() // block),),
        h,
        bias,
        more,
        out,
        h.numel(),
        C=h.shape[-1],
        BLOCK=block,
    )
    return columns(out)


def upsample(x: Tensor) -> Tensor:
    """Return `bigbox.networks.layers.upsample` of cubes, in one pass."""
    h, code = rows(x), kernels()
    assert code is not None
    batch, n, _, _, channels = h.shape
    out, block = h.new_empty((batch, 2 * n, 2 * n, 2 * n, channels)), 1024
    grid = (-(-out.numel() // block),)
    launch(code.upsample, grid, h, out, out.numel(), N=n, C=channels, BLOCK=block)
    return columns(out)


def pool(x: Tensor) -> Tensor:
    """Return the largest of each 2³ voxels."""
    h = rows(x)
    batch, a, b, c, channels = h.shape
    return columns(h.view(batch, a // 2, 2, b // 2, 2, c // 2, 2, channels).amax((2, 4, 6)))


def patchify(x: Tensor, patch: int) -> Tensor:
    """Return `bigbox.networks.layers.patchify`, channels last."""
    b, c, n, *_ = x.shape
    m = n // patch
    parts = x.reshape(b, c, m, patch, m, patch, m, patch).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return columns(parts.reshape(b, m, m, m, c * patch**3))


def join(first: Tensor, second: Tensor, groups: int) -> Tensor:
    """Return `bigbox.networks.layers.join`, channels last."""
    a, b = (rows(x).unflatten(-1, (groups, -1)) for x in (first, second))
    return columns(torch.cat([a, b], dim=-1).flatten(-2))


# --- convolutions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocking:
    """What one program of the own convolution makes, and how."""

    voxels: tuple[int, int, int]
    outputs: int
    inputs: int
    warps: int
    stages: int


def blockings(edge: int, inputs: int, outputs: int) -> list[Blocking]:
    """Return ways to cut a convolution of cubes, of one group's channels; the first is the best.

    Empty where there is none: edges that are no power of two, channels that are no multiple of 16.
    """
    if edge & (edge - 1) or not 4 <= edge <= 64 or inputs % CHANNEL_MULTIPLE:
        return []
    depth = next((k for k in (64, 32) if inputs % k == 0), 64 if inputs > 32 else 16)

    def cut(count: int) -> tuple[int, int, int]:
        z = edge
        y = min(edge, max(1, count // z))
        return min(edge, max(1, count // (z * y))), y, z

    width = max(16, min(128, _power_of_two(outputs)))
    if outputs > 128 and outputs % 128:  # 192: three of 64
        width = 64
    if width == 128:
        found = [(128, 128, depth, 8, 3), (128, 64, depth, 4, 4), (256, 128, depth, 8, 3)]
    else:
        found = [(128, width, depth, 4, 4), (256, width, depth, 8, 3)]
    if inputs % depth:
        found.append((128, width, 16, 4, 6))
    return [Blocking(cut(n), *more) for n, *more in found]


def plain_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, residual: Tensor | None = None
) -> Tensor:
    """Convolve in float32, zeros beyond the edges, and add the residual."""
    shift = None if bias is None else bias.float()
    edge = weight.shape[-1] // 2
    y = functional.conv3d(x.float(), weight.float(), shift, padding=edge, groups=groups)
    return y if residual is None else y + residual.float()


def joined_groups(weight: Tensor, groups: int, times: int) -> tuple[Tensor, int]:
    """Return the weight of the same convolution with `times` groups joined, and how many are left.

    A tensor core multiplies 64 channels as fast as 16: several narrow groups become one, with zeros
    between them. times: at most; less where the groups are no multiple.
    """
    out, inputs = weight.shape[0] // groups, weight.shape[1]
    times = next(n for n in range(min(groups, times), 0, -1) if groups % n == 0)
    parts = weight.reshape(groups // times, times, out, inputs, *weight.shape[2:])
    dense = weight.new_zeros(groups // times, times, out, times, inputs, *weight.shape[2:])
    for i in range(times):
        dense[:, i, :, i] = parts[:, i]
    joined = dense.reshape(groups * out, times * inputs, *weight.shape[2:])
    return joined, groups // times


class Chooser:
    """Says for a convolution of these rows whether the own kernel makes it, and how."""

    def choose(self, convolution: Convolution, h: Tensor) -> Blocking | None:
        """Return None for cuDNN."""
        return None


class OwnKernel(Chooser):
    """Takes the own kernel wherever it can be."""

    def choose(self, convolution: Convolution, h: Tensor) -> Blocking | None:
        """Return the first way to cut it."""
        return next(iter(convolution.blockings(h)), None)


class Convolution:
    """A convolution that keeps the shape, with weights laid out for a GPU.

    One voxel, or few channels: a matrix product. Else cuDNN, or a Triton kernel that adds bias and
    residual too; the chooser says which.

    dtype: of what is multiplied; sums are float32. fine: the result is float32 too, and cuDNN
    multiplies in float32 (by TF32, as fine as float16).
    """

    def __init__(self, layer: nn.Conv3d, chooser: Chooser, dtype: torch.dtype, fine: bool = False):
        self.one_voxel = layer.kernel_size == (1, 1, 1)
        few = self.one_voxel or layer.in_channels <= FEW_CHANNELS
        self.chooser, self.fine = chooser, fine
        self.dtype = dtype = torch.float32 if fine and few else dtype
        self.out, groups = layer.out_channels, layer.groups
        self.bias = None if layer.bias is None else layer.bias.detach()
        weight = layer.weight.detach()
        self.matrix: Tensor | None = None
        if self.one_voxel:
            self.matrix = joined_groups(weight, groups, groups)[0].flatten(1).to(dtype)
        elif layer.in_channels <= FEW_CHANNELS:
            taps = weight.permute(0, 2, 3, 4, 1).reshape(self.out, -1)
            taps = functional.pad(taps, (0, -taps.shape[1] % CHANNEL_MULTIPLE))
            self.matrix = taps.to(dtype)
        times = max(1, DENSE // weight.shape[1])
        weight, self.groups = joined_groups(weight, groups, times)
        self.padding = -weight.shape[1] % CHANNEL_MULTIPLE if self.groups == 1 else 0
        weight = functional.pad(weight, (0, 0) * 3 + (0, self.padding))
        self.inputs, self.outputs = weight.shape[1], self.out // self.groups
        kept = torch.float32 if fine else dtype
        self.weight = weight.to(kept, memory_format=torch.channels_last_3d)
        self._laid_out: dict[tuple[int, int], Tensor] = {}

    def blockings(self, h: Tensor) -> list[Blocking]:
        """Return ways for the own kernel to make it of rows h; empty where it cannot."""
        batch, edge = h.shape[0], h.shape[1]
        if kernels() is None or self.dtype.itemsize != 2 or h.shape[1:4] != (edge,) * 3:
            return []
        ways = blockings(edge, self.inputs, self.outputs)
        return [w for w in ways if batch * edge**3 // math.prod(w.voxels) <= MOST_BLOCKS]

    def laid_out(self, blocking: Blocking) -> Tensor:
        """Return the weights (27 inputs, groups outputs), filled up to multiples of the block."""
        filled = (-self.inputs % blocking.inputs, -self.outputs % blocking.outputs)
        if filled not in self._laid_out:
            parts = self.weight.reshape(self.groups, self.outputs, self.inputs, 27).to(self.dtype)
            parts = functional.pad(parts, (0, 0, 0, filled[0], 0, filled[1]))
            flat = parts.permute(3, 2, 0, 1).reshape(27 * (self.inputs + filled[0]), -1)
            self._laid_out[filled] = flat.contiguous()
        return self._laid_out[filled]

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the convolution with its bias, plus a residual in the residual's type."""
        y, bias = self.pending(x, residual)
        return y if bias is None else y + bias.to(y.dtype)[:, None, None, None]

    def pending(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the convolution, and a bias where it is still to be added."""
        h = rows(x.to(self.dtype))
        if self.matrix is not None:
            y = self._product(h if self.one_voxel else self._taps(h))
            return (y if residual is None else residual + y), None
        if self.padding:
            h = functional.pad(h, (0, self.padding))
        blocking = self.chooser.choose(self, h)
        if blocking is not None:
            return self.own(h, blocking, residual), None
        y = self.cudnn(h)
        return (y, self.bias) if residual is None else (add(y, self.bias, residual), None)

    def cudnn(self, h: Tensor) -> Tensor:
        """Return cuDNN's result of rows h, without the bias."""
        h = h.to(self.weight.dtype)
        return functional.conv3d(columns(h), self.weight, None, padding=1, groups=self.groups)

    def own(self, h: Tensor, blocking: Blocking, residual: Tensor | None = None) -> Tensor:
        """Return the own kernel's result of rows h, with the bias, plus a residual."""
        from triton.tools.tensor_descriptor import TensorDescriptor

        code = kernels()
        assert code is not None
        batch, *space, _ = h.shape
        weights = self.laid_out(blocking)
        dtype = torch.float32 if self.fine else self.dtype
        out = h.new_empty(
            (batch, *space, self.out), dtype=dtype if residual is None else residual.dtype
        )
        more = None if residual is None else rows(residual)
        per_group = -(-self.outputs // blocking.outputs)
        blocks = math.prod(n // b for n, b in zip(space, blocking.voxels, strict=True))
        x_block, y_block, z_block = blocking.voxels
        launch(
            code.convolve,
            (per_group * self.groups, batch * blocks),
            TensorDescriptor.from_tensor(h, [1, *blocking.voxels, blocking.inputs]),
            TensorDescriptor.from_tensor(weights, [blocking.inputs, blocking.outputs]),
            self.bias, more, out, *space, self.outputs, self.out,
            CIN=self.inputs, BX=x_block, BY=y_block, BZ=z_block, BN=blocking.outputs,
            BK=blocking.inputs, PER_GROUP=per_group, HAS_BIAS=self.bias is not None,
            HAS_RESIDUAL=more is not None, num_warps=blocking.warps, num_stages=blocking.stages,
        )  # fmt: skip
        return columns(out)

    def _product(self, h: Tensor) -> Tensor:
        assert self.matrix is not None
        bias = None if self.bias is None else self.bias.to(self.dtype)
        return columns(functional.linear(h, self.matrix, bias))

    def _taps(self, h: Tensor) -> Tensor:
        """Return the 27 neighbours of each voxel of rows h, (B, x, y, z, 27 C and zeros)."""
        assert self.matrix is not None
        padded = functional.pad(h, (0, 0) + (1, 1) * 3)
        taps = padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, x, y, z, C, 3, 3, 3)
        found = h.new_zeros((*h.shape[:4], self.matrix.shape[1]))
        inside = found[..., : 27 * h.shape[-1]].unflatten(-1, (3, 3, 3, h.shape[-1]))
        inside.copy_(taps.permute(0, 1, 2, 3, 5, 6, 7, 4))
        return found
