"""Write the pages of `bigbox cosmoflow`: numbers.json, the figures, and one HTML page of both."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bigbox import __version__
from bigbox.analysis.report.figures import sheet
from bigbox.analysis.report.page import Table, render
from bigbox.cosmoflow import figures

Numbers = dict[str, Any]
ESTIMATORS = {"summary": "summary", "spectrum": "P(k)", "maps": "ResNet-18"}


@dataclass
class Part:
    """Hold a section of a page: words, a table, and figures."""

    title: str
    words: str = ""
    table: Table = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)  # name, title, caption


class Page:
    """Draw the figures of a page one after the other, and write it in the end."""

    def __init__(self, out: Path, command: str, numbers: Numbers, made_of: Numbers):
        self.out, self.command = out, command
        self.numbers = {k: v for k, v in numbers.items() if k != "images"}
        self.numbers |= {"bigbox": __version__, "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        self.numbers["of"] = made_of
        self.parts: list[Part] = []

    def draw(
        self,
        part: Part,
        name: str,
        size: tuple[float, float],
        how: Callable[..., None],
        *what: Any,
        caption: str,
    ) -> None:
        """Draw a figure of a part; size: width and height in inches."""
        with sheet(self.out / f"{name}.png", size[1], size[0]) as figure:
            _drawn(figure, how, what)
        part.figures.append((name, part.title, caption))

    def write(self, title: str, headline: str, notes: list[str]) -> None:
        """Write numbers.json and index.html."""
        text = json.dumps(self.numbers, indent=1)
        (self.out / "numbers.json").write_text(text + "\n", encoding="utf-8")
        page = render(
            Path(__file__).with_suffix(".html"),
            self.out,
            command=f"cosmoflow {self.command}",
            numbers=self.numbers,
            title=title,
            headline=headline,
            notes=notes,
            parts=self.parts,
            drawn=[name for part in self.parts for name, _, _ in part.figures],
            made_of=[["", ""], *([name, str(value)] for name, value in self.numbers["of"].items())],
            json=b64encode(text.encode()).decode(),
        )
        (self.out / "index.html").write_text(page, encoding="utf-8")


def _drawn(figure: Figure, how: Callable[..., None], what: tuple[Any, ...]) -> None:
    how(figure, *what)


def evaluation(out: Path, found: Numbers, made_of: Numbers) -> None:
    """Write the page of `evaluate`."""
    page = Page(out, "evaluate", found, made_of)
    part = Part("Maps", f"{found['maps']} maps of {found['simulations']} simulations of the test.")
    images = {figures.NAMES[name]: some for name, some in found["images"].items()}
    size = (2.6 * len(images) + 0.8, 4.9)
    page.draw(part, "maps", size, figures.maps, images, found["side"], caption="Truth and decoded.")
    page.parts.append(part)
    part = Part(
        "Power and correlation",
        "P(k) of the density, the mean of all maps over that of the truths, ± the scatter of the "
        "mean by a bootstrap over the maps; r(k), the mean over the maps.",
        power_table(found),
    )
    caption = "Grey: 10 %. Dotted: half the Nyquist frequency."
    page.draw(part, "power", (4.8, 5.2), figures.ratio, found, caption=caption)
    caption = "At 0.1, 1, 10, 50, 90, 99 and 99.9 % of the pixels."
    page.draw(part, "onepoint", (4.8, 3.6), figures.onepoint, found, caption=caption)
    page.parts.append(part)
    rows = [["asked", "found", "allowed", ""]]
    for one in found["checks"]:
        word = "kept" if one["kept"] else "missed"
        rows.append([one["name"], one["found"], one["allowed"], word])
    words = f"Velocity error of the test's maps: {found['velocity error']:.3f}."
    page.parts.append(Part("Checks", words, rows))
    how = f"{found['solver']}, {found['calls']} calls a map"
    page.write("CosmoFlow", f"Decoded maps against the truth; {how}", [])


def power_table(found: Numbers, count: int = 9) -> list[list[str]]:
    """Return P over the truth's and r, at some wave numbers."""
    k = np.array(next(iter(found["models"].values()))["k"])
    at = np.unique(np.geomspace(1, len(k), count).round().astype(int)) - 1
    table = [["P / truth (r)", *(f"k = {one:.2f}" for one in k[at])]]
    for name, one in found["models"].items():
        cells = [f"{one['ratio'][i]:.2f} ± {one['error'][i]:.2f} ({one['r'][i]:.2f})" for i in at]
        table.append([figures.NAMES[name], *cells])
    return table


