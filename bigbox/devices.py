"""The device that torch computes on: found by name, and used well by threads side by side."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bigbox.errors import BadInput

Item = TypeVar("Item")
Result = TypeVar("Result")

# mallopt's parameters (glibc's malloc.h), and what they are set to.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 256 << 20, _M_TOP_PAD: 16 << 20}
_own = threading.local()


def keep_freed_memory() -> None:
    """Have the process keep the memory that tensors of up to 32 MB on a CPU give back.

    Else glibc returns it to the system, which clears it page by page when the next layer asks for
    it: a tenth of the time of LODI, and 4,500 page faults a call. Does nothing with another libc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEPT.items():
            mallopt(parameter, value)


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto": a GPU if there is one, else the CPU.

    Raises BadInput where it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise BadInput(f"--device {name}: cannot be used ({why}); leave it out") from None
    return device


def on_gpu(device: str) -> bool:
    """Return whether that is a CUDA device."""
    return torch.device(device).type == "cuda"


def device_name(device: str) -> str:
    """Return the kind of device: bytes are promised for one kind only."""
    return torch.cuda.get_device_name(device) if on_gpu(device) else torch.device(device).type


def thread_pool(threads: int, device: str) -> ThreadPoolExecutor | None:
    """Return threads of one torch thread each, for work side by side; None where one will do."""
    if threads == 1 or torch.device(device).type != "cpu":
        return None
    return ThreadPoolExecutor(threads, "tile", torch.set_num_threads, (1,))


def side_by_side(
    pool: ThreadPoolExecutor | None, work: Callable[[Item], object], items: Iterable[Item]
) -> None:
    """Call work(item) for every item, on the pool's threads if there is one."""
    for _ in pool.map(work, items) if pool is not None else map(work, items):
        pass


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Give each thread a stream of its own on a GPU: its copies hold up no other's batch."""
    if not on_gpu(device):
        yield
        return
    if not hasattr(_own, "stream"):
        cuda: Any = torch.cuda
        _own.stream = cuda.Stream(torch.device(device))
    with torch.cuda.stream(_own.stream):
        yield
    _own.stream.synchronize()


def capture(work: Callable[[], Result]) -> tuple[Any, Result]:
    """Return a CUDA graph of the work, and what the work returned: each replay makes it anew."""
    for _ in range(2):  # libraries choose their kernels in the first calls
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()
    return graph, result


def to_host(tensor: Tensor) -> np.ndarray:
    """Return a float32 tensor as an array; from a GPU through pinned memory, which it keeps."""
    tensor = tensor.float()
    if not tensor.is_cuda:
        return np.asarray(tensor)
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host.numpy()


def to_device(array: np.ndarray, device: str) -> Tensor:
    """Return an array as float32 on the device; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(array).to(torch.float32)
    if on_gpu(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
