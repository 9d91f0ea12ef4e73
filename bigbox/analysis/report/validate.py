"""Judge a painted box: all diagnostics, their numbers and the verdict.

    box (truth) (realizations) ──► survey, spectra, distribution, seams ──► numbers ──► checks
                                                                               └──► report

The numbers are plain JSON: what the figures and the page show is what stands in numbers.json.
Everything is read out of core; the blocks in work take at most the memory that the caller states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import bigbox
from bigbox.analysis.report import diagnostics
from bigbox.analysis.report.fields import (
    Field,
    at_tiles,
    open_field,
    open_realizations,
    open_truth,
    survey,
)
from bigbox.analysis.report.page import View, made_folder, replacing, write_report
from bigbox.analysis.spectra.modes import log_edges, nyquist
from bigbox.analysis.spectra.power import MEMORY, Resources
from bigbox.errors import BadInput
from bigbox.painters import stand_in
from bigbox.painters.trained_range import words
from bigbox.scheduler.tiling import Tiling, TilingError

PER_DECADE = 20  # bins of k in a report
PAPER_K_MAX = 10.0  # h/Mpc, up to which the paper claims its accuracy (section 4)
SIGMA = 2.0  # a check fails where the limit is passed by more than this many errors
TEST_RATE = 0.001  # false-alarm rate at which seams are looked for when none of them is judged


@dataclass(frozen=True)
class Limits:
    """What a box must keep to for `bigbox validate` to pass it.

    A value fails where it is beyond its limit by more than two of its own standard deviations.

    min_seam_ratio, max_seam_ratio  of every axis; 1 is no seam, less is too smooth at the edges
    false_alarm_rate    chance, in boxes without seams, of a seam as strong; 0: found, never failed
    max_power_error     |P / P_truth - 1| in every bin up to k_max (paper: 10 %, section 4)
    max_mean_error      |<T_b> / <T_b>_truth - 1|
    min_correlation     r(k) with the truth in every bin up to k_max; None: not judged
    k_max               h/Mpc; None: 10, or half of the Nyquist wavenumber where that is less
    """

    min_seam_ratio: float = 0.75
    max_seam_ratio: float = 1.25
    false_alarm_rate: float = 0.001
    max_power_error: float = 0.10
    max_mean_error: float = 0.05
    min_correlation: float | None = None
    k_max: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_seam_ratio <= 1 <= self.max_seam_ratio:
            raise BadInput(
                f"seam ratio limits {self.min_seam_ratio:g} and {self.max_seam_ratio:g}: must lie"
                " on both sides of 1, the ratio without seams"
            )
        if not 0 <= self.false_alarm_rate < 1:
            raise BadInput(f"false-alarm rate {self.false_alarm_rate:g}: must be in [0, 1)")
        if self.k_max is not None and not self.k_max > 0:
            raise BadInput(f"k_max {self.k_max:g} h/Mpc: must be above 0")


@dataclass(frozen=True)
class Check:
    """One line of the verdict: what was asked, what was found, what is allowed."""

    name: str
    what: str
    found: str
    allowed: str
    value: float
    passed: bool


def validate(
    path: str | Path,
    *,
    truth: str | None = None,
    realizations: Sequence[str | Path] = (),
    array: str = "tb",
    out: str | Path | None = None,
    limits: Limits | None = None,
    view: View | None = None,
    memory: int = MEMORY,
    scratch: str | Path | None = None,
) -> dict[str, Any]:
    """Validate a painted box; return the numbers, with "pass" and "checks" among them.

    Parameters
    ----------
    truth : A box, or an array file (.npy, HDF5, zarr) of the same grid and unit.
    realizations : Other paintings of the same matter: they give the error bars.
    out : Folder of numbers.json, the figures and index.html; None: nothing is written.
    memory : Bytes that the blocks in work may take together, beside the libraries (0.3 GB).
    scratch : Folder for half-transformed fields, 4 bytes a voxel each; None: the system's.

    Raises
    ------
    BadInput
        For a box that is not painted to its end, a truth of another grid, constant fields, NaN.
    """
    limits, view = limits or Limits(), view or View()
    fields = {"box": open_field(path, array)}
    if truth is not None:
        fields["truth"] = open_truth(truth, array, fields["box"])
    others = open_realizations(realizations, array, fields["box"])
    budget = Resources(memory=memory, scratch=scratch)
    if out is None:
        return _numbers(fields, others, limits, budget)[0]
    with made_folder(Path(out)):
        found, tiling = _numbers(fields, others, limits, budget)
        with replacing(Path(out)) as work:
            write_report(work, found, fields, tiling, view)
    return found


def _numbers(
    fields: Mapping[str, Field], others: Sequence[Field], limits: Limits, budget: Resources
) -> tuple[dict[str, Any], Tiling | None]:
    field, truth = fields["box"], fields.get("truth")
    edges = log_edges(field.shape, field.box_size, PER_DECADE)
    k_max = limits.k_max
    if k_max is None:
        k_max = float(min(PAPER_K_MAX, 0.5 * nyquist(field.shape, field.box_size)))
    if k_max < edges[0]:
        raise BadInput(f"k_max {k_max:g} h/Mpc: is below the box's first bin, {edges[0]:.3g} h/Mpc")
    ranges = [survey(one, budget["memory"]) for one in (*fields.values(), *others)][: len(fields)]
    least, most = min(r[0] for r in ranges), max(r[1] for r in ranges)
    tiling, whence = tiling_of(field)
    found: dict[str, Any] = {
        **_about(field),
        "truth": truth and truth.name,
        "realizations": [one.name for one in others],
        "limits": {**asdict(limits), "k_max": k_max, "sigma": SIGMA},
        "notes": notes(field, truth),
        "spectra": diagnostics.spectra(field, truth, others, edges, budget),
        "cylinder": diagnostics.cylindrical(field, budget),
        "onepoint": diagnostics.distributions(fields, least, most, budget),
        "bispectrum": diagnostics.triangles(fields, k_max, budget),
        "seams": None,
        "seam_words": whence,
        "halo": diagnostics.halo_distributions(fields, budget),
    }
    found["errors"] = found["spectra"]["error_words"]
    if tiling is not None:
        rate = limits.false_alarm_rate or TEST_RATE
        # Tiles meet on the grid that was painted, not between its voxels.
        painted, against = at_tiles(field, field.grid), truth and at_tiles(truth, field.grid)
        more = [at_tiles(one, field.grid) for one in others]
        found["seams"] = diagnostics.seam_numbers(painted, against, more, tiling, rate, budget)
    checks = judge(found, limits)
    found["checks"] = [asdict(check) for check in checks]
    found["pass"] = all(check.passed for check in checks)
    found["verdict"] = verdict(checks)
    return found, tiling


def tiling_of(field: Field) -> tuple[Tiling | None, str]:
    """Return the tiling that the field was painted with, and words on how it is known."""
    if field.painted is not None:
        tiling = field.painted.layout.tiling
        return tiling, f"Tiles as painted: {tiling.describe()}."
    try:
        tiling = Tiling(field.shape)
    except TilingError as error:
        return None, f"Seams were not looked for: no tiling is known, and {error}."
    return tiling, (
        "This box has no record of its painting: the tiles are those that bigbox would paint by"
        f" default, {tiling.describe()}."
    )


def notes(field: Field, truth: Field | None) -> list[str]:
    """Say what a reader must know before the first number."""
    found = []
    for name, one in (("This box", field), ("The truth", truth)):
        if one is None or one.box is None:
            continue
        if one.painted is None:
            if one.box.has("tb") and (source := one.box.array("tb").attrs.get("source")):
                found.append(f"{name} has T_b of: {source}.")
            continue
        painter = str(one.painted.identity.get("painter", "unknown"))
        told: Any = one.array.attrs
        if forced := told.get("forced"):
            found.append(f"{name} was {forced}.")
        if outside := words(told.get("outside_training") or {}):
            found.append(f"{name} is in part {outside}.")
        if instead := stand_in(painter):
            found.append(
                f"{name} was painted by the stand-in painter '{painter}', which paints"
                f" {instead}. It tests the machinery; it is not a prediction of the"
                " 21 cm signal, and nothing here should be read as astrophysics."
            )
        if one.grid > 1:
            found.append(
                f"{name} was painted on one voxel for {one.grid} of dm on each axis, and is"
                " interpolated. Seams are looked for in what was painted."
            )
        if trained_on := one.painted.identity.get("trained_on"):
            found.append(f"{name} was painted by networks that were trained on: {trained_on}.")
    if truth is not None and truth.box is not None and field.box is not None:
        if abs(truth.box.redshift - field.box.redshift) > 1e-3:
            found.append(
                f"The truth is at redshift {truth.box.redshift:g}, this box at"
                f" {field.box.redshift:g}."
            )
    return found


def judge(found: dict[str, Any], limits: Limits) -> list[Check]:
    """Return the checks that the numbers allow, in the order of the page."""
    views = found["seams"]["views"].values() if found["seams"] is not None else ()
    checks = [_seam_ratio(view, limits) for view in views]
    if limits.false_alarm_rate:
        checks += [_seam_alarm(view) for view in views]
    if found["truth"] is not None:
        checks += [_power(found, limits), _mean(found["onepoint"], limits)]
        if limits.min_correlation is not None:
            checks.append(_correlation(found, limits.min_correlation))
    if not checks:
        raise BadInput(
            f"{found['box']['path']}: {found['seam_words']} There is nothing to judge it by; give"
            " --truth"
        )
    return checks


def verdict(checks: Sequence[Check]) -> str:
    """Write the line under the verdict: how many checks, and which of them fail."""
    bad = [check for check in checks if not check.passed]
    if not bad:
        return f"all {len(checks)} checks are within their limits."
    return f"{len(bad)} of {len(checks)} checks: " + "; ".join(
        f"{check.what} is {check.found}, allowed {check.allowed}" for check in bad
    )


def _seam_ratio(seams: dict[str, Any], limits: Limits) -> Check:
    low, high = limits.min_seam_ratio, limits.max_seam_ratio

    def beyond(axis: str) -> float:
        """How far a ratio is certainly outside its limits; negative inside."""
        ratio, error = seams["axes"][axis]["ratio"], seams["axes"][axis]["error"]
        margin = SIGMA * error if math.isfinite(error) else 0.0
        return float(max(low - ratio, ratio - high) - margin)

    # The axis that is furthest outside, or nearest to its limit.
    worst = max(seams["axes"], key=beyond)
    ratio, error = seams["axes"][worst]["ratio"], seams["axes"][worst]["error"]
    what, found = (
        f"seam ratio ({seams['label']}), worst axis",
        f"{ratio:.3f} ± {error:.3f} on {worst}",
    )
    return Check("seam_ratio", what, found, f"{low:g} to {high:g}", ratio, beyond(worst) <= 0)


def _seam_alarm(seams: dict[str, Any]) -> Check:
    strongest, p = seams["strongest"], seams["p_value"]
    on = "all axes" if strongest["axis"] == "all" else f"{strongest['axis']} axis"
    what = f"seam tests ({seams['label']}), chance of this without seams"
    allowed = f"at least {seams['false_alarm_rate']:.1g}"
    found = f"{p:.2g} ({strongest['name']}, {on})"
    return Check("seam_found", what, found, allowed, p, not seams["alarm"])


def _power(found: dict[str, Any], limits: Limits) -> Check:
    k, k_max = np.array(found["spectra"]["k"], float), found["limits"]["k_max"]
    ratio = np.array(found["spectra"]["ratio"]["value"], float)
    error = np.nan_to_num(np.array(found["spectra"]["ratio"]["error"], float))
    inside = (k <= k_max) & np.isfinite(ratio)
    off = np.where(inside, abs(ratio - 1) - SIGMA * error, -np.inf)
    worst = int(off.argmax())
    what = f"P / P_truth, worst bin up to {k_max:.3g} h/Mpc"
    shown = f"{ratio[worst]:.3f} ± {error[worst]:.3f} at {k[worst]:.3g} h/Mpc"
    passed = bool(off[worst] <= limits.max_power_error)
    allowed = _around_one(limits.max_power_error)
    return Check("power", what, shown, allowed, float(ratio[worst]), passed)


def _mean(onepoint: dict[str, Any], limits: Limits) -> Check:
    ratio = onepoint["box"]["mean"] / onepoint["truth"]["mean"]
    allowed, passed = _around_one(limits.max_mean_error), abs(ratio - 1) <= limits.max_mean_error
    return Check("mean", "mean / mean of the truth", f"{ratio:.4f}", allowed, ratio, passed)


def _around_one(error: float) -> str:
    return f"{1 - error:g} to {1 + error:g}"


def _correlation(found: dict[str, Any], least: float) -> Check:
    k, k_max = np.array(found["spectra"]["k"], float), found["limits"]["k_max"]
    every = np.array(found["spectra"]["correlation"], float)
    worst = int(np.nanargmin(np.where(k <= k_max, every, np.nan)))
    r, what = float(every[worst]), f"r(k) with the truth, worst bin up to {k_max:.3g} h/Mpc"
    shown = f"{r:.3f} at {k[worst]:.3g} h/Mpc"
    return Check("correlation", what, shown, f"at least {least:g}", r, r >= least)


def _about(field: Field) -> dict[str, Any]:
    array = Path(field.name).name
    redshift = 0.0 if field.box is None else field.box.redshift
    path = Path(field.name if field.box is None else field.box.place)
    size = " × ".join(f"{side:g}" for side in field.box_size)
    box = {"name": path.name, "path": str(path), "array": array, "unit": field.unit}
    grid = {"shape": list(field.shape), "box_size": list(field.box_size), "voxel": field.voxel}
    return {
        "bigbox": bigbox.__version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "box": {**box, **grid, "redshift": redshift},
        "headline": f"{array} on {' × '.join(map(str, field.shape))} voxels, {size} Mpc/h,"
        f" redshift {redshift:g}",
        "painting": None if field.painted is None else field.painted.identity,
    }
