"""How near painting on a GPU comes to what the GPU can do, in one go and in under four minutes.

    python -m tests.benchmarks.gpu                        on a GPU
    python -m tests.benchmarks.gpu --device cpu --small   the same code on any machine

Parts are tried one by one, the most important first; each prints what it finds at once, and one
that fails or finds no time left says so in a line. At the end all is printed as one table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

START = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from bigbox.analysis.spectra.power import power  # noqa: E402
from bigbox.data import default_model  # noqa: E402
from bigbox.devices import find_device, own_stream  # noqa: E402
from bigbox.diffusion.overlap import tiling_for  # noqa: E402
from bigbox.networks import fused, launching  # noqa: E402
from bigbox.networks.halogen import Halogen  # noqa: E402
from bigbox.networks.layers import conv  # noqa: E402
from bigbox.networks.lodi import Lodi  # noqa: E402
from bigbox.networks.model import load_model, save_model  # noqa: E402
from bigbox.networks.presets import HALOGEN, LODI, HalogenSize, LodiSize  # noqa: E402
from bigbox.painters.base import StepBatch  # noqa: E402
from bigbox.painters.halogen import HalogenPainter  # noqa: E402
from bigbox.painters.lodi import LodiPainter  # noqa: E402
from bigbox.painters.network import ready  # noqa: E402
from bigbox.painters.tuning import Measured, Records, exact_float32, off, warm_up  # noqa: E402
from bigbox.store.box import Box  # noqa: E402
from tests import models  # noqa: E402
from tests.fields import draw  # noqa: E402
from tests.reference.joint import paint_jointly  # noqa: E402

IMPORTED = time.perf_counter() - START
VOXEL = 12.5 / 128

Row = tuple[str, str]


class Bench:
    """What is measured, at which size, and how much time is left."""

    def __init__(self, device: str, small: bool, seconds: float, folder: Path):
        self.device, self.small, self.seconds, self.folder = device, small, seconds, folder
        self.cuda = torch.device(device).type == "cuda"
        self.rows: list[Row] = []
        self.peak, self.ceiling = 1e-9, 0.0  # operations a second
        self.exact: dict[tuple[str, int], torch.Tensor] = {}  # a call's last tile, on the CPU
        self.dtype = torch.float16 if self.cuda else torch.float32
        self.batches = (2,) if small else (32, 128)
        self.paper = write_paper(folder / "paper", small)
        self.mini = models.write_model(folder / "mini") if small else default_model()

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - START)

    def part(self, needs: float, work: Callable[[Bench], Iterator[Row]]) -> None:
        """Do one part; needs: seconds that it takes, about."""
        name, began = work.__name__.strip("_"), time.perf_counter()
        if needs > self.left and not self.small:
            self.say((name, f"left out: {self.left:.0f} s left"))
            return
        try:
            for row in work(self):
                self.say(row)
        except Exception as error:  # whatever it is, the other parts go on
            text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.say((name, f"FAILED, {text}"))
        if self.cuda:
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception as error:  # a sick device; what there is will be printed
                self.say((name, f"FAILED, {str(error).splitlines()[0][:200]}"))
        print(f"    ({name}: {time.perf_counter() - began:.1f} s)", flush=True)

    def say(self, row: Row) -> None:
        """Print a row at once, and keep it."""
        self.rows.append(row)
        print(f"{row[0]:40}{row[1]}", flush=True)

    def seconds_of(self, work: Callable[[], object], calls: int = 10) -> float:
        """Return the median time of a call, by the device's own clock on a GPU."""
        calls = 2 if self.small else calls
        times = []
        for number in range(calls + 2):
            if self.cuda:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                end.synchronize()
                took = begin.elapsed_time(end) / 1e3
            else:
                began = time.perf_counter()
                work()
                took = time.perf_counter() - began
            if number > 1:
                times.append(took)
        return float(np.median(times))

    def graph(self, work: Callable[[], object]) -> Callable[[], object]:
        """Return the work as a CUDA graph, or as it is."""
        if not self.cuda:
            return work
        work(), work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


