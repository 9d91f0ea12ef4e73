"""Parts of the benchmark of a GPU: the sampler, whole boxes, and how exact they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bigbox.analysis.spectra.power import power
from bigbox.devices import own_stream
from bigbox.diffusion.overlap import tiling_for
from bigbox.networks import fused
from bigbox.painters.base import StepBatch
from bigbox.painters.lodi import LodiPainter
from bigbox.painters.network import CompiledNetwork, ready
from bigbox.painters.stepper import Stepper
from bigbox.painters.tuning import exact_float32, off
from bigbox.store.box import Box
from tests.benchmarks.gpu_bench import VOXEL, Bench, Row, painter_of
from tests.fields import draw
from tests.reference.joint import paint_jointly


def steps(bench: Bench) -> Iterator[Row]:
    """The sampler without the engine: host to device, a step, and back."""
    for preset, model in (("paper", bench.paper), ("mini", bench.mini)):
        painter = painter_of(bench, model)
        rng, batch = np.random.default_rng(0), painter.tiles_per_call
        tile = (32, 32, 32)
        nodes = StepBatch(
            tiles=np.arange(batch),
            origin=rng.integers(0, 256, (batch, 3)),
            inputs=(10 ** rng.normal(10, 1, (batch, 4, *tile))).astype(np.float32),
            z=rng.standard_normal((batch, *tile), np.float32),
            previous=np.zeros((batch, *tile), np.float32),
            step=rng.integers(1, painter.steps + 1, batch),
        )
        began = time.perf_counter()
        first = painter.advance(nodes)
        ready_after = time.perf_counter() - began
        times = []
        for _ in range(2 if bench.small else 6):
            began = time.perf_counter()
            again = painter.advance(nodes)
            times.append(time.perf_counter() - began)
        same = "same bits" if again.tobytes() == first.tobytes() else "OTHER BITS"
        each = 1e3 * float(np.median(times)) / batch
        yield (
            f"step of {preset} x {batch}",
            (
                f"{each:.4g} ms a tile and call with transfers, first after {ready_after:.1f} s, "
                f"repeated: {same}; kernels: {painter.kernels[0]} {painter.kernels[1]}"
            ),
        )
        if bench.cuda:
            stepper = painter._stepper()
            for name, work in (("prepare", stepper.prepare), ("step", stepper.step)):
                took = bench.seconds_of(work)
                yield f"  its graph {name}", f"{1e3 * took / batch:.4g} ms a tile"
            with own_stream(bench.device):
                plain = Stepper(painter, graph=False).advance(nodes, np.arange(batch))
            same = "same bits" if plain.tobytes() == first.tobytes() else "OTHER BITS"
            yield "  without a graph", f"{same}, off by {np.abs(plain - first).max():.1e}"
            with own_stream(bench.device):
                eager = super(LodiPainter, painter)._advance(nodes, np.arange(batch))
            distance = off(torch.from_numpy(first[:, 1]), torch.from_numpy(eager[:, 1]))
            yield "  against the eager sampler", f"x0 off by {distance:.1e}"


def whole(bench: Bench) -> Iterator[Row]:
    """A box from dm to T_b by a process of its own: cold, warm, and the paper's networks."""
    n = 64 if bench.small else 256
    path = bench.folder / "whole.zarr"
    field = draw(spectrum_of(n), (n,) * 3, 5).astype(np.float32)
    box = Box.create(path, (n,) * 3, VOXEL * n, 0.0)
    box.create_array("dm")[...] = np.exp(1.2 * field - 0.72)
    caches = bench.folder / "caches"
    env = os.environ | {
        "XDG_CACHE_HOME": str(caches),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "CUDA_CACHE_PATH": str(caches / "cuda"),
        "BIGBOX_BENCH_STEPS": "2" if bench.small else "12",
    }
    runs = [("mini cold", bench.mini), ("mini warm", bench.mini)]
    runs += [("paper cold", bench.paper), ("paper warm", bench.paper)]
    for number, (name, model) in enumerate(runs[:1] if bench.small else runs):
        if bench.left < 15 and not bench.small:
            yield f"{n}³ {name}", f"left out: {bench.left:.0f} s left"
            continue
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--paint", str(path), str(model)]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--device", bench.device, "--seed", str(number)],
            env=env,
            capture_output=True,
            text=True,
            timeout=max(10.0, bench.left) if not bench.small else 300,
        )
        wall = time.perf_counter() - began
        if done.returncode:
            yield f"{n}³ {name}", f"FAILED, {(done.stderr.strip().splitlines() or ['?'])[-1][:250]}"
            continue
        said = json.loads(done.stdout.strip().splitlines()[-1])
        words = [line for line in done.stderr.splitlines() if "slowly" in line]
        yield (
            f"{n}³ {name}",
            (
                f"painting {said['span']:.2f} s of {said['tiles']} tiles and {said['windows']} "
                f"windows, busy {100 * said['busy']:.1f} %; start {wall - said['seconds']:.1f} s "
                f"(imports {said['imports']:.1f}, painters and kernels {said['begin']:.1f}), run "
                f"{said['seconds']:.2f} s, wall {wall:.1f} s {' '.join(words)}"
            ),
        )


