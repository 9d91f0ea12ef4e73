"""Parts of the benchmark of a GPU: layers and networks, without the engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bigbox.devices import own_stream
from bigbox.networks import fused, launching
from bigbox.networks.layers import conv
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.network import ready
from bigbox.painters.tuning import Measured, Records, exact_float32, off, warm_up
from tests.benchmarks.gpu_bench import Bench, Row, failed, operations, painter_of


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
                yield f"{name} own", f"{failed(trouble)} ({text})"
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
                yield name, failed(trouble)
        del net
        if bench.cuda:
            torch.cuda.empty_cache()


def lodi_paper(bench: Bench) -> Iterator[Row]:
    """The paper's size."""
    yield from lodi(bench, "paper")


def lodi_mini(bench: Bench) -> Iterator[Row]:
    """The shipped size."""
    yield from lodi(bench, "mini")


def lodi(bench: Bench, preset: str) -> Iterator[Row]:
    """As it is painted with, and with each kind of kernel."""
    modes, graph = (("auto", "cudnn", "own"), True) if bench.cuda else (("torch",), False)
    yield from networks(bench, preset, bench.batches, [(m, bench.dtype, graph) for m in modes])


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
                yield name, failed(trouble)
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
