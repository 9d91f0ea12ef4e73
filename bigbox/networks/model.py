"""Save and load a model: safetensors weights, and the JSON card that says all about them.

MODEL/halogen.safetensors  MODEL/halogen.json      dm -> halo
MODEL/lodi.safetensors     MODEL/lodi.json         halo -> tb
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bigbox.errors import BadInput
from bigbox.networks.card import FORMAT_VERSION, Card, read_card
from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi
from bigbox.networks.presets import HalogenSize, LodiSize
from bigbox.networks.transforms import LogTransform


@dataclass(frozen=True)
class Model:
    """Hold a network with trained weights, its card (JSON values) and the weights' sha256."""

    network: nn.Module
    card: Card
    sha256: str

    def transform(self, name: str) -> LogTransform:
        """Return the normalisation of an input or output: "dm", "halo" or "tb"."""
        return LogTransform(**self.card["transforms"][name])


def save_model(folder: Path, kind: str, network: nn.Module, card: Card, dtype: torch.dtype) -> None:
    """Write weights, in `dtype`, and card. Each file replaces an older one in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in network.state_dict().items()}
    weights = save(tensors, metadata={"kind": kind, "format": str(FORMAT_VERSION)})
    head = {"format_version": FORMAT_VERSION, "kind": kind}
    text = json.dumps(head | card | {"sha256": hashlib.sha256(weights).hexdigest()}, indent=1)
    for name, data in ((f"{kind}.safetensors", weights), (f"{kind}.json", text.encode())):
        partial = folder / f".{name}.partial"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)


def load_model(folder: Path, kind: str) -> Model:
    """Read HALOgen or LODI; see `load_network`."""

    def make(card: Card) -> nn.Module:
        size: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in card["size"].items()}
        return Halogen(HalogenSize(**size)) if kind == "halogen" else Lodi(LodiSize(**size))

    return load_network(folder, kind, make)


def load_network(folder: Path, kind: str, make: Callable[[Card], nn.Module]) -> Model:
    """Read a model. Its network is in float32 on the CPU, in evaluation mode.

    make: returns the network of a card, before it has its weights.

    Raises
    ------
    BadInput
        No such model, a damaged or truncated file, weights of another card, or numbers in either
        that are not finite.
    """
    card = read_card(folder, kind)
    path = folder / f"{kind}.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"model {path}: {error.strerror or error}; train it again") from None
    found = hashlib.sha256(data).hexdigest()
    if found != card["sha256"]:
        raise BadInput(
            f"model {path}: {len(data)} bytes with checksum {found[:12]}.., the card says "
            f"{card['sha256'][:12]}..: damaged, truncated, or of another card; copy both again"
        )
    try:
        network = make(card)
        tensors = {k: v.float() for k, v in load(data).items()}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, TypeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"model {path}: does not fit its card ({line})") from None
    for name, tensor in tensors.items():
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise BadInput(
                f"model {path}: {name} has {bad:,} of {tensor.numel():,} weights that are not "
                "finite: its training has diverged; train it again"
            )
    return Model(network.eval(), card, found)
