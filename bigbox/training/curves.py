"""Plot a training: loss and validation loss against the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def plot_curve(table: Path, picture: Path) -> None:
    """Draw the curves of a CSV table (step, rate, training, validation) as a PNG."""
    from matplotlib.figure import Figure

    curve = np.atleast_1d(np.genfromtxt(table, delimiter=",", names=True))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("training", "validation"):
        axes.plot(curve["step"], curve[name], label=name)
    if (curve["training"] > 0).all() and (curve["validation"] > 0).all():
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss")
    axes.legend()
    rates = axes.twinx()
    rates.plot(curve["step"], curve["rate"], color="0.7", lw=1)
    rates.set_ylabel("learning rate (grey)")
    figure.savefig(picture, dpi=120)
