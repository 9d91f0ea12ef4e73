"""Give spectra as xarray data sets, and draw them with their bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bigbox.analysis.spectra.modes import Float, Pair, Spectrum

BAND = 0.25  # opacity


def axes_of(ax: Axes | None) -> Axes:
    """Return the axes to draw on: new ones of pyplot, with the user's own backend, if None."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    found: Axes = plt.subplots(layout="constrained")[1]
    return found


def to_xarray(spectrum: Spectrum) -> xarray.Dataset:
    """Return P(k), its errors and number of modes over k (h/Mpc)."""
    import xarray

    kind = spectrum.error_kind or "of a Gaussian field, from the number of modes"
    about = {"long_name": "P(k)", "units": spectrum.units}
    found: dict[str, Any] = {
        "power": ("k", spectrum.power, about),
        "error": ("k", errors_of(spectrum), {**about, "long_name": f"standard deviation, {kind}"}),
        "modes": ("k", spectrum.modes, {"long_name": "modes, conjugates counted as two"}),
    }
    low, high = spectrum.edges[:-1], spectrum.edges[1:]
    unit = {"units": "h/Mpc"}
    at = {"k": ("k", spectrum.k, {**unit, "long_name": "mean wavenumber of the bin"})}
    edges = {"k_lower": ("k", low, unit), "k_upper": ("k", high, unit)}
    return xarray.Dataset(found, {**at, **edges}, {"k_nyquist": spectrum.k_nyquist})


def pair_to_xarray(pair: Pair) -> xarray.Dataset:
    """Return both spectra, their cross spectrum, r(k) and the transfer function over k (h/Mpc)."""
    found = to_xarray(pair.cross).drop_vars("error").rename(power="cross")
    for name, one in (("first", pair.first), ("second", pair.second)):
        found[name] = ("k", one.power, {"long_name": f"P(k) of the {name} field"})
    found["correlation"] = ("k", pair.correlation, {"long_name": "r(k)"})
    found["transfer"] = ("k", pair.transfer, {"long_name": "sqrt(P of the first / the second)"})
    return found


def draw(spectrum: Spectrum, ax: Axes | None, label: str | None, **line: Any) -> Axes:
    """Draw P(k) with a band of one standard deviation, on logarithmic axes; return the axes.

    The band of a bin whose lower end is below zero ends a hundredth of P above it.
    """
    place = axes_of(ax)
    good = np.isfinite(spectrum.k) & (spectrum.power > 0)
    k, power, error = spectrum.k[good], spectrum.power[good], errors_of(spectrum)[good]
    (curve,) = place.plot(k, power, label=label, **line)
    low = np.maximum(power - error, 0.01 * power)
    place.fill_between(k, low, power + error, color=curve.get_color(), alpha=BAND, linewidth=0)
    place.set(xscale="log", yscale="log", xlabel="$k$  [h/Mpc]")
    place.set_ylabel(f"$P(k)$  [{_in_mathtext(spectrum.units)}]")
    return place


def draw_correlation(pair: Pair, ax: Axes | None, label: str | None, **line: Any) -> Axes:
    """Draw r(k); return the axes."""
    place = axes_of(ax)
    place.plot(pair.cross.k, pair.correlation, label=label, **line)
    place.set(xscale="log", xlabel="$k$  [h/Mpc]", ylabel="$r(k)$")
    return place


def errors_of(spectrum: Spectrum) -> Float:
    """Return the errors that were measured, else those of a Gaussian field."""
    return spectrum.mode_errors if spectrum.errors is None else spectrum.errors


def _in_mathtext(units: str) -> str:
    """Return a unit with its powers raised: (Mpc/h)^3 mK^2."""
    return " ".join(
        f"{base}$^{{{power}}}$" if power else base
        for base, _, power in (part.partition("^") for part in units.split())
    )