def write_paper(folder: Path, small: bool) -> Path:
    """Networks of the paper's sizes, random weights. LODI predicts v: a random noise would not stay
    finite through a sampler."""
    torch.manual_seed(7)
    size = models.LODI if small else replace(LODI["paper"], parametrisation="v")
    halo = models.HALOGEN if small else HALOGEN["paper"]
    assert isinstance(size, LodiSize) and isinstance(halo, HalogenSize)
    made: list[tuple[str, Any, Any]] = [
        ("lodi", Lodi(size), size),
        ("halogen", Halogen(halo), halo),
    ]
    for kind, network, told in made:
        models.random_weights(network)
        with torch.no_grad():
            network.outlet[-1].weight *= 0.3
        if kind == "halogen":
            with torch.no_grad():
                network.outlet[-1].bias += 1.0
        save_model(folder, kind, network, models.card(told), torch.float32)
    return folder


def operations(network: torch.nn.Module, *shapes: tuple[int, ...]) -> float:
    """Floating point operations of a call, as torch counts them, of the network as it is."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        given = [torch.empty(shape) for shape in shapes]
        if isinstance(network, Lodi):
            z, level, halo = given
            given = [z, level, network.prepare(halo, z, z)]
        with FlopCounterMode(display=False) as counter:
            network(*given)
    return float(counter.get_total_flops())


# --- parts --------------------------------------------------------------------------------------


def machine(bench: Bench) -> Iterator[Row]:
    """What it is measured on."""
    name = torch.cuda.get_device_name(bench.device) if bench.cuda else "CPU"
    triton = "none"
    if launching.kernels() is not None:
        import triton as installed

        triton = installed.__version__
    cores = len(os.sched_getaffinity(0))
    yield "device", f"{name}, {cores} cores"
    cudnn = torch.backends.cudnn.version() if bench.cuda else "none"
    yield "versions", f"torch {torch.__version__}, cuDNN {cudnn}, Triton {triton}"
    yield "imports of this benchmark", f"{IMPORTED:.1f} s"


def ceilings(bench: Bench) -> Iterator[Row]:
    """Matrix product and copy."""
    n = 256 if bench.small else 8192
    for dtype in (bench.dtype, torch.bfloat16):
        a, b = (torch.randn(n, n, device=bench.device).to(dtype) for _ in range(2))
        rate = 2 * n**3 / bench.seconds_of(lambda a=a, b=b: a @ b, 20)
        bench.peak = max(bench.peak, rate)
        yield f"matrix product {str(dtype)[6:]}", f"{rate / 1e12:.4g} TFLOP/s"
    size = 1 << (20 if bench.small else 31)
    x = torch.ones(size, dtype=torch.uint8, device=bench.device)
    y = torch.empty_like(x)
    rate = 2 * size / bench.seconds_of(lambda: y.copy_(x))
    yield "copy", f"{rate / 1e12:.3g} TB/s read and written"


def convolutions(bench: Bench) -> Iterator[Row]:
    """Single 3³ layers, NDHWC: cuDNN and every way of the own kernel."""
    layers = [(48, 48, 32), (64, 64, 16), (96, 96, 16), (192, 192, 8), (128, 128, 4), (64, 64, 32)]
    if bench.small:
        layers = [(16, 16, 4)]
    batch = bench.batches[0]
    made = []
    for cin, out, n in layers:
        layer = conv(cin, out).to(bench.device).to(bench.dtype).requires_grad_(False)
        torch.nn.init.normal_(layer.weight, std=0.05)
        fast = fused.Convolution(layer, fused.Chooser(), bench.dtype)
        x = torch.randn(batch, n, n, n, cin, device=bench.device).to(bench.dtype)
        made.append((fast, x, fast.blockings(x) if bench.cuda else []))
    if bench.cuda:
        with launching.compile_only():
            for fast, x, ways in made:
                for way in ways:
                    fast.own(x, way)
    for (cin, out, n), (fast, x, ways) in zip(layers, made, strict=True):
        flops = 2 * 27 * cin * out * n**3 * batch
        with exact_float32():
            wanted = fused.plain_convolution(fused.columns(x[:2]), fast.weight, None, 1)
        name = f"conv {cin}->{out} at {n}³ x {batch}"
        rate = flops / bench.seconds_of(lambda f=fast, x=x: f.cudnn(x))
        bench.ceiling = max(bench.ceiling, rate)
        yield (
            f"{name} cuDNN",
            f"{rate / 1e12:.4g} TFLOP/s, error {off(fast.cudnn(x)[:2], wanted):.1e}",
        )
        assert fast.bias is not None
        wanted = wanted + fast.bias.float()[:, None, None, None]
        for way in ways:
            text = f"{way.voxels} x {way.outputs}, {way.inputs}, {way.warps} w {way.stages} s"
            try:
                error = off(fast.own(x, way)[:2], wanted)
                rate = flops / bench.seconds_of(lambda f=fast, x=x, w=way: f.own(x, w))
                bench.ceiling = max(bench.ceiling, rate if error < 1e-2 else 0.0)
                yield f"{name} own", f"{rate / 1e12:.4g} TFLOP/s, error {error:.1e} ({text})"
            except Exception as trouble:  # one way of many
                yield f"{name} own", f"FAILED ({text}) {str(trouble).splitlines()[0][:150]}"
    yield "convolution ceiling", f"{bench.ceiling / 1e12:.4g} TFLOP/s"


def networks(bench: Bench, preset: str, batches: tuple[int, ...], variants: Any) -> Iterator[Row]:
    """LODI's calls: milliseconds a tile by variant."""
    base = load_model(getattr(bench, preset), "lodi").network
    tile = (32, 32, 32)
    flops = operations(base, (1, *tile), (1,), (1, 4, *tile))
    for mode, dtype, graph in variants:
        net = ready(base, bench.device, dtype)
        chooser: fused.Chooser | None = None
        if mode == "auto":
            chooser = Measured(Records.of(bench.device))
        elif mode == "own":
            chooser = fused.OwnKernel()
        fused.use(net, chooser, on=mode != "torch")
        for batch in batches:
            name = f"LODI {preset} {mode} {str(dtype)[6:]}{' graph' if graph else ''} x {batch}"
            try:
                torch.manual_seed(3)
                z, halo = torch.randn(batch, *tile), torch.randn(batch, 4, *tile)
                level = torch.rand(batch)
                z, halo, level = (x.to(bench.device) for x in (z, halo, level))
                with torch.inference_mode():
                    began = time.perf_counter()
                    if mode != "torch":
                        known = z > 9
                        warm_up(
                            lambda n=net, a=z, b=level, c=halo, d=known: n(
                                a, b, n.prepare(c, a, d)
                            ),
                            chooser,
                        )
                    prepared = net.prepare(halo, z, z > 9)
                    found = net(z, level, prepared)[-1:].float().cpu()
                    first = time.perf_counter() - began

                    def call(net: Any = net, given: Any = (z, level, prepared)) -> Any:
                        return net(*given)

                    work = bench.graph(call) if graph else call
                    took = bench.seconds_of(work)
                    if (preset, batch) not in bench.exact:
                        one = [x[-1:].float().cpu() for x in (z, level, halo)]
                        base.float().eval()
                        cpu = base(one[0], one[1], base.prepare(one[2], one[0], one[0] > 9))
                        bench.exact[preset, batch] = cpu
                rate = flops * batch / took
                share = f"{100 * rate / bench.peak:.1f} % of the matrix product"
                if bench.ceiling:
                    share += f", {100 * rate / bench.ceiling:.0f} % of the convolution"
                extra = f", {chooser.summary()}" if isinstance(chooser, Measured) else ""
                yield (
                    name,
                    (
                        f"{1e3 * took / batch:.4g} ms a tile, {rate / 1e12:.4g} TFLOP/s, {share}, "
                        f"error {off(found, bench.exact[preset, batch]):.1e}, first call "
                        f"{first:.1f} s{extra}"
                    ),
                )
            except Exception as trouble:
                text = f"{type(trouble).__name__}: {trouble}".splitlines()[0][:250]
                yield name, f"FAILED, {text}"
        del net
        if bench.cuda:
            torch.cuda.empty_cache()


