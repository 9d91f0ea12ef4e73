"""How fast bigbox paints: against the paper's recipe, against itself without the engine, against
another model; and how exact the fast path is. Made into tables.

    python -m tests.benchmarks.speed TRUTH.zarr .. --markdown speed.md

TRUTH.zarr has dm, halo and tb of one simulation; of several, the recipe and bigbox paint each, and
the rest is taken from the first. With --catalogues P(k), mean and seams are over those of DRAWS
draws of the truth's HI, without over its own. The recipe needs 56 m painted voxels a side: boxes of
112 m for a model that paints every second one, as

    bigbox simulate fair --grid 224 --box-size 21.875 --seeds 901 902 --boxes --keep-snapshots

makes them. Every part uses all cores: the recipe through torch's threads, bigbox with one rank a
core but where it says otherwise. `--steps 2 --copies 1` shows that all parts run. Nothing here is
asserted.

- reference, bigbox: dm to T_b, in seconds and voxels of dm a second; the same networks paint the
  same voxels, and these alone are compared.
- bench: `bigbox bench`: the networks against the ceilings, the engine against the sampler loop.
- exact: the fast path against a float64 run of the same noise, per painted voxel and in P(k);
  large: the same in eight times the volume, against float32.
- linear: time a tile at 128³, 256³, 512³: copies of the shipped box, side by side.
- old, with --against MODEL: dm to T_b of one box with the shipped model and that one, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.analysis.report.fields import Field, LazyArray, at_tiles, open_field
from bigbox.analysis.spectra.modes import jsonable
from bigbox.data import default_model
from bigbox.diffusion.overlap import tiling_for
from bigbox.evaluation.measure import Measures
from bigbox.evaluation.run import EvaluateOptions, measures_of
from bigbox.evaluation.summary import summarise
from bigbox.evaluation.truth import Simulation, make_draws, open_truths
from bigbox.names import DEFAULT_OVERLAP_METHOD
from bigbox.networks.card import read_card
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.painters.lodi import LodiPainter
from bigbox.painters.models import named_model
from bigbox.painters.settings import HaloSettings, PainterSettings
from bigbox.scheduler.grid import Triple, triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.benchmarks import engine, reference
from tests.benchmarks.oracle import paint_box
from tests.benchmarks.speed_tables import markdown

CORES = len(os.sched_getaffinity(0))
DRAWS = 20  # of the truth's HI
TURNS = 3  # of the models that are held against each other
RANKS = 2  # that paint then
FLOOR = 10**9.5  # M_sun/h per (Mpc/h)^3, below which haloes are not compared
MEMORY = 1 << 28
FAIR = 2 * (reference.TILE - reference.OVERLAP)  # painted voxels a side are so many, or times m


@dataclass(frozen=True)
class Case:
    """What is painted. steps: network calls of a tile, None for the default, 50 of the recipe."""

    truth: Simulation
    scratch: Path
    steps: int | None
    copies: Sequence[int]
    against: Path | None

    @property
    def box(self) -> Box:
        """The simulation's first box."""
        return self.truth.box

    @property
    def dm(self) -> np.ndarray:
        """1 + delta."""
        return np.asarray(self.box.array("dm")[...])

    @property
    def painted(self) -> Triple:
        """Painted voxels on each axis."""
        return self.box.on_grid(grid_of(default_model())).shape

    @property
    def options(self) -> list[str]:
        """Options of a command that paints."""
        return [] if self.steps is None else ["--steps", str(self.steps)]

    def measures(self, tiling: Tiling) -> Measures:
        """Return how fields at the painted voxels are measured."""
        floor = load_model(default_model(), "lodi").transform("tb").floor
        return Measures(self.at_painted(self.box.path), tiling, 1, floor, {"memory": MEMORY})

    def at_painted(self, path: Path) -> Field:
        """Return T_b of a box at the painted voxels."""
        return at_tiles(open_field(path), grid_of(default_model()))

    def judged(self, field: Field, tiling: Tiling, seconds: float) -> dict[str, Any]:
        """Return what a painting is beside the draws of the truth's HI."""
        measures = self.measures(tiling)
        drawn = [measures.of(self.at_painted(draw.path)) for draw in self.truth.draws]
        rows = summarise([measures.of(field)], drawn, measures)
        voxels = float(np.prod(self.box.shape))
        about = {"draws": len(drawn), "seconds": seconds, "voxels a second": voxels / seconds}
        return about | kept(rows)


def grid_of(folder: Path) -> int:
    """Return voxels of dm on an axis for one that a model paints."""
    return int(read_card(folder, "lodi").get("grid", 1))


def kept(rows: dict[str, Any]) -> dict[str, Any]:
    """Return of all numbers of a painting those that are told."""
    return {
        "k": rows["k"],
        "ratio": rows["power"]["ratio"],
        "error": rows["power"]["error"],
        "r": rows["r"]["value"],
        "seam": rows["seams"]["ratio"][-1],
        "mean": rows["mean"]["ratio"],
    }


