"""Take the numbers of a validation: every diagnostic called once, its results as plain JSON.

`bigbox.analysis.report.validate` judges them, `bigbox.analysis.report.figures` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy.stats import norm

from bigbox.analysis.halo_mass import halo_mass
from bigbox.analysis.maps.titles import halo_title
from bigbox.analysis.report.fields import Field, compressed, halo_channel, residual, survey
from bigbox.analysis.seams.find import find_seams, stage_residuals
from bigbox.analysis.spectra.bispectrum import bispectrum
from bigbox.analysis.spectra.modes import Float, Pair, Spectrum, jsonable, nyquist
from bigbox.analysis.spectra.onepoint import Distribution, distribution
from bigbox.analysis.spectra.power import Resources, cylinder, pair, power
from bigbox.analysis.spectra.resampling import over_subvolumes, scatter
from bigbox.errors import BadInput
from bigbox.scheduler.tiling import Tiling
from bigbox.store.fields import AXES

Numbers = dict[str, Any]

BINS = 128  # of a histogram
DECADES = 8  # of a logarithmic one
PIECE = 256  # most voxels on an axis of a sub-volume whose scatter gives the errors
LEAST_PIECE = 16
TRIANGLES = {"equilateral": (1, 1, 1), "squeezed": (1, 1, 0.25), "flat": (1, 0.5, 0.5)}
SCALES = 4
LINE_OF_SIGHT = 2
# Part of the false-alarm rate for the view over the haloes: one halo is one patch of it, so planes
# are less alike than the tests take them to be. (Of 21 draws of a small truth one had p = 1e-4.)
PATCHY = 0.03


def spectra(
    field: Field, truth: Field | None, others: Sequence[Field], edges: Float, budget: Resources
) -> Numbers:
    """Return P(k) of the box, the truth and the realizations, in the same bins, with error bars.

    With two realizations or more, the box among them, an error is their scatter. Else that of P(k)
    is from a jackknife over sub-volumes, and that of P / P_truth is that of two Gaussian fields
    with the same large scales: variance of ln(P1 / P2) = 4 (1 - r^2) / modes.
    """

    def auto(one: Field) -> Spectrum:
        return power(one.array, one.box_size, edges=edges, unit=one.unit, **budget)

    def cross(one: Field, two: Field) -> Pair:
        size, unit = one.box_size, one.unit
        return pair(one.array, two.array, size, edges=edges, unit=unit, **budget)

    versus = None if truth is None else cross(field, truth)
    with_matter = truth_with_matter = None
    if field.box is not None and field.box.has("dm") and not field.name.endswith("/dm"):
        matter = replace(field, array=field.box.require("dm"))
        with_matter = cross(field, matter)
        truth_with_matter = truth and cross(truth, matter).correlation
    known = versus or with_matter
    own = known.first if known else auto(field)
    each = [auto(other) for other in others]
    spread = scatter([own, *each]) if each else None
    if spread is not None:
        own = own.with_errors(spread, f"scatter over {len(each) + 1} realizations")
        words = f"Errors: one standard deviation over {len(each) + 1} realizations."
    else:
        own = _with_errors(own, field, budget)
        of_ratio = " and, for P / P_truth, of two Gaussian fields that share their large scales"
        words = (
            f"Errors of spectra: one standard deviation, {own.error_kind}"
            + ("" if truth is None else of_ratio)
            + ". Give --realizations for errors from other paintings of the same matter."
        )
    others_found: Numbers | None = None
    if each:
        mean = np.mean([one.power for one in (own, *each)], axis=0)
        rows = [{"name": o.name, "power": s.power} for o, s in zip(others, each, strict=True)]
        others_found = {"mean": mean, "each": rows}
    found = {
        "k": own.k,
        "edges": own.edges,
        "modes": own.modes,
        "k_nyquist": own.k_nyquist,
        "units": {"k": "h/Mpc", "power": own.units},
        "window": own.window,
        "shot_noise": own.shot_noise,
        "error_words": words,
        "box": {"power": own.power, "errors": own.errors},
        "error_kind": own.error_kind,
        "realizations": others_found,
        "truth": versus and {"power": versus.second.power, "errors": None},
        "ratio": versus and _ratio(versus, spread),
        "correlation": versus and versus.correlation,
        "transfer": versus and versus.transfer,
        "matter": with_matter and {"box": with_matter.correlation, "truth": truth_with_matter},
    }
    return dict(jsonable(found))


def _with_errors(spectrum: Spectrum, field: Field, budget: Resources) -> Spectrum:
    """Take errors from sub-volumes that fit the memory; else those of a Gaussian field."""
    # A sub-volume is held about eight times as float64.
    edge = min(PIECE, int((budget["memory"] / 64) ** (1 / 3)))
    most = min(field.shape) // LEAST_PIECE
    pieces = max(4, -(-max(field.shape) // max(edge, LEAST_PIECE)))
    pieces = min(pieces, most)
    if pieces < 2:
        return spectrum.with_errors(spectrum.mode_errors, "of a Gaussian field with as many modes")
    found = over_subvolumes(spectrum, field.array, field.box_size, pieces=pieces)
    reach = 2 * (2 * np.pi * pieces / max(field.box_size))
    return _extended(found, reach)


def _extended(spectrum: Spectrum, reach: float) -> Spectrum:
    """Extrapolate errors to scales that no sub-volume has, k < reach, from those that they have.

    What is not Gaussian (a few bright objects) is the same part of P whatever the number of modes:
    (error / P)^2 = 2 / modes + c, with c of the first bin within reach.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.array(spectrum.errors) / spectrum.power
    within = np.flatnonzero((spectrum.k >= reach) & np.isfinite(relative))
    if not len(within):
        return spectrum
    gaussian = 2.0 / np.maximum(spectrum.modes, 1)
    rest = max(relative[within[0]] ** 2 - gaussian[within[0]], 0.0)
    extended = spectrum.power * np.sqrt(gaussian + rest)
    errors = np.where(spectrum.k < reach, extended, spectrum.errors)
    return spectrum.with_errors(errors, spectrum.error_kind)


