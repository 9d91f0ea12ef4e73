"""Spectra and seam diagnostics measured: against other codes, out of core, and on known answers.

    python -m tests.benchmarks.spectra independent | direct | large | alarms | planted

Each writes its section of SPECTRA.md, beside this file, or of the file named with --markdown. One
process; --workers threads. powerbox and Pylians are the independent codes, where they install.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bigbox.analysis.seams.find import SeamReport, find_seams
from bigbox.analysis.spectra.modes import ModeSums, Shells, Spectrum, wavenumbers
from bigbox.analysis.spectra.power import power
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.fields import PLANTED, autoregressive, draw, isotropic, plant
from tests.reference.spectra import power_in_memory

Rows = Sequence[Sequence[str]]
SIZE = 25.0  # Mpc/h
LAWS = {"autoregressive, R = 2": autoregressive, "isotropic, k^-1.5 exp(-k^2 R^2)": isotropic}
STRENGTHS = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)


def independent(options: argparse.Namespace) -> str:
    """The same field through powerbox and Pylians, in their bins and conventions."""
    n = options.grid or 128
    rows = []
    for law, spectrum in LAWS.items():
        field = draw(spectrum((n, n, n)), (n, n, n), 1)
        for code, compare in (("powerbox", _powerbox), ("Pylians", _pylians)):
            for window in (None,) if code == "powerbox" else (None, "cic", "tsc"):
                ours, theirs = compare(field, window)
                off = abs(ours / theirs - 1)
                rows.append(
                    (code, law, window or "none", str(len(ours)), f"{off.max() * 100:.2g} %")
                )
    head = ("code", f"field, {n}^3", "window", "bins", "largest difference of a bin")
    return table(head, rows)


def _powerbox(field: np.ndarray, window: str | None) -> tuple[np.ndarray, np.ndarray]:
    import powerbox  # type: ignore[import-untyped]

    ours = power_in_memory(field.astype(np.float64), SIZE)
    theirs = powerbox.get_power(
        field.astype(np.float64),
        SIZE,
        bins=ours.edges,
        dimensionless=False,
        ignore_zero_mode=True,
        bins_upto_boxlen=True,
        nthreads=1,
    )
    return ours.power, np.asarray(theirs.power)


def _pylians(field: np.ndarray, window: str | None) -> tuple[np.ndarray, np.ndarray]:
    import Pk_library  # type: ignore[import-untyped]

    n = len(field)
    name = {"cic": "CIC", "tsc": "TSC", None: "None"}[window]
    theirs = Pk_library.Pk(field.astype(np.float32), SIZE, axis=0, MAS=name, threads=1)
    # Pylians' bins are [i, i + 1) fundamental modes; many modes lie on the edges.
    step = 2 * np.pi / SIZE
    count = min(len(theirs.k3D), n // 2 - 1)
    edges = (np.arange(1, count + 2) - 1e-6) * step
    ours = power_in_memory(field, SIZE, edges=edges, window=window)
    assert np.array_equal(ours.modes / 2, theirs.Nmodes3D[:count])
    return ours.power, theirs.Pk[:count, 0]


def direct(options: argparse.Namespace) -> str:
    """The spectrum out of core against one float64 FFT of the whole box."""
    n = options.grid or 512
    rows = []
    for law, spectrum in LAWS.items():
        field = draw(spectrum((n, n, n)), (n, n, n), 1)
        began = time.perf_counter()
        found = power(field, SIZE, memory=256 << 20, workers=options.workers)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        expected = power_in_memory(field.astype(np.float64), SIZE, workers=options.workers)
        at_once = time.perf_counter() - began
        off = abs(found.power / expected.power - 1)
        assert np.array_equal(found.modes, expected.modes)
        rows.append(
            (law, str(len(off)), f"{off.max() * 100:.2g} %", f"{seconds:.0f} s", f"{at_once:.0f} s")
        )
    head = (f"field, {n}^3", "bins", "largest difference of a bin", "256 MiB", "direct, float64")
    return table(head, rows)


def large(options: argparse.Namespace) -> str:
    """A box on disk, measured in a process of its own: time, peak memory, and truth."""
    n = options.grid or 1024
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as work:
        path = Path(work) / "box.zarr"
        _known_box(path, n)
        for task in ("power", "seams"):
            command = [sys.executable, "-m", "tests.benchmarks.spectra", "measured", str(path)]
            command += ["--task", task, "--scratch", work, "--workers", str(options.workers)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(out.strip().split("|"))
    head = (f"{n}^3 float32, zarr", "memory given", "peak resident", "time", "result")
    return table(head, rows)


def measured(options: argparse.Namespace) -> None:
    """One measurement in a process of its own; a row of `large` on stdout."""
    box = Box.open(options.box)
    array, memory = box.require("tb"), 1 << 30
    began = time.perf_counter()
    if options.task == "power":
        found = power(
            array, box.box_size, memory=memory, scratch=options.scratch, workers=options.workers
        )
        seconds = time.perf_counter() - began
        peak = _peak()
        pull = _pull_of_known_box(found, box.shape)
        result = (
            f"{len(pull)} bins, pull against truth: rms {pull.std():.2f}, max {abs(pull).max():.1f}"
        )
    else:
        report = find_seams(array, Tiling(box.shape), memory=memory, workers=options.workers)
        seconds = time.perf_counter() - began
        peak = _peak()
        result = f"alarm {report.alarm}, p {report.p_value:.2g}, ratio {report.ratio.round(5)}"
    name = {"power": "power", "seams": "seams"}[options.task]
    print("|".join((name, "1 GiB", f"{peak:.2f} GiB", f"{seconds:.0f} s", result)))


def _peak() -> float:
    """Peak resident memory of this process, GiB; getrusage would give the parent's if larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def _known_box(path: Path, n: int) -> None:
    """White noise, smoothed by (1, 2, 1) / 4 on each axis, plane by plane."""
    box = Box.create(path, (n, n, n), SIZE, 0.0)
    array = box.create_array("tb")
    planes = 64

    def white(x: int) -> np.ndarray:
        rng = np.random.default_rng([x % n, 7])
        plane: np.ndarray = rng.standard_normal((n, n), dtype=np.float32)
        for axis in (0, 1):
            plane = (2 * plane + np.roll(plane, 1, axis) + np.roll(plane, -1, axis)) / 4
        return plane

    rows = max(planes, array.shards[0] if array.shards else planes)
    for first in range(0, n, rows):
        last = min(first + rows, n)
        slab = np.empty((last - first, n, n), np.float32)
        below, here = white(first - 1), white(first)
        for x in range(first, last):
            above = white(x + 1)
            slab[x - first] = 0.05 + 0.02 * (below + 2 * here + above) / 4
            below, here = here, above
        array[first:last] = slab


