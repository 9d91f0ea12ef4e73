"""Keep the curve of a training as a table, and draw it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

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
        """Draw the loss, the validation, and the errors that were measured, side by side."""
        from matplotlib.figure import Figure

        rows = self.rows()
        panels = [("training", ["training"]), ("validation", ["validation"])]
        if more := [name for name in self._names() if name not in FIRST]:
            panels.append(("error in validation", more))
        figure = Figure(figsize=(4.5 * len(panels), 4), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            values = [[(row["step"], row[name]) for row in rows if name in row] for name in names]
            for name, points in zip(names, values, strict=True):
                axes.plot(*zip(*points, strict=True), ".-", label=name)
            axes.set(xlabel="optimiser step", title=title)
            # Validation may be a logarithm, which no logarithmic axis shows.
            if any(values) and all(value > 0 for points in values for _, value in points):
                axes.set_yscale("log")
            if len(names) > 1:
                axes.legend(fontsize="small")
        figure.savefig(picture, dpi=120)
