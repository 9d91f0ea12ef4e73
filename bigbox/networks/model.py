"""A model on disk: safetensors weights, and the JSON card that says all about them.

MODEL/halogen.safetensors  MODEL/halogen.json      dm -> halo
MODEL/lodi.safetensors     MODEL/lodi.json         halo -> tb
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bigbox.errors import BadInput
from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi
from bigbox.networks.presets import HalogenSize, LodiSize
from bigbox.networks.transforms import LogTransform
from bigbox.store.box import Box

FORMAT_VERSION = 1
SAME_VOXEL = 0.05  # relative difference of voxel sizes that a model may be used at
SAME_REDSHIFT = 0.05
KINDS = ("halogen", "lodi")


@dataclass(frozen=True)
class Model:
    """A network with trained weights, and its card.

    card: JSON values; always has "kind", "size", "voxel_size" and "smoothing" (Mpc/h), "redshift",
    "cosmology", "transforms"; sha256: of the weights file.
    """

    kind: str
    network: nn.Module
    card: dict[str, Any]
    sha256: str

    def transform(self, name: str) -> LogTransform:
        """The normalisation of an input or output: "dm", "halo" or "tb"."""
        return LogTransform(**self.card["transforms"][name])


def save_model(
    folder: Path, kind: str, network: nn.Module, card: dict[str, Any], dtype: torch.dtype
) -> None:
    """Write weights (in `dtype`) and card; each file replaces an older one in one step."""
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
    """Read a model; its network is in float32 on the CPU, in evaluation mode.

    Raises BadInput: no such model, a damaged or truncated file, weights of another card.
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
        network = make_network(kind, card["size"])
        network.load_state_dict({k: v.float() for k, v in load(data).items()})
    except (SafetensorError, RuntimeError, TypeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"model {path}: does not fit its card ({line})") from None
    return Model(kind, network.eval(), card, found)


def read_card(folder: Path, kind: str) -> dict[str, Any]:
    """The card alone, without torch's work. Raises BadInput."""
    path = folder / f"{kind}.json"
    try:
        card = json.loads(path.read_text())
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


def check_box(folder: Path, card: dict[str, Any], box: Box) -> None:
    """That a model was trained for boxes like this one. Raises BadInput, one line.

    A network knows one resolution, redshift and smoothing: at others it paints something else,
    without a sign of it.
    """
    what, way = f"model {folder}/{card['kind']}", "or --force, if you know better"
    if abs(box.voxel / card["voxel_size"] - 1) > SAME_VOXEL:
        raise BadInput(
            f"{box.path}: voxels of {box.voxel:.5g} Mpc/h, {what} was trained at "
            f"{card['voxel_size']:.5g} (within {SAME_VOXEL:.0%}); ingest with another --grid, {way}"
        )
    if abs(box.redshift - card["redshift"]) > SAME_REDSHIFT:
        raise BadInput(
            f"{box.path}: redshift {box.redshift:.4g}, {what} was trained at "
            f"{card['redshift']:.4g} (within {SAME_REDSHIFT}); train one for this redshift, {way}"
        )
    if card["kind"] != "lodi" or not box.has("halo"):
        return
    told: dict[str, Any] = box.array("halo").attrs.asdict()
    radius = told.get("smoothing")
    if radius is not None and abs(radius - card["smoothing"]) > 1e-3:
        raise BadInput(
            f"{box.path}/halo: smoothed over {radius:.4g} Mpc/h, {what} was trained on haloes "
            f"smoothed over {card['smoothing']:.4g}; ingest with that --smoothing, {way}"
        )
    edges = told.get("mass_edges")
    lower = card["halo_mass_edges"]
    if edges is not None and not np.allclose(edges[: len(lower)], lower, rtol=1e-6):
        raise BadInput(
            f"{box.path}/halo: mass bins from {edges} M_sun/h, {what} was trained on {lower}; "
            f"ingest it again, {way}"
        )


def make_network(kind: str, size: dict[str, Any]) -> Halogen | Lodi:
    """A network with fresh weights; size: of the card."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in size.items()}
    return Halogen(HalogenSize(**values)) if kind == "halogen" else Lodi(LodiSize(**values))
