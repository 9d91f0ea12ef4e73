"""A network made quick to call: compiled by torch where that pays, one CUDA graph on a GPU.

Compiled code fuses norms, activations and what lies between convolutions. On a GPU it is the
default. On a CPU it takes 10 % off a tile and a minute to make, so it must be asked for. It needs a
C++ compiler on a CPU, Triton on a GPU; where they are missing the network is called as it is.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn


class CompiledNetwork:
    """A network for inputs that always have the shapes and types of `example`, compiled or not.

    wanted: "on", "off", or "auto": on a GPU only; compiled: whether it is; why_not: what kept it
    from being, if anything.
    """

    def __init__(self, network: nn.Module, example: tuple[Tensor, ...], wanted: str):
        self._network: Any = network
        self._graphs = threading.local()
        self.compiled, self.why_not = False, ""
        if wanted == "on" or (wanted == "auto" and example[0].is_cuda):
            self._compile(example)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return network(*inputs); on a GPU this thread's next call overwrites the result."""
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
        """Compile and try it. Weights are frozen into the code, in the layout that it wants."""
        cpu = not example[0].is_cuda
        compiled: Any = torch.compile(
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
    """Return a CUDA graph of one call, where its inputs are to be put, and where its result is."""
    places = [given.clone() for given in inputs]
    for _ in range(2):  # libraries choose their kernels in the first calls
        network(*places)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = network(*places)
    return graph, places, result
