"""Save and load a model of maps or boxes, and refuse what it is not for.

MODEL/flow.safetensors  MODEL/flow.json     encoder and velocity network
MODEL/vae.safetensors   MODEL/vae.json      the baseline of the same latent
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from bigbox.cosmoflow.maps import Maps
from bigbox.cosmoflow.networks import Flow, FlowSize
from bigbox.cosmoflow.vae import Vae, VaeSize
from bigbox.errors import BadInput
from bigbox.networks.card import Card
from bigbox.networks.model import Model, load_network

KINDS = ("flow", "vae")
# What maps must have in common with those of the training: relative, or in the quantity's unit.
WITHIN = {"pixel": 0.05, "thickness": 0.05}
REDSHIFT = 0.05


def build(card: Card) -> nn.Module:
    """Build the network that a card sizes, its weights not yet trained."""
    if card["kind"] == "flow":
        return Flow(FlowSize.from_dict(card["size"]))
    return Vae(VaeSize.from_dict(card["size"]))


def load(folder: Path, kind: str = "flow") -> Model:
    """Read a model of maps. Raises BadInput for what is none, is damaged, or is of boxes."""
    model = load_network(folder, kind, build)
    if (ndim := model.card["size"].get("ndim")) != 2:
        raise BadInput(
            f"model {folder}: is of {ndim}-D fields, not of maps; see bigbox compress --help"
        )
    return model


def check_maps(card: Card, maps: Maps, name: str) -> None:
    """Raise BadInput where a model, called `name`, is not for these maps."""
    about = card["maps"]
    for what in ("field", "units"):
        if maps.about[what] != about[what]:
            raise BadInput(
                f"{maps.name}: {what} {maps.about[what]}, model {name} is for {about[what]}; "
                "give maps of that, or train a model on these"
            )
    for what, within in WITHIN.items():
        mine, its = float(maps.about[what]), float(about[what])
        if abs(mine / its - 1) > within:
            raise BadInput(
                f"{maps.name}: {what} {mine:.4g} Mpc/h, model {name} is for {its:.4g} (within "
                f"{100 * within:g} %); give maps of that, or train a model on these"
            )
    mine, its = float(maps.about["redshift"]), float(about["redshift"])
    if abs(mine - its) > REDSHIFT:
        raise BadInput(
            f"{maps.name}: redshift {mine:g}, model {name} is for {its:g} (within {REDSHIFT:g}); "
            "give maps of that, or train a model on these"
        )
    check_edge(card, maps)


def check_edge(card: Card, maps: Maps) -> None:
    """Raise BadInput where the maps are not a multiple of the latent's voxels."""
    size = card["size"]
    multiple = FlowSize.from_dict(size).multiple if card["kind"] == "flow" else size["factor"]
    if maps.edge % multiple:
        raise BadInput(
            f"{maps.name}: {maps.edge} pixels on an edge: must be a multiple of {multiple}; "
            "give other maps, or make them with --edge"
        )


def maps_of_card(maps: Maps) -> dict[str, Any]:
    """Return what a card says of the maps of a training."""
    known = ("field", "units", "pixel", "thickness", "redshift", "source")
    return {name: maps.about[name] for name in known} | {"edge": maps.edge, "name": maps.name}
