"""Infer Omega_m and sigma8 from the summary of a map, from the map itself, and from its P(k).

Each estimator is trained on the training's simulations, stopped where it is best on those of the
validation, and judged on those of the test. Errors are means of |estimate / truth - 1|.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bigbox.cosmoflow.coding import as_fields, encode, transform_of
from bigbox.cosmoflow.layers import Conv
from bigbox.cosmoflow.maps import PARAMETERS, Maps, Split
from bigbox.cosmoflow.spectra import Bins
from bigbox.networks.layers import norm
from bigbox.networks.model import Model
from bigbox.simulate.run import say

PARTS = ("training", "validation", "test")
Inputs = Callable[[Maps], NDArray[np.float32]]


@dataclass(frozen=True)
class InferOptions:
    """Say how the estimators are trained."""

    seeds: int = 3
    epochs: int = 12  # of the network on maps; the small ones take FURTHER as many
    width: int = 16  # channels of the first stage of the ResNet-18; 64 in He et al. 2016
    estimators: Sequence[str] = ("summary", "spectrum", "maps")


FURTHER = 15
BATCH = 64


class ResNet18(nn.Module):
    """Estimate numbers from maps (He et al. 2016, ResNet-18), periodic, GroupNorm for BatchNorm."""

    def __init__(self, width: int, out: int):
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.stem = Conv(2, 1, width, edge=7, stride=2, periodic=True)
        self.first = norm(width)
        pairs = [(a, b) for i, b in enumerate(widths) for a in (widths[max(0, i - 1)], b)]
        strides = [2 if i in (2, 4, 6) else 1 for i in range(8)]
        self.blocks = nn.ModuleList(
            _ResNetBlock(a, b, stride) for (a, b), stride in zip(pairs, strides, strict=True)
        )
        self.out = nn.Sequential(nn.Linear(widths[-1], 256), nn.ReLU(), nn.Linear(256, out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out) of maps (B, 1, n, n)."""
        h = functional.max_pool2d(functional.relu(self.first(self.stem(x))), 2)
        for block in self.blocks:
            h = block(h)
        found: Tensor = self.out(h.mean((2, 3)))
        return found


class _ResNetBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.convs = nn.ModuleList(
            (
                Conv(2, channels, out, stride=stride, periodic=True),
                Conv(2, out, out, periodic=True),
            )
        )
        self.norms = nn.ModuleList((norm(out), norm(out)))
        one = Conv(2, channels, out, edge=1, stride=stride, periodic=True)
        self.skip = one if stride > 1 or channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norms[0](self.convs[0](x)))
        return functional.relu(self.skip(x) + self.norms[1](self.convs[1](h)))


def infer(model: Model, maps: Maps, options: InferOptions) -> dict[str, Any]:
    """Train and judge all estimators on the model's own split of the maps: JSON values."""
    split = Split.of_card(model.card)
    parts = {name: maps.of(getattr(split, name)) for name in PARTS}
    transform, bins = transform_of(model), Bins(maps.edge, maps.side)

    def fields(some: Maps) -> NDArray[np.float32]:
        return as_fields(transform.forward(np.asarray(some.values))).numpy()

    def spectrum(some: Maps) -> NDArray[np.float32]:
        # Of the density in its own unit, with its mean: all that two-point statistics know.
        values = np.asarray(some.values, np.float64)
        mean = values.mean((1, 2))
        logs = np.log(bins.power(values).clip(1e-300))
        return np.concatenate([logs, np.log(mean)[:, None]], 1).astype(np.float32)

    ways: dict[str, Inputs] = {
        "summary": lambda some: encode(model, some).summary,
        "spectrum": spectrum,
        "maps": fields,
    }
    found: dict[str, Any] = {
        "simulations": {name: len(getattr(split, name)) for name in PARTS},
        "maps": {name: len(parts[name]) for name in PARTS},
        "estimators": {},
    }
    for name in options.estimators:
        inputs = {part: ways[name](parts[part]) for part in PARTS}
        rows = []
        for seed in range(options.seeds):
            began = time.monotonic()
            rows.append(_judged(name, inputs, parts, seed, options))
            say(f"{name}, seed {seed}: {rows[-1]} in {time.monotonic() - began:.0f} s")
        found["estimators"][name] = _over_seeds(np.array(rows), inputs["test"].shape[1:])
    return found


def _over_seeds(errors: NDArray[np.float64], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return mean and scatter of relative errors, (seeds, 2)."""
    spread = errors.std(0, ddof=1) if len(errors) > 1 else np.zeros(2)
    return {
        "numbers": int(np.prod(shape)),
        "seeds": errors.tolist(),
        **{
            name: {"error": float(mean), "scatter": float(more)}
            for name, mean, more in zip(PARAMETERS, errors.mean(0), spread, strict=True)
        },
    }


def _judged(
    name: str,
    inputs: dict[str, NDArray[np.float32]],
    parts: dict[str, Maps],
    seed: int,
    options: InferOptions,
) -> list[float]:
    """Train one estimator with one seed; return its relative errors on the test."""
    torch.manual_seed(seed)
    on_maps = name == "maps"
    scale = (0.0, 1.0) if on_maps else _scale(inputs["training"])
    x = {
        part: torch.from_numpy((one - scale[0]) / scale[1]).float() for part, one in inputs.items()
    }
    truth = {part: torch.from_numpy(parts[part].parameters).float() for part in PARTS}
    mean, std = truth["training"].mean(0), truth["training"].std(0).clamp_min(1e-6)
    network: nn.Module
    if on_maps:
        network, epochs, rate = ResNet18(options.width, 2), options.epochs, 1e-3
    else:
        width = x["training"].shape[1]
        network = nn.Sequential(
            nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 2)
        )
        epochs, rate = FURTHER * options.epochs, 1e-3
    best, kept = float("inf"), copy.deepcopy(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(x["training"]) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, rate / 100)
    random = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(x["training"]), generator=random).split(BATCH):
            some = _moved(x["training"][rows], random) if on_maps else x["training"][rows]
            wanted = (truth["training"][rows] - mean) / std
            loss = functional.mse_loss(network(some), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        error = _relative(network, x["validation"], truth["validation"], mean, std).mean()
        if float(error) < best:
            best, kept = float(error), copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return [float(one) for one in _relative(network, x["test"], truth["test"], mean, std)]


def _scale(values: NDArray[np.float32]) -> tuple[Any, Any]:
    return values.mean(0), values.std(0).clip(1e-6)


def _moved(maps: Tensor, random: torch.Generator) -> Tensor:
    """Move all maps of a batch by the same pixels, and turn and mirror them."""
    n = maps.shape[-1]
    by = torch.randint(n, (2,), generator=random).tolist()
    turn, mirror = torch.randint(4, (2,), generator=random).tolist()
    maps = torch.rot90(maps.roll(by, (2, 3)), turn, (2, 3))
    return maps.flip(3) if mirror % 2 else maps


@torch.no_grad()
def _relative(network: nn.Module, x: Tensor, truth: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the mean relative error of each parameter, (2,)."""
    network.eval()
    found = torch.cat([network(some) for some in x.split(BATCH)]) * std + mean
    return ((found / truth) - 1).abs().mean(0)
