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

from bigbox.analysis.cylinder import cylinder
from bigbox.analysis.fields import Field, blocks, compressed, extent, read, residual
from bigbox.analysis.large import Layout, pair_large, power_large
from bigbox.analysis.seams import seams, stage_residuals
from bigbox.analysis.spectrum import Pair, Spectrum, numbers
from bigbox.errors import BadInput
from bigbox.plot import Channel
from bigbox.store.box import AXES
from scheduler.tiling import Tiling

Numbers = dict[str, Any]

PER_DECADE = 20  # bins of k in a report
BINS = 128  # of a histogram
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

    With two realizations or more, the box among them, an error is their scatter; else it is that
    of a Gaussian field with as many modes, which for P / P_truth knows that both have the same
    large scales: variance of ln(P1 / P2) = 2 (1 - r^2) 2 / modes.
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
    scatter = np.std([own.power, *(s.power for s in each)], axis=0, ddof=1) if each else None
    errors = own.mode_errors if scatter is None else scatter
    found["box"] = {"power": numbers(own.power), "errors": numbers(errors)}
    found["error_kind"] = "mode counting" if scatter is None else "realizations"
    found["error_words"] = (
        "Errors are one standard deviation of a Gaussian field with as many modes; give"
        " --realizations for errors from other paintings of the same matter."
        if scatter is None
        else f"Errors are one standard deviation over {len(each) + 1} realizations."
    )
    found["realizations"] = None
    if each:
        mean = np.mean([own.power, *(s.power for s in each)], axis=0)
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
        found["ratio"] = _ratio(versus, scatter)
    found["matter"] = None
    if with_matter is not None and matter is not None:
        found["matter"] = {"box": numbers(with_matter.correlation), "truth": None}
        if truth is not None:
            found["matter"]["truth"] = numbers(_pair(truth, matter, edges, work).correlation)
    return found


def _ratio(versus: Pair, scatter: NDArray[Any] | None) -> Numbers:
    value = versus.transfer**2
    if scatter is not None:
        error = scatter / versus.second.power
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

    field       the field itself: a few bright voxels decide its differences, its errors are large
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
        "shown": "residual" if "residual" in each else "compressed",
        "false_alarm_rate": rate,
        "tiles": list(tiling.counts),
        "stages": None if truth is None else _stages(field, truth, tiling, work),
    }


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
    """One-point distributions of the box and the truth, in the same bins."""
    fields = {"box": field} | ({} if truth is None else {"truth": truth})
    ranges = ranges[: len(fields)]
    least, most = min(r[0] for r in ranges), max(r[1] for r in ranges)
    linear = np.linspace(least, most, BINS + 1)
    # Eight decades below the largest value: what lies lower counts, but is not drawn.
    logarithmic = np.log10(most) + np.linspace(-8, 0, BINS + 1) if most > 0 else None
    return {name: _distribution(one, linear, logarithmic, work) for name, one in fields.items()}


def _distribution(
    field: Field, linear: NDArray[Any], logarithmic: NDArray[Any] | None, work: Work
) -> Numbers:
    import dask

    def look(region: tuple[slice, ...]) -> tuple[NDArray[Any], ...]:
        values = read(field, region).astype(np.float64).ravel()
        moments = np.array([(values**n).sum() for n in range(5)])
        extra = np.array([values.min(), values.max(), (values < 0).sum()])
        counts = np.histogram(values, linear)[0]
        if logarithmic is None:
            return moments, extra, counts, counts
        positive = np.log10(values[values > 0])
        return moments, extra, counts, np.histogram(positive, logarithmic)[0]

    parts = dask.compute(*[dask.delayed(look)(r) for r in blocks(field)], num_workers=2)
    n, s1, s2, s3, s4 = sum(p[0] for p in parts)
    mean = s1 / n
    var = s2 / n - mean**2
    m3 = s3 / n - 3 * mean * s2 / n + 2 * mean**3
    m4 = s4 / n - 4 * mean * s3 / n + 6 * mean**2 * s2 / n - 3 * mean**4
    extra = np.array([p[1] for p in parts])
    counts = sum(p[2] for p in parts)
    out = {
        "mean": float(mean),
        "std": float(np.sqrt(var)),
        "skewness": float(m3 / var**1.5),
        "kurtosis": float(m4 / var**2 - 3),
        "least": float(extra[:, 0].min()),
        "most": float(extra[:, 1].max()),
        "negative": float(extra[:, 2].sum() / n),
        "linear": {
            "edges": linear.tolist(),
            "density": (counts / n / np.diff(linear)).tolist(),
        },
        "log": None,
    }
    if logarithmic is not None:
        counts = sum(p[3] for p in parts)
        out["log"] = {
            "edges": logarithmic.tolist(),
            "density": (counts / n / np.diff(logarithmic)).tolist(),
        }
    return out


def halo_distributions(field: Field, truth: Field | None, work: Work) -> Numbers | None:
    """Distributions of log10 halo density in each mass bin; None for a box without haloes."""
    if field.box is None or not field.box.has("halo"):
        return None
    edges = np.linspace(4, 16, BINS + 1)
    boxes = {"box": field.box}
    if truth is not None and truth.box is not None and truth.box.has("halo"):
        boxes["truth"] = truth.box
    channels = []
    for at in range(field.box.require("halo").shape[0]):
        channel: Numbers = {"title": f"haloes, mass bin {at}"}
        for name, box in boxes.items():
            array = Channel(box.require("halo"), at)
            one = Field(f"{box.path}/halo[{at}]", array, "", box.shape, box.box_size)
            channel[name] = _distribution(one, np.array([0.0, 1.0]), edges, work)["log"]
        channels.append(channel)
    return {"channels": channels}
