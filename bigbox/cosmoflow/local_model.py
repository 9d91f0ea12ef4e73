"""Save and load the 3-D model: MODEL/cosmoflow3d.safetensors and the card MODEL/cosmoflow3d.json.

The card says what the model is for (field, voxel, redshift, cosmology), what it was trained on, and
the step that its latents are rounded to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bigbox.cosmoflow.local import CELL, LocalFlow, LocalSize
from bigbox.networks.card import Card
from bigbox.networks.model import Model, load_network, save_model
from bigbox.networks.transforms import LogTransform

KIND = "cosmoflow3d"


def shipped_model() -> Path:
    """Return the folder of the 3-D model that comes along."""
    return Path(str(files("bigbox.data"))) / KIND


def save_local(
    folder: Path, flow: LocalFlow, step: float, about: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Write a model. about: voxel_size, redshift, cosmology, sources, and what else a card says."""
    size = asdict(flow.size) | {"widths": list(flow.size.widths)}
    card: Card = {
        "field": "dm",
        "cell": CELL,
        "step": step,
        "size": size,
        "smoothing": 0.0,
        "transforms": {"dm": asdict(flow.encoder.transform)},
    }
    save_model(folder, KIND, flow, card | dict(about), dtype)


def load_local(folder: Path) -> Model:
    """Read a model, its network a LocalFlow. Raises BadInput as `load_network`."""

    def make(card: Card) -> nn.Module:
        size: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in card["size"].items()}
        return LocalFlow(LocalSize(**size), LogTransform(**card["transforms"]["dm"]))

    return load_network(folder, KIND, make)
