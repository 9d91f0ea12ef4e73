"""The numbers of a validation: every diagnostic called once, its results as plain JSON.

`bigbox.analysis.validate` judges them, `bigbox.analysis.figures` draws them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bigbox.analysis.bispectrum import bispectrum
from bigbox.analysis.cylinder import cylinder
from bigbox.analysis.fields import Field, compressed, extent, residual
from bigbox.analysis.large import Layout, pair_large, power_large
from bigbox.analysis.onepoint import Distribution, distribution
from bigbox.analysis.resampling import over_subvolumes, scatter
from bigbox.analysis.seams import seams, stage_residuals
from bigbox.analysis.shells import nyquist
from bigbox.analysis.spectrum import Pair, Spectrum, numbers
from bigbox.errors import BadInput
from bigbox.plot import Channel
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import AXES

Numbers = dict[str, Any]

PER_DECADE = 20  # bins of k in a report
BINS = 128  # of a histogram
DECADES = 8  # of a logarithmic one
PIECE = 256  # most voxels on an axis of a sub-volume whose scatter gives the errors
LEAST_PIECE = 16
TRIANGLES = {"equilateral": (1, 1, 1), "squeezed": (1, 1, 0.25), "flat": (1, 0.5, 0.5)}
SCALES = 4
LINE_OF_SIGHT = 2


@dataclass(frozen=True)
class Work:
    """What the diagnostics may use. memory: bytes of the blocks in work; scratch: a folder."""

    memory: int
    scratch: str | Path | None = None

    def threads(self, fields: Sequence[Field]) -> int:
        """As many threads as there are cores and the memory has room for."""
        arrays = [field.array for field in fields]
        for workers in range(len(os.sched_getaffinity(0)), 1, -1):
            try:
                Layout.choose(arrays, self.memory, workers)
            except BadInput:
                continue
            return workers
        return 1


def spectra(
    field: Field, truth: Field | None, others: Sequence[Field], edges: NDArray[Any], work: Work
) -> Numbers:
    """P(k) of the box, the truth and the realizations, in the same bins, with error bars.

    With two realizations or more, the box among them, an error is their scatter. Else that of P(k)
    is from a jackknife over sub-volumes, and that of P / P_truth is that of two Gaussian fields
    with the same large scales: variance of ln(P1 / P2) = 4 (1 - r^2) / modes.
    """
    versus = None if truth is None else _pair(field, truth, edges, work)
    matter = _matter(field)
    with_matter = None if matter is None else _pair(field, matter, edges, work)
    own = versus.first if versus else with_matter.first if with_matter else None
    if own is None:
        own = _auto(field, edges, work)
    each = [_auto(other, edges, work) for other in others]
    found: Numbers = {
        "k": numbers(own.k),
        "edges": own.edges.tolist(),
        "modes": own.modes.tolist(),
        "k_nyquist": own.k_nyquist,
        "units": {"k": "h/Mpc", "power": own.units},
        "window": own.window,
        "shot_noise": own.shot_noise,
    }
    spread = scatter([own, *each]) if each else None
    if spread is not None:
        own = own.with_errors(spread, f"scatter over {len(each) + 1} realizations")
        found["error_words"] = f"Errors: one standard deviation over {len(each) + 1} realizations."
    else:
        own = _with_errors(own, field, work)
        of_ratio = " and, for P / P_truth, of two Gaussian fields that share their large scales"
        found["error_words"] = (
            f"Errors of spectra: one standard deviation, {own.error_kind}"
            + ("" if truth is None else of_ratio)
            + ". Give --realizations for errors from other paintings of the same matter."
        )
    errors = None if own.errors is None else numbers(own.errors)
    found["box"] = {"power": numbers(own.power), "errors": errors}
    found["error_kind"] = own.error_kind
    found["realizations"] = None
    if each:
        mean = np.mean([one.power for one in (own, *each)], axis=0)
        found["realizations"] = {
            "mean": numbers(mean),
            "each": [
                {"name": o.name, "power": numbers(s.power)}
                for o, s in zip(others, each, strict=True)
            ],
        }
    found["truth"] = found["ratio"] = found["correlation"] = found["transfer"] = None
    if versus is not None:
        found["truth"] = {"power": numbers(versus.second.power), "errors": None}
        found["correlation"] = numbers(versus.correlation)
        found["transfer"] = numbers(versus.transfer)
        found["ratio"] = _ratio(versus, spread)
    found["matter"] = None
    if with_matter is not None and matter is not None:
        found["matter"] = {"box": numbers(with_matter.correlation), "truth": None}
        if truth is not None:
            found["matter"]["truth"] = numbers(_pair(truth, matter, edges, work).correlation)
    return found


def _with_errors(spectrum: Spectrum, field: Field, work: Work) -> Spectrum:
    """Errors from sub-volumes, of a size that the memory allows; of a Gaussian field in a pinch."""
    # A sub-volume is held about eight times as float64.
    edge = min(PIECE, int((work.memory / 64) ** (1 / 3)))
    most = min(field.shape) // LEAST_PIECE
    pieces = max(4, -(-max(field.shape) // max(edge, LEAST_PIECE)))
    pieces = min(pieces, most)
    if pieces < 2:
        return spectrum.with_errors(spectrum.mode_errors, "of a Gaussian field with as many modes")
    found = over_subvolumes(spectrum, field.array, field.box_size, pieces=pieces)
    reach = 2 * (2 * np.pi * pieces / max(field.box_size))
    return _extended(found, reach)


def _extended(spectrum: Spectrum, reach: float) -> Spectrum:
    """Errors on scales that no sub-volume has, k < reach, from those that they have.

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
    errors = np.where(
        spectrum.k < reach, spectrum.power * np.sqrt(gaussian + rest), spectrum.errors
    )
    return spectrum.with_errors(errors, spectrum.error_kind)


