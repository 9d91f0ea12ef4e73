"""The plot of a training: loss and validation loss against the step."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_curve(table: Path, picture: Path) -> None:
    """Draw the curves of a CSV table (step, rate, training, validation) as a PNG."""
    from matplotlib.figure import Figure

    with table.open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in rows]
    for name in ("training", "validation"):
        axes.plot(steps, [row[name] for row in rows], label=name)
    if all(row[n] > 0 for row in rows for n in ("training", "validation")):
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss")
    axes.legend()
    rates = axes.twinx()
    rates.plot(steps, [row["rate"] for row in rows], color="0.7", lw=1)
    rates.set_ylabel("learning rate (grey)")
    figure.savefig(picture, dpi=120)
