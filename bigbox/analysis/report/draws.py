"""Measure a painting beside draws of the truth: what a perfect model would paint of its haloes.

    truth ──catalogue──► K draws ──┐
    box and its realizations ──────┴─► Ruler ──► P(k), r(k), mean, level ──► spread of draws

A draw differs from the truth by what nobody can know from the haloes: how much HI each has, and
where in it. So what lies within the spread of draws is no error. A field is measured in memory.

level   mean of ln(T_b + floor) where the relation puts hydrogen. In it all haloes count alike, in
        P(k) the few brightest do: it knows the amplitude of T_b several times as well.

ln(T_b + floor) less that of the mean relation is also what seams show in best: the haloes' own
profiles are gone from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bigbox.analysis.report.fields import Field, LazyArray
from bigbox.analysis.spectra.modes import Float, jsonable, nyquist
from bigbox.analysis.spectra.power import Resources, pair
from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue
from bigbox.ingest.draws import catalogue_of, draw_of, drawn, is_drawn, mean_brightness
from bigbox.store.box import Box

Numbers = dict[str, Any]

BYTES = 40  # a voxel, of memory that measuring draws takes
TINY = 1e-30  # mK: the least mean that has a logarithm
SAME = 1e-3  # relative difference of means of T_b that are of the same haloes
EDGE = 64  # of the blocks in which what is computed is read
BINS = 8  # of k that are judged
FLOOR = 0.1  # of logarithms, over the mean T_b
HAS_HYDROGEN = 0.1  # over the mean T_b: voxels that the level is of
NEARLY = 1 - 1e-9  # the largest r(k) that is told from 1
FOLLOWS = 0.5  # correlation with the truth's own scatter from which a box is judged beside it


@dataclass(frozen=True)
class Ruler:
    """Say how fields are measured, all alike; mean: T_b of the mean relation, mK."""

    truth: NDArray[np.float32]
    mean: NDArray[np.float32]
    box_size: tuple[float, float, float]
    edges: Float  # of bins of k, h/Mpc
    budget: Resources

    def of(self, values: NDArray[np.float32]) -> Numbers:
        """Return the numbers of one field (N, N, N), mK."""
        versus = pair(values, self.truth, self.box_size, edges=self.edges, **self.budget)
        average = float(self.mean.mean(dtype=np.float64))
        inside = self.mean > HAS_HYDROGEN * average
        rest, own = (
            over_mean(one[inside], self.mean[inside], average) for one in (values, self.truth)
        )
        return {
            "k": versus.first.k,
            "power": np.log(versus.first.power),
            # Fisher's z: what r(k) scatters by is skewed.
            "correlation": np.arctanh(np.clip(versus.correlation, -NEARLY, NEARLY)),
            "mean": np.log(max(float(values.mean(dtype=np.float64)), TINY)),
            "level": float(rest.mean(dtype=np.float64)),
            "follows": float(np.corrcoef(rest, own)[0, 1]) if own.std() > 0 else 0.0,
        }


def over_mean(
    values: NDArray[np.float32], mean: NDArray[np.float32], average: float
) -> NDArray[np.float32]:
    """Return ln(T_b + floor) less that of the mean relation, whose mean T_b is `average`, mK."""
    floor = np.float32(FLOOR * average)
    return np.asarray(np.log((np.maximum(values, 0) + floor) / (mean + floor)), np.float32)


@dataclass(frozen=True)
class Draws:
    """Draw the truth's T_b anew, `count` times; mean: T_b of the mean relation, mK."""

    truth: Field
    box: Box
    catalogue: Catalogue
    count: int
    mean: NDArray[np.float32]

    def rest(self, field: Field) -> Field:
        """Return ln T_b of a field over the mean relation's, computed where it is read."""
        average = float(self.mean.mean(dtype=np.float64))

        def divide(region: Any) -> Any:
            return over_mean(np.asarray(field.array[region]), self.mean[region], average)

        array = LazyArray(field.shape, [min(n, EDGE) for n in field.shape], divide)
        return replace(field, name=f"ln {field.name}", array=array, unit="", box=None)

    def numbers(self, fields: Sequence[Field], k_max: float, budget: Resources) -> Numbers:
        """Return the numbers of a box and its realizations beside the draws, as JSON.

        The truth's own T_b is the first of the draws.
        """
        truth, own = self.truth, _values(self.truth)
        edges = bins(truth.shape, truth.box_size, k_max)
        ruler = Ruler(own, self.mean, truth.box_size, edges, budget)
        rows = [ruler.of(_values(one)) for one in fields]
        taken = {draw_of(one.box) for one in (truth, *fields) if one.box and _drawn(one)}
        return dict(jsonable(beside(rows, [ruler.of(own), *map(ruler.of, self._further(taken))])))

    def _further(self, taken: set[int]) -> Iterator[NDArray[np.float32]]:
        """Yield draws of the lowest numbers that are not taken."""
        number = 0
        for _ in range(self.count - 1):
            while number in taken:
                number += 1
            yield drawn(self.box, self.catalogue, number)
            number += 1


