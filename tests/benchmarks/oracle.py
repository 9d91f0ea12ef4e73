"""The table of overlap methods and samplers, measured in 3-D with the exact denoiser.

    python -m tests.benchmarks.oracle --realizations 20 --others 2 --out oracle.json

Each realization goes to the file as it is done; the same command goes on from there.

A periodic box of 224^3 voxels (8 x 8 x 8 tiles of 32^3, overlap 4) of a Gaussian field without a
mean is painted tile after tile, by the plainest loop over the stages. The denoiser has no training
error, so that all that is seen belongs to the sampler and to the stitching.

- seam ratio: mean squared difference of voxels that are neighbours across an owner boundary, over
  the same inside; 1 where no seam can be seen.
- power: painted over true, in bins of |k|. The truth is exact: the spectrum of the field on this
  very grid, averaged over the very modes of a bin. Shown is the resolved range, where the true
  power is above a thousandth of its largest value.
- errors: scatter between realizations over the square root of their number.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.diffusion.overlap import tiling_for
from bigbox.names import DEFAULT_OVERLAP_METHOD, DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.painters import Painter, TileBatch, make_painter
from bigbox.painters.base import unknown_slices
from bigbox.painters.gaussian import SCATTER_MK
from bigbox.scheduler.stages import known, stage, stages
from bigbox.scheduler.tiling import Tiling
from tests.reference.gaussian import true_power
from tests.reference.joint import paint_jointly
from tests.reference.tilings import owned

BIN_EDGES = (0.5, 8.5, 14.5, *np.arange(20.5, 112, 6))  # in units of 2 pi / box
RESOLVED = 1e-3
BATCH = 16
COUNTS = 8  # tiles on an axis
CALLS = (4, 6, 8, 10, 12, 16, 25)


@dataclass(frozen=True)
class Method:
    """One row: how overlaps enter, which sampler, how many network calls (0: no painting)."""

    title: str
    overlap: str
    sampler: str
    calls: int
    margin: int | None = None


METHODS = (
    Method("exact draw, no tiles", "", "", 0),
    Method("independent tiles, dpmpp", "independent", "dpmpp", 25),
    Method("overwrite, ancestral (the paper)", "overwrite", "ancestral", 50),
    Method("overwrite, dpmpp", "overwrite", "dpmpp", 25),
    Method("latents, ancestral", "latents", "ancestral", 50),
    Method("conditioned, ancestral", "conditioned", "ancestral", 50),
    *(
        Method(f"conditioned, {sampler}", "conditioned", sampler, calls)
        for sampler in ("dpmpp", "dpmpp-sde")
        for calls in CALLS
    ),
    *(Method("joint, dpmpp-sde", "joint", "dpmpp-sde", calls) for calls in (6, 8, 12, 16, 25)),
    *(Method("joint, dpmpp", "joint", "dpmpp", calls) for calls in (12, 25)),
    Method("joint, euler", "joint", "euler", 100),
    Method("joint, heun", "joint", "heun", 37),
    *(Method(f"joint, margin {m}", "joint", "dpmpp-sde", 12, m) for m in (0, 1, 2, 4)),
)
DEFAULT = Method(
    f"{DEFAULT_OVERLAP_METHOD}, {DEFAULT_SAMPLER}",
    DEFAULT_OVERLAP_METHOD,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS[DEFAULT_SAMPLER],
)


def paint_box(painter: Painter, tiling: Tiling, matter: np.ndarray | None = None) -> np.ndarray:
    """T_b of the whole box (mK), painted stage by stage, or together where tiles are `halved`.

    matter: what the painter's tiles are cut from, (C, X, Y, Z), for a painter without margin; by
    default none at all, so that the Gaussian painter's mean is 0.
    """
    if tiling.halved:
        inputs = np.zeros((1, *tiling.shape), np.float32) if matter is None else matter
        return paint_jointly(inputs, tiling, painter, BATCH)
    fields = np.zeros((painter.fields, *tiling.shape), np.float32)
    edge = tiling.tile + 2 * painter.margin
    everything = np.arange(tiling.size)
    for number in range(stages(tiling)):
        for tiles in _batches(everything[stage(tiling, everything) == number]):
            origin, width = tiling.origin(tiles), known(tiling, tiles)
            places = [_place(o, tiling) for o in origin]
            batch = TileBatch(
                tiles=tiles,
                origin=origin,
                inputs=np.zeros((len(tiles), 1, edge, edge, edge), np.float32)
                if matter is None
                else np.stack([matter[place] for place in places]),
                known=np.stack([fields[place] for place in places]),
                width=width,
            )
            for b in range(len(tiles)):
                batch.known[(b, slice(None), *unknown_slices(width[b], tiling.tile))] = 0.0
            for place, painted in zip(places, painter.paint(batch), strict=True):
                fields[place] = painted
    return fields[0]


def _batches(tiles: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(tiles), BATCH):
        yield tiles[first : first + BATCH]


def _place(origin: np.ndarray, tiling: Tiling) -> tuple[Any, ...]:
    x, y, z = ((origin[a] + np.arange(tiling.tile)) % tiling.shape[a] for a in range(3))
    return (slice(None), x[:, None, None], y[None, :, None], z[None, None, :])


@lru_cache(maxsize=1)
def owners(tiling: Tiling) -> np.ndarray:
    """int32 box: the tile that owns each voxel."""
    result = np.full(tiling.shape, -1, np.int32)
    for tile in range(tiling.size):
        low = tiling.origin(np.array([tile]))[0]
        at = tiling.coords(tile)
        cuts = owned(tiling, tile)
        if tiling.halved:
            ends = [tiling.margins(a)[at[a]].tolist() for a in range(3)]
            cuts = tuple(slice(a, tiling.tile - b) for a, b in ends)
        axes = [
            (low[a] + np.arange(tiling.tile)[cut]) % tiling.shape[a] for a, cut in enumerate(cuts)
        ]
        result[np.ix_(*axes)] = tile
    return result


def seam_ratios(field: np.ndarray, tiling: Tiling) -> list[float]:
    """Mean squared difference of neighbours across owner boundaries over that inside, by axis."""
    owner, ratios = owners(tiling), []
    for axis in range(3):
        squares = (np.roll(field, -1, axis) - field) ** 2
        seam = np.roll(owner, -1, axis) != owner
        ratios.append(
            float(squares[seam].mean(dtype=np.float64) / squares[~seam].mean(dtype=np.float64))
        )
    return ratios


def seam_ratio(field: np.ndarray, tiling: Tiling) -> float:
    """The same over all axes together."""
    owner = owners(tiling)
    across = inside = 0.0
    n_across = 0
    for axis in range(3):
        squares = (np.roll(field, -1, axis) - field) ** 2
        seam = np.roll(owner, -1, axis) != owner
        at_seam = float(squares[seam].sum(dtype=np.float64))
        across += at_seam
        inside += float(squares.sum(dtype=np.float64)) - at_seam
        n_across += int(seam.sum())
    return (across / n_across) / (inside / (3 * field.size - n_across))


def folded(field: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Variance by the distance from the nearest plane where owners change, over all axes."""
    parts = []
    for axis in range(3):
        cover = tiling.owned_grid.axes[axis]
        line = np.arange(tiling.shape[axis])
        far = (line[:, None] - cover.first % tiling.shape[axis]) % tiling.shape[axis]
        inside = far.min(axis=1)
        length = cover.length[far.argmin(axis=1)]
        distance = np.minimum(inside, length - 1 - inside)
        planes = np.moveaxis(field, axis, 0).reshape(len(line), -1)
        total = np.zeros((3, int(distance.max()) + 1))
        for row, d in enumerate(distance.tolist()):
            total[:, d] += planes.shape[1], planes[row].sum(), (planes[row] ** 2).sum()
        parts.append(total)
    least = min(part.shape[1] for part in parts)
    n, first, second = sum(part[:, :least] for part in parts)
    return second / n - (first / n) ** 2


