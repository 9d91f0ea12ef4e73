"""Which kernels paint on a GPU: measured and checked once for a device and the libraries.

    BIGBOX_KERNELS   convolutions         norms, activations, upsampling
    auto             whichever is faster  Triton kernels, channels last
    own              Triton               Triton kernels, channels last
    cudnn            cuDNN                Triton kernels, channels last
    torch            cuDNN                torch's, which change the layout to and fro

The first run of a kind of GPU, torch and Triton measures each convolution at its real shape, and
compares it, and then the whole network, with float32: libraries have had 3-D convolutions that were
silently wrong, or twenty times too slow. What is found is kept in the user's cache folder, where
all ranks and later runs find it: the choice decides bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigbox.data import cache_folder
from bigbox.devices import device_name
from bigbox.errors import BadInput
from bigbox.networks import fused, launching

MODES = ("auto", "own", "cudnn", "torch")
TRIES = 5
# Error relative to float32, of one convolution and of a whole network, by the bytes of a mantissa.
CONVOLUTION_ERROR = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
NETWORK_ERROR = {torch.float16: 2e-2, torch.bfloat16: 1e-1}


def kernel_mode() -> str:
    """Return the mode asked for by BIGBOX_KERNELS; torch where Triton is missing."""
    mode = os.environ.get("BIGBOX_KERNELS", "auto")
    if mode not in MODES:
        raise BadInput(f"BIGBOX_KERNELS: {mode!r} is not one of {', '.join(MODES)}")
    return mode if launching.kernels() is not None else "torch"


class Records:
    """JSON values by name in a folder; whoever writes one first is believed by all."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()  # making one record may take another

    @classmethod
    def of(cls, device: str) -> Records:
        """Those of this kind of GPU with these libraries and kernels."""
        from bigbox.networks import triton_kernels

        code = [Path(str(module.__file__)).read_bytes() for module in (fused, triton_kernels)]
        kernels = hashlib.sha256(b"".join(code)).hexdigest()[:12]
        versions = (torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), kernels)
        name = "-".join(map(str, (device_name(device), *versions))).replace(" ", "_")
        return cls(cache_folder() / "kernels" / name.replace("/", "_"))

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the record of that name, made if there is none."""
        with self._lock:
            if name not in self._known:
                self._known[name] = self.find(name) or self._publish(name, make())
            return self._known[name]

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the record of that name, if there is one."""
        if name in self._known:
            return self._known[name]
        try:
            found: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return found

    def _publish(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write a record unless there is one by now; a folder that cannot be written will do."""
        path = self._folder / f"{name}.json"
        mine = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            mine.write_text(json.dumps(value, indent=1))
            try:
                os.link(mine, path)
            finally:
                mine.unlink()
        except OSError:
            return self.find(name) or value
        return value


class Measured(fused.Chooser):
    """Takes the fastest of cuDNN and the own kernel's ways that gives what float32 gives."""

    def __init__(self, records: Records):
        self.records = records
        self.chosen: dict[str, int] = {}
        self._waiting: dict[str, tuple[fused.Convolution, Tensor, list[fused.Blocking]]] = {}

    def choose(self, convolution: fused.Convolution, h: Tensor) -> fused.Blocking | None:
        """Return None for cuDNN."""
        ways = convolution.blockings(h)
        if not ways:
            return None
        kind = "x".join(map(str, h.shape))
        kind += f"-{convolution.out}-{convolution.groups}-{str(convolution.dtype)[6:]}"
        kind += "-fine" if convolution.fine else ""
        if kind not in self.chosen:
            if launching.compiling() and self.records.find(kind) is None:
                for blocking in ways:
                    convolution.own(h, blocking)
                self._waiting[kind] = convolution, h, ways
                return None
            found = self.records.get(kind, lambda: measure(convolution, h, ways))
            self.chosen[kind] = int(found["way"])
        way = self.chosen[kind]
        return None if way < 0 else ways[way]

    def settle(self) -> None:
        """Measure what `choose` was asked for while kernels were compiled."""
        for kind, asked in self._waiting.items():
            self.records.get(kind, partial(measure, *asked))
        self._waiting.clear()

    def summary(self) -> str:
        """Return how many of the convolutions are made by the own kernel, and which, as a hash."""
        own = sorted(f"{kind} {way}" for kind, way in self.chosen.items() if way >= 0)
        mark = hashlib.sha256("\n".join(own).encode()).hexdigest()[:8]
        return f"{len(own)} own of {len(self.chosen)}, {mark}"


def warm_up(call: Callable[[], object], chooser: fused.Chooser | None) -> None:
    """Compile the kernels of a call side by side, measure the choices, and compile the chosen."""
    with launching.compile_only():
        call()
    if isinstance(chooser, Measured):
        chooser.settle()
        with launching.compile_only():
            call()
    call()


def off(found: Tensor, wanted: Tensor) -> float:
    """Return the distance relative to the size; infinite where a value is no number."""
    error = float((found.float() - wanted).norm() / wanted.norm().clamp_min(1e-30))
    return error if error == error else float("inf")


def milliseconds(work: Callable[[], object], tries: int = TRIES) -> float:
    """Return the median time of `work` on the GPU."""
    cuda: Any = torch.cuda
    times = []
    work()
    for _ in range(tries):
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(sorted(times)[tries // 2])


def measure(
    convolution: fused.Convolution, h: Tensor, ways: list[fused.Blocking]
) -> dict[str, Any]:
    """Time and check cuDNN and the own kernel; way: the best of `ways`, -1 for cuDNN.

    Raises BadInput where none is right.
    """
    x = torch.randn(h.shape, device=h.device).to(h.dtype)
    ends = [0, len(x) - 1]  # a library has been wrong in large batches only
    bias = None if convolution.bias is None else convolution.bias.float()
    with exact_float32():
        weight = convolution.weight.to(convolution.dtype)
        wanted = fused.plain_convolution(fused.columns(x[ends]), weight, bias, convolution.groups)
    limit = CONVOLUTION_ERROR[convolution.dtype]

    def cudnn() -> Tensor:
        y = convolution.cudnn(x)
        return y if bias is None else y + bias.to(y.dtype)[:, None, None, None]

    tried: dict[int, tuple[float, float]] = {}  # error, ms
    failed = {}
    for number in range(-1, len(ways)):
        try:
            work = cudnn if number < 0 else partial(convolution.own, x, ways[number])
            error = off(work()[ends], wanted)
            bare = partial(convolution.cudnn, x) if number < 0 else work
            tried[number] = error, milliseconds(bare)
        except Exception as trouble:  # compilers and drivers raise what they like
            failed[number] = f"{type(trouble).__name__}: {str(trouble)[:200]}"
    right = {number: ms for number, (error, ms) in tried.items() if error < limit}
    if not right:
        shape = "x".join(map(str, h.shape))
        raise BadInput(
            f"{torch.cuda.get_device_name(h.device)}: convolutions of {shape} {h.dtype} are wrong "
            f"with torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()} (off by "
            f"{min((e for e, _ in tried.values()), default=float('inf')):.1e}, limit {limit:g}); "
            "use other versions, or --device cpu"
        )
    return {
        "way": min(right, key=lambda number: right[number]),
        "error, ms": {str(number): list(found) for number, found in tried.items()},
        "failed": failed,
    }


class exact_float32:  # noqa: N801
    """Multiply float32 as float32, not as TF32, within."""

    def __enter__(self) -> None:
        self._before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before


def network_error(
    call: Callable[..., Tensor], network: nn.Module, inputs: tuple[Tensor, ...]
) -> float:
    """Return how far a call is off what the network gives on a CPU in float32, of one tile.

    inputs: of a whole call; the last tile is compared. call: the network as it paints.
    """
    found = call(*inputs)[-1:]
    one = (x[-1:].float().cpu() for x in inputs)
    return off(found.cpu(), network(*one).float())
