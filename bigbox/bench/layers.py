"""Where the time of a network's call goes: part by part, and in copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CALLS = 5
# Words in the names of kernels, and of torch's operations on a CPU, that only move voxels.
COPIES = ("copy", "memcpy", "transpose", "nchwtonhwc", "nhwctonchw", "convert", "aten::cat")


def part_times(
    call: Callable[[], object], network: nn.Module, plain: nn.Module, one: tuple[Tensor, ...]
) -> dict[str, list[float]]:
    """Return seconds of the call, and operations for one tile or window, by the network's part.

    call: of `network`; plain: the same network on a CPU, whose operations are counted on `one`.
    """
    with FlopCounterMode(display=False) as counter:
        plain(*one)
    counts = counter.get_flop_counts()
    top = type(plain).__name__
    return {
        name: [seconds, float(sum(counts.get(f"{top}.{name}", {}).values()))]
        for name, seconds in _seconds(call, network).items()
    }


def copies_share(call: Callable[[], object], gpu: bool) -> float:
    """Return the share of a call's time in which voxels are copied or change their layout."""
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if gpu else kinds.CPU]) as seen:
        for _ in range(CALLS):
            call()
        if gpu:
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    for row in seen.key_averages():
        times[row.key.lower()] = row.self_device_time_total if gpu else row.self_cpu_time_total
    copied = sum(spent for key, spent in times.items() if any(word in key for word in COPIES))
    return copied / max(sum(times.values()), 1e-9)


def _parts(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the network's parts that are called, lists taken apart."""
    parts = []
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            parts += [(f"{name}.{number}", part) for number, part in enumerate(child)]
        else:
            parts.append((name, child))
    return parts


def _seconds(call: Callable[[], object], network: nn.Module) -> dict[str, float]:
    """Return the median time that a call spends in each part of the network."""
    gpu = next(network.parameters()).is_cuda
    marks: dict[str, list[Any]] = {}

    with ExitStack() as hooks:
        for name, part in _parts(network):
            mine: list[Any] = marks.setdefault(name, [])

            def mark(*_: object, mine: list[Any] = mine) -> None:
                mine.append(_now(gpu))

            hooks.callback(part.register_forward_pre_hook(mark).remove)
            hooks.callback(part.register_forward_hook(mark).remove)
        for _ in range(CALLS):
            call()
    if gpu:
        torch.cuda.synchronize()
    return {name: _median(mine) for name, mine in marks.items()}


def _median(marks: list[Any]) -> float:
    """Return the median of the times between pairs of marks; 0 without any."""
    times = [_between(a, b) for a, b in zip(marks[::2], marks[1::2], strict=True)]
    return float(sorted(times)[len(times) // 2]) if times else 0.0


def _now(gpu: bool) -> Any:
    """Return a moment in the device's own time."""
    if not gpu:
        return time.perf_counter()
    cuda: Any = torch.cuda
    event = cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    return float(end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1e3)
