"""Write the page of an evaluation: models side by side, from the numbers alone."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bigbox.analysis.report.figures import WAVENUMBER
from bigbox.analysis.report.page import Table, render
from bigbox.analysis.report.style import COLOURS, TRUTH, sheet
from bigbox.evaluation.measure import LOG_TB

Numbers = dict[str, Any]

PARTS = {"lodi": "true haloes", "pipeline": "dm alone"}
AXES = ("x", "y", "z", "all")


def write_page(out: Path, numbers: Numbers) -> None:
    """Write the figures and index.html into `out`."""
    drawn: list[str] = []
    truths = []
    for at, truth in enumerate(numbers["truths"]):
        key = f"truth{at}_"
        section = _section(key, truth)
        for name, height, draw in FIGURES if section["painted"] else ():
            with sheet(out / f"{key}{name}.png", height) as figure:
                draw(figure, truth)
            drawn.append(key + name)
        truths.append(section)
    models = [model["name"] for model in numbers["models"]]
    text = json.dumps(numbers, indent=1)
    how = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in numbers["command"].items())
    page = render(
        Path(__file__).with_suffix(".html"),
        out,
        command="evaluate",
        numbers=numbers,
        title=", ".join(models),
        headline=f"Held against simulations that no training saw: {how}",
        notes=_notes(numbers),
        truths=truths,
        drawn=drawn,
        made_of=_made_of(numbers),
        json=b64encode(text.encode()).decode(),
    )
    (out / "index.html").write_text(page, "utf-8", errors="backslashreplace")


def _notes(numbers: Numbers) -> list[str]:
    found = []
    for truth in numbers["truths"]:
        if truth["source"]:
            found.append(f"T_b of {truth['name']} is from: {truth['source']}.")
        if truth["draws"] < 2:
            found.append(
                f"{truth['name']} has one draw of T_b: what is an error and what is chance cannot "
                "be told apart. Give further draws as boxes (bigbox ingest --hi-draw), or --halos."
            )
        for name, rows in truth["models"].items():
            if rows["forced"]:
                found.append(f"{name} on {truth['name']}: {rows['forced']}.")
    return list(dict.fromkeys(found))


def _section(key: str, truth: Numbers) -> Numbers:
    size = " × ".join(f"{side:g}" for side in truth["box_size"])
    words = (
        f"{' × '.join(map(str, truth['shape']))} voxels, {size} Mpc/h, redshift "
        f"{truth['redshift']:g}; {truth['draws']} draws of T_b on its haloes."
    )
    checks = [
        {"model": name, **check}
        for name, rows in truth["models"].items()
        for check in rows["checks"]
    ]
    tables = {"power": _power_table(truth), "seams": _seams(truth), "haloes": _haloes(truth)}
    painted = any(True for _ in _rows(truth))  # not for seams alone
    return {
        "key": key,
        "name": truth["name"],
        "words": words,
        "checks": checks,
        "tables": tables,
        "painted": painted,
    }


def _rows(truth: Numbers) -> Iterator[tuple[str, str, Numbers]]:
    """Yield model, part and numbers of all that was painted."""
    for name, rows in truth["models"].items():
        for part in PARTS:
            if part in rows:
                yield name, part, rows[part]


def _with_error(value: Any, error: Any, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _power_table(truth: Numbers) -> Table:
    rows = list(_rows(truth))
    k = rows[0][2]["k"] if rows else []
    table = [["", "mean", "s a box", *(f"k = {one:.1f}" for one in k)]]
    for name, part, row in rows:
        both = zip(row["power"]["ratio"], row["power"]["error"], row["r"]["value"], strict=True)
        cells = [f"{_with_error(p, e, 2)} ({r:.2f})" for p, e, r in both]
        mean = _with_error(row["mean"]["ratio"], row["mean"]["error"])
        table.append([f"{name}, {PARTS[part]}", mean, f"{row['seconds']:.0f}", *cells])
    if rows and (r := rows[0][2]["r"]["draws"]) is not None:
        table.append(["another draw", "1", "", *(f"1 ({one:.2f})" for one in r)])
    return table


def _seams(truth: Numbers) -> Table:
    table = [["", *(f"seams {a}" for a in AXES), *(f"voids {a}" for a in AXES)]]
    for name, part, row in _rows(truth):
        cells = [
            _with_error(value, error)
            for what in ("seams", "voids")
            for value, error in zip(row[what]["ratio"], row[what]["error"], strict=True)
        ]
        table.append([f"{name}, {PARTS[part]}", *cells])
    for name, rows in truth["models"].items():
        if (found := rows.get("seams")) is not None:
            cells = list(map(_with_error, found["ratio"], found["error"]))
            words = f"{name}, {found['pairs']} pairs with moved tiles"
            table.append([words, *cells, *("-" for _ in AXES)])
    return table


def _haloes(truth: Numbers) -> Table:
    table = [["", *(f"mass, bin {i}" for i in range(4)), *(f"rms, bin {i}" for i in range(4))]]
    for name, rows in truth["models"].items():
        if "haloes" in rows:
            found = rows["haloes"]
            cells = [_with_error(one, None) for one in [*found["mass"], *found["rms"]]]
            table.append([name, *cells])
    return table


def _made_of(numbers: Numbers) -> Table:
    rows = [["", ""]]
    for model in numbers["models"]:
        weights = ", ".join(f"{kind} {sha[:12]}" for kind, sha in model["weights"].items())
        rows.append([f"model {model['name']}", f"{model['folder']} ({weights})"])
        rows.append(["trained on", "; ".join(model["sources"] or ["not told"])])
    for truth in numbers["truths"]:
        rows.append([f"truth {truth['name']}", f"{truth['path']} (checksum {truth['checksum']})"])
    return rows


def _array(values: Any) -> np.ndarray:
    return np.array(values, np.float64)


def _points(place: Any, at: int, part: str, x: Any, y: Numbers, label: str) -> None:
    """Draw ratios with errors: a colour for a model, open marks from dm alone."""
    colour = COLOURS[at % len(COLOURS)]
    style: Any = {"color": colour, "capsize": 2, "elinewidth": 0.8, "markersize": 4, "lw": 1}
    style |= {"mfc": colour, "ls": "-"} if part == "lodi" else {"mfc": "white", "ls": ":"}
    error = np.nan_to_num(_array(y["error"]))
    place.errorbar(x, _array(y["ratio"]), error, marker="o", label=label, **style)


def _drawn(place: Any, truth: Numbers, x: Any, pick: Any) -> None:
    """Draw what all models have, and the draws' band behind it."""
    names = list(truth["models"])
    place.axhline(1, color=TRUTH, lw=0.9, ls="--")
    for name, part, row in _rows(truth):
        found = pick(row)
        if names.index(name) == 0 and part == "lodi" and "band" in found:
            band = _array(found["band"])
            place.fill_between(x, 1 - band, 1 + band, color="0.9", lw=0)
        _points(place, names.index(name), part, x, found, f"{name}, {PARTS[part]}")
    place.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)


