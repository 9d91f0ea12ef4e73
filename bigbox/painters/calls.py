"""A network's call made quick: compiled by torch where that pays, one CUDA graph on a GPU.

Compiled code fuses norms, activations and what lies between convolutions. On a GPU it is the
default. On a CPU it takes 10 % off a tile and a minute to make, so it must be asked for. It needs a
C++ compiler on a CPU, Triton on a GPU; where they are missing the network is called as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_own = threading.local()


class Call:
    """network(*inputs), for inputs that always have the shapes and types of `example`.

    wanted: "on", "off", or "auto": on a GPU only. `compiled` tells whether it is, and
    `why_not` what kept it from being.
    """

    def __init__(self, network: nn.Module, example: tuple[Tensor, ...], wanted: str):
        self._network: Any = network
        self._graphs = threading.local()
        self.compiled, self.why_not = False, ""
        if wanted == "on" or (wanted == "auto" and example[0].is_cuda):
            self._compile(example)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """On a GPU the result is overwritten by the next call from the same thread."""
        if not inputs[0].is_cuda:
            result: Tensor = self._network(*inputs)
            return result
        captured = getattr(self._graphs, "captured", None)
        if captured is None:
            captured = self._graphs.captured = _capture(self._network, inputs)
        graph, places, result = captured
        for place, given in zip(places, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        return result

    def _compile(self, example: tuple[Tensor, ...]) -> None:
        """Compiles and tries it. Weights are frozen into the code, in the layout that it wants."""
        cpu = not example[0].is_cuda
        compiled = torch.compile(
            self._network, dynamic=False, options={"freezing": True} if cpu else None
        )
        try:
            with torch.no_grad():
                compiled(*example)
        except Exception as error:  # the compilers and torch raise what they like
            lines = [line for line in str(error).splitlines() if line.strip()]
            self.why_not = f"{type(error).__name__}: {lines[0] if lines else 'no more is said'}"
            torch.compiler.reset()
            return
        self._network, self.compiled = compiled, True


def _capture(network: Any, inputs: tuple[Tensor, ...]) -> tuple[Any, list[Tensor], Tensor]:
    """A CUDA graph of one call: the graph, where its inputs are to be put, where its result is."""
    places = [given.clone() for given in inputs]
    for _ in range(2):  # libraries choose their kernels in the first calls
        network(*places)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = network(*places)
    return graph, places, result


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """On a GPU each thread has a stream of its own, so that batches side by side do not wait for
    each other's copies."""
    where = torch.device(device)
    if where.type != "cuda":
        yield
        return
    if not hasattr(_own, "stream"):
        _own.stream = torch.cuda.Stream(where)
    with torch.cuda.stream(_own.stream):
        yield
    _own.stream.synchronize()


def to_device(array: Any, device: str) -> Tensor:
    """A numpy array as float32 on the device; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(array).to(torch.float32)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