def in_memory(array: np.ndarray, size: float) -> Field:
    """Return an array as what is measured; size: of the box, Mpc/h."""
    lazy = LazyArray(array.shape, (64,) * 3, lambda region: array[region])
    return Field("array", lazy, "mK", triple(array.shape), (size,) * 3)


def the_reference(case: Case) -> dict[str, Any]:
    """The paper's recipe."""
    if any(n % FAIR for n in case.painted):
        raise SystemExit(
            f"{case.box.path}: {case.painted[0]} painted voxels a side, and the recipe's tiles "
            f"need a multiple of {FAIR}; simulate such a box, or leave out the part reference"
        )
    torch.set_num_threads(CORES)
    dm, steps = case.dm, case.steps or reference.STEPS
    began = time.monotonic()
    _, tb = reference.paint(default_model(), dm, case.scratch / "reference.zarr", steps=steps)
    took = time.monotonic() - began
    return case.judged(in_memory(tb, case.box.box_size[0]), Tiling(case.painted), took)


def bigbox(case: Case) -> dict[str, Any]:
    """`bigbox paint` with its defaults, one rank a core; without the start of Python, as above."""
    path = engine.repeat_box(case.box.path, case.scratch / "bigbox.zarr", 1)
    report = engine.paint(path, CORES, "--quiet", *case.options)
    tiling = tiling_for(DEFAULT_OVERLAP_METHOD, case.painted)
    found = case.judged(case.at_painted(path), tiling, report["seconds"])
    return found | {name: report[name] for name in ("wall", "cpu", "busy", "ranks")}


def old(case: Case) -> dict[str, Any]:
    """The shipped model and another: seconds of the whole command, of all cores, and P(k).

    In turns, for other users of the machine come and go. Each is measured on the grid of dm, its
    seams where its own tiles meet.
    """
    assert case.against is not None
    models = {"shipped": default_model(), "against": case.against}
    asked = EvaluateOptions([], [], case.scratch, memory=MEMORY)
    measures = {n: measures_of(named_model(m), case.truth, asked) for n, m in models.items()}
    rows: dict[str, list[Any]] = {name: [] for name in models}
    for turn in range(TURNS):
        for name, model in models.items():
            path = engine.repeat_box(case.box.path, case.scratch / f"{name}{turn}.zarr", 1)
            options = ["--quiet", "--seed", str(turn), "--model", str(model), *case.options]
            report = engine.paint(path, RANKS, *options)
            rows[name].append((report, measures[name].of(open_field(path))))
    found: dict[str, Any] = {}
    for name, turns in rows.items():
        drawn = [measures[name].of(open_field(draw.path)) for draw in case.truth.draws]
        told = kept(summarise([numbers for _, numbers in turns], drawn, measures[name]))
        found[name] = {
            "weights": named_model(models[name]).card["sha256"][:12],
            "tiles": turns[0][0]["tiles"],
            "ranks": RANKS,
            "draws": len(drawn),
            **{one: [report[one] for report, _ in turns] for one in ("wall", "cpu", "seconds")},
            **told,
        }
    return found


def bench(case: Case) -> dict[str, Any]:
    """What `bigbox bench` says of this machine."""
    out = case.scratch / "bench.json"
    command = [sys.executable, "-m", "bigbox", "bench", "--out", str(out), *case.options]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(out.read_text())
    lodi = found["lodi_operations"] / found["lodi_call"]
    return found | {
        "of the convolution ceiling": lodi / found["convolution"],
        "engine over sampler": found["engine_tile"] / found["tile"] - 1,
    }


def exact(case: Case) -> dict[str, Any]:
    """dm to T_b in the fast precision and in float64, with the same noise.

    LODI: on the same haloes. A small box has few bright haloes, of which each is off by 0.1 % or
    so: hence `large`.
    """
    shape = case.painted
    halogen, lodi = _painters(case, shape)
    torch.set_num_threads(CORES)  # for HALOgen; LODI's tiles have a thread each
    fast = paint_haloes(halogen, case.dm)
    slow = paint_haloes(in_precision(halogen, torch.float64), case.dm)
    torch.set_num_threads(1)
    logs = [np.log10(np.maximum(f, FLOOR)) for f in (fast, slow)]
    tiling, single = _tiling(lodi, shape), in_precision(lodi, torch.float32)
    wanted = paint_box(in_precision(lodi, torch.float64), tiling, slow)
    parts = {
        "dm to T_b": paint_box(lodi, tiling, fast),
        "LODI": paint_box(lodi, tiling, slow),
        "LODI in float32": paint_box(single, tiling, slow),
    }
    found = {
        "dtype": str(lodi.dtype).removeprefix("torch."),
        "painted voxels": f"{shape[0]}³",
        "haloes, dex rms": float((logs[0] - logs[1]).std()),
    }
    for name, painted in parts.items():
        found |= _compared(name, painted, wanted, case, tiling)
    return found


