"""Save and load a model: safetensors weights, and the JSON card that says all about them.

MODEL/halogen.safetensors  MODEL/halogen.json      dm -> halo
MODEL/lodi.safetensors     MODEL/lodi.json         halo -> tb
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bigbox.errors import BadInput
from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi
from bigbox.networks.presets import HalogenSize, LodiSize
from bigbox.networks.transforms import LogTransform

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Model:
    """Hold a network with trained weights, its card (JSON values) and the weights' sha256.

    A card always has "kind", "size", "voxel_size" and "smoothing" (Mpc/h), "redshift", "cosmology"
    and "transforms".
    """

    network: nn.Module
    card: dict[str, Any]
    sha256: str

    def transform(self, name: str) -> LogTransform:
        """Return the normalisation of an input or output: "dm", "halo" or "tb"."""
        return LogTransform(**self.card["transforms"][name])


def save_model(
    folder: Path, kind: str, network: nn.Module, card: dict[str, Any], dtype: torch.dtype
) -> None:
    """Write weights, in `dtype`, and card. Each file replaces an older one in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in network.state_dict().items()}
    weights = save(tensors, metadata={"kind": kind, "format": str(FORMAT_VERSION)})
    head = {"format_version": FORMAT_VERSION, "kind": kind}
    text = json.dumps(head | card | {"sha256": hashlib.sha256(weights).hexdigest()}, indent=1)
    for name, data in ((f"{kind}.safetensors", weights), (f"{kind}.json", text.encode())):
        partial = folder / f".{name}.partial"
        partial.write_bytes(data)
        partial.replace(folder / name)


def load_model(folder: Path, kind: str) -> Model:
    """Read a model. Its network is in float32 on the CPU, in evaluation mode.

    Raises
    ------
    BadInput
        No such model, a damaged or truncated file, or weights of another card.
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
        size: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in card["size"].items()}
        network = Halogen(HalogenSize(**size)) if kind == "halogen" else Lodi(LodiSize(**size))
        network.load_state_dict({k: v.float() for k, v in load(data).items()})
    except (SafetensorError, RuntimeError, TypeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"model {path}: does not fit its card ({line})") from None
    return Model(network.eval(), card, found)


def read_card(folder: Path, kind: str) -> dict[str, Any]:
    """Read the card alone, without the weights. Raises BadInput."""
    path = folder / f"{kind}.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(
            f"model {folder}: no {path.name} there; `bigbox train {kind}` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"model {path}: {error}") from None
    wanted = {"format_version", "kind", "size", "voxel_size", "smoothing", "redshift", "cosmology",
              "transforms", "sha256"}  # fmt: skip
    if missing := wanted - set(card):
        raise BadInput(f"model {path}: no {', '.join(sorted(missing))} in the card")
    if card["format_version"] != FORMAT_VERSION or card["kind"] != kind:
        raise BadInput(
            f"model {path}: {card['kind']} of format {card['format_version']}, not {kind} of "
            f"format {FORMAT_VERSION}"
        )
    return card
