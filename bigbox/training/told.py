"""Say in a card what a network was trained on: the range that it has seen, and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bigbox
from bigbox.devices import device_name
from bigbox.errors import BadInput
from bigbox.painters.trained_range import DM, HALO, MASS
from bigbox.store.box import Box
from bigbox.training.data import Region, TrainingBox

Planes = dict[str, np.ndarray]  # largest value in each plane of axis 0, (channels, planes)


def densest_planes(boxes: Sequence[TrainingBox]) -> list[Planes]:
    """Return the largest value of dm and halo in each plane of axis 0, for every box.

    In the fields' units: before they are normalised.
    """
    return [
        {name: box.fields[name].max(axis=(2, 3)) for name in ("dm", "halo") if name in box.fields}
        for box in boxes
    ]


def range_seen(
    boxes: Sequence[TrainingBox], planes: Sequence[Planes], training: Sequence[Region]
) -> dict[str, Any]:
    """Return a card's "range": the densest voxels of the regions that are trained on.

    dm is smoothed; halo in (M_sun/h)/(Mpc/h)^3 by channel; the heaviest halo, M_sun/h, is that of
    the boxes' catalogues, where they tell it.
    """
    found: dict[str, Any] = {}
    for name, label in (("dm", DM), ("halo", HALO)):
        most = [
            planes[r.box][name][:, r.start : r.stop].max(axis=1)
            for r in training
            if name in planes[r.box]
        ]
        if most:
            found[label] = [float(value) for value in np.max(most, axis=0)]
    if DM in found:
        found[DM] = found[DM][0]
    edges = [_halo(path).get("mass_edges") for r in training for path in boxes[r.box].paths]
    heaviest = [float(one[-1]) for one in edges if one]
    return found | ({MASS: max(heaviest)} if heaviest else {})


def sources(boxes: Sequence[TrainingBox]) -> list[str]:
    """Return what the fields of boxes are from, each once, in order."""
    return sorted({str(s) for box in boxes for s in box.attributes["sources"].values() if s})


def provenance(boxes: Sequence[TrainingBox], device: str, seed: int) -> dict[str, Any]:
    """Return a card's "licence", "provenance" and "stand_in".

    The licence of what a user trains is the user's to say.
    """
    simulations = []
    for box in boxes:
        about = _provenance(box.paths[0])
        kept = ("code", "seed", "particles", "bigbox")
        simulations.append({"box": box.name} | {k: about[k] for k in kept if k in about})
    stand_ins = [source for source in sources(boxes) if "stand-in" in source]
    return {
        "licence": "not stated",
        "stand_in": "; ".join(stand_ins) or None,
        "provenance": {
            "simulations": simulations,
            "bigbox": bigbox.__version__,
            "device": device_name(device),
            "seed": seed,
        },
    }


def _provenance(path: Path) -> dict[str, Any]:
    try:
        return dict(Box.open(path).attributes.get("provenance") or {})
    except BadInput:  # a box in memory has no place
        return {}


def _halo(path: Path) -> dict[str, Any]:
    try:
        return dict(Box.open(path).array("halo").attrs.asdict())
    except BadInput:
        return {}