def lodi_paper(bench: Bench) -> Iterator[Row]:
    """The paper's size."""
    half = bench.dtype
    variants = [("auto", half, True), ("cudnn", half, True), ("own", half, True)]
    yield from networks(
        bench, "paper", bench.batches, variants if bench.cuda else [("torch", half, False)]
    )


def lodi_mini(bench: Bench) -> Iterator[Row]:
    """The shipped size."""
    half = bench.dtype
    variants = [("auto", half, True), ("cudnn", half, True), ("own", half, True)]
    yield from networks(
        bench, "mini", bench.batches, variants if bench.cuda else [("torch", half, False)]
    )


def lodi_others(bench: Bench) -> Iterator[Row]:
    """As it was, without a graph, and in bfloat16."""
    if bench.cuda:
        half, brain = torch.float16, torch.bfloat16
        more = [
            ("torch", half, False),
            ("torch", half, True),
            ("auto", half, False),
            ("auto", brain, True),
        ]
        for preset in ("paper", "mini"):
            yield from networks(bench, preset, bench.batches[:1], more)


def choices(bench: Bench) -> Iterator[Row]:
    """What was chosen for each convolution, and by which times."""
    if bench.cuda:
        for path in sorted(Records.of(bench.device)._folder.glob("*.json")):
            found = json.loads(path.read_text())
            if "way" in found:
                tried = ", ".join(
                    f"{k}: {v[1]:.3f} ms ({v[0]:.0e})" for k, v in found["error, ms"].items()
                )
                yield f"chosen {path.stem}", f"{found['way']} of {tried} {found['failed'] or ''}"
            else:
                yield f"checked {path.stem}", f"error {found['error']:.1e}"


