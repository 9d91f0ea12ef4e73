"""Give all figures of reports one look: colours, marks, sizes, error bars, legends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

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


@contextmanager
def sheet(out: Path, height: float, width: float = WIDTH, **style: Any) -> Iterator[Figure]:
    """Give an empty figure, inches, that is saved in the end."""
    with matplotlib.rc_context(STYLE | style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(out, dpi=DPI)


def points(place: Any, at: int, x: Any, y: Any, error: Any, line: str = "", **style: Any) -> None:
    """Draw values with error bars, in the colour and mark of number `at`."""
    place.errorbar(x, y, error, fmt=MARKS[at] + line, color=COLOURS[at], **style)


def legend_above(place: Any) -> None:
    """Put the legend above the panel, where it covers nothing."""
    spacing = {"borderaxespad": 0.2, "columnspacing": 1, "handletextpad": 0.4}
    place.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, **spacing)
