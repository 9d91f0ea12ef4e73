"""How fast bigbox paints: against the paper's recipe, against itself without the engine, and how
exact the fast path is. Made into one table.

    python -m tests.benchmarks.speed TRUTH.zarr .. --markdown tests/benchmarks/SPEED.md

TRUTH.zarr has dm, halo and tb of one simulation (networks.py tells of it); of several, the recipe
and bigbox paint each, and the rest is taken from the first. The recipe needs an even number of
tiles on an axis, with larger overlaps where that does not come out: boxes of 56 m voxels a side are
fair, as `bigbox simulate SIM --grid 112 --box-size 10.9375 --seed 901` makes them.
Every part uses all cores: the recipe through torch's threads, bigbox with one rank a core but where
it says otherwise. Nothing here is asserted.

- reference, bigbox: dm to T_b, in seconds and voxels a second, with P(k) over the truth's, seams.
- bench: `bigbox bench`: the networks against the ceilings, the engine against the sampler loop.
- exact: the fast path against a float64 run of the same noise, per voxel and in P(k);
  large: the same in eight times the volume, against float32.
- linear: time a tile at 128³, 256³, 512³: copies of the shipped box, side by side (20 minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.data import default_model
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.lodi import LodiPainter
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.benchmarks import engine, reference
from tests.benchmarks.networks import another_truth, measure
from tests.benchmarks.oracle import paint_box

DRAWS = 20  # of the truth's HI
FLOOR = 10**9.5  # M_sun/h per (Mpc/h)^3, below which haloes are not compared


def judged(tb: np.ndarray, box: Box, seconds: float) -> dict[str, Any]:
    """A painted box against the truth."""
    found = against_truth(iter([tb]), box)
    keep = {name: found[name] for name in ("k", "ratio", "seam", "mean")}
    return keep | {"seconds": seconds, "voxels a second": tb.size / seconds}


def others(box: Box, catalogue: Path) -> dict[str, Any]:
    """Other draws of the truth's HI: what both should have come to, but for the luck of a draw."""
    return against_truth((another_truth(catalogue, box, seed) for seed in range(DRAWS)), box)


def against_truth(fields: Iterator[np.ndarray], box: Box) -> dict[str, Any]:
    """Realizations of T_b (mK) against that of the box."""
    floor = load_model(default_model(), "lodi").transform("tb").floor
    return measure(fields, np.asarray(box.array("tb")[...]), box.box_size[0], floor)


def the_reference(box: Box, scratch: Path) -> dict[str, Any]:
    """The paper's recipe."""
    torch.set_num_threads(os.cpu_count() or 1)
    dm = np.asarray(box.array("dm")[...])
    began = time.monotonic()
    _, tb = reference.paint(default_model(), dm, scratch / "reference.zarr")
    return judged(tb, box, time.monotonic() - began)


def bigbox(box: Box, scratch: Path) -> dict[str, Any]:
    """`bigbox paint` with its defaults, one rank a core; without the start of Python, as above."""
    path = engine.repeat_box(box.path, scratch / "bigbox.zarr", 1)
    report = engine.paint(path, os.cpu_count() or 1, "--quiet")
    tb = np.asarray(Box.open(path).array("tb")[...])
    found = judged(tb, box, report["seconds"])
    return found | {"wall": report["wall"], "busy": report["busy"], "ranks": report["ranks"]}


def bench(box: Box, scratch: Path) -> dict[str, Any]:
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


def exact(box: Box, scratch: Path) -> dict[str, Any]:
    """dm to T_b in the fast precision and in float64, with the same noise.

    LODI: on the same haloes. A box of 112³ has few bright haloes, of which each is off by 0.1 % or
    so: hence `large`.
    """
    dm = np.asarray(box.array("dm")[...])
    halogen, lodi = _painters(dm.shape)
    torch.set_num_threads(os.cpu_count() or 1)  # for HALOgen; LODI's tiles have a thread each
    fast = paint_haloes(halogen, dm)
    slow = paint_haloes(in_precision(halogen, torch.float64), dm)
    logs = [np.log10(np.maximum(f, FLOOR)) for f in (fast, slow)]
    tiling, precise = Tiling(dm.shape), in_precision(lodi, torch.float64)
    wanted = paint_box(precise, tiling, slow)
    return {
        "dtype": str(lodi.dtype).removeprefix("torch."),
        "haloes, dex rms": float((logs[0] - logs[1]).std()),
        **_compared("dm to T_b", paint_box(lodi, tiling, fast), wanted, box, lodi),
        **_compared("LODI", paint_box(lodi, tiling, slow), wanted, box, lodi),
        **_compared(
            "LODI in float32",
            paint_box(in_precision(lodi, torch.float32), tiling, slow),
            wanted,
            box,
            lodi,
        ),
    }


def large(box: Box, scratch: Path) -> dict[str, Any]:
    """The same in 2³ copies of the box, against float32, which is as good as float64."""
    dm = np.asarray(box.array("dm")[...])
    halogen, _ = _painters(dm.shape)
    torch.set_num_threads(os.cpu_count() or 1)
    fast, slow = (
        np.tile(paint_haloes(p, dm), (1, 2, 2, 2))
        for p in (halogen, in_precision(halogen, torch.float32))
    )
    torch.set_num_threads(1)
    _, lodi = _painters(fast.shape[1:])
    tiling = Tiling(fast.shape[1:])
    wanted = paint_box(in_precision(lodi, torch.float32), tiling, slow)
    return {
        f"{name}, {len(wanted)}³": value
        for part, haloes in (("dm to T_b", fast), ("LODI", slow))
        for name, value in _compared(
            part, paint_box(lodi, tiling, haloes), wanted, box, lodi
        ).items()
    }