def profile(bench: Bench, preset: str) -> Iterator[Row]:
    """Where a call's time goes, by kernel."""
    painter = painter_of(bench, bench.paper if preset == "paper" else bench.mini)
    with torch.inference_mode(), own_stream(bench.device):
        example = painter._example(random=True)
        network = painter.compiled_network.network
        network(*example)
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CUDA if bench.cuda else kinds.CPU]) as seen:
            for _ in range(3):
                network(*example)
            if bench.cuda:
                torch.cuda.synchronize()
    times: dict[str, list[float]] = {}
    for row in seen.key_averages():
        spent = row.self_device_time_total if bench.cuda else row.self_cpu_time_total
        times[row.key] = [spent, row.count]
    total = sum(spent for spent, _ in times.values())
    classes = {
        "copies and layout": ("copy", "convert", "nchw", "nhwc", "transpose", "memcpy"),
        "convolutions": ("convolve", "conv", "fprop", "xmma", "cutlass", "sm90", "sm80"),
        "products": ("gemm", "nvjet", "cublas"),
        "norms": ("moments", "normalise", "rowwise"),
        "attention": ("flash", "fmha", "attention"),
    }
    shares = dict.fromkeys([*classes, "other"], 0.0)
    for key, (spent, _) in times.items():
        low = key.lower()
        kind = next((k for k, words in classes.items() if any(w in low for w in words)), "other")
        shares[kind] += spent / total
    text = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in shares.items())
    yield f"profile {preset} x {len(example[0])}", f"{text}; {total / 3e3:.3f} ms a call"
    for key, (spent, count) in sorted(times.items(), key=lambda item: -item[1][0])[:12]:
        yield "", f"{100 * spent / total:5.1f} % {int(count):4d}  {key[:110]}"


def profile_paper(bench: Bench) -> Iterator[Row]:
    """Of the paper's size."""
    yield from profile(bench, "paper")


def profile_mini(bench: Bench) -> Iterator[Row]:
    """Of the shipped size."""
    yield from profile(bench, "mini")


def painter_of(bench: Bench, model: Path, shape: int = 256) -> LodiPainter:
    """LODI, all tiles together."""
    return LodiPainter(
        seed=1,
        box_shape=(shape,) * 3,
        steps=2 if bench.small else 12,
        model=load_model(model, "lodi"),
        device=bench.device,
    )


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
            from bigbox.painters.stepper import Stepper

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


