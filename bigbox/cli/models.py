"""`bigbox models`: the trained networks that are known, and what each is for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigbox.painters.models import KnownModel

TEXT = """\
Lists the models that paint and plan choose from: those in the folders of the environment variable
BIGBOX_MODELS (each a model, or a folder of models; several with : between), those in
~/.local/share/bigbox/models ($XDG_DATA_HOME/bigbox/models), and the one that bigbox ships. With
MODEL, those only, and more of each.

A model is taken for a box of its voxel, redshift, smoothing and cosmology; the last line of the
list says within what. Its measured errors are those of its own training and, where bigbox evaluate
--write-card was run, those on a simulation that no training saw.

example:  BIGBOX_MODELS=~/nets bigbox models
next:     bigbox paint box.zarr --model NAME
"""

SUMMARY = "the trained networks that there are, and what they are for"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    help = "a model's folder or name (default: all that are known)"
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="*", help=help)


def run(options: argparse.Namespace) -> int:
    """Print what each model says of itself."""
    from bigbox.painters.models import TOLERANCES, known_models, named_model

    models = [named_model(one) for one in options.models] or known_models()
    for model in models:
        print(describe(model))
        print()
    limits = ", ".join(
        f"{one.label} {one.most:.0%}" if one.relative else f"{one.label} {one.most:g}{one.unit}"
        for one in TOLERANCES.values()
    )
    print(f"A box is taken for what a model knows within: {limits}.")
    return 0


def describe(model: KnownModel) -> str:
    """Say in a few lines what a model is for and how good it is."""
    if model.trouble or not model.cards:
        return f"{model.name}  {model.folder}\n  cannot be used: {model.trouble}"
    card = model.card
    known: dict[str, Any] = card["cosmology"]
    cosmology = ", ".join(f"{k} {v:g}" for k, v in known.items() if isinstance(v, (int, float)))
    sources = card.get("sources", [])
    stand_in = card.get("stand_in") or "; ".join(s for s in sources if "stand-in" in s)
    boxes = card.get("data", {}).get("training", [])
    lines = [
        ("for", f"voxels of {card['voxel_size']:.4g} Mpc/h at redshift {card['redshift']:g}, maps "
                f"smoothed over {card['smoothing']:g} Mpc/h"),
        ("grid", _grid(int(card.get("grid", 1)))),
        ("cosmology", cosmology or "not told"),
        ("networks", ", ".join(f"{k} {one['sha256'][:12]}" for k, one in model.cards.items())),
        ("trained", f"on {len(boxes)} boxes; {'; '.join(sources) or 'sources not told'}"),
        ("range", _range(model)),
        ("licence", str(card.get("licence", "not stated"))),
        ("errors", _errors(model)),
        *([("stand-in", stand_in)] if stand_in else []),
    ]  # fmt: skip
    text = "\n".join(f"  {name:10}{words}" for name, words in lines)
    return f"{model.name}  {model.folder}\n{text}"


def _grid(grid: int) -> str:
    return "every voxel is painted" if grid == 1 else f"one voxel painted for {grid} on each axis"


def _range(model: KnownModel) -> str:
    told: dict[str, Any] = {}
    for card in model.cards.values():
        told |= card.get("range") or {}
    parts = []
    for name, value in told.items():
        if isinstance(value, list):
            parts.append(f"{name} {', '.join(f'{one:.3g}' for one in value)}")
        elif isinstance(value, (int, float)):
            parts.append(f"{name} {value:.3g}")
    return "; ".join(parts) or "not told"


def _errors(model: KnownModel) -> str:
    found = model.card.get("evaluated")
    if not found:
        return "not evaluated on a held-out simulation: bigbox evaluate MODEL TRUTH --write-card"
    parts = [one["summary"] for one in found if isinstance(one, dict) and "summary" in one]
    return "; ".join(parts)