def _pull_of_known_box(found: Spectrum, shape: tuple[int, int, int]) -> np.ndarray:
    """Measured less true, over its standard deviation, by bin."""
    sides = tuple(SIZE * n / shape[0] for n in shape)
    axes = wavenumbers(shape, sides)
    # A field of unit variance: 1 per mode of |FFT|^2 / voxels.
    x, y, z = (np.cos(k * s / n / 2) ** 4 for k, s, n in zip(axes, sides, shape, strict=True))
    known = ModeSums(shape, SIZE, Shells(found.edges))
    everything, sums = slice(None), np.zeros((2, 3, known.bins.size))
    for i in range(shape[0]):
        plane = 0.02**2 * x[i] * y[:, None] * z
        at = (slice(i, i + 1), everything, everything)
        sums[0] += known.block(at, [np.sqrt(plane * np.prod(shape))[None]])
        sums[1] += known.block(at, [plane[None] * np.sqrt(np.prod(shape))])
    volume = np.prod(sides) / np.prod(shape)
    mean, square = (known.means(total)[1][1] for total in sums)
    error = np.sqrt(2 * square * volume / found.modes)
    return (found.power - mean) / error


def alarms(options: argparse.Namespace) -> str:
    """Seam-free exact Gaussian boxes: how many raise an alarm. Below, fields of heavy tails."""
    n, boxes = options.grid or 168, options.boxes
    tiling = Tiling((n, n, n))
    rows = []
    reports: list[SeamReport] = []
    kinds = [(law, 0.0) for law in LAWS] + [(law, 2.0) for law in LAWS]
    for law, bent in kinds:
        modes = LAWS[law](tiling.shape)
        reports = []
        for seed in range(boxes // len(LAWS)):
            field = draw(modes, tiling.shape, 10_000 + seed)
            reports.append(find_seams(np.exp(bent * field) if bent else field, tiling))
        p = np.array([r.p_value for r in reports])
        z = np.array([[f.z for f in r.tests] for r in reports])
        rows.append(
            (
                f"exp({bent:g} g), g {law}" if bent else law,
                str(len(p)),
                f"{reports[0].false_alarm_rate:.0%}",
                str(sum(r.alarm for r in reports)),
                str(int((p < 0.05).sum())),
                f"{np.nanstd(z):.2f}",
                f"{np.nanmax(abs(z)):.2f}",
            )
        )
    total = [str(sum(int(row[i]) for row in rows[: len(LAWS)])) for i in (1, 3, 4)]
    rows.insert(len(LAWS), ("Gaussian, together", total[0], rows[0][2], total[1], total[2], "", ""))
    head = (
        f"law, {n}^3, {tiling.size} tiles",
        "boxes",
        "stated rate",
        "alarms",
        "p < 5 %",
        f"scatter of z ({len(reports[0].tests)} tests)",
        "largest z",
    )
    return table(head, rows)


def planted(options: argparse.Namespace) -> str:
    """The smallest planted seam that raises an alarm, searched by halving a ladder of strengths."""
    n = options.grid or 256
    tiling = Tiling((n, n, n))
    rows = []
    for law, spectrum in LAWS.items():
        modes = spectrum(tiling.shape)
        fields = [draw(modes, tiling.shape, seed) for seed in range(options.seeds)]
        for kind in PLANTED:
            least = [_least(field, tiling, kind, seed) for seed, field in enumerate(fields)]
            rows.append((law, kind, ", ".join(least)))
    ladder = " ".join(f"{s:.2%}" for s in STRENGTHS)
    head = (f"law, {n}^3, {tiling.size} tiles", "seam", "smallest found, by field")
    return table(head, rows) + f"\n\nStrengths tried, of the field's rms: {ladder}."


def _least(field: np.ndarray, tiling: Tiling, kind: str, seed: int) -> str:
    """The weakest of STRENGTHS that is found, the next weaker one not being found."""
    found, missed = -1, len(STRENGTHS)
    while missed - found > 1:
        middle = (found + missed) // 2
        if find_seams(plant(field, tiling, kind, STRENGTHS[middle], seed), tiling).alarm:
            found = middle
        else:
            missed = middle
    return f"{STRENGTHS[found]:.2%}" if found >= 0 else f"over {STRENGTHS[0]:.2%}"


def table(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(path: Path, name: str, doc: str, text: str, command: str) -> None:
    """Put a section into the Markdown file, in place of an older one of that name."""
    old = path.read_text() if path.exists() else "# Spectra and seam diagnostics, measured\n"
    old = re.sub(rf"\n## {name}\n.*?(?=\n## |\Z)", "", old, flags=re.S)
    section = f"\n## {name}\n\n{doc}\n\n    {command}\n\n{text}\n"
    path.write_text(old.rstrip("\n") + "\n" + section)


TASKS = {f.__name__: f for f in (independent, direct, large, alarms, planted)}


def main() -> None:
    """Run one task; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS, "measured"])
    parser.add_argument("box", nargs="?", help="for measured")
    parser.add_argument("--task", dest="what", default="power", choices=["power", "seams"])
    parser.add_argument("--grid", type=int, help="voxels per axis")
    parser.add_argument("--boxes", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scratch", default=None)
    parser.add_argument("--markdown", type=Path, default=Path(__file__).with_name("SPECTRA.md"))
    options = parser.parse_args()
    if options.task == "measured":
        options.task = options.what
        measured(options)
        return
    task = TASKS[options.task]
    began = time.perf_counter()
    text = task(options)
    print(text)
    command = "python -m tests.benchmarks.spectra " + " ".join(sys.argv[1:])
    seconds = time.perf_counter() - began
    doc = f"{(task.__doc__ or '').strip()} {os.cpu_count()} cores, {seconds:.0f} s."
    write(options.markdown, options.task, doc, text, command)


if __name__ == "__main__":
    main()
