"""Read what a model's card says of its own errors, measured by `bigbox evaluate --write-card`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bigbox.analysis.report.fields import Field
from bigbox.errors import BadInput
from bigbox.networks.identity import weights_sha256
from bigbox.networks.model import load_model
from bigbox.painters.models import KnownModel, known_models, named_model
from bigbox.store.recorded import haloes_of

Numbers = dict[str, Any]
PARTS = {"lodi": "on true haloes", "pipeline": "from dark matter alone"}


def card_errors(field: Field, asked: Path | None) -> Numbers:
    """Return the errors of the model that painted a field: over draws of a truth it never saw.

    power_at: k, ratio and error by bin; mean: ratio and error; mass: halo mass by bin over the
    true. Of paintings from dark matter alone where the haloes are painted and the card has them.
    asked: the model's folder or name; None: the known one that painted the field. Raises BadInput
    where none is known, or its card tells no errors.
    """
    model = _model_of(field) if asked is None else named_model(asked)
    entries = model.cards.get("lodi", {}).get("evaluated") or []
    if not entries:
        raise BadInput(
            f"model {model.name}: its card tells no measured errors; measure them: bigbox evaluate "
            f"{model.folder} TRUTH --write-card"
        )
    newest: Numbers = entries[-1]
    painted = field.box is not None and haloes_of(field.box) is not None
    part = "pipeline" if "pipeline" in newest and (painted or "lodi" not in newest) else "lodi"
    rows = newest[part]
    found: Numbers = {
        "model": model.name,
        "words": f"{PARTS[part]}, {newest['truth']['name']}, {rows['realizations']} realizations",
        "power_at": {"k": rows["k"], **{key: rows["power"][key] for key in ("ratio", "error")}},
        "mean": {key: rows["mean"][key] for key in ("ratio", "error")},
        "mass": newest["haloes"]["mass"] if painted and "haloes" in newest else None,
    }
    return found


def at_bins(card: Numbers, k: Any) -> Numbers:
    """Return the card with its errors of P(k) in other bins: straight lines in log k."""
    told = card["power_at"]
    bins = np.log(np.array(told["k"], float))
    ratio, error = (
        np.interp(np.log(np.array(k, float)), bins, np.array(told[key], float)).tolist()
        for key in ("ratio", "error")
    )
    return {**card, "power": {"ratio": ratio, "error": error}}


def _model_of(field: Field) -> KnownModel:
    made = None if field.painted is None else field.painted.identity.get("model")
    if made is None:
        raise BadInput(
            f"{field.name}: was not painted by a network, so no card tells its errors; leave "
            "--against-card away, or name a model with --model"
        )
    for model in known_models():
        if "lodi" in model.cards and weights_sha256(load_model(model.folder, "lodi")) == made:
            return model
    raise BadInput(
        f"{field.name}: the model that painted it ({str(made)[:12]}) is not known; name it with "
        "--model"
    )
