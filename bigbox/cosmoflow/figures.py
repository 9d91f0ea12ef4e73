"""Draw the figures of `bigbox cosmoflow evaluate`, `infer`, `interpolate` and `anomaly`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from bigbox.analysis.report.figures import COLOURS, OTHER, TRUTH, WAVENUMBER

Numbers = Mapping[str, Any]
NAMES = {"flow": "CosmoFlow", "vae": "VAE", "truth": "truth"}
POWER = r"$P(k)$  [$(\mathrm{Mpc}/h)^2$]"


def maps(figure: Figure, images: Mapping[str, list[Any]], side: float) -> None:
    """Draw maps in one colour scale: a column for each title, a row for each map."""
    rows = len(next(iter(images.values())))
    places = figure.subplots(rows, len(images), squeeze=False, sharex=True, sharey=True)
    first = np.array(next(iter(images.values())))
    low, high = np.quantile(first[first > 0], [0.02, 0.999])
    for column, (title, some) in enumerate(images.items()):
        for row, image in enumerate(some):
            place = places[row, column]
            shown = place.imshow(
                np.clip(image, low, None), origin="lower", norm=LogNorm(low, high), cmap="magma",
                extent=(0, side, 0, side), interpolation="nearest",
            )  # fmt: skip
            place.set_xlabel(r"[Mpc/$h$]" if row == rows - 1 else "")
        places[0, column].set_title(title, fontsize=9)
    label = r"surface density  [$M_\odot/h\,(\mathrm{Mpc}/h)^{-2}$]"
    figure.colorbar(shown, ax=places, label=label, shrink=0.8)


def ratio(figure: Figure, found: Numbers) -> None:
    """Draw P(k) over the truth's, and r(k) below."""
    top, below = figure.subplots(2, 1, sharex=True)
    top.axhspan(0.9, 1.1, color="0.92", lw=0)
    top.axhline(1, color=TRUTH, ls="--", lw=0.9)
    for place in (top, below):
        place.axvline(found["nyquist"] / 2, color="0.6", ls=":", lw=0.9)
    for at, (name, one) in enumerate(found["models"].items()):
        k = np.array(one["k"])
        style: Any = {"color": COLOURS[at], "label": NAMES[name]}
        top.errorbar(k, one["ratio"], one["error"], lw=1.2, elinewidth=0.7, **style)
        below.plot(k, one["r"], **style)
    top.set(xscale="log", ylabel=r"$P/P_\mathrm{truth}$", ylim=(0, 1.5))
    below.set(xlabel=WAVENUMBER, ylabel=r"$r(k)$  [1]", ylim=(0, 1.02))
    top.legend(loc="lower left")


def onepoint(figure: Figure, found: Numbers) -> None:
    """Draw quantiles of the density against those of the truth."""
    place = figure.subplots()
    for at, (name, one) in enumerate(found["models"].items()):
        mine, its = one["log10 density"]
        place.plot(its, np.array(mine) - its, "o-", color=COLOURS[at], label=NAMES[name])
    place.axhline(0, color=TRUTH, ls="--", lw=0.9)
    place.set(
        xlabel=r"quantile of the truth's $\log_{10}(\Sigma/\bar\Sigma)$", ylabel="decoded - truth"
    )
    place.legend()


def inferred(figure: Figure, found: Numbers, names: Mapping[str, str]) -> None:
    """Draw the relative errors of the estimators, with their scatter over seeds."""
    place = figure.subplots()
    for at, parameter in enumerate((r"Omega_m", "sigma8")):
        values = [100 * found[name][parameter]["error"] for name in names]
        errors = [100 * found[name][parameter]["scatter"] for name in names]
        x = np.arange(len(names)) + 0.36 * (at - 0.5)
        place.bar(x, values, 0.34, yerr=errors, color=COLOURS[at], capsize=3, label=parameter)
    place.set_xticks(range(len(names)), list(names.values()))
    place.set_ylabel("mean relative error  [%]")
    place.legend()


def channels(figure: Figure, found: Numbers) -> None:
    """Draw the change of P(k) by channel, of all and over its own sum."""
    top, below = figure.subplots(2, 1, sharex=True)
    k, colours = np.array(found["k"]), colormaps["viridis"]
    count = len(found["channels"])
    for at, one in enumerate(found["channels"]):
        change = np.array(one["rms"][-1])
        colour = colours(at / max(1, count - 1) * 0.92)
        top.plot(k, change, color=colour, label=f"channel {at}", lw=1.3)
        below.plot(k, change / change.max(), color=colour, lw=1.3)
    top.plot(k, found["all"], color=TRUTH, ls="--", label="all")
    top.set(xscale="log", yscale="log", ylabel=r"rms change of $\ln P$")
    below.set(xlabel=WAVENUMBER, ylabel="over its largest")
    top.legend(ncols=3, fontsize=7)


def scores(figure: Figure, found: Numbers) -> None:
    """Draw the distributions of the scores of known and strange maps."""
    places = figure.subplots(1, len(found["scores"]))
    for place, (name, one) in zip(places, found["scores"].items(), strict=True):
        both = np.concatenate([one["known"], one["strange"]])
        edges = np.linspace(both.min(), both.max(), 25)
        for at, kind in enumerate(("known", "strange")):
            place.hist(one[kind], edges, histtype="step", color=COLOURS[at], label=kind, lw=1.4)
        place.set_title(f"{name}: {one['area']:.2f}", fontsize=9)
        place.set_yticks([])
    places[0].legend(fontsize=7)


def strange_spectra(figure: Figure, found: Numbers) -> None:
    """Draw the spectra of known and strange maps, and of what the model makes of them."""
    place = figure.subplots()
    for name, colour in (("known", COLOURS[0]), ("strange", OTHER)):
        one = found["spectra"][name]
        place.plot(found["k"], one["truth"], color=colour, label=name)
        place.plot(found["k"], one["decoded"], color=colour, ls=":", label=f"{name}, decoded")
    place.set(xscale="log", yscale="log", xlabel=WAVENUMBER, ylabel=POWER)
    place.legend()
