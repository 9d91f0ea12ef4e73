"""What a machine can do at most: the rates that painting is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bigbox.devices import on_gpu, side_by_side, thread_pool
from bigbox.store.durable import Disk

SECONDS = 0.6  # for each measurement, which bench makes twice
QUEUE = 20
IN_A_ROW = 12
COPY_BYTES = 256 << 20
STORE_BYTES = 64 << 20
# Channels and edge of the convolutions tried: those of the networks' presets, and larger ones.
CONVOLUTIONS = ((48, 32), (64, 16), (96, 8), (128, 16), (192, 8), (256, 16))


def rate(work: Callable[[], object], device: str, threads: int) -> float:
    """Return calls of `work` a second, on `threads` threads of a CPU side by side.

    The quickest of several rounds counts: others on the machine have disturbed it least. A round
    has as many calls in a row as a tile takes, fewer of long ones. A GPU is given a queue of them,
    and never waits.
    """
    pool = thread_pool(threads, device)

    def round_(calls: int) -> float:
        began = time.perf_counter()
        side_by_side(pool, lambda _: work(), range(calls))
        if on_gpu(device):
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once = min(round_(threads), round_(threads))
    in_a_row = max(1, min(IN_A_ROW, round(SECONDS / 3 / once)))
    calls = QUEUE if on_gpu(device) else threads * in_a_row
    rounds: list[float] = []
    while sum(rounds) < SECONDS or len(rounds) < 3:
        rounds.append(round_(calls))
    if pool:
        pool.shutdown()
    return calls / min(rounds)


def matrix_product_rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """Return floating point operations a second of a large square matrix product."""
    n = 8192 if on_gpu(device) else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 * rate(lambda: a @ b, device, threads)


@torch.inference_mode()
def convolution_rate(device: str, dtype: torch.dtype, threads: int, batch: int) -> float:
    """Return operations a second of the best of the 3³ convolutions CONVOLUTIONS, channels last."""
    best = 0.0
    for channels, edge in CONVOLUTIONS:
        conv = torch.nn.Conv3d(channels, channels, 3, padding=1, device=device, dtype=dtype)
        conv.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        x = torch.randn(batch, channels, edge, edge, edge, device=device).to(dtype)
        x = x.to(memory_format=torch.channels_last_3d)
        operations = 2 * 27 * channels**2 * edge**3 * batch
        calls = rate(lambda c=conv, x=x: c(x), device, threads)  # type: ignore[misc]
        best = max(best, operations * calls)
    return best


def copy_rate(device: str, threads: int) -> float:
    """Return bytes a second that are read and written when memory is copied."""
    size = COPY_BYTES // threads
    source = torch.ones(size, dtype=torch.uint8, device=device)
    targets = [torch.empty_like(source) for _ in range(threads)]  # as many at work at most

    def copy() -> None:
        targets.append(targets.pop().copy_(source))

    return 2 * size * rate(copy, device, threads)


def store_rates(folder: Path) -> tuple[float, float]:
    """Return bytes a second written with fsync, and read back (mostly from the page cache)."""
    disk, path = Disk(), folder / "bench.bin"
    data = np.random.default_rng(0).integers(0, 256, STORE_BYTES, dtype=np.uint8)
    file = disk.open(path, create=True)
    began = time.perf_counter()
    disk.write_at(file, 0, [data])
    disk.fsync(file)
    written = time.perf_counter() - began
    disk.close(file)
    began = time.perf_counter()
    path.read_bytes()
    read = time.perf_counter() - began
    disk.unlink(path)
    return STORE_BYTES / written, STORE_BYTES / read
