"""Judge the numbers of a validation: what was asked, what was found, where its limit comes from.

A check has one of three words. *fail*: the value is beyond its limit, and not by chance. *not
significant*: it is beyond, but so may a box be that is as good as the truth. *pass*: it is within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbox.analysis.report.draws import reach
from bigbox.errors import BadInput

Numbers = dict[str, Any]

SIGMA = 2.0  # errors by which a limit is passed by more than chance, where there are no draws
BY_DRAWS = 0.5  # a limit over that without draws, whose errors are known
PASS, UNSURE, FAIL = "pass", "not significant", "fail"


@dataclass(frozen=True)
class Limits:
    """What a box must keep to for `bigbox validate` to pass it.

    A value fails where it is beyond its limit by more than chance: by two of its own standard
    deviations, or, beside draws of the truth, by as much as one draw in 1 / `draw_rate` is.

    min_seam_ratio, max_seam_ratio  of every axis; 1 is no seam, less is too smooth at the edges
    false_alarm_rate    chance, in boxes without seams, of a seam as strong; 0: found, never failed
    draw_rate           chance at which a draw of the truth fails a check that goes by draws
    max_power_error     |P / P_truth - 1| in every bin up to k_max (paper: 10 %, section 4); beside
                        draws half of it, and of the next
    max_mean_error      |<T_b> / <T_b>_truth - 1|
    max_halo_error      |halo mass / true halo mass - 1| in every mass bin
    min_correlation     r(k) with the truth in every bin up to k_max; None: not judged but beside
                        draws
    k_max               h/Mpc; None: 10, or half of the Nyquist wavenumber where that is less
    """

    min_seam_ratio: float = 0.75
    max_seam_ratio: float = 1.25
    false_alarm_rate: float = 0.001
    draw_rate: float = 0.005
    max_power_error: float = 0.10
    max_mean_error: float = 0.05
    max_halo_error: float = 0.10
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
        if not 0 < self.draw_rate < 1:
            raise BadInput(f"rate of draws that fail {self.draw_rate:g}: must be in (0, 1)")
        if self.k_max is not None and not self.k_max > 0:
            raise BadInput(f"k_max {self.k_max:g} h/Mpc: must be above 0")


@dataclass(frozen=True)
class Check:
    """One line of the verdict: what was asked, what was found, what is allowed, and by what."""

    name: str
    what: str
    found: str
    allowed: str
    origin: str
    value: float
    word: str

    @property
    def passed(self) -> bool:
        """Whether the box is let through."""
        return self.word != FAIL


def judge(found: Numbers, limits: Limits) -> list[Check]:
    """Return the checks that the numbers allow, in the order of the page."""
    draws, card = found["draws"], found["card"]
    checks = [_seam_ratio(view, limits) for view in _views(found)]
    if limits.false_alarm_rate:
        checks += [_seam_alarm(view) for view in _views(found)]
    if draws is not None:
        checks += _by_draws(draws, card, limits)
    elif found["truth"] is not None:
        checks += [_power(found, limits), _mean(found, limits)]
    if found["truth"] is not None and limits.min_correlation is not None:
        checks.append(_correlation(found, limits.min_correlation))
    if found["halo_mass"] is not None:
        checks.append(_halo_mass(found["halo_mass"], card, limits))
    if not checks:
        raise BadInput(
            f"{found['box']['path']}: {found['seam_words']} There is nothing to judge it by; give"
            " --truth"
        )
    return checks


def verdict(checks: Sequence[Check]) -> str:
    """Write the line under the verdict: how many checks, and which of them fail."""
    bad = [check for check in checks if not check.passed]
    unsure = sum(check.word == UNSURE for check in checks)
    more = f" ({unsure} beyond them, but not significantly)" if unsure else ""
    if not bad:
        return f"all {len(checks)} checks are within their limits{more}."
    return f"{len(bad)} of {len(checks)} checks: " + "; ".join(
        f"{check.what} is {check.found}, allowed {check.allowed}" for check in bad
    )


def _views(found: Numbers) -> list[Numbers]:
    return list(found["seams"]["views"].values()) if found["seams"] is not None else []


def _word(beyond: bool, significant: bool) -> str:
    return (FAIL if significant else UNSURE) if beyond else PASS


def _around_one(error: float) -> str:
    return f"{1 - error:.4g} to {1 + error:.4g}"


def _seam_ratio(seams: Numbers, limits: Limits) -> Check:
    low, high = limits.min_seam_ratio, limits.max_seam_ratio

    def beyond(axis: str) -> tuple[float, float]:
        """How far a ratio is outside its limits, less two errors and as it is."""
        ratio, error = seams["axes"][axis]["ratio"], seams["axes"][axis]["error"]
        margin = SIGMA * error if math.isfinite(error) else 0.0
        off = float(max(low - ratio, ratio - high))
        return off - margin, off

    # The axis that is furthest outside, or nearest to its limit.
    worst = max(seams["axes"], key=beyond)
    ratio, error = seams["axes"][worst]["ratio"], seams["axes"][worst]["error"]
    certain, off = beyond(worst)
    return Check(
        "seam_ratio",
        f"seam ratio ({seams['label']}), worst axis",
        f"{ratio:.3f} ± {error:.3f} on {worst}",
        f"{low:g} to {high:g}",
        "as asked",
        ratio,
        _word(off > 0, certain > 0),
    )


def _seam_alarm(seams: Numbers) -> Check:
    strongest, p = seams["strongest"], seams["p_value"]
    on = "all axes" if strongest["axis"] == "all" else f"{strongest['axis']} axis"
    return Check(
        "seam_found",
        f"seam tests ({seams['label']}), chance of this without seams",
        f"{p:.2g} ({strongest['name']}, {on})",
        f"at least {seams['false_alarm_rate']:.1g}",
        "false-alarm rate",
        p,
        FAIL if seams["alarm"] else PASS,
    )


def _by_draws(draws: Numbers, card: Numbers | None, limits: Limits) -> list[Check]:
    """Judge by the spread of draws of the truth, or by the card's errors on top of it."""
    origin = f"spread of {draws['count']} draws of the truth"
    about = f"{draws['count']} draws"
    power, mean = BY_DRAWS * limits.max_power_error, BY_DRAWS * limits.max_mean_error
    k = [f"at {one:.3g} h/Mpc" for one in draws["k"]]
    rows = [
        ("power", f"P / P of {about}, worst bin", k, power),
        ("mean", f"mean / mean of {about}", [""], mean),
        ("level", f"T_b where there is HI, geometric mean / that of {about}", [""], mean),
    ]
    checks = []
    for name, what, places, most in rows:
        told = (card or {}).get(name)
        value, expected, error = (
            np.atleast_1d(np.array(draws[name][key], float))
            for key in ("value", "expected", "error")
        )
        by = origin
        if told is not None:
            expected = expected + np.log(np.broadcast_to(told["ratio"], expected.shape))
            error = np.hypot(error, np.broadcast_to(told["error"], error.shape))
            by = f"card of {card['model']}, and {origin}" if card else origin
        checks.append(_spread(name, what, places, value - expected, error, most, by, draws, limits))
    found = draws["correlation"]
    value, expected, error = (np.array(found[key], float) for key in ("value", "expected", "error"))
    low = reach(2 * limits.draw_rate, draws["count"] - 1, len(value)) * error
    most = BY_DRAWS * limits.max_power_error
    r, wanted = np.tanh(value), np.tanh(expected)
    least = np.minimum(np.tanh(expected - low), wanted - most)
    worst = int(np.nanargmax(least - r))
    beyond = bool(wanted[worst] - r[worst] > most)
    shown = f"{r[worst]:.3f} {k[worst]}"
    what = "r(k) with the truth, worst bin"
    allowed = f"at least {least[worst]:.3f} (a draw has {wanted[worst]:.3f})"
    word = _word(beyond, bool(r[worst] < least[worst]))
    checks.append(
        Check("correlation_of_draws", what, shown, allowed, origin, float(r[worst]), word)
    )
    return checks