def open_draws(truth: Field, count: int, files: Sequence[Path], memory: int) -> Draws | str:
    """Return what draws the truth anew, or words on why there are no draws, "" for no reason.

    There are none where the truth was not made by the HI-halo relation, its catalogue is not there,
    or it is too large. files: the catalogue; none: as the truth names it. Raises BadInput for a
    catalogue that was given and is another one.
    """
    box = truth.box
    if box is None or not is_drawn(box):
        if files:
            raise BadInput(
                f"{truth.name}: T_b was not made by the HI-halo relation, so that no draws of it "
                "can be made of a catalogue: leave --halos away"
            )
        return ""
    need = BYTES * int(np.prod(truth.shape))
    if need > memory:
        return (
            f"No draws of the truth were made: they are held in memory, {need / 2**30:.1f} GiB for "
            "this box. Give so much with --memory."
        )
    try:
        catalogue = catalogue_of(box, files)
    except BadInput as error:
        if files:
            raise
        return f"No draws of the truth were made: {error}. Give it with --halos."
    again = drawn(box, catalogue, draw_of(box)).mean(dtype=np.float64)
    made = _values(truth).mean(dtype=np.float64)
    if abs(again / made - 1) > SAME:
        return (
            f"No draws of the truth were made: of {catalogue} its T_b has the mean {again:.4g} mK "
            f"and not {made:.4g}. It was ingested with other units or another cosmology."
        )
    return Draws(truth, box, catalogue, count, mean_brightness(box, catalogue))


def _drawn(field: Field) -> bool:
    return field.painted is None and field.box is not None and is_drawn(field.box)


def bins(shape: Sequence[int], box_size: Sequence[float], k_max: float) -> Float:
    """Return edges of at most BINS bins of k, h/Mpc, from the box's first modes to k_max."""
    step = 2 * np.pi / max(box_size)
    most = min(k_max, nyquist(shape, box_size))
    edges = np.geomspace(0.5 * step, max(most, 1.5 * step), BINS + 1)
    kept = [edges[0]]
    for edge in edges[1:]:
        if edge - kept[-1] >= step * (1 - 1e-9):
            kept.append(edge)
    kept[-1] = edges[-1]
    return np.array(kept)


def beside(rows: Sequence[Numbers], draws: Sequence[Numbers]) -> Numbers:
    """Return what a box and its realizations (rows) are beside draws, the truth the first of them.

    Of each number: value, the mean of the rows; expected; error, one standard deviation of the
    difference. Logarithms, and of r(k) its arctanh. A box that follows the truth's own scatter
    (`follows`, a correlation) is another draw to that degree less, and is expected nearer to the
    truth.
    """
    follows = float(np.mean([row["follows"] for row in rows]))
    shared = min(follows, 1.0) if follows > FOLLOWS else 0.0
    found: Numbers = {
        "count": len(draws),
        "realizations": len(rows),
        "follows": follows,
        "k": draws[0]["k"],
    }
    for name in ("power", "mean", "level"):
        if name in draws[0]:
            mine, theirs = (np.array([row[name] for row in of]) for of in (rows, draws))
            found[name] = {**_number(mine, theirs, shared), "truth": theirs[0]}
    others = np.array([row["correlation"] for row in draws[1:]])
    r = np.mean([row["correlation"] for row in rows], axis=0)
    error = others.std(axis=0, ddof=1) * (1 / len(rows) + 1 / len(others)) ** 0.5
    found["correlation"] = {"value": r, "expected": others.mean(axis=0), "error": error}
    return found


def _number(rows: Float, draws: Float, shared: float) -> Numbers:
    mean, scatter = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    many = 1 / len(rows) + 1 / len(draws)
    return {
        "value": rows.mean(axis=0),
        "expected": mean + shared * (draws[0] - mean),
        "error": scatter * (max(0.0, 1 - shared**2) * many) ** 0.5,
    }


def reach(rate: float, draws: int, numbers: int) -> float:
    """Return how many errors off one of so many numbers is at a chance of `rate`; two-sided."""
    return float(stats.t.isf(0.5 * rate / numbers, draws - 1))


def _values(field: Field) -> NDArray[np.float32]:
    return np.asarray(field.array[:, :, :], np.float32)