def large(case: Case) -> dict[str, Any]:
    """The same in 2³ copies of the box, against float32, which is as good as float64."""
    halogen, _ = _painters(case, case.painted)
    torch.set_num_threads(CORES)
    fast, slow = (
        np.tile(paint_haloes(p, case.dm), (1, 2, 2, 2))
        for p in (halogen, in_precision(halogen, torch.float32))
    )
    torch.set_num_threads(1)
    shape = triple(fast.shape[1:])
    _, lodi = _painters(case, shape)
    tiling = _tiling(lodi, shape)
    wanted = paint_box(in_precision(lodi, torch.float32), tiling, slow)
    found: dict[str, Any] = {"painted voxels": f"{shape[0]}³"}
    for part, haloes in (("dm to T_b", fast), ("LODI", slow)):
        found |= _compared(part, paint_box(lodi, tiling, haloes), wanted, case, tiling)
    return found


def _painters(case: Case, shape: Triple) -> tuple[HalogenPainter, LodiPainter]:
    halogen = HaloSettings(model=default_model(), box_shape=shape)
    lodi = PainterSettings(seed=3, box_shape=shape, steps=case.steps, threads=CORES)
    return HalogenPainter.from_settings(halogen), LodiPainter.from_settings(lodi)


def _tiling(lodi: LodiPainter, shape: Triple) -> Tiling:
    return tiling_for(lodi.overlap_method, shape, lodi.tile)


def _compared(
    name: str, painted: np.ndarray, wanted: np.ndarray, case: Case, tiling: Tiling
) -> dict[str, Any]:
    """How far a painting is from the same in another precision."""
    size = case.box.box_size[0] * len(painted) / case.painted[0]
    measures = replace(case.measures(tiling), first=in_memory(wanted, size))
    logs = [np.log10(f.astype(np.float64) + measures.floor) for f in (painted, wanted)]
    rows = [measures.of(in_memory(f, size)) for f in (painted, wanted)]
    error, (found, true) = logs[0] - logs[1], rows
    return {
        f"{name}: dex rms": float(error.std()),
        f"{name}: dex largest": float(abs(error).max()),
        f"{name}: mean, %": 100 * (found["mean"] / true["mean"] - 1),
        f"{name}: k": found["k"],
        f"{name}: P(k), %": 100 * (found["power"] / true["power"] - 1),
    }


def in_precision(painter: Any, dtype: torch.dtype) -> Any:
    """The same painter in another precision."""
    other = replace(painter)
    other.__dict__["dtype"] = dtype
    return other


def linear(case: Case) -> dict[str, Any]:
    """Milliseconds a tile, dm to T_b, one rank on all cores; of several boxes of one size the
    median, for others on the machine count in the smallest.
    """
    reports: dict[str, list[dict[str, Any]]] = {}
    copies = engine.painted_copies(case.scratch, 1, *case.options, copies=case.copies)
    for side, report in copies:
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


Part = Callable[[Case], dict[str, Any]]
COMPARED: dict[str, Part] = {"reference": the_reference, "bigbox": bigbox}
PARTS: dict[str, Part] = {"bench": bench, "exact": exact, "large": large, "linear": linear}
PARTS_AGAINST: dict[str, Part] = {"old": old}


def asked_for() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path, nargs="+")
    parser.add_argument("--catalogues", type=Path, nargs="*", default=[], help="of the truths")
    parser.add_argument("--against", type=Path, help="a model folder, for the part old")
    every = {**COMPARED, **PARTS, **PARTS_AGAINST}
    parser.add_argument("--parts", nargs="*", choices=every, help="default: all that can be")
    parser.add_argument("--steps", type=int, help="network calls of a tile, of the recipe as well")
    text = "of the shipped box on an axis, for linear"
    parser.add_argument("--copies", type=int, nargs="*", default=[1, 1, 1, 2, 4], help=text)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path("speed.json"), help="goes on from it")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.parts is None:
        options.parts = [*COMPARED, *PARTS, *(PARTS_AGAINST if options.against else ())]
    if "old" in options.parts and options.against is None:
        parser.error("the part old needs --against MODEL")
    if options.catalogues and len(options.catalogues) != len(options.truth):
        parser.error("as many --catalogues as truths, or none")
    return options


def main() -> None:
    """Measure and write; each part goes to the file as it is done."""
    options = asked_for()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    truths = [one for path in options.truth for one in open_truths([path])]
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        for truth, catalogue in zip(truths, options.catalogues, strict=False):
            make_draws(truth, catalogue, DRAWS, Path(place))
        for name in options.parts:
            results[name] = {}
            for truth in truths if name in COMPARED else truths[:1]:
                with tempfile.TemporaryDirectory(dir=place) as scratch:
                    asked = (options.steps, options.copies, options.against)
                    case = Case(truth, Path(scratch), *asked)
                    part = {**COMPARED, **PARTS, **PARTS_AGAINST}[name]
                    found = jsonable(part(case))
                results[name] |= {truth.name: found} if name in COMPARED else found
            print(name, json.dumps(results[name])[:1500], flush=True)
            options.out.write_text(json.dumps(results, indent=1))
    if options.markdown:
        options.markdown.write_text(markdown(results))


if __name__ == "__main__":
    main()
