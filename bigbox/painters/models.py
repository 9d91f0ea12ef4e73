"""Know the trained models that there are, and pick the one that a box is for.

A model is a folder with a card for each of its networks (see `bigbox.networks.card`). Known are

    those in the folders of BIGBOX_MODELS (several with : between)     each a model, or a folder
    those in bigbox/models in the user's data folder                   of models
    "default", the one that bigbox ships

A network knows one resolution, redshift, smoothing and cosmology. At others it paints something
else, without a sign of it; TOLERANCES says what counts as the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.data import default_model
from bigbox.errors import BadInput
from bigbox.networks.card import Card, read_card
from bigbox.store.box import Box

FOLDERS = "BIGBOX_MODELS"
KINDS = ("halogen", "lodi")
SHIPPED = "default"


@dataclass(frozen=True)
class Tolerance:
    """How far a box may be from what a model knows: a difference, relative or not."""

    label: str
    most: float
    relative: bool = True
    unit: str = ""

    def off(self, box: float, model: float) -> float:
        """Return the difference in units of what is allowed."""
        apart = abs(box - model)
        if self.relative:
            apart = apart / abs(model) if model else (np.inf if apart else 0.0)
        return float(apart / self.most)

    def words(self, box: float, model: float) -> str:
        """Say what differs."""
        within = f"{self.most:.0%}" if self.relative else f"{self.most:g}{self.unit}"
        return (
            f"{self.label} {box:.5g}{self.unit} where the model knows {model:.5g}{self.unit} "
            f"(within {within})"
        )


# Halo abundance, and with it the power of T_b, goes about as Omega_m and steeper with sigma8: 5 %
# are 5 to 15 % of P(k), as much as the models are off themselves. 6 % of Omega_m take in Planck
# 2018's 0.315 beside CAMELS' 0.3.
TOLERANCES = {
    "voxel_size": Tolerance("voxel", 0.05, unit=" Mpc/h"),
    "redshift": Tolerance("redshift", 0.05, relative=False),
    "smoothing": Tolerance("smoothing of the haloes", 1e-3, relative=False, unit=" Mpc/h"),
    "omega_m": Tolerance("Omega_m", 0.06),
    "sigma8": Tolerance("sigma8", 0.05),
    "h": Tolerance("h", 0.05),
    "n_s": Tolerance("n_s", 0.05),
}
COSMOLOGY = ("omega_m", "sigma8", "h", "n_s")


@dataclass(frozen=True)
class KnownModel:
    """Hold the name and folder of a model, and its networks' cards by kind."""

    name: str
    folder: Path
    cards: dict[str, Card]
    trouble: str = ""  # why a card cannot be read

    @property
    def card(self) -> Card:
        """The card that speaks for the model: LODI's, where it has one."""
        return self.cards.get("lodi") or self.cards["halogen"]

    def differences(self, box: Facts, kinds: Sequence[str]) -> list[str]:
        """Say in what the box is another than the model's networks of these kinds know."""
        if self.trouble:
            return [self.trouble]
        if missing := [kind for kind in kinds if kind not in self.cards]:
            return [f"has no {' and no '.join(missing)}"]
        words = [word for kind in kinds for word in differences(self.cards[kind], box)]
        return list(dict.fromkeys(words))

    def distance(self, box: Facts, kinds: Sequence[str]) -> float:
        """Return how far the box is from what the model knows, in units of what is allowed."""
        if self.trouble or any(kind not in self.cards for kind in kinds):
            return np.inf
        rows = [row for kind in kinds for row in _compared(self.cards[kind], box)]
        return float(sum(tolerance.off(mine, known) for tolerance, mine, known in rows))


@dataclass(frozen=True)
class Choice:
    """Hold the model that is painted with."""

    folder: Path
    differences: list[str]  # from the box: none, or what --force has passed over
    untold: list[str]  # what the model knows of the cosmology and the box does not tell
    among: int = 1  # known models that fit
    refusal: str = ""  # why none would be taken without --force, where none fits

    @cached_property
    def forced(self) -> str:
        """What is said wherever the painting is shown; nothing where the model fits."""
        if not self.differences:
            return ""
        return f"painted with --force: {'; '.join(self.differences)}"

    def words(self) -> list[str]:
        """Return what a user should know before the painting: often nothing."""
        found = [self.forced] if self.forced else []
        if self.among > 1:
            found.append(f"{self.among} known models are for this box; taken: {self.folder}")
        if self.untold:
            names = ", ".join(self.untold)
            found.append(f"the box tells no {names}: taken for what the model knows, unchecked")
        return found


@dataclass(frozen=True)
class Facts:
    """Hold what a box tells of itself that a model must know too."""

    name: str
    values: dict[str, float]  # by the names of TOLERANCES, those that are told
    mass_edges: Sequence[float] | None = None  # of its haloes, M_sun/h

    @classmethod
    def of(cls, box: Box) -> Facts:
        """Return those of a box; of its haloes too, where it has any."""
        known: dict[str, Any] = box.attributes.get("cosmology") or {}
        values: dict[str, Any] = {"voxel_size": box.voxel, "redshift": box.redshift}
        values |= {name: known.get(name) for name in COSMOLOGY}
        edges = None
        if box.has("halo"):
            halo: dict[str, Any] = box.array("halo").attrs.asdict()
            values["smoothing"], edges = halo.get("smoothing"), halo.get("mass_edges")
        told = {name: float(value) for name, value in values.items() if value is not None}
        return cls(str(box.path), told, edges)

    def untold(self, card: Card) -> list[str]:
        """Return the labels of what the model's card tells of the cosmology and the box does not.

        It cannot be checked.
        """
        names = (name for name in COSMOLOGY if card["cosmology"].get(name) is not None)
        return [TOLERANCES[name].label for name in names if name not in self.values]