def _spread(
    name: str,
    what: str,
    places: Sequence[str],
    off: np.ndarray,
    error: np.ndarray,
    most: float,
    origin: str,
    draws: Numbers,
    limits: Limits,
) -> Check:
    """Judge logarithms of ratios; most: relative, what is never failed."""
    chance = reach(limits.draw_rate, draws["count"], len(off)) * error
    inside = np.maximum(chance, np.log1p(most))
    worst = int(np.nanargmax(abs(off) - inside))
    ratio, spread = float(np.exp(off[worst])), float(np.exp(off[worst]) * error[worst])
    beyond = bool(abs(off[worst]) > np.log1p(most))
    return Check(
        name,
        what,
        f"{ratio:.3f} ± {spread:.3f} {places[worst]}".rstrip(),
        f"{np.exp(-inside[worst]):.3f} to {np.exp(inside[worst]):.3f}",
        origin,
        ratio,
        _word(beyond, bool(abs(off[worst]) > inside[worst])),
    )


def _power(found: Numbers, limits: Limits) -> Check:
    k, k_max = np.array(found["spectra"]["k"], float), found["limits"]["k_max"]
    ratio = np.array(found["spectra"]["ratio"]["value"], float)
    error = np.nan_to_num(np.array(found["spectra"]["ratio"]["error"], float))
    told = (found["card"] or {}).get("power_at")
    expected = np.ones_like(ratio)
    if told is not None:
        expected = np.interp(k, told["k"], told["ratio"])
        error = np.hypot(error, np.interp(k, told["k"], told["error"]))
    inside = (k <= k_max) & np.isfinite(ratio)
    apart = np.where(inside, abs(ratio / expected - 1), -np.inf)
    off = apart - SIGMA * error
    worst = int(off.argmax())
    low, high = (expected[worst] * (1 + one * limits.max_power_error) for one in (-1, 1))
    return Check(
        "power",
        f"P / P_truth, worst bin up to {k_max:.3g} h/Mpc",
        f"{ratio[worst]:.3f} ± {error[worst]:.3f} at {k[worst]:.3g} h/Mpc",
        f"{low:.4g} to {high:.4g}",
        _asked(found["card"] if told is not None else None),
        float(ratio[worst]),
        _word(*(bool(one[worst] > limits.max_power_error) for one in (apart, off))),
    )


