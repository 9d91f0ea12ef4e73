"""What overlap methods, samplers and windows make of the same weights, on a simulation held out.

    python -m tests.benchmarks.networks TRUTH.zarr --catalogue CATALOGUE --out networks

How good a model is `bigbox evaluate` measures. Here the same numbers are taken again and again:

- methods: on true haloes with each overlap method, sampler and number of network calls.
- strides: HALOgen with each stride and weighting of its windows.
- bins: HALOgen's log10 rho_h where the true one lies in a bin: median and 16-84 %.

OUT gets networks.json and networks.md; each part goes there as it is done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.analysis.halo_mass import HALO_FLOOR
from bigbox.analysis.report.fields import open_field
from bigbox.analysis.spectra.modes import jsonable
from bigbox.evaluation.measure import Numbers
from bigbox.evaluation.run import EvaluateOptions, Paintings, measures_of
from bigbox.evaluation.summary import summarise
from bigbox.evaluation.truth import make_draws, open_truths
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.models import SHIPPED, named_model
from bigbox.scheduler.tiling import Tiling

MEMORY = 1 << 28
DENSITIES = np.arange(9.5, 14.01, 0.5)
STRIDES = ((48, "tent"), (32, "tent"), (32, "flat"), (16, "tent"), (16, "flat"))
METHODS = (
    # overlap method, sampler, network calls; the first is the default
    *(("joint", "dpmpp-sde", calls) for calls in (12, 8, 6, 16)),
    ("joint", "dpmpp", 12),
    ("joint", "ancestral", 50),
    ("independent", "dpmpp-sde", 12),
    ("overwrite", "dpmpp-sde", 12),
    ("overwrite", "ancestral", 50),
)


def halo_percentiles(predicted: np.ndarray, truth: np.ndarray) -> list[list[dict[str, float]]]:
    """By channel and bin of true density: voxels, 16, 50, 84 % of the predicted log10 rho_h."""
    result = []
    for channel in range(4):
        logs = [np.log10(np.maximum(f[channel], HALO_FLOOR)) for f in (predicted, truth)]
        rows = []
        for low, high in zip(DENSITIES[:-1], DENSITIES[1:], strict=True):
            inside = logs[0][(logs[1] >= low) & (logs[1] < high)]
            if len(inside) >= 20:
                p = np.percentile(inside, [16, 50, 84])
                row = {"low": low, "high": high, "voxels": len(inside)}
                rows.append(row | {"p16": p[0], "p50": p[1], "p84": p[2]})
        result.append(rows)
    return result


def methods_table(rows: dict[str, Any]) -> list[str]:
    """P(k) over the draws' and r(k), a row a method, as Markdown."""
    k = next(iter(rows.values()))["k"]
    lines = ["| | seam | mean | s a box | " + " | ".join(f"k = {x:.1f}" for x in k) + " |"]
    lines.append("|" + "---|" * (4 + len(k)))
    for name, row in rows.items():
        pairs = zip(row["power"]["ratio"], row["power"]["error"], row["r"]["value"], strict=True)
        cells = [f"{p:.2f}±{e or 0:.2f} ({r:.2f})" for p, e, r in pairs]
        start = f"{row['seams']['ratio'][-1]:.3f} | {row['mean']['ratio']:.3f}"
        lines.append(f"| {name} | {start} | {row['seconds']:.0f} | {' | '.join(cells)} |")
    return lines


def strides_table(rows: dict[str, Any]) -> list[str]:
    """HALOgen's windows, as Markdown."""
    lines = ["| stride, weighting | s a box | rms of log10 rho_h | mass over the true |"]
    lines.append("|---|---|---|---|")
    for name, row in rows.items():
        rms = ", ".join(f"{x:.3f}" for x in row["rms"])
        mass = ", ".join(f"{x:.2f}" for x in row["mass"])
        lines.append(f"| {name} | {row['seconds']:.0f} | {rms} | {mass} |")
    return lines


