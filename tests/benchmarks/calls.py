"""What network calls buy: error of P(k) and seams against their number, exact and trained.

    python -m tests.benchmarks.calls oracle.json networks/networks.json --out calls.png

oracle.json, networks.json: as python -m tests.benchmarks.oracle and .networks leave them; the rows
of the default overlap method. The error of P(k) is the root mean square, over bins of k, of painted
over wanted less 1; what is wanted is the exact spectrum for the exact denoiser, and the mean of
draws of the truth's HI for the trained networks. Sampler and number of calls were chosen from the
exact denoiser's curve and the trained networks' seams.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from bigbox.names import DEFAULT_OVERLAP_METHOD, DEFAULT_SAMPLER, DEFAULT_STEPS, SAMPLERS
from bigbox.scheduler.tiling import Tiling
from tests.benchmarks.oracle import COUNTS, summary

Points = list[tuple[int, float, float]]  # calls, error of P(k), seam ratio


def exact(results: list[dict[str, Any]]) -> dict[str, Points]:
    """Of the exact denoiser, by sampler."""
    tiling = Tiling((28 * COUNTS,) * 3, tile=32, overlap=4)
    points: dict[str, Points] = {}
    for row in summary(results, tiling)["rows"]:
        method, _, sampler = row["title"].partition(", ")
        if method == DEFAULT_OVERLAP_METHOD and sampler in SAMPLERS:
            error = np.sqrt(np.mean((np.array(row["power"]) - 1) ** 2))
            points.setdefault(sampler, []).append((row["calls"], float(error), row["seam"]))
    return points


def trained(results: dict[str, Any]) -> dict[str, Points]:
    """Of the trained networks, by sampler."""
    points: dict[str, Points] = {}
    for name, row in results["methods"].items():
        method, sampler, calls = name.split()
        if method == DEFAULT_OVERLAP_METHOD:
            error = np.sqrt(np.mean((np.array(row["power"]["ratio"]) - 1) ** 2))
            points.setdefault(sampler, []).append(
                (int(calls), float(error), row["seams"]["ratio"][-1])
            )
    return points


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("oracle", type=Path)
    parser.add_argument("networks", type=Path)
    parser.add_argument("--out", type=Path, default=Path("calls.png"))
    options = parser.parse_args(arguments)
    both = {
        "exact denoiser": exact(json.loads(options.oracle.read_text())),
        "trained networks": trained(json.loads(options.networks.read_text())),
    }
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    for column, (title, by_sampler) in enumerate(both.items()):
        for sampler, points in by_sampler.items():
            calls, error, seam = zip(*sorted(points), strict=True)
            style = "o-" if sampler == DEFAULT_SAMPLER else "o--"
            panels[0, column].loglog(calls, error, style, label=sampler)
            panels[1, column].semilogx(calls, seam, style, label=sampler)
        panels[0, column].set_title(title)
        panels[0, column].legend()
        panels[1, column].set_xlabel("network calls a tile")
        panels[1, column].axhline(1.0, color="grey", lw=0.8)
        for panel in panels[:, column]:
            panel.axvline(DEFAULT_STEPS[DEFAULT_SAMPLER], color="grey", lw=0.8, ls=":")
            panel.set_xticks([4, 6, 8, 12, 16, 25, 50], [4, 6, 8, 12, 16, 25, 50], minor=False)
            panel.minorticks_off()
    panels[0, 0].set_ylabel("error of P(k), rms over k")
    panels[1, 0].set_ylabel("seam ratio (1: none)")
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
