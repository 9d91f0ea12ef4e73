"""How fast bigbox paints: against the paper's recipe, against itself without the engine, and how
exact the fast path is. Made into one table.

    python -m tests.benchmarks.speed TRUTH.zarr --markdown tests/benchmarks/SPEED.md

TRUTH.zarr has dm and tb of one simulation (networks.py tells of it). Every part uses all cores: the
reference through torch's threads, bigbox with one rank a core. Nothing here is asserted.

- reference, bigbox: dm to T_b, in seconds and tiles a second, with P(k) over the truth's and seams.
- bench: `bigbox bench`: the networks against the ceilings, the engine against the sampler loop.
- exact: the fast path against a float64 run of the same noise, per voxel and in P(k).
- linear: seconds a tile at 128³, 256³, 512³ (python -m tests.benchmarks.engine repeated).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.data import default_model
from bigbox.names import DEFAULT_STEPS
from bigbox.networks.model import load_model
from bigbox.painters.lodi import LodiPainter
from bigbox.store.box import Box
from scheduler.tiling import Tiling
from tests.benchmarks import engine, reference
from tests.benchmarks.networks import measure, spectra
from tests.benchmarks.oracle import paint_box

EXACT = 64  # voxels on a side of the box that is painted in float64 too


def judged(tb: np.ndarray, truth: np.ndarray, size: float, seconds: float) -> dict[str, Any]:
    """A painted box against the truth."""
    floor = load_model(default_model(), "lodi").transform("tb").floor
    found = measure(iter([tb]), truth, size, floor)
    keep = {name: found[name] for name in ("k", "ratio", "seam", "mean")}
    return keep | {"seconds": seconds, "voxels a second": tb.size / seconds}


def the_reference(box: Box, truth: np.ndarray, scratch: Path) -> dict[str, Any]:
    """The paper's recipe."""
    torch.set_num_threads(os.cpu_count() or 1)
    dm = np.asarray(box.array("dm")[...])
    began = time.monotonic()
    _, tb = reference.paint(default_model(), dm, scratch / "reference.zarr")
    return judged(tb, truth, box.box_size[0], time.monotonic() - began)


def bigbox(box: Box, truth: np.ndarray, scratch: Path) -> dict[str, Any]:
    """`bigbox paint` with its defaults, one rank a core; without the start of Python, as above."""
    path = engine.repeat_box(box.path, scratch / "bigbox.zarr", 1)
    report = engine.paint(path, os.cpu_count() or 1, "--quiet")
    tb = np.asarray(Box.open(path).array("tb")[...])
    found = judged(tb, truth, box.box_size[0], report["seconds"])
    return found | {"wall": report["wall"], "busy": report["busy"], "ranks": report["ranks"]}


def bench(box: Box, truth: np.ndarray, scratch: Path) -> dict[str, Any]:
    """What `bigbox bench` says of this machine."""
    out = scratch / "bench.json"
    command = [sys.executable, "-m", "bigbox", "bench", "--out", str(out)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(out.read_text())
    lodi = found["lodi_operations"] / found["lodi_call"]
    return found | {
        "of the convolution ceiling": lodi / found["convolution"],
        "engine over sampler": found["engine_tile"] / found["tile"] - 1,
    }


def exact(box: Box, truth: np.ndarray, scratch: Path) -> dict[str, Any]:
    """Fast precision against float64, with the same noise, on part of the true haloes."""
    n = EXACT
    halo = np.asarray(box.array("halo")[:, :n, :n, :n])
    size = box.box_size[0] * n / box.shape[0]
    fields = []
    for dtype in (None, torch.float64):
        painter = LodiPainter(
            seed=3,
            box_shape=(n,) * 3,
            steps=DEFAULT_STEPS["dpmpp"],
            threads=os.cpu_count() or 1,
            model=load_model(default_model(), "lodi"),
        )
        if dtype:
            painter.__dict__["dtype"] = dtype
        fields.append(paint_box(painter, Tiling((n,) * 3), halo).astype(np.float64))
    fast, slow = fields
    floor = painter.tb_log.floor
    logs = np.log10(fast + floor) - np.log10(slow + floor)
    found = spectra(fast, slow, size)
    return {
        "dtype": str(LodiPainter.dtype.func(painter)),  # type: ignore[attr-defined]
        "dex rms": float(logs.std()),
        "dex largest": float(abs(logs).max()),
        "mean": float(fast.mean() / slow.mean() - 1),
        "k": found["k"],
        "power": (np.array(found["ratio"]) - 1).tolist(),
    }


def linear(box: Box, truth: np.ndarray, scratch: Path) -> dict[str, Any]:
    """Boxes of 128³, 256³ and 512³."""
    return {name: value for name, value in engine.repeated(scratch)}


PARTS = {
    "reference": the_reference,
    "bigbox": bigbox,
    "bench": bench,
    "exact": exact,
    "linear": linear,
}


def markdown(results: dict[str, Any]) -> str:
    """The tables as they stand in SPEED.md."""
    lines = [
        "# How fast bigbox paints",
        "",
        "Made by `python -m tests.benchmarks.speed` (its docstring tells what is measured).",
        "",
    ]
    rows = [(name, results[name]) for name in ("reference", "bigbox") if name in results]
    if rows:
        k = rows[0][1]["k"]
        heads = ["", "s", "voxels a second", "seam", "mean", *(f"k = {x:.1f}" for x in k)]
        lines += ["## dm to T_b: the paper's recipe, and `bigbox paint`", ""]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for name, row in rows:
            cells = [name, f"{row['seconds']:.0f}", f"{row['voxels a second']:,.0f}"]
            cells += [f"{row['seam'][0]:.2f}", f"{row['mean'][0]:.2f}"]
            cells += [f"{x:.2f}" for x in row["ratio"]]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", "P(k) over the truth's, k in h/Mpc; a seam of 1 is none.", ""]
        if len(rows) == 2:
            ratio = rows[0][1]["seconds"] / rows[1][1]["seconds"]
            lines += [f"bigbox paints {ratio:.1f} times as fast.", ""]
    for name, title in (
        ("bench", "`bigbox bench`"),
        ("exact", "The fast path against float64, the same noise"),
        ("linear", "Boxes of 128³, 256³, 512³"),
    ):
        if name in results:
            lines += [f"## {title}", "", "| | |", "|---|---|"]
            told = {k: v for k, v in results[name].items() if k not in ("host", "model", "date")}
            lines += [f"| {key} | {_text(value)} |" for key, value in told.items()]
            lines.append("")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(_text(v) for v in value) if isinstance(value, list) else str(value)


def main() -> None:
    """Measure and write; each part goes to the file as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path)
    parser.add_argument("--parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path("speed.json"), help="goes on from it")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    box = Box.open(options.truth)
    truth = np.asarray(box.array("tb")[...])
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.parts:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            results[name] = PARTS[name](box, truth, Path(folder))
        print(name, json.dumps(results[name])[:1500], flush=True)
        options.out.write_text(json.dumps(results, indent=1))
    if options.markdown:
        options.markdown.write_text(markdown(results))


if __name__ == "__main__":
    main()
