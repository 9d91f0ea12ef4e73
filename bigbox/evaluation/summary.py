"""Compare realizations with draws of the truth: ratios, their errors, and what is asked of them.

Errors are those of means: the scatter over the square root of the number, of realizations and of
draws, added in squares. A band is what 95 % of draws lie in, 1.96 scatters on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigbox.analysis.spectra.modes import Float
from bigbox.store.fields import AXES

Numbers = dict[str, Any]

BAND = 1.96
# What is asked of a model, on true haloes and from dm alone.
MOST_POWER = {"lodi": 0.05, "pipeline": 0.10}
LEAST_CORRELATION = 0.95  # of a draw's r(k)
MOST_MEAN = 0.03
MOST_MASS = 0.10
MOST_SEAM = 0.03  # of every axis
SHARE_IN_BAND = 0.9  # of the bins: of twenty, one or two lie outside by chance


def mean_and_error(rows: Sequence[Any]) -> tuple[Float, Float]:
    """Return the mean over rows, and its error; NaN where there is one row."""
    values = np.array(rows, np.float64)
    many = len(values)
    error = values.std(0, ddof=1) / many**0.5 if many > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(0), error


def over_draws(painted: Sequence[Any], drawn: Sequence[Any]) -> Numbers:
    """Return the ratio of two means with its error, and whether it lies in the band of the draws.

    Errors that are not known, of one realization or one draw, count as none.
    """
    mine, error = mean_and_error(painted)
    theirs, their_error = mean_and_error(drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = mine / theirs
        relative = np.hypot(np.nan_to_num(error / mine), np.nan_to_num(their_error / theirs))
    known = len(painted) > 1 or len(drawn) > 1
    found = {
        "ratio": ratio,
        "error": abs(ratio) * relative if known else np.full_like(ratio, np.nan),
    }
    if len(drawn) > 1:
        scatter = their_error * len(drawn) ** 0.5
        # The band is that of a draw; a mean of few realizations has an error of its own.
        reach = BAND * np.hypot(scatter, np.nan_to_num(error))
        inside = (abs(mine - theirs) <= reach).tolist()
        with np.errstate(invalid="ignore", divide="ignore"):
            found |= {"band": BAND * scatter / theirs, "inside": inside}
    return found


def summarise(painted: Sequence[Numbers], drawn: Sequence[Numbers], measures: Any) -> Numbers:
    """Return what realizations of one model are, beside the draws."""

    def of(name: str, *keys: str) -> Numbers:
        def pick(row: Numbers) -> Any:
            value = row[name]
            for key in keys:
                value = value[key]
            return value

        return over_draws([pick(row) for row in painted], [pick(row) for row in drawn])

    r, r_error = mean_and_error([row["r"] for row in painted])
    found: Numbers = {
        "realizations": len(painted),
        "seconds": float(np.mean([row.get("seconds", 0.0) for row in painted])),
        "k": painted[0]["k"],
        "power": of("power"),
        "r": {"value": r, "error": r_error, "draws": None, "draws_error": None},
        "mean": of("mean"),
        "onepoint": of("onepoint")
        | {
            "shares": mean_and_error([row["onepoint"] for row in painted])[0],
            "draws": mean_and_error([row["onepoint"] for row in drawn])[0],
        },
        "triangles": measures.triangles,
        "bispectrum": {shape: of("bispectrum", shape) for shape in painted[0]["bispectrum"]},
        "seams": of("seams"),
        "voids": of("voids") | {"rms": mean_and_error([row["voids"] for row in painted])[0]},
    }
    if len(drawn) > 1:  # the first is the one that r(k) is taken with
        others = mean_and_error([row["r"] for row in drawn[1:]])
        found["r"] |= {"draws": others[0], "draws_error": others[1]}
    return found


def checks(rows: Numbers) -> list[Numbers]:
    """Return what is asked of a model, what was found, and whether it is kept."""
    found: list[Numbers] = []

    def check(name: str, value: str, allowed: str, kept: bool) -> None:
        found.append({"name": name, "found": value, "allowed": allowed, "kept": bool(kept)})

    for part, words in (("lodi", "on true haloes"), ("pipeline", "from dm alone")):
        if part not in rows:
            continue
        row, most = rows[part], MOST_POWER[part]
        ratio, error = row["power"]["ratio"], np.nan_to_num(row["power"]["error"])
        off = abs(ratio - 1)
        worst = int(np.argmax(off - np.maximum(error, most)))
        check(
            f"P / P of the draws {words}, worst bin",
            f"{ratio[worst]:.3f} ± {error[worst]:.3f} at k = {row['k'][worst]:.1f} h/Mpc",
            f"1 ± {most:g}, or within its error",
            (off <= np.maximum(error, most)).all(),
        )
        mean = row["mean"]
        text = f"{float(mean['ratio']):.3f} ± {float(np.nan_to_num(mean['error'])):.3f}"
        kept = abs(mean["ratio"] - 1) <= MOST_MEAN
        check(f"mean T_b over the draws' {words}", text, f"1 ± {MOST_MEAN:g}", kept)
        if row["r"]["draws"] is not None and part == "lodi":
            over = row["r"]["value"] / row["r"]["draws"]
            worst = int(np.argmin(over))
            text = f"{over[worst]:.3f} at k = {row['k'][worst]:.1f} h/Mpc"
            least = LEAST_CORRELATION
            check(
                "r(k) over a draw's, worst bin", text, f"at least {least:g}", (over >= least).all()
            )
        if "inside" in row["onepoint"]:
            share = float(np.mean(row["onepoint"]["inside"]))
            _band(check, f"one-point distribution {words}", share)
            inside = [one["inside"] for one in row["bispectrum"].values()]
            if inside:
                _band(check, f"bispectrum {words}", float(np.mean(inside)))
        voids = row["voids"]
        whole, error = (float(np.nan_to_num(voids[key][-1])) for key in ("ratio", "error"))
        text = f"{whole:.3f} ± {error:.3f}"
        name = f"rms at the voxels' frequency in voids over the draws' {words}"
        check(name, text, "at most 1, within its error", whole <= 1 + error)
    if "seams" in rows:
        ratio, error = (np.asarray(rows["seams"][key])[:3] for key in ("ratio", "error"))
        known = np.nan_to_num(error)
        worst = int(np.argmax(abs(ratio - 1)))
        check(
            "seams, tiles moved by half, worst axis",
            f"{ratio[worst]:.3f} ± {known[worst]:.3f} on {AXES[worst]}",
            f"1 ± {MOST_SEAM:g}",
            bool((abs(ratio - 1) <= MOST_SEAM).all()),
        )
    if "haloes" in rows:
        mass = np.asarray(rows["haloes"]["mass"])
        text = ", ".join(f"{one:.3f}" for one in mass)
        kept = (abs(mass[np.isfinite(mass)] - 1) <= MOST_MASS).all()
        check("halo mass over the true, by bin", text, f"1 ± {MOST_MASS:g}", kept)
    return found


def _band(check: Any, name: str, share: float) -> None:
    """Ask that nearly all bins lie in the band of the draws."""
    asked = f"at least {SHARE_IN_BAND:.0%} of the bins in the draws' 95 % band"
    check(name, f"{share:.0%} of the bins", asked, share >= SHARE_IN_BAND)


def in_words(rows: Numbers, parts: Sequence[str]) -> str:
    """Say the main numbers of a model in a line, for its card."""
    said = []
    for part, words in (("lodi", "on true haloes"), ("pipeline", "from dm alone")):
        if part in rows and part in parts:
            row = rows[part]
            ratio, r = (np.array(one, float) for one in (row["power"]["ratio"], row["r"]["value"]))
            said.append(
                f"{words} P {ratio.min():.2f} to {ratio.max():.2f} of the truth's, r(k) "
                f"{r.max():.2f} to {r.min():.2f}, mean {float(row['mean']['ratio']):.3f}, seams "
                f"{row['seams']['ratio'][-1]:.3f}"
            )
    if "seams" in rows and "seams" in parts:
        said.append("seams " + ", ".join(f"{one:.3f}" for one in rows["seams"]["ratio"][:3]))
    if "haloes" in rows and "haloes" in parts:
        mass = ", ".join(f"{one:.2f}" for one in rows["haloes"]["mass"] if one is not None)
        said.append(f"halo mass by bin {mass} of the true")
    return "; ".join(said)
