"""Say what of a model decides the bytes that it paints: its weights, and the numbers of its card.

The rest of a card is prose, and may be edited while a painting goes on.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from bigbox.networks.model import Model

DECIDES = (
    "size", "transforms", "gamma", "grid", "window", "smoothing", "voxel_size", "halo_mass_edges",
)  # fmt: skip


def model_identity(model: Model) -> dict[str, Any]:
    """Return {"model": sha256 of the weights, "card": what else decides bytes}, as JSON values."""
    card = {key: model.card[key] for key in DECIDES if key in model.card}
    return {"model": weights_sha256(model), "card": card}


def weights_sha256(model: Model) -> str:
    """Return sha256 of the weights by their names, whatever their order in the file, or its head.

    safetensors writes its metadata in any order, so that the same weights make different files.
    """
    digest = hashlib.sha256()
    for name, values in sorted(model.network.state_dict().items()):
        array = np.ascontiguousarray(values.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
