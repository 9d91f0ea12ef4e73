"""What the parts of the benchmark of a GPU share: sizes, clocks, and networks to measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bigbox.data import default_model
from bigbox.networks.halogen import Halogen
from bigbox.networks.lodi import Lodi
from bigbox.networks.model import load_model, save_model
from bigbox.networks.presets import HALOGEN, LODI, HalogenSize, LodiSize
from bigbox.painters.lodi import LodiPainter
from tests import models

VOXEL = 12.5 / 128

Row = tuple[str, str]


class Bench:
    """What is measured, at which size, and how much time is left."""

    def __init__(self, device: str, small: bool, folder: Path, began: float, seconds: float):
        self.device, self.small, self.folder = device, small, folder
        self.began, self.seconds = began, seconds  # of time.perf_counter, and how long it may take
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
        return self.seconds - (time.perf_counter() - self.began)

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
            self.say((name, failed(error)))
        if self.cuda:
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception as error:  # a sick device; what there is will be printed
                self.say((name, failed(error)))
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


def failed(error: Exception) -> str:
    """Say in a line what went wrong."""
    return f"FAILED, {type(error).__name__}: {error}".splitlines()[0][:300]


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


def painter_of(bench: Bench, model: Path, shape: int = 256) -> LodiPainter:
    """LODI, all tiles together."""
    return LodiPainter(
        seed=1,
        box_shape=(shape,) * 3,
        steps=2 if bench.small else 12,
        model=load_model(model, "lodi"),
        device=bench.device,
    )