def _asked(card: Numbers | None) -> str:
    return "as asked" if card is None else f"as asked, about the card of {card['model']}"


def _mean(found: Numbers, limits: Limits) -> Check:
    onepoint, told = found["onepoint"], (found["card"] or {}).get("mean")
    ratio = onepoint["box"]["mean"] / onepoint["truth"]["mean"]
    expected = 1.0 if told is None else told["ratio"]
    most = limits.max_mean_error
    beyond = abs(ratio / expected - 1) > most
    allowed = f"{expected * (1 - most):.4g} to {expected * (1 + most):.4g}"
    origin = _asked(found["card"] if told is not None else None)
    what = "mean / mean of the truth"
    return Check("mean", what, f"{ratio:.4f}", allowed, origin, ratio, _word(beyond, beyond))


def _correlation(found: Numbers, least: float) -> Check:
    k, k_max = np.array(found["spectra"]["k"], float), found["limits"]["k_max"]
    every = np.array(found["spectra"]["correlation"], float)
    worst = int(np.nanargmin(np.where(k <= k_max, every, np.nan)))
    r, what = float(every[worst]), f"r(k) with the truth, worst bin up to {k_max:.3g} h/Mpc"
    shown = f"{r:.3f} at {k[worst]:.3g} h/Mpc"
    return Check(
        "correlation",
        what,
        shown,
        f"at least {least:g}",
        "as asked",
        r,
        _word(r < least, r < least),
    )


def _halo_mass(mass: Numbers, card: Numbers | None, limits: Limits) -> Check:
    """Judge halo maps by their mass in each bin; chance is that of the parts of the box."""
    ratio, error = (np.array(mass[key], float) for key in ("ratio", "error"))
    told = (card or {}).get("mass")
    expected = np.ones_like(ratio) if told is None else np.array(told, float)
    apart = np.where(np.isfinite(ratio), abs(ratio / expected - 1), -np.inf)
    off = apart - SIGMA * np.nan_to_num(error)
    worst, most = int(off.argmax()), limits.max_halo_error
    shown = f"{ratio[worst]:.3f} ± {np.nan_to_num(error)[worst]:.3f} of {mass['titles'][worst]}"
    low, high = (expected[worst] * (1 + one * most) for one in (-1, 1))
    return Check(
        "halo_mass",
        "halo mass / true halo mass, worst bin",
        shown,
        f"{low:.4g} to {high:.4g}",
        _asked(card if told is not None else None),
        float(ratio[worst]),
        _word(bool(apart[worst] > most), bool(off[worst] > most)),
    )
