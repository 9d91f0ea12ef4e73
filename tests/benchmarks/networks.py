"""How good the trained networks are, on a simulation that no training saw: spectra, seams, haloes.

    python -m tests.benchmarks.networks TRUTH.zarr --catalogue CATALOGUE --out networks.json \\
        --markdown tests/benchmarks/NETWORKS.md

TRUTH.zarr has dm, halo and tb of the same simulation (bigbox ingest ... --halos .. --hi-halo).

- lodi: T_b painted on the true haloes; pipeline: on HALOgen's haloes, from dm alone. Both against
  the true T_b, over several realizations: P(k) as a ratio, and the correlation coefficient r(k).
  "another truth": the HI of the same haloes drawn again, which is what a perfect model gives.
- methods: the same weights with each overlap method, sampler and number of network calls. The seam
  ratio is that of log10(T_b + floor), over the same of the truth at the same places: 1 is no seam.
- haloes: HALOgen's log10 rho_h where the true one lies in a bin: median and 16-84 %.
- other: LODI of another --model on the true haloes, as a row named by --label.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.data import default_model
from bigbox.diffusion.overlap import tiling_for
from bigbox.ingest.sources import open_catalogue
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.lodi import LodiPainter
from bigbox.physics.brightness import brightness_temperature
from bigbox.physics.cosmology import Cosmology
from bigbox.physics.hi_halo import hi_points
from bigbox.physics.smoothing import gaussian_kernel, smooth_periodic
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.benchmarks.oracle import folded, paint_box, seam_ratio, seam_ratios
from tests.reference.cic import deposit
from tests.reference.spectra import pair_in_memory

K_EDGES = (0.4, 0.8, 1.3, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)  # h/Mpc
OTHERS = 1  # realizations of each row of the methods
OTHER = "trained alike: "
STRIDES = ((32, "tent"), (32, "flat"), (16, "tent"), (16, "flat"))  # the first is the default
DENSITIES = np.arange(9.5, 14.01, 0.5)
METHODS = (
    # overlap method, sampler, network calls
    ("independent", "dpmpp-sde", 12),
    ("overwrite", "ancestral", 50),
    ("overwrite", "dpmpp-sde", 12),
    *(("conditioned", "ancestral", calls) for calls in (50, 16)),
    *(("conditioned", "dpmpp", calls) for calls in (25, 12)),
    *(("conditioned", "dpmpp-sde", calls) for calls in (25, 16, 12, 8, 6)),
)


def another_truth(catalogue: Path, box: Box, seed: int) -> np.ndarray:
    """T_b (mK) of the same haloes, with other scatter and points: what a perfect model gives."""
    haloes = open_catalogue([catalogue])
    cosmology = Cosmology.from_header(box.attributes["cosmology"])
    hi = np.zeros(box.shape)
    for chunk in haloes.chunks():
        place, mass = haloes.read(chunk, box.shape[0])
        masses = mass.astype(np.float64) * haloes.header.mass
        index = chunk.first + np.arange(len(masses))
        centres = place * box.voxel
        points, weights = hi_points(index, centres, masses, box.redshift, cosmology, seed)
        deposit(hi, points, box.box_size, weights)
    smoothed = smooth_periodic(
        (hi / box.voxel**3).astype(np.float32),
        gaussian_kernel(float(box.array("tb").attrs["smoothing"]), box.voxel),
    )
    return np.asarray(brightness_temperature(smoothed, box.redshift, cosmology))


def spectra(painted: np.ndarray, truth: np.ndarray, size: float) -> dict[str, list[float]]:
    """P(k) of a painted box over the truth's, and r(k), in the bins of K_EDGES."""
    found = pair_in_memory(painted, truth, size, edges=np.array(K_EDGES))
    ratio = found.first.power / found.second.power
    return {"k": found.first.k.tolist(), "ratio": ratio.tolist(), "r": found.correlation.tolist()}


