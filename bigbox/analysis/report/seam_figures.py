"""Draw the figures of seams: ratios, profiles across tile edges, harmonics, residuals by stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bigbox.analysis.report.style import BOX, COLOURS, MARKS, OTHER, TRUTH, legend_above, points

Numbers = Mapping[str, Any]

_array = partial(np.array, dtype=np.float64)  # of JSON numbers, null for NaN


def seam_ratio(figure: Figure, numbers: Numbers) -> None:
    """Draw squared differences across tile edges over those inside, per axis, with error bars."""
    views, limits, place = numbers["seams"]["views"], numbers["limits"], figure.subplots()
    place.axhspan(limits["min_seam_ratio"], limits["max_seam_ratio"], color="0.9", lw=0)
    place.axhline(1, color=TRUTH, lw=1, ls="--")
    ends = [limits["min_seam_ratio"], limits["max_seam_ratio"]]
    for number, view in enumerate(views.values()):
        axes = list(view["axes"])
        value, error = (_array([view["axes"][a][key] for a in axes]) for key in ("ratio", "error"))
        x = np.arange(len(axes)) + 0.18 * (number - 0.5 * (len(views) - 1))
        points(place, number, x, value, error, capsize=3, markersize=6, label=view["label"])
        ends += [*(value - error), *(value + error)]
        place.set_xticks(range(len(axes)), axes)
    low, high = max(0.0, float(np.nanmin(ends))), float(np.nanmax(ends))
    if high > 5:
        place.set_yscale("log")
        place.set_ylim(0.5, 1.5 * high)
    else:
        place.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.1 * (high - low))
    place.set(xlim=(-0.5, 2.5), xlabel="axis", ylabel="seam ratio  [1]")
    legend_above(place)


def seam_profile(figure: Figure, numbers: Numbers, what: str, level: float, label: str) -> None:
    """Draw mean or variance of the field against the distance from the nearest tile edge."""
    place = figure.subplots()
    place.axhline(level, color="0.6", lw=0.8)
    place.axvline(0, color="0.6", lw=0.8, ls=":")
    for at, (axis, one) in enumerate(_clearest(numbers)["axes"].items()):
        profile = one["profiles"][what]
        x, value, error = (_array(profile[key]) for key in ("distance", "value", "error"))
        style: Any = {"markersize": 3, "lw": 1, "elinewidth": 0.7, "label": f"${axis}$"}
        points(place, at, x + 0.12 * (at - 1), value, error, line="-", **style)
    place.set(xlabel="distance from the tile edge  [voxels]", ylabel=label)
    legend_above(place)


def seam_harmonics(figure: Figure, numbers: Numbers) -> None:
    """Draw excess power of the planes' means at the tile frequency and its multiples, in sigma."""
    limit, place = _clearest(numbers)["z_limit"], figure.subplots()
    place.axhline(0, color="0.6", lw=0.8)
    place.axhline(limit, color=OTHER, lw=1, ls="--", label="limit")
    highest, orders = limit, set[float]()
    for at, (axis, one) in enumerate(_clearest(numbers)["axes"].items()):
        order, z = (_array(one["harmonics"]["mean"][key]) for key in ("order", "z"))
        orders |= set(order)
        highest = max(highest, float(np.nanmax(z, initial=0.0)))
        style: Any = {"color": COLOURS[at], "markersize": 5, "linestyle": "none"}
        place.plot(order + 0.08 * (at - 1), z, MARKS[at], label=f"${axis}$", **style)
    place.set(xlabel="frequency  [1 / tile]", ylabel=r"significance of excess power  [$\sigma$]")
    if highest > 20:
        place.set_yscale("symlog", linthresh=5)
    place.set_ylim(top=1.15 * highest)
    place.set_xticks(sorted(orders))
    legend_above(place)


def seam_stages(figure: Figure, numbers: Numbers) -> None:
    """Draw the rms of box minus truth over the voxels of each stage's tiles, and at their seams."""
    found, place = numbers["seams"]["stages"], figure.subplots()
    at, rms, at_seams = (
        _array([one[key] for one in found["each"]]) for key in ("stage", "rms", "rms_at_seams")
    )
    place.plot(at, rms, "o", color=BOX, label="all voxels")
    place.plot(at, at_seams, "s", color=OTHER, label="next to a seam")
    place.axhline(found["overall"], color="0.6", lw=0.8, ls="--", label="whole box")
    place.set_xticks(at)
    place.set(xlabel="stage of the tile that owns the voxel", ylabel="rms of box - truth  [mK]")
    place.set_ylim(0, 1.1 * float(np.nanmax([*rms, *at_seams])) or 1.0)
    legend_above(place)


def _clearest(numbers: Numbers) -> Numbers:
    """Return the view of the field that shows seams best."""
    found: Numbers = numbers["seams"]["views"][numbers["seams"]["shown"]]
    return found