def bins_table(channels: list[list[dict[str, float]]]) -> list[str]:
    """Predicted densities where the true one lies in a bin, as Markdown."""
    lines = ["| true | " + " | ".join(f"channel {c}" for c in range(4)) + " |"]
    lines.append("|---|---|---|---|---|")
    for low, high in zip(DENSITIES[:-1], DENSITIES[1:], strict=True):
        cells = []
        for channel in channels:
            row = next((r for r in channel if r["low"] == low), None)
            cells.append(f"{row['p50']:.2f} ({row['p16']:.2f} to {row['p84']:.2f})" if row else "-")
        lines.append(f"| {low:.1f} to {high:.1f} | {' | '.join(cells)} |")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """The tables of the parts that are done."""
    lines: list[str] = []
    for name, title, table in (
        ("methods", "Overlap methods and samplers, the same weights, true haloes", methods_table),
        ("strides", "HALOgen: stride and weighting of its windows", strides_table),
        ("bins", "HALOgen: predicted log10 rho_h where the true one lies in a bin", bins_table),
    ):
        if results.get(name):
            lines += [f"## {title}", "", *table(results[name]), ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write; each row goes to the file as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path)
    parser.add_argument("--model", type=Path, default=Path(SHIPPED))
    parser.add_argument("--catalogue", type=Path, help="of the truth, for other draws of its HI")
    parser.add_argument("--realizations", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="*", default=["methods", "strides"])
    parser.add_argument("--out", type=Path, default=Path("networks"), help="goes on from it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, out = named_model(options.model), options.out
    (simulation,) = open_truths([options.truth])
    (out / "boxes").mkdir(parents=True, exist_ok=True)
    place = out / "networks.json"
    results: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}

    def keep(part: str, name: str, value: Any) -> None:
        results.setdefault(part, {})[name] = jsonable(value)
        place.write_text(json.dumps(results, indent=1))
        (out / "networks.md").write_text(markdown(results))
        print(part, name, flush=True)

    if "methods" in options.parts:
        if options.catalogue:
            make_draws(simulation, options.catalogue, options.draws, out / "boxes")
        drawn: dict[Tiling, list[Numbers]] = {}
        for method, sampler, steps in METHODS:
            how = {"overlap_method": method, "sampler": sampler, "steps": steps}
            asked = EvaluateOptions(
                [model], [options.truth], out, options.realizations,
                how=how | {"threads": options.threads}, memory=MEMORY,
            )  # fmt: skip
            measures = measures_of(model, simulation, asked)
            work = Paintings(model, simulation, "lodi", out / "boxes", asked)
            name = f"{method} {sampler} {steps}"
            if name not in results.get("methods", {}):
                painted = list(work.measured(measures, name))
                if measures.tiling not in drawn:  # where seams are looked for
                    fields = [open_field(one.path) for one in simulation.draws]
                    drawn[measures.tiling] = [measures.of(field) for field in fields]
                keep("methods", name, summarise(painted, drawn[measures.tiling], measures))
    if "strides" in options.parts:
        trained = load_model(model.folder, "halogen")
        dm, halo = (np.asarray(simulation.box.array(name)[...]) for name in ("dm", "halo"))
        for stride, weighting in STRIDES:
            painter = HalogenPainter(trained, stride=stride, weighting=weighting)
            began = time.perf_counter()
            found = paint_haloes(painter, dm)
            every = (slice(None), *(slice(None, None, painter.grid),) * 3)
            pairs = list(zip(found, halo[every], strict=True))
            logs = [[np.log10(np.maximum(one, HALO_FLOOR)) for one in pair] for pair in pairs]
            row = {
                "seconds": time.perf_counter() - began,
                "rms": [float(np.sqrt(((a - b) ** 2).mean())) for a, b in logs],
                "mass": [float(a.sum(dtype=float) / b.sum(dtype=float)) for a, b in pairs],
            }
            keep("strides", f"{stride} {weighting}", row)
            if (stride, weighting) == STRIDES[0]:
                results["bins"] = jsonable(halo_percentiles(found, halo[every]))


if __name__ == "__main__":
    main()