def mean_and_error(values: list[list[float]]) -> tuple[list[float], list[float]]:
    """Over realizations: mean, and scatter over the square root of their number."""
    v = np.array(values)
    error = v.std(0, ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.full(v.shape[1], np.nan)
    return v.mean(0).tolist(), error.tolist()


def measure(
    fields: Iterator[np.ndarray],
    truth: np.ndarray,
    size: float,
    floor: float,
    tiling: Tiling | None = None,
) -> dict[str, Any]:
    """Realizations (mK) against the truth; floor: of the logarithm that seams are judged by."""
    tiling = tiling or Tiling(truth.shape)
    seam_of_truth = seam_ratio(np.log10(truth + floor), tiling)
    axes_of_truth = np.array(seam_ratios(np.log10(truth + floor), tiling))
    flat = folded(np.log10(truth + floor), tiling)
    ratios, rs, seams, means, seconds, axes, profiles = [], [], [], [], [], [], []
    began = time.perf_counter()
    for field in fields:
        seconds.append(time.perf_counter() - began)
        found = spectra(field, truth, size)
        ratios.append(found["ratio"])
        rs.append(found["r"])
        seams.append([seam_ratio(np.log10(field + floor), tiling) / seam_of_truth])
        means.append([float(field.mean() / truth.mean())])
        axes.append(
            (np.array(seam_ratios(np.log10(field + floor), tiling)) / axes_of_truth).tolist()
        )
        profile = folded(np.log10(field + floor), tiling) / flat
        profiles.append((profile / profile.mean()).tolist())
        began = time.perf_counter()
    result: dict[str, Any] = {
        "k": found["k"],
        "seconds": float(np.mean(seconds)),
        "realizations": len(ratios),
    }
    for name, values in (
        ("ratio", ratios),
        ("r", rs),
        ("seam", seams),
        ("mean", means),
        ("axes", axes),
        ("folded", profiles),
    ):
        result[name], result[f"{name}_error"] = mean_and_error(values)
    return result


def realizations(painter: LodiPainter, halo: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """T_b painted on these haloes, again and again."""
    for realization in range(count):
        yield paint_box(replace(painter, realization=realization), tiling_of(painter), halo)


def tiling_of(painter: LodiPainter) -> Tiling:
    """The tiles of a painter's method; independent ones overlap as those that wait do."""
    method = painter.overlap_method
    return tiling_for("conditioned" if method == "independent" else method, painter.box_shape)


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


def table(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """P(k) over the truth's and r(k), a row a method, as Markdown."""
    k = rows[0][1]["k"]
    head = "| | seam | mean | s a box | " + " | ".join(f"k = {x:.1f}" for x in k) + " |"
    lines = [head, "|" + "---|" * (4 + len(k))]
    for name, row in rows:
        seam = f"{row['seam'][0]:.3f} ± {row['seam_error'][0]:.3f}"
        mean = f"{row['mean'][0]:.3f} ± {row['mean_error'][0]:.3f}"
        pairs = zip(row["ratio"], row["ratio_error"], row["r"], strict=True)
        cells = [f"{p:.2f}±{e:.2f} ({r:.2f})" for p, e, r in pairs]
        line = f"| {name} | {seam} | {mean} | {row['seconds']:.0f} | {' | '.join(cells)} |"
        # One realization has no error of its own: about twice that of the rows above.
        lines.append(line.replace(" ± nan", "").replace("±nan", ""))
    return lines


def seams(results: dict[str, Any]) -> list[str]:
    """Seams by axis, and the folded profile of the variance, as Markdown."""
    rows = [
        (name, row) for name, row in results.items() if "axes" in row and row["realizations"] > 1
    ]
    lines = ["## Seams", "", "| | x | y | z | variance by the distance from a core's edge |"]
    lines.append("|---|---|---|---|---|")
    for name, row in rows:
        cells = [f"{a:.3f} ± {e:.3f}" for a, e in zip(row["axes"], row["axes_error"], strict=True)]
        pairs = zip(row["folded"], row["folded_error"], strict=True)
        cells.append(" ".join(f"{v:.3f}±{e:.3f}" for v, e in pairs))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "Over the truth's at the same planes; log10(T_b + floor).", ""]


def markdown(results: dict[str, Any], truth: str, model: str) -> str:
    """The tables as they stand in NETWORKS.md."""
    lines = [
        "# The trained networks on a simulation that no training saw",
        "",
        f"Truth: {truth}, held out of all training. Model: {model}. Made by "
        "`python -m tests.benchmarks.networks` (its docstring tells what is measured).",
        "",
        "In each cell: P(k) of T_b over the truth's ± error of the mean over realizations, and in "
        "brackets the correlation coefficient r(k) with the truth; k in h/Mpc. Seam: 1 is none. "
        "What a perfect model would have is the row `another truth`, the HI of the same haloes "
        "drawn again; one simulation has few bright haloes, so its own draw lies off their mean. "
        "Rows without errors are one realization, and scatter by 0.1. Seconds are not to be "
        "compared: other work ran beside; `SPEED.md` has speeds.",
        "",
    ]
    groups: dict[str, tuple[str, ...]] = {
        "From true haloes, and from dark matter alone": (
            "another truth",
            "lodi, joint",
            "lodi, conditioned",
            "pipeline",
        ),
        "Overlap methods and samplers, the same weights, true haloes": tuple(
            f"{m} {s} {n}" for m, s, n in METHODS
        ),
    }
    for title, names in groups.items():
        rows = [(name, results[name]) for name in names if name in results]
        if rows:
            lines += [f"## {title}", "", *table(rows), ""]
    lines += seams(results)
    others = {name: row for name, row in results.items() if name.startswith(OTHER)}
    if others:
        lines += ["## Predicting noise (the paper) or v: r(k) after 400 steps of 8 tiles", ""]
        lines += ["| | P at the largest scale | r(k), k as above |", "|---|---|---|"]
        for name, row in others.items():
            r = ", ".join(f"{x:.2f}" for x in row["r"])
            lines.append(f"| {name.removeprefix(OTHER)} | {row['ratio'][0]:.2g} | {r} |")
        lines += [
            "",
            "Far too little training for either, and the same for both; noise with eq. 13, v with "
            "its own loss.",
            "",
        ]
    strides = [name for name in results if name.startswith("halogen ")]
    if strides:
        lines += ["## HALOgen: stride and weighting of its windows", ""]
        head = "| stride, weighting | s a box | rms error of log10 rho_h, by channel |"
        lines += [head + " mass over the true, by channel |", "|---|---|---|---|"]
        for name in strides:
            row = results[name]
            rms = ", ".join(f"{x:.3f}" for x in row["rms"])
            mass = ", ".join(f"{x:.2f}" for x in row["mass"])
            lines.append(f"| {name[8:]} | {row['seconds']:.0f} | {rms} | {mass} |")
        lines.append("")
    if "haloes" in results:
        lines += [
            "## HALOgen: predicted log10 rho_h where the true one lies in a bin",
            "",
            "Median (16 % to 84 %), of the densities in (M_sun/h)/(Mpc/h)^3; the cut at 9.5 is "
            "shown as 9.0.",
            "",
            "| true | " + " | ".join(f"channel {c}" for c in range(4)) + " |",
            "|---|---|---|---|---|",
        ]
        for low, high in zip(DENSITIES[:-1], DENSITIES[1:], strict=True):
            cells = []
            for channel in results["haloes"]:
                row = next((r for r in channel if r["low"] == low), None)
                cells.append(
                    f"{row['p50']:.2f} ({row['p16']:.2f} to {row['p84']:.2f})" if row else "-"
                )
            lines.append(f"| {low:.1f} to {high:.1f} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write; each part goes to the file as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path)
    parser.add_argument("--model", type=Path, help="default: the one that bigbox ships")
    parser.add_argument("--catalogue", type=Path, help="of the truth, for other draws of its HI")
    parser.add_argument("--realizations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS[DEFAULT_SAMPLER])
    parser.add_argument(
        "--parts", nargs="*", default=["truth", "lodi", "halogen", "pipeline", "methods"]
    )
    parser.add_argument("--out", type=Path, default=Path("networks.json"), help="goes on from it")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--label", default="another model", help="of the part `other`")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = options.model or default_model()
    box = Box.open(options.truth)
    dm, halo, tb = (np.asarray(box.array(name)[...]) for name in ("dm", "halo", "tb"))
    size, parts = box.box_size[0], set(options.parts)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}

    def keep(name: str, value: Any) -> None:
        results[name] = value
        options.out.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(value)[:1500], flush=True)

    lodi = LodiPainter(
        seed=7,
        box_shape=box.shape,
        steps=options.steps,
        threads=options.threads,
        model=load_model(folder, "lodi"),
    )
    floor = lodi.model.transform("tb").floor
    if "truth" in parts and options.catalogue:
        draws = (another_truth(options.catalogue, box, s) for s in range(options.realizations))
        keep("another truth", measure(draws, tb, size, floor))
    predicted = halo
    if {"halogen", "pipeline"} & parts:
        model = load_model(folder, "halogen")
        for stride, weighting in STRIDES if "halogen" in parts else STRIDES[:1]:
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
            if (stride, weighting) == STRIDES[0]:
                keep("haloes", halo_percentiles(found, halo))
                predicted = found
    count = options.realizations
    if "lodi" in parts:
        for method in ("joint", "conditioned"):
            painter = replace(lodi, overlap_method=method)
            fields, tiling = realizations(painter, halo, count), tiling_of(painter)
            keep(f"lodi, {method}", measure(fields, tb, size, floor, tiling))
    if "pipeline" in parts:
        keep(
            "pipeline",
            measure(realizations(lodi, predicted, count), tb, size, floor, tiling_of(lodi)),
        )
    if "other" in parts:
        for sampler in ("ancestral", DEFAULT_SAMPLER):
            steps = DEFAULT_STEPS[sampler]
            painter = replace(lodi, sampler=sampler, steps=steps)
            fields = realizations(painter, halo, 1)
            keep(f"{OTHER}{options.label} {sampler} {steps}", measure(fields, tb, size, floor))
    if "methods" in parts:
        for method, sampler, steps in METHODS:
            name = f"{method} {sampler} {steps}"
            painter = replace(lodi, overlap_method=method, sampler=sampler, steps=steps)
            if name not in results:
                keep(
                    name,
                    measure(
                        realizations(painter, halo, OTHERS), tb, size, floor, tiling_of(painter)
                    ),
                )
    if options.markdown:
        model = str(options.model) if options.model else "the one that bigbox ships"
        truth = f"{options.truth.stem}, {size:g} Mpc/h, {box.shape[0]}³, z = {box.redshift:g}"
        options.markdown.write_text(markdown(results, truth, model))


if __name__ == "__main__":
    main()
