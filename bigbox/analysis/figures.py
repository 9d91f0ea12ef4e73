"""The figures of `bigbox validate`: the paper's figures 8 to 11 in kind, and the seams.

Everything but the maps is drawn from the numbers of the report alone (see
`bigbox.analysis.validate`), so that a figure and numbers.json can never disagree. Each figure is
one column wide, with units on every axis; colours are told apart by the colour-blind (Okabe & Ito
2008; Mishra, Trotta & Viel 2025 (LODI), figures 8-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from bigbox.plot import LABELS, MAPS, mark_corners, norm_of, ticks_of
from bigbox.store.box import AXES

matplotlib.use("Agg")

Numbers = Mapping[str, Any]

BOX, TRUTH, OTHER, FOURTH = "#0072B2", "#000000", "#D55E00", "#009E73"
COLOURS = (BOX, OTHER, FOURTH)
MARKS = ("o", "s", "^")
WIDTH, DPI = 4.8, 160
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
POWER = r"$P(k)$  [$(\mathrm{Mpc}/h)^3\,\mathrm{mK}^2$]"
WAVENUMBER = r"$k$  [$h/\mathrm{Mpc}$]"
BRIGHTNESS = r"$T_b$  [mK]"


class _Sheet:
    """A figure of `rows` panels above one another, saved on leaving."""

    def __init__(self, out: Path, height: float, rows: Sequence[float] = (1,), **options: Any):
        self.out, self.height, self.rows, self.options = out, height, rows, options

    def __enter__(self) -> Any:
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(STYLE)
        self._style.__enter__()
        self.figure = Figure(figsize=(WIDTH, self.height), layout="constrained")
        axes = self.figure.subplots(len(self.rows), 1, height_ratios=self.rows, **self.options)
        return axes

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self.figure.savefig(self.out, dpi=DPI)
        self._style.__exit__(*error)


def maps(
    out: Path,
    images: Mapping[str, NDArray[np.float32]],
    kind: str,
    *,
    axis: int,
    sides: Sequence[float],
    slab: tuple[float, float],
    corners: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    label: str | None = None,
    scale: NDArray[np.float32] | None = None,
) -> None:
    """Maps with one colour scale, side by side (Mishra, Trotta & Viel 2025 (LODI), figure 8).

    images: by title, (rows, columns) of the two axes that are left; kind: "dm", "halo" or "tb";
    sides: of the box, Mpc/h; slab: what they are the mean over, Mpc/h; corners: places of tile
    edges on the two axes, Mpc/h; label: of the colours; scale: values that set them, those of
    the images if None.
    """
    from matplotlib.figure import Figure

    across, up = (a for a in range(3) if a != axis)
    extent = (0.0, sides[across], 0.0, sides[up])
    where = f"{slab[0]:.3g} to {slab[1]:.3g} Mpc/h"
    norm = norm_of(kind, np.stack(list(images.values())) if scale is None else scale)
    colours = matplotlib.colormaps[MAPS.get(kind, "cividis")].with_extremes(bad="0.75")
    plain: Any = {"axes.titlesize": 9.5, "axes.spines.top": True, "axes.spines.right": True}
    with matplotlib.rc_context({**STYLE, **plain}):
        # A map is 3.2 inches wide; beside it stand the ticks of y and the colour bar.
        size = (WIDTH + 3.35 * (len(images) - 1), 0.85 + 3.2 * sides[up] / sides[across])
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(images), sharey=True, squeeze=False)[0]
        for place, (title, image) in zip(axes, images.items(), strict=True):
            shown = place.imshow(
                np.ma.masked_invalid(image.T),
                origin="lower",
                extent=extent,
                norm=norm,
                cmap=colours,
                interpolation="nearest",
            )
            place.set_title(f"{title}, mean over {AXES[axis]} = {where}")
            place.set_xlabel(rf"${AXES[across]}$  [Mpc/$h$]")
            if corners is not None:
                x, y = np.meshgrid(*corners)
                mark_corners(place, x, y)
        axes[0].set_ylabel(rf"${AXES[up]}$  [Mpc/$h$]")
        words = label or LABELS.get(kind, kind)
        bar = axes[-1].inset_axes((1.04, 0, 0.05, 1))
        figure.colorbar(shown, cax=bar, label=words, extend="both", ticks=ticks_of(norm))
        bar.tick_params(labelsize=9)
        figure.savefig(out, dpi=DPI)


def spectra(out: Path, numbers: Numbers) -> None:
    """P(k) with its band, and the ratio to the truth below it (LODI, figures 10 and 11)."""
    found = numbers["spectra"]
    compared = found.get("ratio") is not None
    with _Sheet(out, 5.0 if compared else 3.9, (2, 1) if compared else (1,), sharex=True) as axes:
        top = axes[0] if compared else axes
        k = _array(found["k"])
        _band(top, k, found["box"], BOX, "this box")
        if found.get("realizations"):
            for one in found["realizations"]["each"]:
                top.loglog(k, _array(one["power"]), color=OTHER, lw=0.7, alpha=0.6)
            top.plot([], [], color=OTHER, lw=0.9, label="other realizations")
        if compared:
            top.loglog(k, _array(found["truth"]["power"]), color=TRUTH, ls="--", label="truth")
        top.set(xscale="log", yscale="log", ylabel=POWER)
        _floor(top, [found[name] for name in ("box", "truth") if found.get(name)])
        top.legend(loc="lower left")
        if not compared:
            top.set_xlabel(WAVENUMBER)
            return
        _residual(axes[1], k, found["ratio"], numbers["limits"])


def _residual(place: Any, k: NDArray[Any], ratio: Numbers, limits: Numbers) -> None:
    value, error = _array(ratio["value"]), _array(ratio["error"])
    most = limits["max_power_error"]
    place.axhspan(1 - most, 1 + most, color="0.9", lw=0)
    place.axhline(1, color=TRUTH, ls="--", lw=1)
    place.fill_between(k, value - error, value + error, color=BOX, alpha=0.25, lw=0)
    place.plot(k, value, color=BOX)
    place.axvline(limits["k_max"], color="0.5", lw=0.8, ls=":")
    inside = k <= limits["k_max"]
    reach = float(np.nanmax(np.abs(value[inside] - 1), initial=0.0)) if inside.any() else 0.0
    half = float(np.clip(1.5 * max(reach, most), 0.02, 2.0))
    place.set(ylim=(1 - half, 1 + half), ylabel=r"$P/P_\mathrm{truth}$", xlabel=WAVENUMBER)


def dimensionless(out: Path, numbers: Numbers) -> None:
    """Delta^2(k) of T_b / <T_b> (LODI, eqs. 15-16)."""
    found = numbers["spectra"]
    k, mean = _array(found["k"]), numbers["onepoint"]["box"]["mean"]
    with _Sheet(out, 3.6) as place:
        for name, colour, style in (("box", BOX, "-"), ("truth", TRUTH, "--")):
            if found.get(name):
                mean = numbers["onepoint"][name]["mean"]
                delta2 = k**3 * _array(found[name]["power"]) / (2 * np.pi**2 * mean**2)
                label = {"box": "this box", "truth": "truth"}[name]
                place.loglog(k, delta2, color=colour, ls=style, label=label)
        place.set(xlabel=WAVENUMBER, ylabel=r"$\Delta^2(k)$ of $T_b/\langle T_b\rangle$  [1]")
        place.legend(loc="best")


def agreement(out: Path, numbers: Numbers) -> None:
    """Correlation coefficient r(k) and transfer function of the box with the truth."""
    found = numbers["spectra"]
    k = _array(found["k"])
    with _Sheet(out, 3.6) as place:
        place.axhline(1, color="0.6", lw=0.8)
        place.plot(k, _array(found["correlation"]), color=BOX, label=r"$r(k)$")
        place.plot(k, _array(found["transfer"]), color=OTHER, ls="-.", label="transfer function")
        place.set(xscale="log", xlabel=WAVENUMBER, ylabel="box with truth  [1]")
        seen = _array(found["transfer"])[k <= numbers["limits"]["k_max"]]
        high = max(1.1, min(2.0, 1.1 * float(np.nanmax(seen, initial=1.0))))
        place.set_ylim(min(0.0, 1.1 * float(np.nanmin(_array(found["correlation"])))), high)
        place.legend(loc="lower left")


def matter(out: Path, numbers: Numbers) -> None:
    """Correlation of T_b with the matter, r(k)."""
    found = numbers["spectra"]
    k = _array(found["k"])
    with _Sheet(out, 3.6) as place:
        place.axhline(0, color="0.6", lw=0.8)
        place.plot(k, _array(found["matter"]["box"]), color=BOX, label="this box")
        if found["matter"].get("truth"):
            place.plot(k, _array(found["matter"]["truth"]), color=TRUTH, ls="--", label="truth")
        place.set(xscale="log", xlabel=WAVENUMBER, ylabel=r"$r(k)$ of $T_b$ with matter  [1]")
        place.set_ylim(top=1.05)
        place.legend(loc="lower left")


def cylinder(out: Path, numbers: Numbers) -> None:
    """log10 P(k_par, k_perp)."""
    found = numbers["cylinder"]
    power = _array(found["power"])
    along, across = _array(found["parallel_edges"]), _array(found["transverse_edges"])
    with matplotlib.rc_context({"axes.spines.top": True}), _Sheet(out, 3.9) as place:
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = np.log10(np.where(power > 0, power, np.nan))
        mesh = place.pcolormesh(
            across,
            along,
            shown,
            cmap="cividis",
            rasterized=True,
        )
        place.set(
            xlabel=r"$k_\perp$  [$h/\mathrm{Mpc}$]",
            ylabel=rf"$k_\parallel$ along ${found['axis']}$  [$h/\mathrm{{Mpc}}$]",
            xlim=(0, across[-1]),
            ylim=(0, along[-1]),
        )
        place.figure.colorbar(
            mesh, ax=place, label=r"$\log_{10}\,P$  [$(\mathrm{Mpc}/h)^3\,\mathrm{mK}^2$]"
        )


def bispectrum(out: Path, numbers: Numbers) -> None:
    """Reduced bispectrum of three triangle shapes by their longest side."""
    found = numbers["bispectrum"]
    k = _array(found["k"])
    with _Sheet(out, 3.6) as place:
        place.axhline(0, color="0.6", lw=0.8)
        for at, shape in enumerate(found["shapes"]):
            for name, filled, shift in (("box", True, 1.0), ("truth", False, 1.03)):
                if not found[name]:
                    continue
                place.errorbar(
                    k * (1 + 0.02 * (at - 1)) * shift,
                    _array(found[name]["reduced"][at]),
                    _array(found[name]["error"][at]),
                    fmt=MARKS[at],
                    color=COLOURS[at],
                    mfc=COLOURS[at] if filled else "white",
                    capsize=2,
                    markersize=5,
                    elinewidth=0.8,
                    label=shape if filled else None,
                )
        place.set(xscale="log", xlabel=r"longest side $k$  [$h/\mathrm{Mpc}$]")
        # Q of a field is over its unit: B / P^2.
        place.set_ylabel(r"$Q$  [mK$^{-1}$]")
        _above(place)


def onepoint(out: Path, numbers: Numbers) -> None:
    """Distribution of T_b."""
    _distribution(out, numbers["onepoint"], "linear", BRIGHTNESS, r"PDF  [mK$^{-1}$]")


def onepoint_log(out: Path, numbers: Numbers) -> None:
    """Distribution of log10 T_b, over the voxels where T_b > 0."""
    _distribution(
        out, numbers["onepoint"], "log", r"$\log_{10}(T_b\,/\,\mathrm{mK})$", r"PDF  [dex$^{-1}$]"
    )


def _distribution(out: Path, found: Numbers, scale: str, label: str, ylabel: str) -> None:
    with _Sheet(out, 3.6) as place:
        for name, colour, style in (("box", BOX, "-"), ("truth", TRUTH, "--")):
            one = found.get(name)
            if not one:
                continue
            edges, density = _array(one[scale]["edges"]), _array(one[scale]["density"])
            label_ = {"box": "this box", "truth": "truth"}[name]
            with np.errstate(invalid="ignore"):
                place.stairs(
                    np.where(density > 0, density, np.nan),
                    edges,
                    color=colour,
                    ls=style,
                    label=label_,
                    lw=1.5,
                )
        place.set(yscale="log", xlabel=label, ylabel=ylabel)
        place.legend(loc="best")


def halo_distribution(out: Path, channel: Numbers) -> None:
    """Distribution of log10 halo density in one mass bin (LODI, figure 9, right column)."""
    with _Sheet(out, 3.6) as place:
        for name, colour, style in (("box", BOX, "-"), ("truth", TRUTH, "--")):
            if channel.get(name):
                density = _array(channel[name]["density"])
                edges = _array(channel[name]["edges"])
                label = {"box": "this box", "truth": "truth"}[name]
                shown = np.where(density > 0, density, np.nan)
                place.stairs(shown, edges, color=colour, ls=style, label=label, lw=1.5)
        unit = r"$(M_\odot/h)\,/\,(\mathrm{Mpc}/h)^3$"
        place.set(yscale="log", ylabel=r"PDF  [dex$^{-1}$]")
        place.set(xlabel=rf"$\log_{{10}}\rho_h$  [{unit}]", title=channel["title"])
        place.legend(loc="best")


def seam_ratio(out: Path, numbers: Numbers) -> None:
    """Squared differences across tile edges over those inside, per axis, with error bars."""
    views, limits = numbers["seams"]["views"], numbers["limits"]
    with _Sheet(out, 3.6) as place:
        place.axhspan(limits["min_seam_ratio"], limits["max_seam_ratio"], color="0.9", lw=0)
        place.axhline(1, color=TRUTH, lw=1, ls="--")
        ends = [limits["min_seam_ratio"], limits["max_seam_ratio"]]
        for number, view in enumerate(views.values()):
            axes = list(view["axes"])
            value = _array([view["axes"][axis]["ratio"] for axis in axes])
            error = _array([view["axes"][axis]["error"] for axis in axes])
            place.errorbar(
                np.arange(len(axes)) + 0.18 * (number - 0.5 * (len(views) - 1)),
                value,
                error,
                fmt=MARKS[number],
                color=COLOURS[number],
                capsize=3,
                markersize=6,
                label=view["label"],
            )
            ends += [*(value - error), *(value + error)]
            place.set_xticks(range(len(axes)), axes)
        low, high = max(0.0, float(np.nanmin(ends))), float(np.nanmax(ends))
        if high > 5:
            place.set_yscale("log")
            place.set_ylim(0.5, 1.5 * high)
        else:
            place.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.1 * (high - low))
        place.set(xlim=(-0.5, 2.5), xlabel="axis", ylabel="seam ratio  [1]")
        _above(place)


def seam_profile(out: Path, numbers: Numbers, what: str) -> None:
    """Mean or variance of the field against the distance from the nearest tile edge, folded."""
    label = {
        "mean": r"(mean $-$ mean of the box) / rms  [1]",
        "variance": "variance / variance of the box  [1]",
    }[what]
    with _Sheet(out, 3.4) as place:
        place.axhline({"mean": 0, "variance": 1}[what], color="0.6", lw=0.8)
        place.axvline(0, color="0.6", lw=0.8, ls=":")
        for at, (axis, one) in enumerate(_best(numbers)["axes"].items()):
            profile = one["profiles"][what]
            place.errorbar(
                _array(profile["distance"]) + 0.12 * (at - 1),
                _array(profile["value"]),
                _array(profile["error"]),
                fmt=MARKS[at] + "-",
                color=COLOURS[at],
                markersize=3,
                lw=1,
                elinewidth=0.7,
                label=f"${axis}$",
            )
        place.set(xlabel="distance from the tile edge  [voxels]", ylabel=label)
        _above(place)


def seam_harmonics(out: Path, numbers: Numbers) -> None:
    """Excess power of the planes' means at the tile frequency and its multiples, in sigma."""
    limit = _best(numbers)["z_limit"]
    with _Sheet(out, 3.4) as place:
        place.axhline(0, color="0.6", lw=0.8)
        place.axhline(limit, color=OTHER, lw=1, ls="--", label="limit")
        highest, orders = limit, set[float]()
        for at, (axis, one) in enumerate(_best(numbers)["axes"].items()):
            harmonics = one["harmonics"]["mean"]
            z = _array(harmonics["z"])
            orders |= set(harmonics["order"])
            highest = max(highest, float(np.nanmax(z, initial=0.0)))
            place.plot(
                _array(harmonics["order"]) + 0.08 * (at - 1),
                z,
                MARKS[at],
                color=COLOURS[at],
                label=f"${axis}$",
                markersize=5,
                linestyle="none",
            )
        place.set(
            xlabel="frequency  [1 / tile]", ylabel=r"significance of excess power  [$\sigma$]"
        )
        if highest > 20:
            place.set_yscale("symlog", linthresh=5)
        place.set_ylim(top=1.15 * highest)
        place.set_xticks(sorted(orders))
        _above(place)


