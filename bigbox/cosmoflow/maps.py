"""Read maps to train on and to measure: those of `bigbox cosmoflow maps`, or CAMELS' own.

CAMELS' Maps_Mcdm_SUITE_SET_z=0.00.npy holds the maps of all its simulations one after the other;
its params_SET_SUITE.txt has a row for each simulation, Omega_m and sigma8 first. Maps are split by
simulation: those of one simulation show the same structures, from three sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.cosmoflow.simulated import CARD, UNITS, place
from bigbox.errors import BadInput
from bigbox.networks.card import Card
from bigbox.networks.transforms import LogTransform

CAMELS_SIDE, CAMELS_THICKNESS = 25.0, 5.0  # Mpc/h
PARAMETERS = ("Omega_m", "sigma8")
FLOOR = 0.05  # of the mean density: keeps the logarithm of an empty pixel finite
SHARES = (0.15, 0.15)  # of the simulations, for validation and test


@dataclass(frozen=True)
class Maps:
    """Hold maps, and where they are from."""

    name: str
    values: NDArray[np.float32]  # (N, n, n), of `units`
    simulation: NDArray[np.int64]  # (N,), the number of the simulation
    parameters: NDArray[np.float64]  # (N, 2), Omega_m and sigma8
    about: dict[str, Any]  # "field", "units", "pixel", "thickness", "redshift", "source"

    def __len__(self) -> int:
        return len(self.values)

    @property
    def pixel(self) -> float:
        """Mpc/h."""
        return float(self.about["pixel"])

    @property
    def edge(self) -> int:
        """Pixels on an edge."""
        return int(self.values.shape[-1])

    @property
    def side(self) -> float:
        """Mpc/h."""
        return self.edge * self.pixel

    def of(self, simulations: list[int]) -> Maps:
        """Return the maps of some simulations. Raises BadInput where one of them is not here."""
        if missing := sorted(set(simulations) - set(self.simulation.tolist())):
            raise BadInput(
                f"{self.name}: simulation {missing[0]} is not there, of {len(simulations)} that "
                "are asked for; give the maps that the model was trained on"
            )
        kept = np.isin(self.simulation, simulations)
        return self.take(np.flatnonzero(kept))

    def first(self, count: int | None) -> Maps:
        """Return so many maps, evenly spread over all of them; None: all."""
        if count is None or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))

    def take(self, rows: NDArray[Any]) -> Maps:
        """Return the maps of these rows."""
        return replace(
            self,
            values=self.values[rows],
            simulation=self.simulation[rows],
            parameters=self.parameters[rows],
        )


@dataclass(frozen=True)
class Split:
    """Say which simulations are for what."""

    training: list[int]
    validation: list[int]
    test: list[int]

    @classmethod
    def of(cls, maps: Maps, name: str = "") -> Split:
        """Split by simulation: the last ones test, those before them validate.

        Raises BadInput for fewer than three simulations.
        """
        numbers = np.unique(maps.simulation).tolist()
        if len(numbers) < 3:
            raise BadInput(
                f"{maps.name}: {len(numbers)} simulations: at least 3 are needed, one each to "
                "train, validate and test"
            )
        validation, test = (max(1, round(share * len(numbers))) for share in SHARES)
        cut = len(numbers) - test
        return cls(numbers[: cut - validation], numbers[cut - validation : cut], numbers[cut:])

    @classmethod
    def of_card(cls, card: Card) -> Split:
        """Return the split that a model was trained with."""
        data = card["data"]
        return cls(*(list(data[name]) for name in ("training", "validation", "test")))

    def as_dict(self) -> dict[str, list[int]]:
        """Return JSON values for a card."""
        return {"training": self.training, "validation": self.validation, "test": self.test}


def load_maps(path: Path, parameters: Path | None = None) -> Maps:
    """Read a folder of `bigbox cosmoflow maps`, or a file of CAMELS with its parameter file.

    Raises BadInput for what is neither, and for maps that are not finite or not of positive mean.
    """
    maps = _folder(path) if path.is_dir() else _camels(path, parameters)
    shape = maps.values.shape
    if maps.values.ndim != 3 or shape[1] != shape[2] or not len(maps):
        raise BadInput(f"{path}: maps of shape {shape}, not (maps, n, n) of at least one")
    for start in range(0, len(maps), 1024):
        some = maps.values[start : start + 1024]
        bad = ~(np.isfinite(some).all((1, 2)) & (some.min((1, 2)) >= 0) & (some.max((1, 2)) > 0))
        if bad.any():
            at = start + int(np.flatnonzero(bad)[0])
            raise BadInput(
                f"{path}: map {at} has a value that is not finite, or below 0, or is 0 "
                "everywhere: no density; make or copy the maps again"
            )
    return maps


def _folder(path: Path) -> Maps:
    card = path / CARD
    try:
        about = json.loads(card.read_text())
        rows = about.pop("simulations")
        table = np.array([[row["omega_m"], row["sigma8"]] for row in rows])
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no {CARD} there; `bigbox cosmoflow maps` makes maps, or name a .npy of CAMELS"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{card}: is damaged ({error}); make the maps again") from None
    there = [i for i in range(len(rows)) if place(path, i).exists()]
    if not there:
        raise BadInput(f"{path}: no simulation is done; start bigbox cosmoflow maps again")
    parts = [_array(place(path, i)) for i in there]
    if len({one.shape for one in parts}) > 1:
        raise BadInput(f"{path}: simulations of different shapes; make the maps again")
    simulation = np.repeat(there, len(parts[0]))
    return Maps(path.name, np.concatenate(parts), simulation, table[simulation], about)


def _camels(path: Path, parameters: Path | None) -> Maps:
    if not path.exists():
        raise BadInput(f"{path}: is not there; `bigbox cosmoflow maps` makes maps")
    if parameters is None:
        raise BadInput(f"{path}: a file of CAMELS needs its parameters: --parameters params_LH_..")
    try:
        table = np.loadtxt(parameters, ndmin=2)[:, :2]
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"{parameters}: is no table of parameters ({error})") from None
    values = _array(path)
    if not len(table) or len(values) % len(table):
        raise BadInput(
            f"{path}: {len(values)} maps are not a multiple of the {len(table)} simulations of "
            f"{parameters}; give the parameters of the same set"
        )
    simulation = np.repeat(np.arange(len(table)), len(values) // len(table))
    about = {
        "field": "dm",
        "units": UNITS,
        "pixel": CAMELS_SIDE / values.shape[-1],
        "thickness": CAMELS_THICKNESS,
        "redshift": 0.0,
        "source": path.name,
    }
    return Maps(path.name, values, simulation, table[simulation], about)


def _array(path: Path) -> NDArray[np.float32]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); make or copy it again") from None


def fit_transform(maps: Maps) -> LogTransform:
    """Return log10 to mean 0 and variance 1 over these maps, those of the training alone."""
    floor = FLOOR * float(np.mean([one.mean(dtype=np.float64) for one in maps.values]))
    return LogTransform.fit(iter(maps.values), floor)


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield slices of so many at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
