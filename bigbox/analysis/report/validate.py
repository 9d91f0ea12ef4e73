"""Judge a painted box: all diagnostics, their numbers and the verdict.

    box (truth) (realizations) ──► survey, spectra, distribution, seams ──► numbers ──► checks
                                                                               └──► report

The numbers are plain JSON: what the figures and the page show is what stands in numbers.json.
Everything is read out of core; the blocks in work take at most the memory that the caller states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bigbox
from bigbox.analysis.report import diagnostics
from bigbox.analysis.report.card import at_bins, card_errors
from bigbox.analysis.report.draws import Draws, open_draws
from bigbox.analysis.report.fields import (
    Field,
    at_tiles,
    open_field,
    open_realizations,
    open_truth,
    survey,
)
from bigbox.analysis.report.judge import SIGMA, Limits, judge, verdict
from bigbox.analysis.report.page import View, made_folder, replacing, write_report
from bigbox.analysis.spectra.modes import log_edges, nyquist
from bigbox.analysis.spectra.power import MEMORY, Resources
from bigbox.errors import BadInput
from bigbox.painters import stand_in
from bigbox.painters.trained_range import words
from bigbox.scheduler.tiling import Tiling, TilingError

PER_DECADE = 20  # bins of k in a report
PAPER_K_MAX = 10.0  # h/Mpc, up to which the paper claims its accuracy (section 4)
DRAWS = 24  # of the truth
LEFT_OUT = (
    " Those of P / P_truth leave out how much hydrogen the truth's haloes happen to have: the"
    " limits beside draws have it."
)
TEST_RATE = 0.001  # false-alarm rate at which seams are looked for when none of them is judged


@dataclass(frozen=True)
class Beside:
    """What a box is judged beside: draws of the truth, and what its model says of itself.

    draws: how many of the truth's T_b, where it is of the HI-halo relation; fewer than 3: none.
    halos: the catalogue that they are made of; none: as the truth names it. card: judge by the
    errors that the model's card tells. model: which; None: the one that painted the box.
    """

    draws: int = DRAWS
    halos: tuple[Path, ...] = ()
    card: bool = False
    model: Path | None = None


def validate(
    path: str | Path,
    *,
    truth: str | None = None,
    realizations: Sequence[str | Path] = (),
    array: str = "tb",
    out: str | Path | None = None,
    limits: Limits | None = None,
    beside: Beside | None = None,
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
    beside : What it is judged beside: draws of the truth, the model's card.
    memory : Bytes that the blocks in work may take together, beside the libraries (0.3 GB).
    scratch : Folder for half-transformed fields, 4 bytes a voxel each; None: the system's.

    Raises
    ------
    BadInput
        For a box that is not painted to its end, a truth of another grid, constant fields, NaN.
    """
    limits, beside, view = limits or Limits(), beside or Beside(), view or View()
    fields = {"box": open_field(path, array)}
    if truth is not None:
        fields["truth"] = open_truth(truth, array, fields["box"])
    others = open_realizations(realizations, array, fields["box"])
    budget = Resources(memory=memory, scratch=scratch)
    if out is None:
        return _numbers(fields, others, limits, beside, budget)[0]
    with made_folder(Path(out)):
        found, tiling = _numbers(fields, others, limits, beside, budget)
        with replacing(Path(out)) as work:
            write_report(work, found, fields, tiling, view)
    return found


def _numbers(
    fields: Mapping[str, Field],
    others: Sequence[Field],
    limits: Limits,
    beside: Beside,
    budget: Resources,
) -> tuple[dict[str, Any], Tiling | None]:
    field, truth = fields["box"], fields.get("truth")
    card = card_errors(field, beside.model) if beside.card else None
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
        "halo_mass": diagnostics.halo_masses(fields, budget),
        "draws": None,
        "card": card,
    }
    draws: Draws | str = ""
    if truth is not None and beside.draws > 2:
        draws = open_draws(truth, beside.draws, beside.halos, budget["memory"])
    if isinstance(draws, Draws):
        found["draws"] = draws.numbers([field, *others], k_max, budget)
        found["card"] = card and at_bins(card, found["draws"]["k"])
    elif draws:
        found["notes"].append(draws)
    found["errors"] = found["spectra"]["error_words"] + (LEFT_OUT if found["draws"] else "")
    if tiling is not None:
        rate = limits.false_alarm_rate or TEST_RATE
        # Tiles meet on the grid that was painted, not between its voxels.
        painted, against = at_tiles(field, field.grid), truth and at_tiles(truth, field.grid)
        more = [at_tiles(one, field.grid) for one in others]
        rest = at_tiles(draws.rest(field), field.grid) if isinstance(draws, Draws) else None
        found["seams"] = diagnostics.seam_numbers(
            painted, against, more, rest, tiling, rate, budget
        )
    checks = judge(found, limits)
    found["checks"] = [asdict(check) | {"passed": check.passed} for check in checks]
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