def _ratio(versus: Pair, spread: NDArray[Any] | None) -> Numbers:
    value = versus.transfer**2
    if spread is not None:
        error = spread / versus.second.power
    else:
        rest = np.clip(1 - versus.correlation**2, 0, 1)
        error = value * np.sqrt(4 * rest / np.maximum(versus.first.modes, 1))
    return {"value": numbers(value), "error": numbers(error)}


def _pair(first: Field, second: Field, edges: NDArray[Any], work: Work) -> Pair:
    return pair_large(
        first.array,
        second.array,
        first.box_size,
        edges=edges,
        unit=first.unit,
        memory=work.memory,
        scratch=work.scratch,
        workers=work.threads([first, second]),
    )


def _auto(field: Field, edges: NDArray[Any], work: Work) -> Spectrum:
    return power_large(
        field.array,
        field.box_size,
        edges=edges,
        unit=field.unit,
        memory=work.memory,
        scratch=work.scratch,
        workers=work.threads([field]),
    )


def _matter(field: Field) -> Field | None:
    """The matter density of the box, unless it is what is validated."""
    if field.box is None or not field.box.has("dm") or field.name.endswith("/dm"):
        return None
    array = field.box.require("dm")
    return Field(f"{field.box.path}/dm", array, "", field.shape, field.box_size, field.box)


def cylindrical(field: Field, work: Work) -> Numbers:
    """P(k_par, k_perp) with the z axis as the line of sight."""
    found = cylinder(
        field.array,
        field.box_size,
        axis=LINE_OF_SIGHT,
        unit=field.unit,
        memory=work.memory,
        scratch=work.scratch,
        workers=work.threads([field]),
    )
    return found.as_dict()


def seam_numbers(
    field: Field,
    truth: Field | None,
    others: Sequence[Field],
    tiling: Tiling,
    rate: float,
    work: Work,
) -> Numbers:
    """Seams of the field and of what shows them better; by axis, profiles over mean and rms.

    field       the field itself: a few bright voxels decide its seam ratio, whose error is large
    compressed  arcsinh of the field over its typical scatter: seams in the faint parts count too.
                A field that is statistically the same everywhere stays so under any such function
    residual    field less truth, or less another realization of the same matter: the structure
                that both share is gone, what was painted is left

    The false-alarm rate is shared out between them.
    """
    views = {
        "field": ("field", "the field itself", field),
        "compressed": ("arcsinh", "the arcsinh of the field", compressed(field)),
    }
    against = truth or (others[0] if others else None)
    if against is not None:
        rest = residual(field, against)
        least, most = extent(rest, work.memory)
        if least < most:
            other = "truth" if truth is not None else "realization"
            words = f"the field less {'the' if truth is not None else 'another'} {other}"
            views["residual"] = (f"less {other}", words, rest)
    each = {
        name: {"label": label, "words": words, **_seams(one, tiling, rate / len(views), work)}
        for name, (label, words, one) in views.items()
    }
    return {
        "views": each,
        "shown": min(each, key=lambda name: _uncertainty(each[name])),
        "false_alarm_rate": rate,
        "tiles": list(tiling.counts),
        "stages": None if truth is None else _stages(field, truth, tiling, work),
    }


def _uncertainty(view: Numbers) -> float:
    """How badly the seam ratio is known: the view with the least shows seams best."""
    errors = np.array([one["error"] for one in view["axes"].values()])
    return float(np.where(np.isfinite(errors), errors, np.inf).max(initial=0.0))