def stages(out: Path, numbers: Numbers) -> None:
    """RMS of box minus truth over the voxels of each stage's tiles, and at their seams."""
    found = numbers["seams"]["stages"]
    with _Sheet(out, 3.2) as place:
        at = _array([one["stage"] for one in found["each"]])
        for key, mark, colour, label in (
            ("rms", "o", BOX, "all voxels"),
            ("rms_at_seams", "s", OTHER, "next to a seam"),
        ):
            values = _array([one[key] for one in found["each"]])
            place.plot(at, values, mark, color=colour, label=label)
        place.axhline(found["overall"], color="0.6", lw=0.8, ls="--", label="whole box")
        most = max(max(one["rms"], one["rms_at_seams"] or 0.0) for one in found["each"])
        place.set_xticks(at)
        place.set(xlabel="stage of the tile that owns the voxel", ylabel="rms of box - truth  [mK]")
        place.set_ylim(0, 1.1 * most or 1.0)
        _above(place)


def _best(numbers: Numbers) -> Numbers:
    """The view of the field that shows seams best."""
    found: Numbers = numbers["seams"]["views"][numbers["seams"]["shown"]]
    return found


def _above(place: Any) -> None:
    """The legend above the panel, where it covers nothing."""
    place.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=4,
        borderaxespad=0.2,
        columnspacing=1,
        handletextpad=0.4,
    )


def _band(place: Any, k: NDArray[Any], one: Numbers, colour: str, label: str) -> None:
    power = _array(one["power"])
    place.plot(k, power, color=colour, label=label)
    if one.get("errors") is not None:
        error = _array(one["errors"])
        low = np.maximum(power - error, 0.05 * power)  # a band to zero would fill the panel
        place.fill_between(k, low, power + error, color=colour, alpha=0.25, lw=0)


def _floor(place: Any, shown: Sequence[Numbers]) -> None:
    """Cut off the noise floor of a steep spectrum: twelve decades are a wall, not a curve."""
    top = max(float(np.nanmax(_array(one["power"]))) for one in shown)
    least = min(float(np.nanmin(_array(one["power"]))) for one in shown)
    place.set_ylim(max(0.5 * least, 1e-9 * top), 3 * top)


def _array(values: Any) -> NDArray[np.float64]:
    """JSON numbers, null for NaN, as float64."""
    return np.array(values, dtype=np.float64)