def inference(out: Path, found: Numbers, made_of: Numbers) -> None:
    """Write the page of `infer`."""
    page = Page(out, "infer", found, made_of)
    rows = found["estimators"]
    names = {name: text for name, text in ESTIMATORS.items() if name in rows}
    part = Part(
        "Errors",
        "Mean relative errors on maps of simulations that neither the model nor an estimator has "
        "seen, ± the scatter over seeds.",
        inference_table(found),
    )
    page.draw(part, "errors", (4.8, 3.6), figures.inferred, rows, names, caption="By estimator.")
    page.parts.append(part)
    maps = ", ".join(f"{count} for {name}" for name, count in found["maps"].items())
    page.write("Omega_m and sigma8", f"Maps: {maps}", [])


def inference_table(found: Numbers) -> list[list[str]]:
    """Return a row for each estimator."""
    table = [["from", "numbers a map", "seeds", "Omega_m", "sigma8"]]
    for name, text in ESTIMATORS.items():
        if name in found["estimators"]:
            one = found["estimators"][name]
            cells = [
                f"{100 * one[p]['error']:.2f} ± {100 * one[p]['scatter']:.2f} %"
                for p in ("Omega_m", "sigma8")
            ]
            table.append([text, str(one["numbers"]), str(len(one["seeds"])), *cells])
    return table


def interpolation(out: Path, found: Numbers, made_of: Numbers) -> None:
    """Write the page of `interpolate`."""
    page = Page(out, "interpolate", found, made_of)
    part = Part(
        "Change of P(k) by channel",
        f"{found['pairs']} pairs of maps of different simulations. One channel of the first map's "
        "latent becomes the second's, the others stay, the noise is the same. rms over the pairs "
        "of the change of ln P(k).",
        channel_table(found),
    )
    caption = "Above: the change. Below: each over its largest."
    page.draw(part, "channels", (4.8, 5.4), figures.channels, found, caption=caption)
    images = {"first": [found["images"][0]]}
    images |= {f"channel {i}": [one] for i, one in enumerate(found["images"][1:])}
    size = (1.9 * len(images) + 0.8, 2.4)
    caption = "The first pair: one channel exchanged."
    page.draw(part, "maps", size, figures.maps, images, found["side"], caption=caption)
    page.parts.append(part)
    page.write("Channel by channel", "What each channel of the latent decides", [])


def channel_table(found: Numbers) -> list[list[str]]:
    """Return where each channel acts."""
    table = [["channel", "a quarter of its change below k", "half", "three quarters", "of all"]]
    for at, one in enumerate(found["channels"]):
        cells = [f"{k:.2f} h/Mpc" for k in one["range"]]
        table.append([str(at), *cells, f"{100 * one['of all']:.0f} %"])
    return table


def anomaly(out: Path, found: Numbers, made_of: Numbers) -> None:
    """Write the page of `anomaly`."""
    page = Page(out, "anomaly", found, made_of)
    rows = [["score", "area under the curve"]]
    rows += [[name, f"{one['area']:.3f}"] for name, one in found["scores"].items()]
    part = Part(
        "Scores",
        "The share of pairs in which the strange map has the higher score: 0.5 is chance, 0 and 1 "
        "tell all.",
        rows,
    )
    page.draw(part, "scores", (7.2, 2.6), figures.scores, found, caption="Distributions.")
    caption = "Dotted: what the model makes of the maps."
    page.draw(part, "spectra", (4.8, 3.6), figures.strange_spectra, found, caption=caption)
    page.parts.append(part)
    counts = ", ".join(f"{count} {name}" for name, count in found["maps"].items())
    page.write("Strange maps", f"Maps: {counts}", [])
