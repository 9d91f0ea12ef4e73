"""Draw the figures of `bigbox validate`: the paper's figures 8 to 11 in kind, and the seams.

Everything but the maps is drawn from the numbers of the report alone, so that a figure and
numbers.json can never disagree. Each figure is one column wide, with units on every axis; colours
are told apart by the colour-blind (Okabe & Ito 2008; Mishra, Trotta & Viel 2025 (LODI), figures
8-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
)
from numpy.typing import NDArray

from bigbox.analysis.maps.panel import (
    AXIS_LABELS,
    LABELS,
    Edges,
    draw_map,
    norm_of,
    ticks_of,
)
from bigbox.analysis.report import seam_figures
from bigbox.analysis.report.draws import reach
from bigbox.analysis.report.style import (
    BOX,
    COLOURS,
    OTHER,
    TRUTH,
    WIDTH,
    legend_above,
    points,
    sheet,
)

Numbers = Mapping[str, Any]

MAP_STYLE: Any = {"axes.titlesize": 9.5, "axes.spines.top": True, "axes.spines.right": True}
POWER = r"$P(k)$  [$(\mathrm{Mpc}/h)^3\,\mathrm{mK}^2$]"
PER_DEX = r"PDF  [dex$^{-1}$]"
WAVENUMBER = r"$k$  [$h/\mathrm{Mpc}$]"
LINES = {
    "box": {"color": BOX, "ls": "-", "label": "this box"},
    "truth": {"color": TRUTH, "ls": "--", "label": "truth"},
}


_array = partial(np.array, dtype=np.float64)  # of JSON numbers, null for NaN


def drawings(numbers: Numbers) -> dict[str, tuple[float, Callable[[Figure, Numbers], None]]]:
    """Return the figures that the numbers allow: by name, the height in inches and who draws it."""
    found, seams = numbers["spectra"], numbers["seams"]
    one, log_tb = LABELS["tb"], r"$\log_{10}(T_b\,/\,\mathrm{mK})$"
    linear = partial(onepoint, scale="linear", xlabel=one, ylabel=r"PDF  [mK$^{-1}$]")
    log = partial(onepoint, scale="log", xlabel=log_tb, ylabel=PER_DEX)
    mean = partial(
        seam_figures.seam_profile,
        what="mean",
        level=0,
        label=r"(mean $-$ mean of the box) / rms  [1]",
    )
    variance = partial(
        seam_figures.seam_profile,
        what="variance",
        level=1,
        label="variance / variance of the box  [1]",
    )
    rows: tuple[tuple[str, float, Any, Any], ...] = (
        ("spectra", 5.0 if found["ratio"] else 3.9, spectra, True),
        ("draws", 3.2, draws, numbers["draws"]),
        ("dimensionless", 3.6, dimensionless, True),
        ("agreement", 3.6, agreement, found["ratio"]),
        ("matter", 3.6, matter, found["matter"]),
        ("cylinder", 3.9, cylinder, numbers["cylinder"]),
        ("bispectrum", 3.6, bispectrum, numbers["bispectrum"]),
        ("onepoint", 3.6, linear, True),
        ("onepoint_log", 3.6, log, numbers["onepoint"]["box"]["log"]),
        ("seam_ratio", 3.6, seam_figures.seam_ratio, seams),
        ("seam_mean", 3.4, mean, seams),
        ("seam_variance", 3.4, variance, seams),
        ("seam_harmonics", 3.4, seam_figures.seam_harmonics, seams),
        ("seam_stages", 3.2, seam_figures.seam_stages, seams and seams["stages"]),
    )
    return {name: (height, draw) for name, height, draw, there in rows if there}


def maps(
    out: Path,
    images: Mapping[str, NDArray[np.float32]],
    kind: str,
    *,
    axis: int,
    sides: Sequence[float],
    edges: Edges | None = None,
    label: str | None = None,
    scale: NDArray[np.float32] | None = None,
    empty: str = "signal",
) -> None:
    """Draw maps with one colour scale, side by side (LODI, figure 8).

    images: by title, (rows, columns) of the two axes that are left; kind: "dm", "halo" or "tb";
    sides: of the box, Mpc/h; edges: where the tiles of the first image meet, Mpc/h; label: of the
    colours; scale: values that set them, those of the images if None.
    """
    across, up = (a for a in range(3) if a != axis)
    extent = (0.0, sides[across], 0.0, sides[up])
    norm = norm_of(kind, np.stack(list(images.values())) if scale is None else scale)
    # A map is 3.2 inches wide; beside it stand the ticks of y and the colour bar.
    width, height = WIDTH + 3.35 * (len(images) - 1), 0.85 + 3.2 * sides[up] / sides[across]
    with sheet(out, height, width, **MAP_STYLE) as figure:
        axes = figure.subplots(1, len(images), sharey=True, squeeze=False)[0]
        for place, (title, image) in zip(axes, images.items(), strict=True):
            own = edges if place is axes[0] else None
            shown = draw_map(place, image, kind, norm, extent, own)
            if not np.nansum(np.abs(image)) > 0:
                middle = {"ha": "center", "va": "center", "transform": place.transAxes}
                place.text(0.5, 0.5, f"no {empty}", color="0.85", **middle)
            place.set_title(title)
            place.set_xlabel(AXIS_LABELS[across])
        axes[0].set_ylabel(AXIS_LABELS[up])
        words = label or LABELS.get(kind, kind)
        bar = axes[-1].inset_axes((1.04, 0, 0.05, 1))
        figure.colorbar(shown, cax=bar, label=words, extend="both", ticks=ticks_of(norm))
        bar.tick_params(labelsize=9)


def spectra(figure: Figure, numbers: Numbers) -> None:
    """Draw P(k) with its band, and the ratio to the truth below it (LODI, figures 10 and 11)."""
    found = numbers["spectra"]
    compared = found.get("ratio") is not None
    rows = (2, 1) if compared else (1,)
    axes = figure.subplots(len(rows), 1, height_ratios=rows, sharex=True, squeeze=False)[:, 0]
    inside = _judged(numbers)
    top, k = axes[0], _array(found["k"])[inside]
    power = _array(found["box"]["power"])[inside]
    top.plot(k, power, color=BOX, label="this box")
    if found["box"].get("errors") is not None:
        band = _band(power, _array(found["box"]["errors"])[inside])
        top.fill_between(k, *band, color=BOX, alpha=0.25, lw=0)
    if found.get("realizations"):
        for one in found["realizations"]["each"]:
            top.loglog(k, _array(one["power"])[inside], color=OTHER, lw=0.7, alpha=0.6)
        top.plot([], [], color=OTHER, lw=0.9, label="other realizations")
    if compared:
        top.loglog(k, _array(found["truth"]["power"])[inside], **LINES["truth"])
    top.set(xscale="log", yscale="log", ylabel=POWER)
    # Cut off the noise floor of a steep spectrum: twelve decades are a wall, not a curve.
    shown = [_array(one["power"])[inside] for one, _ in _both(found)]
    most, least = max(map(np.nanmax, shown)), min(map(np.nanmin, shown))
    top.set_ylim(max(0.5 * least, 1e-9 * most), 3 * most)
    top.legend(loc="lower left")
    axes[-1].set_xlabel(WAVENUMBER)
    _k_axis(axes[-1], k)
    if compared:
        value, error = (_array(found["ratio"][key])[inside] for key in ("value", "error"))
        if numbers["draws"]:
            widest = _draws_band(axes[1], numbers, over="truth")
            _ratio_panel(axes[1], k, value, None, 0.0)
            _ratio_axis(axes[1], float(np.exp(1.1 * widest)) - 1)
        else:
            _ratio_panel(axes[1], k, value, error, numbers["limits"]["max_power_error"])
        axes[1].set_ylabel(r"$P/P_\mathrm{truth}$")


def draws(figure: Figure, numbers: Numbers) -> None:
    """Draw P(k) over that of the draws of the truth, with what they scatter by."""
    found, place = numbers["draws"], figure.subplots()
    k = _array(found["k"])
    value, expected, error = (_array(found["power"][key]) for key in ("value", "expected", "error"))
    widest = _draws_band(place, numbers, over="expected")
    _ratio_panel(place, k, np.exp(value - expected), error * np.exp(value - expected), 0.0)
    _ratio_axis(place, float(np.exp(1.15 * widest)) - 1)
    place.set(xlabel=WAVENUMBER, ylabel=rf"$P/P$ of {found['count']} draws")
    _k_axis(place, k)


def _draws_band(place: Any, numbers: Numbers, over: str) -> float:
    """Shade what draws of the truth are let through by; return the largest, a logarithm."""
    found = numbers["draws"]
    k = _array(found["k"])
    expected, error, base = (_array(found["power"][key]) for key in ("expected", "error", over))
    z = reach(numbers["limits"]["draw_rate"], found["count"], len(k))
    low, high = expected - base - z * error, expected - base + z * error
    place.fill_between(k, np.exp(low), np.exp(high), color="0.9", lw=0, zorder=0)
    return float(np.nanmax(np.abs([low, high])))


def _judged(numbers: Numbers) -> NDArray[np.bool_]:
    """Return which bins of k are shown: those up to the largest that is judged."""
    found: NDArray[np.bool_] = _array(numbers["spectra"]["k"]) <= numbers["limits"]["k_max"]
    return found


def _band(value: NDArray[Any], error: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ends of an error bar in the logarithm: positive, however large the error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(value > 0, error / value, np.nan)
    return value * np.exp(-relative), value * np.exp(relative)


def _ratio_panel(
    place: Any, k: NDArray[Any], value: NDArray[Any], error: NDArray[Any] | None, most: float
) -> None:
    if most:
        place.axhspan(1 / (1 + most), 1 + most, color="0.9", lw=0)
    place.axhline(1, color=TRUTH, ls="--", lw=1)
    if error is not None:
        place.fill_between(k, *_band(value, error), color=BOX, alpha=0.25, lw=0)
    place.plot(k, value, color=BOX, marker="o" if error is None else None, markersize=4)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(np.log(value))
    widest = float(np.nanmax(np.where(np.isfinite(off), off, np.nan), initial=0.0))
    _ratio_axis(place, max(float(np.exp(1.3 * widest)) - 1, 1.5 * most))


def _k_axis(place: Any, k: NDArray[Any]) -> None:
    """Make an axis of wavenumbers: logarithmic, with plain labels that do not touch."""
    place.set_xscale("log")
    _plain_labels(place.xaxis, float(np.nanmax(k) / np.nanmin(k)))


def _plain_labels(axis: Any, ratio: float) -> None:
    """Label a logarithmic axis, whose ends have this ratio, by few plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0,) if ratio > 300 else (1.0, 2.0, 5.0)))
    if ratio <= 1e4:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ratio_axis(place: Any, half: float) -> None:
    """Make a ratio's axis: logarithmic, the same on both sides of 1, with few plain labels."""
    half = float(np.clip(half, 0.02, 9.0))
    place.set_yscale("log")
    place.set_ylim(1 / (1 + half), 1 + half)
    steps = (1.01, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0, 8.0)
    step = max((one for one in steps if one <= 1 + 0.85 * half), default=1 + half)
    ticks = [1 / step, 1.0, step]
    place.yaxis.set_major_locator(FixedLocator(ticks))
    place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    place.yaxis.set_minor_formatter(NullFormatter())
    place.yaxis.set_minor_locator(NullLocator())