def _power(figure: Figure, truth: Numbers) -> None:
    place, rows = figure.subplots(), list(_rows(truth))
    _drawn(place, truth, _array(rows[0][2]["k"]), lambda row: row["power"])
    place.set(xscale="log", xlabel=WAVENUMBER, ylabel=r"$P/P_\mathrm{draws}$")


def _correlation(figure: Figure, truth: Numbers) -> None:
    place, names, rows = figure.subplots(), list(truth["models"]), list(_rows(truth))
    k = _array(rows[0][2]["k"])
    for name, part, row in rows:
        y = {"ratio": row["r"]["value"], "error": row["r"]["error"]}
        _points(place, names.index(name), part, k, y, f"{name}, {PARTS[part]}")
    if (r := rows[0][2]["r"]["draws"]) is not None:
        place.plot(k, _array(r), color=TRUTH, ls="--", label="another draw")
    place.set(xscale="log", xlabel=WAVENUMBER, ylabel=r"$r(k)$  [1]", ylim=(None, 1.02))
    place.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)


def _onepoint(figure: Figure, truth: Numbers) -> None:
    place = figure.subplots()
    step = LOG_TB[1] - LOG_TB[0]
    x = np.concatenate([[LOG_TB[0] - step / 2], LOG_TB + step / 2])
    _drawn(place, truth, x, lambda row: row["onepoint"])
    label = r"$\log_{10}(T_b\,/\,\mathrm{mK})$, the ends with what lies beyond"
    place.set(xlabel=label, ylabel="share over the draws'", ylim=(0, 2.5))


def _bispectrum(figure: Figure, truth: Numbers) -> None:
    rows = [row for _, _, row in _rows(truth) if row["bispectrum"]]
    if not rows:
        figure.text(0.5, 0.5, "the box has too few modes for triangles", ha="center")
        return
    shapes = list(rows[0]["bispectrum"])
    places = figure.subplots(len(shapes), 1, sharex=True, squeeze=False)[:, 0]
    x = _array(rows[0]["triangles"])
    for place, shape in zip(places, shapes, strict=True):
        _drawn(place, truth, x, lambda row, shape=shape: row["bispectrum"][shape])
        place.set(xscale="log", ylabel=r"$B/B_\mathrm{draws}$" + f", {shape}")
        if place is not places[0]:
            place.get_legend().remove()
    places[-1].set_xlabel(r"longest side $k$  [$h/\mathrm{Mpc}$]")


FIGURES = (
    ("power", 3.6, _power),
    ("correlation", 3.6, _correlation),
    ("onepoint", 3.6, _onepoint),
    ("bispectrum", 5.4, _bispectrum),
)