@lru_cache(maxsize=1)
def bins(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bin of each rfftn mode, its weight, the true power and the mean |k| (rad/voxel) by bin."""
    kx, ky, kz = (np.fft.fftfreq(n) * n for n in shape)
    kz = abs(kz[: shape[2] // 2 + 1])
    length = np.sqrt(kx[:, None, None] ** 2 + ky[None, :, None] ** 2 + kz**2)
    number = np.digitize(length, BIN_EDGES).ravel()  # bin 0: the mean; the last: beyond the edges
    weight = np.full(length.shape, 2.0)  # a mode of rfftn stands for its conjugate as well
    weight[..., 0] = weight[..., shape[2] // 2] = 1.0
    weight = weight.ravel()
    count = np.bincount(number, weight)
    truth = true_power(shape)[..., : len(kz)].ravel()
    k = np.bincount(number, weight * length.ravel()) / count * 2 * np.pi / shape[0]
    return number, weight, np.bincount(number, weight * truth) / count, k


def power_ratio(field: np.ndarray) -> np.ndarray:
    """Power of a unit-variance field over the true one, by bin."""
    number, weight, truth, _ = bins(field.shape)
    power = (abs(np.fft.rfftn(field)) ** 2).ravel() / field.size
    measured = np.bincount(number, weight * power) / np.bincount(number, weight)
    return (measured / truth)[1:-1]


def measure(task: tuple[Method, int, Tiling]) -> dict[str, Any]:
    """Paint one realization of one method and measure it."""
    import torch

    torch.set_num_threads(1)
    method, realization, tiling = task
    start = time.perf_counter()
    if method.calls:
        painter = make_painter(
            "gaussian",
            seed=21,
            realization=realization,
            box_shape=tiling.shape,
            overlap_method=method.overlap,
            sampler=method.sampler,
            steps=method.calls,
            tile=tiling.tile,
        )
        if method.overlap != "independent":
            tiling = tiling_for(method.overlap, tiling.shape, tiling.tile, margin=method.margin)
        field = paint_box(painter, tiling) / np.float32(SCATTER_MK)
    else:
        white = np.random.default_rng(realization).standard_normal(tiling.shape)
        amplitude = np.sqrt(true_power(tiling.shape)[..., : tiling.shape[2] // 2 + 1])
        field = np.fft.irfftn(np.fft.rfftn(white) * amplitude, tiling.shape, axes=(0, 1, 2))
    return {
        "title": method.title,
        "calls": method.calls,
        "realization": realization,
        "seam": seam_ratio(field, tiling),
        "power": power_ratio(field).tolist(),
        "seconds": time.perf_counter() - start,
    }


def summary(results: list[dict[str, Any]], tiling: Tiling) -> dict[str, Any]:
    """Means and errors of every method, over the resolved bins."""
    _, _, truth, k = bins(tiling.shape)
    resolved = truth[1:-1] > RESOLVED * true_power(tiling.shape).max()
    rows = []
    for method in METHODS:
        mine = [r for r in results if (r["title"], r["calls"]) == (method.title, method.calls)]
        if not mine:
            continue
        seam = np.array([r["seam"] for r in mine])
        power = np.array([r["power"] for r in mine])[:, resolved]
        root = np.sqrt(len(mine))
        scatter = 1 if len(mine) > 1 else 0
        rows.append(
            {
                "title": method.title,
                "calls": method.calls,
                "realizations": len(mine),
                "seam": float(seam.mean()),
                "seam_error": float(seam.std(ddof=scatter) / root),
                "power": power.mean(axis=0).tolist(),
                "power_error": (power.std(axis=0, ddof=scatter) / root).tolist(),
                "seconds_per_tile": float(np.mean([r["seconds"] for r in mine])) / tiling.size,
            }
        )
    return {"tiling": tiling.as_dict(), "k": k[1:-1][resolved].tolist(), "rows": rows}


READING = """Read it so:

- A denoiser that is told its known voxels leaves no seam, with any sampler. Overwriting the
  known part of z does, in both of the paper's readings (noised again, or stored step latents).
- dpmpp and dpmpp-sde keep the power within a few per cent from 12 calls on, in all resolved bins;
  ancestral sampling at 50 calls loses 16 %, and overwriting costs more on top of it.
- Tiles painted together leave no seam either, from a margin of 1 on, and keep the power as well.
- The exact draw is no painting: it shows what the estimators do with a field without any error.
"""


def markdown(table: dict[str, Any], command: str) -> str:
    """The table as it stands in ORACLE.md."""
    shape, tile = "x".join(map(str, table["tiling"]["shape"])), table["tiling"]["tile"]
    lines = [
        "# Overlap methods and samplers, measured with the exact denoiser",
        "",
        f"Box {shape} voxels, periodic; tiles of {tile}^3, overlap {table['tiling']['overlap']}; "
        "a Gaussian field with a closed-form denoiser (bigbox/painters/gaussian.py), so that there "
        "is no training error in these numbers. Made by",
        "",
        f"    {command}",
        "",
        "Seam ratio: mean squared difference of neighbouring voxels across owner boundaries, over "
        "the same inside. Power: painted over true (the exact spectrum of this grid, averaged over "
        "the modes of each bin); in brackets the error of the last digits. The bins cover the "
        f"resolved range, true power above {RESOLVED:g} of its largest value.",
        "",
        "| method | calls | realizations | seam ratio | "
        + " | ".join(f"k = {k:.2f}" for k in table["k"])
        + " |",
        "|" + "---|" * (4 + len(table["k"])),
    ]
    for row in table["rows"]:
        power = [
            f"{p:.3f}({max(1, round(1000 * e))})"
            for p, e in zip(row["power"], row["power_error"], strict=True)
        ]
        default = (row["title"], row["calls"]) == (DEFAULT.title, DEFAULT.calls)
        cells = [
            row["title"] + (" (default)" if default else ""),
            str(row["calls"] or "-"),
            str(row["realizations"]),
            f"{row['seam']:.4f} ± {row['seam_error']:.4f}",
            *power,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "k in radians per voxel (largest on an axis: 3.14).", "", READING]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure all methods on a pool of processes and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--realizations", type=int, default=20, help="of the default method")
    parser.add_argument("--others", type=int, default=2, help="realizations of the other rows")
    parser.add_argument("--counts", type=int, default=COUNTS, help="tiles on an axis")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", help="rows whose title contains this")
    parser.add_argument("--out", type=Path, default=Path("oracle.json"), help="every realization")
    parser.add_argument("--markdown", type=Path, help="the table, as a file")
    options = parser.parse_args(arguments)
    edge = 28 * options.counts
    tiling = Tiling(shape=(edge, edge, edge), tile=32, overlap=4)
    wanted: list[tuple[int, Method]] = []
    for method in METHODS:
        if options.only is None or options.only in method.title:
            n = options.realizations if method == DEFAULT else options.others
            wanted += [(realization, method) for realization in range(n)]
    results = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(r["title"], r["calls"], r["realization"]) for r in results}
    tasks = [
        (method, realization, tiling)
        for realization, method in sorted(wanted, key=lambda task: task[0])
        if (method.title, method.calls, realization) not in done
    ]
    with get_context("spawn").Pool(options.processes) as pool:
        for result in pool.imap_unordered(measure, tasks):
            results.append(result)
            options.out.write_text(json.dumps(results, indent=1))
            print(f"{len(results)}: {result['title']}: {result['seconds']:.1f} s", flush=True)
    command = (
        f"python -m tests.benchmarks.oracle --realizations {options.realizations} "
        f"--others {options.others} --markdown tests/benchmarks/ORACLE.md"
    )
    text = markdown(summary(results, tiling), command)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