def dimensionless(figure: Figure, numbers: Numbers) -> None:
    """Draw Delta^2(k) of T_b / <T_b> (LODI, eqs. 15-16)."""
    found, place = numbers["spectra"], figure.subplots()
    inside = _judged(numbers)
    k, ends = _array(found["k"])[inside], []
    for name, line in LINES.items():
        if found.get(name):
            mean = numbers["onepoint"][name]["mean"]
            delta2 = k**3 * _array(found[name]["power"])[inside] / (2 * np.pi**2 * mean**2)
            place.loglog(k, delta2, **line)
            ends += [float(np.nanmin(delta2)), float(np.nanmax(delta2))]
    _k_axis(place, k)
    _plain_labels(place.yaxis, max(ends) / max(min(ends), 1e-30))
    place.set(xlabel=WAVENUMBER, ylabel=r"$\Delta^2(k)$ of $T_b/\langle T_b\rangle$  [1]")
    place.legend(loc="best")


def agreement(figure: Figure, numbers: Numbers) -> None:
    """Draw the correlation coefficient r(k) and the transfer function of the box with the truth."""
    found, place = numbers["spectra"], figure.subplots()
    inside = _judged(numbers)
    k, r, transfer = (_array(found[name])[inside] for name in ("k", "correlation", "transfer"))
    place.axhline(1, color="0.6", lw=0.8)
    place.plot(k, r, color=BOX, label=r"$r(k)$")
    place.plot(k, transfer, color=OTHER, ls="-.", label="transfer function")
    place.set(xlabel=WAVENUMBER, ylabel="box with truth  [1]")
    _k_axis(place, k)
    high = max(1.1, min(2.0, 1.1 * float(np.nanmax(transfer, initial=1.0))))
    place.set_ylim(min(0.0, 1.1 * float(np.nanmin(r))), high)
    place.legend(loc="lower left")


