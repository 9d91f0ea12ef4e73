"""Read the JSON card of a network, and refuse one that cannot be true. Needs no torch.

MODEL/halogen.json, MODEL/lodi.json, and flow.json or vae.json of `bigbox cosmoflow`: what the
network is, what it was trained on, and how well it does. A card always has `WANTED`. It may say
more: "grid" (voxels of dm for one painted), "range" (the densest voxels and heaviest halo seen in
training), "licence", "provenance", "measured", "evaluated" (by `bigbox evaluate`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput

FORMAT_VERSION = 1
WANTED = frozenset(
    ("format_version", "kind", "size", "voxel_size", "smoothing", "redshift", "cosmology",
     "transforms", "sha256")
)  # fmt: skip
# What is said of a model and decides nothing that it paints: it may change, the painting is one.
REMARKS = ("evaluated", "licence", "measured", "provenance", "range")

Card = dict[str, Any]


def read_card(folder: Path, kind: str) -> Card:
    """Read the card of one network, as "halogen" or "lodi", without its weights.

    Raises
    ------
    BadInput
        No such card, a damaged one, one of another kind or format, or a number that is not finite.
    """
    path = folder / f"{kind}.json"
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(
            f"model {folder}: no {path.name} there; `bigbox {_made_by(kind)}` makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"model {path}: {error}") from None
    if not isinstance(card, dict):
        raise BadInput(f"model {path}: is no card, but {type(card).__name__}; copy the model again")
    if missing := WANTED - set(card):
        raise BadInput(f"model {path}: no {', '.join(sorted(missing))} in the card")
    if card["format_version"] != FORMAT_VERSION or card["kind"] != kind:
        raise BadInput(
            f"model {path}: {card['kind']} of format {card['format_version']}, not {kind} of "
            f"format {FORMAT_VERSION}"
        )
    for name, value in _numbers(card):
        if not math.isfinite(value):
            raise BadInput(
                f"model {path}: {name} is {value}: not finite; its training has diverged, or the "
                "card is damaged: train it again, or copy it again"
            )
    _check_values(path, card)
    return card


def _made_by(kind: str) -> str:
    return f"train {kind}" if kind in ("halogen", "lodi") else f"cosmoflow train --kind {kind}"


def write_remark(folder: Path, kind: str, name: str, value: Any) -> None:
    """Write what is said of a network, one of REMARKS, into its card. Raises BadInput."""
    if name not in REMARKS:
        raise BadInput(f"card: {name!r} is not one of {', '.join(REMARKS)}")
    card, path = read_card(folder, kind), folder / f"{kind}.json"
    partial = folder / f".{path.name}.partial"
    try:
        with partial.open("w") as file:
            file.write(json.dumps(card | {name: value}, indent=1, allow_nan=False))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BadInput(
            f"model {path}: cannot be written ({error.strerror or error}); copy the model to a "
            "folder of yours"
        ) from None


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield all numbers of JSON values, each with where it stands."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _numbers(one, f"{name}[{at}]")


def _check_values(path: Path, card: Card) -> None:
    """Raise BadInput where a value that painting needs is of another type or out of range."""

    def check(name: str, value: Any, above: float | None, words: str) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (above is not None and not value > above):
            raise BadInput(f"model {path}: {name} is {value!r}, must be {words}; copy it again")

    check("voxel_size", card["voxel_size"], 0.0, "Mpc/h above 0")
    for name in ("smoothing", "redshift"):
        check(name, card[name], -1e-300, "a number of at least 0")
    grid = card.get("grid", 1)
    if type(grid) is not int or grid < 1:
        raise BadInput(f"model {path}: grid {grid!r} is no whole number from 1 on")
    for name in ("size", "cosmology", "transforms"):
        if not isinstance(card[name], dict):
            raise BadInput(f"model {path}: {name} is no table; copy it again")
    for name, one in card["transforms"].items():
        if not isinstance(one, dict) or not {"floor", "mean", "std"} <= set(one):
            raise BadInput(f"model {path}: transform of {name} lacks floor, mean or std")
        check(f"transforms.{name}.floor", one["floor"], 0.0, "above 0")
        check(f"transforms.{name}.mean", one["mean"], None, "a number")
        check(f"transforms.{name}.std", one["std"], 0.0, "above 0")