def _ratio(versus: Pair, spread: Float | None) -> Numbers:
    value = versus.transfer**2
    if spread is not None:
        return {"value": value, "error": spread / versus.second.power}
    rest = np.clip(1 - versus.correlation**2, 0, 1)
    return {"value": value, "error": value * np.sqrt(4 * rest / np.maximum(versus.first.modes, 1))}


def cylindrical(field: Field, budget: Resources) -> Numbers:
    """Return P(k_par, k_perp) with the z axis as the line of sight."""
    found = cylinder(field.array, field.box_size, axis=LINE_OF_SIGHT, unit=field.unit, **budget)
    return {
        "axis": AXES[found.axis],
        "power": jsonable(found.power),
        "modes": found.modes.tolist(),
        "parallel_edges": found.parallel_edges.tolist(),
        "transverse_edges": found.transverse_edges.tolist(),
        "units": {"k": "h/Mpc", "power": found.units},
    }


def seam_numbers(
    field: Field,
    truth: Field | None,
    others: Sequence[Field],
    rest: Field | None,
    tiling: Tiling,
    rate: float,
    budget: Resources,
) -> Numbers:
    """Return seams of the field and of what shows them better; by axis, over mean and rms.

    field       the field itself: a few bright voxels decide its seam ratio, whose error is large
    compressed  arcsinh of the field over its typical scatter: seams in the faint parts count too
    residual    field less truth, or less another realization of the same matter: the structure
                that both share is gone, what was painted is left
    haloes      in its place, where there is a `rest`: ln T_b over what the haloes are expected to
                have

    The false-alarm rate is shared out between them.
    """
    views = {
        "field": ("field", "the field itself", field),
        "compressed": ("arcsinh", "the arcsinh of the field", compressed(field)),
    }
    against = truth or (others[0] if others else None)
    if rest is not None:
        words = "the logarithm of the field over what its haloes are expected to have"
        views["haloes"] = ("over its haloes", words, rest)
    elif against is not None:
        left = residual(field, against)
        least, most = survey(left, budget["memory"], constant=True)
        if least < most:
            other = "truth" if truth is not None else "realization"
            words = f"the field less {'the' if truth is not None else 'another'} {other}"
            views["residual"] = (f"less {other}", words, left)

    def uncertainty(name: str) -> float:
        """How badly the seam ratio is known: the view with the least shows seams best."""
        errors = np.array([one["error"] for one in each[name]["axes"].values()])
        return float(np.where(np.isfinite(errors), errors, np.inf).max(initial=0.0))

    rates = {name: rate / len(views) * (PATCHY if name == "haloes" else 1) for name in views}
    each = {
        name: {"label": label, "words": words, **_seams(one, tiling, rates[name], budget)}
        for name, (label, words, one) in views.items()
    }
    stages = None
    if truth is not None:
        found = stage_residuals(field.array, truth.array, tiling, memory=budget["memory"])
        voxels = sum(one.voxels for one in found)
        overall = float(np.sqrt(sum(one.voxels * one.rms**2 for one in found) / voxels))
        stages = {"each": [asdict(one) for one in found], "overall": overall}
    return {
        "views": each,
        "shown": min(each, key=uncertainty),
        "false_alarm_rate": rate,
        "tiles": list(tiling.counts),
        "stages": stages,
    }


