"""Keep the curve of a training as a table, and draw it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIRST = ("step", "rate", "training", "validation")  # what is measured more comes after


@dataclass(frozen=True)
class Curve:
    """Hold a CSV table with a row for each validation: FIRST, and further columns of errors."""

    path: Path

    def rows(self) -> list[dict[str, float]]:
        """Return the rows, without what was not measured."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    def begin_after(self, step: int) -> None:
        """Drop what a training that goes on from `step` will write again."""
        kept = [row for row in self.rows() if 0 < step >= row["step"]]
        self.path.unlink(missing_ok=True)
        for row in kept:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Add a row; all have the columns of the first, but some may be left out."""
        names = self._names() or [*FIRST, *(name for name in row if name not in FIRST)]
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(names)
            writer.writerow([f"{row[name]:.10g}" if name in row else "" for name in names])

    def _names(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])

    def plot(self, picture: Path) -> None:
        """Draw the loss, the validation, and the errors that were measured, side by side.

        The learning rate has a strip of its own below.
        """
        from bigbox.analysis.report.style import sheet

        rows = self.rows()
        panels = [("training", ["training"]), ("validation", ["validation"])]
        if more := [name for name in self._names() if name not in FIRST]:
            panels.append(("error in validation", more))
        with sheet(picture, 4.4, 4.0 * len(panels)) as figure:
            tops, strips = figure.subplots(
                2, len(panels), height_ratios=(4, 1), sharex=True, squeeze=False
            )
            for place, (title, names) in zip(tops, panels, strict=True):
                self._panel(place, rows, names)
                place.set_title(title)
            for place in strips:
                self._panel(place, rows, ["rate"], color="0.4")
                place.set_xlabel("optimiser step")
            strips[0].set_ylabel("rate")

    @staticmethod
    def _panel(place: Any, rows: list[dict[str, float]], names: list[str], **style: Any) -> None:
        from matplotlib import colormaps

        values = [[(row["step"], row[name]) for row in rows if name in row] for name in names]
        for at, (name, points) in enumerate(zip(names, values, strict=True)):
            # From dark to light: noise levels and channels are in an order.
            colour = colormaps["cividis"](0.9 * at / max(1, len(names) - 1))
            own = {"color": colour, "lw": 1.2, "label": name} | style
            place.plot(*zip(*points, strict=True), ".-", **own)
        # Validation may be a logarithm, which no logarithmic axis shows.
        if any(values) and all(value > 0 for points in values for _, value in points):
            place.set_yscale("log")
        if len(names) > 1:
            place.legend(ncols=2, loc="best", fontsize=8)
