"""Small networks with random weights: they paint nothing sensible, and any mistake in what they are
given changes their bytes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi
from bigbox.networks.model import save_model
from bigbox.networks.presets import HalogenSize, LodiSize, as_dict
from bigbox.networks.transforms import LogTransform
from bigbox.physics.mass_bins import HALO_EDGES

VOXEL = 12.5 / 128
LODI = LodiSize(2, (16, 16, 16), 1, 2, 2, 16, "v")
HALOGEN = HalogenSize(2, (16, 16, 16), 1, 2, 4)


def card(size: HalogenSize | LodiSize, **more: Any) -> dict[str, Any]:
    """What a model must say of itself."""
    transforms = {
        "dm": LogTransform(0.01, -0.4, 0.6),
        "halo": LogTransform(10**9.5, 9.7, 0.6, clip=True),
        "tb": LogTransform(5e-3, -2.0, 0.7),
    }
    return {
        "size": as_dict(size),
        "voxel_size": VOXEL,
        "smoothing": 0.2,
        "redshift": 0.0,
        "cosmology": {},
        "halo_mass_edges": list(HALO_EDGES),
        "transforms": {name: asdict(fit) for name, fit in transforms.items()},
        "gamma": [-9.0, 12.0],
        **more,
    }


def random_weights(network: Any) -> Any:
    """Nowhere zero, as after training, and small enough that a sampler stays finite."""
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def write_model(folder: Path, **more: Any) -> Path:
    """A model folder with both networks; the same bytes whenever it is written.

    more: of both cards.
    """
    torch.manual_seed(11)
    lodi, halogen = random_weights(Lodi(LODI)), random_weights(Halogen(HALOGEN))
    with torch.no_grad():
        # Away from the cut, so that the predicted haloes are not all zero.
        halogen.outlet[-1].bias += 1.0
    save_model(folder, "lodi", lodi, card(LODI, **more), torch.float32)
    save_model(folder, "halogen", halogen, card(HALOGEN, **more), torch.float32)
    return folder