def _seams(field: Field, tiling: Tiling, rate: float, budget: Resources) -> Numbers:
    found = find_seams(field.array, tiling, false_alarm_rate=rate, memory=budget["memory"])
    axes: Numbers = {}
    for profile in found.profiles:
        at = AXES.index(profile.axis)
        lines = {
            "mean": (profile.mean - found.mean, profile.mean_error, found.rms),
            "variance": (profile.variance, profile.variance_error, found.rms**2),
        }
        axes[profile.axis] = {
            "ratio": float(found.ratio[at]),
            "error": float(found.ratio_error[at]),
            "kink": float(found.kink[at]),
            "kink_error": float(found.kink_error[at]),
            "profiles": {
                name: jsonable(
                    {"distance": profile.distance, "value": value / over, "error": error / over}
                )
                for name, (value, error, over) in lines.items()
            },
            "harmonics": {
                h.quantity: jsonable({"order": h.order, "ratio": h.ratio, "z": h.z})
                for h in found.harmonics
                if h.axis == profile.axis
            },
        }
    return {
        "axes": axes,
        "alarm": bool(found.alarm),
        "p_value": float(found.p_value),
        "false_alarm_rate": rate,
        "z_limit": float(norm.isf(0.5 * rate / max(1, len(found.tests)))),
        "strongest": asdict(found.strongest),
        "tests": [asdict(test) for test in found.tests],
    }


def distributions(
    fields: Mapping[str, Field], least: float, most: float, budget: Resources
) -> Numbers:
    """Return one-point distributions of fields, and of their log10, in the same bins.

    least, most: of the values of all of them.
    """
    linear = np.linspace(least, most, BINS + 1)
    found: Numbers = {}
    for name, one in fields.items():
        values = _distribution(one, linear, False, budget)
        moments = ("skewness", "kurtosis", "least", "most")
        found[name] = {
            "mean": values.mean,
            "std": float(np.sqrt(values.variance)),
            **{moment: getattr(values, moment) for moment in moments},
            "positive": 0.0,
            "linear": jsonable({"edges": linear, "density": values.pdf}),
            "log": None,
        }
        if most > 0:
            # Decades below the largest value: what lies lower counts, but is not drawn.
            edges = np.log10(most) + np.linspace(-DECADES, 0, BINS + 1)
            logs = _distribution(one, edges, True, budget)
            found[name]["positive"] = logs.voxels / (logs.voxels + logs.without)
            found[name]["log"] = jsonable({"edges": edges, "density": logs.pdf})
    return found


def _distribution(field: Field, edges: Float, log: bool, budget: Resources) -> Distribution:
    return distribution(field.array, bins=edges, log=log, memory=budget["memory"])


def triangles(fields: Mapping[str, Field], k_max: float, budget: Resources) -> Numbers | None:
    """Return reduced bispectra of fields for three shapes; None where no scale is left.

    Equilateral, squeezed (1, 1, 1/4) and flat (1, 1/2, 1/2) triangles, longest side up to k_max and
    at most 40 fundamental modes, which bounds the memory.
    """
    field = fields["box"]
    fundamental = 2 * np.pi / max(field.box_size)
    least = 4 * fundamental
    most = min(k_max, nyquist(field.shape, field.box_size) / 2, 40 * fundamental)
    if most <= least:
        return None
    scales = np.geomspace(least, most, SCALES)
    rows = np.array([[side * np.array(s) for side in scales] for s in TRIANGLES.values()])
    found: Numbers = {"k": scales.tolist(), "shapes": list(TRIANGLES), "box": None, "truth": None}
    for name, one in fields.items():
        b = bispectrum(one.array, one.box_size, rows.reshape(-1, 3), unit=one.unit, **budget)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = abs(b.reduced / b.value) * b.errors
        found[name] = {
            key: jsonable(values.reshape(len(TRIANGLES), SCALES))
            for key, values in (("value", b.value), ("reduced", b.reduced), ("error", error))
        }
    return found


def halo_distributions(fields: Mapping[str, Field], budget: Resources) -> Numbers | None:
    """Return distributions of log10 halo density by mass bin; None for a box without haloes."""
    boxes = {n: f.box for n, f in fields.items() if f.box is not None and f.box.has("halo")}
    if "box" not in boxes:
        return None
    edges = np.linspace(4, 16, BINS + 1)  # log10 of (M_sun/h) / (Mpc/h)^3
    channels = []
    for at in range(boxes["box"].require("halo").shape[0]):
        channel: Numbers = {"title": halo_title(boxes["box"], at)}
        for name, box in boxes.items():
            try:
                density = _distribution(halo_channel(box, at), edges, True, budget).pdf
            except BadInput:  # no halo of this mass in the box
                channel[name] = None
            else:
                channel[name] = jsonable({"edges": edges, "density": density})
        channels.append(channel)
    return {"channels": channels}


def halo_masses(fields: Mapping[str, Field], budget: Resources) -> Numbers | None:
    """Return halo mass over the true by mass bin; None where box or truth has no haloes."""
    boxes = [one.box for one in fields.values() if one.box is not None and one.box.has("halo")]
    if len(boxes) < 2:
        return None
    painted, truth = boxes
    found = halo_mass(painted, truth, budget["memory"])
    titles = [halo_title(truth, at) for at in range(len(found.ratio))]
    return {"titles": titles, **{k: jsonable(v) for k, v in asdict(found).items()}}