def halogen(bench: Bench) -> Iterator[Row]:
    """HALOgen's windows: the network alone, and with smoothing and transfers."""
    edge = (32, 32, 32) if bench.small else (64, 64, 64)
    for preset, model in (("paper", bench.paper), ("mini", bench.mini)):
        base = load_model(model, "halogen")
        flops = operations(base.network, (1, 1, *edge))
        batch = 1 if bench.small else 16
        x = torch.randn(batch, 1, *edge, device=bench.device)
        modes = ("auto", "own", "cudnn", "torch") if bench.cuda else ("torch",)
        for mode in modes:
            name = f"HALOgen {preset} {mode} x {batch}"
            try:
                net = ready(base.network, bench.device, bench.dtype)
                chooser = {"auto": Measured, "own": lambda _: fused.OwnKernel()}.get(mode)
                made = chooser(Records.of(bench.device)) if chooser else None
                fused.use(net, made, on=mode != "torch")
                with torch.inference_mode():
                    if mode != "torch":
                        warm_up(lambda net=net, x=x: net(x), made)
                    net(x)
                    took = bench.seconds_of(bench.graph(lambda net=net, x=x: net(x)), 5)
                rate = flops * batch / took
                yield name, f"{1e3 * took / batch:.4g} ms a window, {rate / 1e12:.4g} TFLOP/s"
            except Exception as trouble:
                yield (
                    name,
                    f"FAILED, {type(trouble).__name__}: {str(trouble).splitlines()[0][:200]}",
                )
        if bench.small:
            continue
        painter = HalogenPainter(base, device=bench.device)
        n = 64 + 2 * painter.margin
        dm = np.random.default_rng(2).lognormal(0, 1, (painter.tiles_per_call, n, n, n))
        dm = dm.astype(np.float32)
        painter.predict(dm)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            painter.predict(dm)
            times.append(time.perf_counter() - began)
        each = 1e3 * float(np.median(times)) / len(dm)
        yield f"HALOgen {preset} predict x {len(dm)}", f"{each:.4g} ms a window, all included"


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


def paint_one(box: Path, model: Path, device: str, seed: int) -> None:
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
    report["imports"] = IMPORTED
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
        from bigbox.painters.network import CompiledNetwork

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


def compiled(bench: Bench) -> Iterator[Row]:
    """The shipped LODI compiled by torch."""
    if not bench.cuda:
        return
    painter = replace(painter_of(bench, bench.mini), compile="on")
    began = time.perf_counter()
    with torch.inference_mode(), own_stream(bench.device):
        network = painter.compiled_network
        ready_after = time.perf_counter() - began
        example = painter._example(random=True)
        took = bench.seconds_of(bench.graph(lambda: network.network(*example)))
    batch = len(example[0])
    yield (
        f"LODI mini torch.compile x {batch}",
        (
            f"{1e3 * took / batch:.4g} ms a tile, compiled in {ready_after:.1f} s"
            f"{'' if network.compiled else ', NOT COMPILED: ' + network.why_not}"
        ),
    )


PARTS: list[tuple[float, Callable[[Bench], Iterator[Row]]]] = [
    (0, machine),
    (0, ceilings),
    (10, lodi_paper),
    (10, lodi_mini),
    (15, steps),
    (5, profile_paper),
    (5, profile_mini),
    (15, whole),
    (10, halogen),
    (10, convolutions),
    (5, lodi_others),
    (12, error_in_power),
    (1, choices),
    (20, unit_tests),
    (40, compiled),
]


def main() -> None:
    """Measure all, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the code")
    parser.add_argument("--seconds", type=float, default=195.0, help="to be done in, about")
    parser.add_argument("--only", nargs="+", help="names of parts")
    parser.add_argument("--paint", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.paint:
        paint_one(*options.paint, options.device, options.seed)
        return
    device = str(find_device(options.device))
    with tempfile.TemporaryDirectory(prefix="bigbox-gpu-") as folder:
        # The caches of whoever runs this are left alone, and a first run is a first run.
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        bench = Bench(device, options.small, options.seconds, Path(folder))
        for needs, work in PARTS:
            if not options.only or work.__name__ in options.only:
                bench.part(needs, work)
        print("\n| what | found |\n|---|---|")
        for name, text in bench.rows:
            print(f"| {name} | {text} |")
        print(f"\nin {time.perf_counter() - START:.0f} s", flush=True)


if __name__ == "__main__":
    main()
