"""How good the trained networks are, on a simulation that no training saw: spectra, seams, haloes.

    python -m tests.benchmarks.networks TRUTH.zarr --model MODEL --out networks.json \\
        --markdown tests/benchmarks/NETWORKS.md

TRUTH.zarr has dm, halo and tb of the same simulation (bigbox ingest ... --halos .. --hi-halo).

- lodi: T_b painted on the true haloes; pipeline: on HALOgen's haloes, from dm alone. Both against
  the true T_b, over several realizations: P(k) as a ratio, and the correlation coefficient r(k).
  One realization of a perfect model would scatter around 1 too: the truth is one draw of the law.
- methods: the same weights with each overlap method, sampler and number of network calls. The seam
  ratio is that of log10(T_b + floor), over the same of the truth at the same places: 1 is no seam.
- haloes: HALOgen's log10 rho_h where the true one lies in a bin: median and 16-84 %.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.analysis.power import pair
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.lodi import LodiPainter
from bigbox.store.box import Box
from scheduler.tiling import Tiling
from tests.benchmarks.oracle import paint_box, seam_ratio

K_EDGES = (0.4, 0.8, 1.3, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)  # h/Mpc
DENSITIES = np.arange(9.5, 14.01, 0.5)
METHODS = (
    # overlap method, sampler, network calls
    ("independent", "dpmpp", 25),
    ("overwrite", "ancestral", 50),
    ("overwrite", "dpmpp", 25),
    ("conditioned", "ancestral", 50),
    ("conditioned", "dpmpp", 8),
    ("conditioned", "dpmpp", 12),
    ("conditioned", "dpmpp", 16),
    ("conditioned", "dpmpp", 25),
    ("conditioned", "dpmpp", 50),
)


def spectra(painted: np.ndarray, truth: np.ndarray, size: float) -> dict[str, list[float]]:
    """P(k) of a painted box over the truth's, and r(k), in the bins of K_EDGES."""
    found = pair(painted, truth, size, edges=np.array(K_EDGES))
    ratio = found.first.power / found.second.power
    return {"k": found.first.k.tolist(), "ratio": ratio.tolist(), "r": found.correlation.tolist()}


def mean_and_error(values: list[list[float]]) -> tuple[list[float], list[float]]:
    """Over realizations: mean, and scatter over the square root of their number."""
    v = np.array(values)
    error = v.std(0, ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.full(v.shape[1], np.nan)
    return v.mean(0).tolist(), error.tolist()


def measure(
    painter: LodiPainter, halo: np.ndarray, truth: np.ndarray, size: float, realizations: int
) -> dict[str, Any]:
    """Several realizations on the same haloes, against the truth."""
    tiling = Tiling(truth.shape)
    log = lambda field: np.log10(field + painter.tb_log.floor)  # noqa: E731
    seam_of_truth = seam_ratio(log(truth), tiling)
    ratios, rs, seams, means = [], [], [], []
    began = time.perf_counter()
    for realization in range(realizations):
        field = paint_box(replace(painter, realization=realization), tiling, halo)
        found = spectra(field, truth, size)
        ratios.append(found["ratio"])
        rs.append(found["r"])
        seams.append([seam_ratio(log(field), tiling) / seam_of_truth])
        means.append([float(field.mean() / truth.mean())])
    seconds = (time.perf_counter() - began) / realizations
    result: dict[str, Any] = {"k": found["k"], "seconds": seconds, "realizations": realizations}
    for name, values in (("ratio", ratios), ("r", rs), ("seam", seams), ("mean", means)):
        result[name], result[f"{name}_error"] = mean_and_error(values)
    return result


def halo_percentiles(predicted: np.ndarray, truth: np.ndarray) -> list[list[dict[str, float]]]:
    """By channel and bin of true density: voxels, 16, 50, 84 % of the predicted log10 rho_h."""
    result = []
    for channel in range(4):
        logs = [np.log10(np.maximum(f[channel], 10**9.0)) for f in (predicted, truth)]
        rows = []
        for low, high in zip(DENSITIES[:-1], DENSITIES[1:], strict=True):
            inside = logs[0][(logs[1] >= low) & (logs[1] < high)]
            if len(inside) >= 20:
                p = np.percentile(inside, [16, 50, 84])
                row = {"low": low, "high": high, "voxels": len(inside)}
                rows.append(row | {"p16": p[0], "p50": p[1], "p84": p[2]})
        result.append(rows)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure and write; each part goes to the file as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--realizations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--parts", nargs="*", default=["lodi", "halogen", "pipeline", "methods"])
    parser.add_argument("--out", type=Path, default=Path("networks.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    box = Box.open(options.truth)
    dm, halo, tb = (np.asarray(box.array(name)[...]) for name in ("dm", "halo", "tb"))
    size = box.box_size[0]
    results = json.loads(options.out.read_text()) if options.out.exists() else {}

    def keep(name: str, value: Any) -> None:
        results[name] = value
        options.out.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(value)[:2000], flush=True)

    predicted = halo
    if {"halogen", "pipeline"} & set(options.parts):
        model = load_model(options.model, "halogen")
        for stride, weighting in ((16, "flat"), (32, "flat"), (32, "tent"), (16, "tent")):
            painter = HalogenPainter(model, stride, weighting, threads=options.threads)
            began = time.perf_counter()
            found = paint_haloes(painter, dm)
            seconds = time.perf_counter() - began
            logs = [np.log10(np.maximum(f, 10**9.0)) for f in (found, halo)]
            rms = [float(np.sqrt(((a - b) ** 2).mean())) for a, b in zip(*logs, strict=True)]
            mass = [float(a.sum() / b.sum()) for a, b in zip(found, halo, strict=True)]
            channels = [spectra(a, b, size) for a, b in zip(found, halo, strict=True)]
            row = {"seconds": seconds, "rms": rms, "mass": mass, "spectra": channels}
            keep(f"halogen {stride} {weighting}", row)
            if (stride, weighting) == (16, "flat"):
                keep("haloes", halo_percentiles(found, halo))
                predicted = found
    if set(options.parts) == {"halogen"}:
        return
    lodi = LodiPainter(
        seed=7,
        box_shape=box.shape,
        steps=options.steps,
        threads=options.threads,
        model=load_model(options.model, "lodi"),
    )
    if "lodi" in options.parts:
        keep("lodi", measure(lodi, halo, tb, size, options.realizations))
    if "pipeline" in options.parts:
        keep("pipeline", measure(lodi, predicted, tb, size, options.realizations))
    if "methods" in options.parts:
        for method, sampler, steps in METHODS:
            painter = replace(lodi, overlap_method=method, sampler=sampler, steps=steps)
            keep(f"{method} {sampler} {steps}", measure(painter, halo, tb, size, 2))


if __name__ == "__main__":
    main()