def _compared(card: Card, box: Facts) -> list[tuple[Tolerance, float, float]]:
    """Return what both tell: the tolerance, the box's value, the card's."""
    known = {**card["cosmology"], **{k: card[k] for k in ("voxel_size", "redshift", "smoothing")}}
    if card["kind"] != "lodi":
        del known["smoothing"]  # HALOgen smooths by itself, and is given no haloes
    return [
        (tolerance, box.values[name], float(known[name]))
        for name, tolerance in TOLERANCES.items()
        if name in box.values and known.get(name) is not None
    ]


def differences(card: Card, box: Facts) -> list[str]:
    """Say in what a box is another than a network knows: nothing where it is made for it."""
    found = [
        tolerance.words(mine, known)
        for tolerance, mine, known in _compared(card, box)
        if tolerance.off(mine, known) > 1 + 1e-9
    ]
    edges, lower = box.mass_edges, card.get("halo_mass_edges")
    if card["kind"] == "lodi" and edges is not None and lower is not None:
        if not np.allclose(edges[: len(lower)], lower, rtol=1e-6):
            mine, known = (
                ", ".join(f"{e:.3g}" for e in some[: len(lower)]) for some in (edges, lower)
            )
            found.append(f"mass bins from {mine} M_sun/h where the model knows {known}")
    return found


def user_folder() -> Path:
    """Return where a user's models are looked for beside BIGBOX_MODELS."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "bigbox" / "models"


def known_models() -> list[KnownModel]:
    """Return the models that are known, the user's first. A card is read, weights are not."""
    named = [Path(one) for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one]
    folders: list[Path] = []
    for place in (*named, user_folder()):
        if not place.is_dir():
            if place in named:
                raise BadInput(f"{FOLDERS}: {place} is no folder; correct it, or unset it")
            continue
        folders += [place] if _is_model(place) else filter(_is_model, sorted(place.iterdir()))
    models = [read_known(folder) for folder in dict.fromkeys(folders)]
    return [*models, read_known(default_model(), SHIPPED)]


def read_known(folder: Path, name: str = "") -> KnownModel:
    """Read the cards of a model; a damaged one is told in `trouble`."""
    cards, trouble = {}, ""
    for kind in KINDS:
        if (folder / f"{kind}.json").exists():
            try:
                cards[kind] = read_card(folder, kind)
            except BadInput as error:
                trouble = str(error)
    return KnownModel(name or folder.name, folder, cards, trouble)


def named_model(asked: Path) -> KnownModel:
    """Return the model of a folder, or the known one of that name. Raises BadInput."""
    if _is_model(asked):
        return read_known(asked)
    models = known_models()
    for one in models:
        if str(asked) == one.name:
            return one
    names = ", ".join(one.name for one in models)
    raise BadInput(
        f"model {asked}: no lodi.json or halogen.json there, and no known model of that name "
        f"({names}); `bigbox train` makes one, `bigbox models` lists them"
    )


def _is_model(folder: Path) -> bool:
    return any((folder / f"{kind}.json").is_file() for kind in KINDS)


def choose_model(
    box: Facts,
    kinds: Sequence[str],
    asked: Path | None = None,
    *,
    force: bool = False,
    begun: Collection[str] = (),
) -> Choice:
    """Return the model to paint a box with.

    Parameters
    ----------
    kinds : networks that are needed, of "halogen" and "lodi".
    asked : a model's folder or name; None: the known one that fits best, a user's before ours.
    force : take it, or the nearest, where it does not fit.
    begun : sha256 of the weights that a painting of this box has begun with: it goes on with them.

    Raises
    ------
    BadInput
        No model fits: the line lists them, and in what each differs from the box.
    """
    models = known_models() if asked is None else [named_model(asked)]
    if asked is not None:
        for kind in kinds:  # what is missing or damaged is told by its own line
            read_card(models[0].folder, kind)
    found = {one.folder: one.differences(box, kinds) for one in models}
    fitting = [one for one in models if not found[one.folder]]
    usable = [one for one in models if one.distance(box, kinds) < np.inf]
    allowed = usable if force else fitting
    best = min(fitting or allowed, key=lambda one: one.distance(box, kinds), default=None)
    best = next((one for one in allowed if begun and _weights(one, kinds) >= set(begun)), best)
    told = "; ".join(f"{one.name}: {', '.join(found[one.folder])}" for one in models)
    which = "no known model is for it" if asked is None else f"model {asked} is not for it"
    refusal = (
        f"{box.name}: {which} ({told}); ingest with another --grid, train a model for it, name one "
        "with --model, or --force, if you know better"
    )
    if best is not None:
        untold = box.untold(best.cards[kinds[0]])
        return Choice(best.folder, found[best.folder], untold, max(1, len(fitting)), refusal)
    raise BadInput(refusal)


def _weights(model: KnownModel, kinds: Sequence[str]) -> set[str]:
    return {str(model.cards[kind]["sha256"]) for kind in kinds if kind in model.cards}