def matter(figure: Figure, numbers: Numbers) -> None:
    """Draw the correlation of T_b with the matter, r(k)."""
    found, place, inside = numbers["spectra"], figure.subplots(), _judged(numbers)
    place.axhline(0, color="0.6", lw=0.8)
    for one, line in _both(found["matter"]):
        place.plot(_array(found["k"])[inside], _array(one)[inside], **line)
    place.set(xlabel=WAVENUMBER, ylabel=r"$r(k)$ of $T_b$ with matter  [1]")
    _k_axis(place, _array(found["k"])[inside])
    place.set_ylim(top=1.05)
    place.legend(loc="lower left")


def cylinder(figure: Figure, numbers: Numbers) -> None:
    """Draw log10 P(k_par, k_perp)."""
    found, place = numbers["cylinder"], figure.subplots()
    power = _array(found["power"])
    along, across = _array(found["parallel_edges"]), _array(found["transverse_edges"])
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(np.where(power > 0, power, np.nan))
    mesh = place.pcolormesh(across, along, shown, cmap="cividis", rasterized=True)
    place.set(xlabel=r"$k_\perp$  [$h/\mathrm{Mpc}$]", xlim=(0, across[-1]), ylim=(0, along[-1]))
    place.set_ylabel(r"$k_\parallel$, third axis  [$h/\mathrm{Mpc}$]")
    label = r"$\log_{10}\,P$  [$(\mathrm{Mpc}/h)^3\,\mathrm{mK}^2$]"
    figure.colorbar(mesh, ax=place, label=label)