def paint_one(box: Path, model: Path, device: str, seed: int, imports: float) -> None:
    """The process of `whole`: paint as `bigbox paint` does, and print a line of JSON."""
    from bigbox.engine.options import PaintOptions
    from bigbox.engine.run import paint

    began = time.perf_counter()
    options = PaintOptions(
        box,
        model=model,
        device=device,
        seed=seed,
        steps=int(os.environ["BIGBOX_BENCH_STEPS"]),
        discard=True,
        discard_halo=True,
        quiet=True,
    )
    report = paint(options)
    report["begin"] = time.perf_counter() - began - report["seconds"]
    report["imports"] = imports
    print(json.dumps(report))


def spectrum_of(n: int) -> np.ndarray:
    """Power of a smooth random field of unit variance, on the grid of a real transform."""
    k = np.fft.fftfreq(n) * n
    k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(n // 2 + 1) ** 2
    return np.exp(-k2 / (2 * (n / 8) ** 2)) / (1 + k2)


def error_in_power(bench: Bench) -> Iterator[Row]:
    """T_b of one small box against float64, the same noise: power spectra."""
    n = 32 if bench.small else 64
    rng = np.random.default_rng(6)
    smooth = draw(spectrum_of(n), (n,) * 3, 8)
    smooth = smooth / smooth.std()
    halo = 10 ** (9.5 + 1.2 * smooth + 0.1 * rng.standard_normal((4, n, n, n)))
    halo = np.where(halo > 10**9.6, halo, 0).astype(np.float32)
    for preset, exact in (("mini", torch.float64), ("paper", torch.float32)):
        if bench.left < 12 and not bench.small:
            yield f"P(k) of {preset}", f"left out: {bench.left:.0f} s left"
            continue
        fast = painter_of(bench, getattr(bench, preset), n)
        tiling = tiling_for(fast.overlap_method, (n,) * 3, 32)
        painted = paint_jointly(halo, tiling, fast, batch=fast.tiles_per_call)
        slow = replace(fast, device=bench.device)
        slow.__dict__.update(dtype=exact, tiles_per_call=4)
        slow.__dict__["network"] = ready(fast.model.network, bench.device, exact)
        fused.use(slow.network, on=False)
        slow.__dict__["compiled_network"] = CompiledNetwork(slow.network, (), "off")
        os.environ["BIGBOX_KERNELS"], kept = "torch", os.environ.get("BIGBOX_KERNELS")
        began = time.perf_counter()
        try:
            with exact_float32():
                wanted = paint_jointly(halo, tiling, slow, batch=4)
        finally:
            del os.environ["BIGBOX_KERNELS"]
            if kept is not None:
                os.environ["BIGBOX_KERNELS"] = kept
            fused.use(fast.network, None, on=True)
        took = time.perf_counter() - began
        for name, make in (("T_b", lambda x: x), ("log T_b", lambda x: np.log10(x + 5e-3))):
            found, right = (power(make(x).astype(np.float32), VOXEL * n) for x in (painted, wanted))
            ratio = found.power / right.power - 1
            good = np.isfinite(ratio)
            yield (
                f"P(k) of {name}, {preset}, {n}³",
                (
                    f"off by {100 * np.abs(ratio[good]).max():.3g} % at most, mean "
                    f"{100 * ratio[good].mean():+.3g} %, against {str(exact)[6:]} ({took:.1f} s)"
                ),
            )


def unit_tests(bench: Bench) -> Iterator[Row]:
    """The unit tests that a GPU changes."""
    names = ("test_noise_kernel", "test_stepper", "test_fused")
    files = [f"tests/unit/{name}.py" for name in names[: 2 if bench.small else None]]
    # Kernels are compiled one by one: not each shape of each layer.
    chosen = "not test_norm and not test_convolution"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files],
        capture_output=True,
        text=True,
        timeout=max(10.0, bench.left) if not bench.small else 300,
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing said"]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            yield "unit test", line[:250]
    yield "unit tests", lines[-1][:250]