def _seams(field: Field, tiling: Tiling, rate: float, work: Work) -> Numbers:
    found = seams(
        field.array, tiling, box_size=field.box_size, false_alarm_rate=rate, memory=work.memory
    )
    axes: Numbers = {}
    for profile in found.profiles:
        at = AXES.index(profile.axis)
        axes[profile.axis] = {
            "ratio": float(found.ratio[at]),
            "error": float(found.ratio_error[at]),
            "kink": float(found.kink[at]),
            "kink_error": float(found.kink_error[at]),
            "profiles": {
                "mean": {
                    "distance": profile.distance.tolist(),
                    "value": numbers((profile.mean - found.mean) / found.rms),
                    "error": numbers(profile.mean_error / found.rms),
                },
                "variance": {
                    "distance": profile.distance.tolist(),
                    "value": numbers(profile.variance / found.rms**2),
                    "error": numbers(profile.variance_error / found.rms**2),
                },
            },
            "harmonics": {
                h.quantity: {
                    "order": h.order.tolist(),
                    "ratio": numbers(h.ratio),
                    "z": numbers(h.z),
                }
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


def _stages(field: Field, truth: Field, tiling: Tiling, work: Work) -> Numbers:
    found = stage_residuals(field.array, truth.array, tiling, memory=work.memory)
    voxels = sum(one.voxels for one in found)
    return {
        "each": [asdict(one) for one in found],
        "overall": float(np.sqrt(sum(one.voxels * one.rms**2 for one in found) / voxels)),
    }


def distributions(
    field: Field, truth: Field | None, ranges: Sequence[tuple[float, float]], work: Work
) -> Numbers:
    """One-point distributions of the box and the truth, and of their log10, in the same bins."""
    fields = {"box": field} | ({} if truth is None else {"truth": truth})
    ranges = ranges[: len(fields)]
    least, most = min(r[0] for r in ranges), max(r[1] for r in ranges)
    linear = np.linspace(least, most, BINS + 1)
    found: Numbers = {}
    for name, one in fields.items():
        values = _distribution(one, linear, False, work)
        found[name] = {
            "mean": values.mean,
            "std": float(np.sqrt(values.variance)),
            "skewness": values.skewness,
            "kurtosis": values.kurtosis,
            "least": values.least,
            "most": values.most,
            "positive": 0.0,
            "linear": {"edges": linear.tolist(), "density": numbers(values.pdf)},
            "log": None,
        }
        if most > 0:
            # Decades below the largest value: what lies lower counts, but is not drawn.
            edges = np.log10(most) + np.linspace(-DECADES, 0, BINS + 1)
            logs = _distribution(one, edges, True, work)
            found[name]["positive"] = logs.voxels / (logs.voxels + logs.without)
            found[name]["log"] = {"edges": edges.tolist(), "density": numbers(logs.pdf)}
    return found


def _distribution(field: Field, edges: NDArray[Any], log: bool, work: Work) -> Distribution:
    return distribution(
        field.array,
        bins=edges,
        log=log,
        unit=field.unit,
        memory=work.memory,
        workers=work.threads([field]),
    )


def triangles(field: Field, truth: Field | None, k_max: float, work: Work) -> Numbers | None:
    """Reduced bispectra of the box and the truth for three shapes; None where no scale is left.

    Equilateral, squeezed (1, 1, 1/4) and flat (1, 1/2, 1/2) triangles, longest side up to k_max and
    at most 40 fundamental modes, which bounds the memory.
    """
    fundamental = 2 * np.pi / max(field.box_size)
    least = 4 * fundamental
    most = min(k_max, nyquist(field.shape, field.box_size) / 2, 40 * fundamental)
    if most <= least:
        return None
    scales = np.geomspace(least, most, SCALES)
    sides = [[side * np.array(shape) for side in scales] for shape in TRIANGLES.values()]
    rows = np.array(sides).reshape(-1, 3)
    found: Numbers = {"k": scales.tolist(), "shapes": list(TRIANGLES), "box": None, "truth": None}
    for name, one in (("box", field), ("truth", truth)):
        if one is None:
            continue
        measured = bispectrum(
            one.array,
            one.box_size,
            rows,
            unit=one.unit,
            memory=work.memory,
            scratch=work.scratch,
            workers=work.threads([one]),
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            error = abs(measured.reduced / measured.value) * measured.errors
        found[name] = {
            key: [numbers(row) for row in values.reshape(len(TRIANGLES), SCALES)]
            for key, values in (
                ("value", measured.value),
                ("reduced", measured.reduced),
                ("error", error),
            )
        }
    return found


def halo_distributions(field: Field, truth: Field | None, work: Work) -> Numbers | None:
    """Distributions of log10 halo density in each mass bin; None for a box without haloes."""
    if field.box is None or not field.box.has("halo"):
        return None
    edges = np.linspace(4, 16, BINS + 1)  # log10 of (M_sun/h) / (Mpc/h)^3
    boxes = {"box": field.box}
    if truth is not None and truth.box is not None and truth.box.has("halo"):
        boxes["truth"] = truth.box
    channels = []
    for at in range(field.box.require("halo").shape[0]):
        channel: Numbers = {"title": f"haloes, mass bin {at}"}
        for name, box in boxes.items():
            array = Channel(box.require("halo"), at)
            one = Field(f"{box.path}/halo[{at}]", array, "", box.shape, box.box_size)
            try:
                density = numbers(_distribution(one, edges, True, work).pdf)
            except BadInput:  # no halo of this mass in the box
                density = None
            channel[name] = density and {"edges": edges.tolist(), "density": density}
        channels.append(channel)
    return {"channels": channels}