def bispectrum(figure: Figure, numbers: Numbers) -> None:
    """Draw the reduced bispectrum of three triangle shapes by their longest side."""
    found, place = numbers["bispectrum"], figure.subplots()
    k = _array(found["k"])
    place.axhline(0, color="0.6", lw=0.8)
    for at, shape in enumerate(found["shapes"]):
        for name, filled, shift in (("box", True, 1.0), ("truth", False, 1.03)):
            if found[name]:
                x, q = k * (1 + 0.02 * (at - 1)) * shift, _array(found[name]["reduced"][at])
                style: Any = {"elinewidth": 0.8, "capsize": 2, "markersize": 5}
                style |= {"mfc": COLOURS[at], "label": shape} if filled else {"mfc": "white"}
                points(place, at, x, q, _array(found[name]["error"][at]), **style)
    place.set(xlabel=r"longest side $k$  [$h/\mathrm{Mpc}$]")
    _k_axis(place, k)
    # Q of a field is over its unit: B / P^2.
    place.set_ylabel(r"$Q$  [mK$^{-1}$]")
    legend_above(place)


def onepoint(figure: Figure, numbers: Numbers, scale: str, xlabel: str, ylabel: str) -> None:
    """Draw the distribution of T_b, or of log10 T_b over the voxels where T_b > 0."""
    _distribution(figure, numbers["onepoint"], scale).set(xlabel=xlabel, ylabel=ylabel)


def halo_distribution(figure: Figure, channel: Numbers) -> None:
    """Draw the distribution of log10 halo density in one mass bin (LODI, figure 9, right)."""
    place = _distribution(figure, channel)
    unit = r"$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$"
    place.set(xlabel=rf"$\log_{{10}}\rho_h$  [{unit}]", ylabel=PER_DEX)
    place.set_title(channel["title"])


def _distribution(figure: Figure, found: Numbers, scale: str | None = None) -> Any:
    place = figure.subplots()
    for one, line in _both(found):
        edges, density = (_array((one[scale] if scale else one)[k]) for k in ("edges", "density"))
        with np.errstate(invalid="ignore"):
            place.stairs(np.where(density > 0, density, np.nan), edges, lw=1.5, **line)
    place.set_yscale("log")
    place.legend(loc="best")
    return place


def _both(found: Numbers) -> list[tuple[Any, Any]]:
    """Return the box's and the truth's, where there, each with its line."""
    return [(found[name], line) for name, line in LINES.items() if found.get(name)]