def _painters(shape: tuple[int, ...]) -> tuple[HalogenPainter, LodiPainter]:
    x, y, z = shape
    return HalogenPainter(load_model(default_model(), "halogen")), LodiPainter(
        seed=3,
        box_shape=(x, y, z),
        threads=os.cpu_count() or 1,
        model=load_model(default_model(), "lodi"),
    )


def _compared(
    name: str, painted: np.ndarray, wanted: np.ndarray, box: Box, lodi: LodiPainter
) -> dict[str, Any]:
    """How far a box is from the same in another precision."""
    painted, wanted = painted.astype(np.float64), wanted.astype(np.float64)
    floor = lodi.model.transform("tb").floor
    error = np.log10(painted + floor) - np.log10(wanted + floor)
    found = measure(iter([painted]), wanted, box.voxel * len(painted), floor)
    return {
        f"{name}: dex rms": float(error.std()),
        f"{name}: dex largest": float(abs(error).max()),
        f"{name}: mean, %": 100 * float(painted.mean() / wanted.mean() - 1),
        f"{name}: k": found["k"],
        f"{name}: P(k), %": (100 * (np.array(found["ratio"]) - 1)).tolist(),
    }


def in_precision(painter: Any, dtype: torch.dtype) -> Any:
    """The same painter in another precision."""
    other = replace(painter)
    other.__dict__["dtype"] = dtype
    return other


def linear(box: Box, scratch: Path) -> dict[str, Any]:
    """Milliseconds a tile, dm to T_b with the default number of calls, one rank on all cores.

    The smallest box takes 20 seconds, in which others on the machine count: of three the median.
    """
    reports: dict[str, list[dict[str, Any]]] = {}
    for side, report in engine.painted_copies(scratch, 1, copies=(1, 1, 1, 2, 4)):
        reports.setdefault(side, []).append(report)
    found: dict[str, Any] = {}
    for side, same in reports.items():
        report = sorted(same, key=lambda r: float(r["seconds"]))[len(same) // 2]
        tiles = report["tiles"]
        found |= {
            f"{side}: tiles, windows": [tiles, report["windows"]],
            f"{side}: seconds": report["seconds"],
            f"{side}: ms a tile": 1e3 * report["seconds"] / tiles,
            f"{side}: painter busy": report["busy"],
        }
    return found


COMPARED = {"reference": the_reference, "bigbox": bigbox}
PARTS = {"bench": bench, "exact": exact, "large": large, "linear": linear}


def markdown(results: dict[str, Any]) -> str:
    """The tables as they stand in SPEED.md."""
    lines = [
        "# How fast bigbox paints",
        "",
        "Made by `python -m tests.benchmarks.speed` (its docstring tells what is measured).",
        "",
    ]
    rows = [(name, box, row) for name in COMPARED for box, row in results.get(name, {}).items()]
    if rows:
        k = rows[0][2]["k"]
        heads = ["", "box", "s", "voxels a second", "seam", "mean", *(f"k = {x:.1f}" for x in k)]
        lines += ["## dm to T_b: the paper's recipe, and `bigbox paint`", ""]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for name, box, row in rows:
            cells = [name, box, f"{row['seconds']:.0f}", f"{row['voxels a second']:,.0f}"]
            cells += [f"{row['seam'][0]:.2f}", f"{row['mean'][0]:.2f}"]
            draws = results.get("other draws", {}).get(box, row | {"ratio": np.ones(len(k))})
            cells += [f"{x:.2f}" for x in np.array(row["ratio"]) / draws["ratio"]]
            lines.append(f"| {' | '.join(cells)} |")
        wanted = "of other draws of the truth's HI" if "other draws" in results else "of the truth"
        lines += ["", f"P(k) over that {wanted}, k in h/Mpc; a seam of 1 is none.", ""]
        took = {n: sum(row["seconds"] for m, _, row in rows if m == n) for n in COMPARED}
        if all(took.values()):
            ratio = took["reference"] / took["bigbox"]
            lines += [f"bigbox paints {ratio:.1f} times as fast.", ""]
    for name, title in (
        ("bench", "`bigbox bench`: seconds; operations and bytes, a second"),
        ("exact", "The fast path against float64, the same noise"),
        ("large", "The same in a larger box, against float32"),
        ("linear", "Boxes of 128³, 256³, 512³, dm to T_b"),
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
    parser.add_argument("truth", type=Path, nargs="+")
    parser.add_argument(
        "--catalogues", type=Path, nargs="*", default=[], help="of the truths, for other draws"
    )
    parser.add_argument("--parts", nargs="*", default=[*COMPARED, *PARTS])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path("speed.json"), help="goes on from it")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    boxes = [Box.open(path) for path in options.truth]
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.catalogues:
        results["other draws"] = {
            box.path.stem: others(box, catalogue)
            for box, catalogue in zip(boxes, options.catalogues, strict=True)
        }
        options.out.write_text(json.dumps(results, indent=1))
    for name in options.parts:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            if name in PARTS:
                results[name] = PARTS[name](boxes[0], Path(folder))
            else:
                rows = {}
                for box in boxes:
                    rows[box.path.stem] = COMPARED[name](box, Path(folder))
                    shutil.rmtree(Path(folder) / f"{name}.zarr")
                results[name] = rows
        print(name, json.dumps(results[name])[:1500], flush=True)
        options.out.write_text(json.dumps(results, indent=1))
    if options.markdown:
        options.markdown.write_text(markdown(results))


if __name__ == "__main__":
    main()
