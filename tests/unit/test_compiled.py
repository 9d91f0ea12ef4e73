"""The quick ways to call a network: compiled, or as it is where that cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bigbox.engine.options import check_alike
from bigbox.errors import BadInput
from bigbox.networks.model import load_model
from bigbox.networks.presets import LODI
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.network import activation_bytes, tiles_on_gpu
from tests.models import write_model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> HalogenPainter:
    torch.set_num_threads(1)
    model = write_model(tmp_path_factory.mktemp("model"))
    return HalogenPainter(load_model(model, "halogen"), compile="auto")


@pytest.fixture(scope="module")
def dm(plain: HalogenPainter) -> np.ndarray:
    edge = 64 + 2 * plain.margin
    return np.random.default_rng(1).lognormal(0, 1, (1, edge, edge, edge)).astype(np.float32)


def test_on_a_cpu_it_is_not_compiled_unasked(plain: HalogenPainter) -> None:
    assert plain.identity()["compiled"] is False and plain.why_not_compiled == ""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_compiled_it_is_the_same_network(plain: HalogenPainter, dm: np.ndarray) -> None:
    compiled = replace(plain, compile="on")
    assert compiled.identity()["compiled"] is True, compiled.why_not_compiled
    slow, fast = plain.predict(dm), compiled.predict(dm)
    # Rounded to bfloat16 here and there: seldom more than its last digit.
    assert np.square(fast - slow).mean() ** 0.5 < 0.02 * slow.std()
    assert compiled.predict(dm).tobytes() == fast.tobytes()
    assert plain.identity() != compiled.identity()


def test_a_missing_compiler_is_told(
    plain: HalogenPainter, dm: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real thing: torch's own compiler, which finds none for C++."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "no-such-compiler")))
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    alone = replace(plain, compile="on")
    assert alone.identity()["compiled"] is False
    print(alone.why_not_compiled)
    assert "no-such-compiler" in alone.why_not_compiled
    assert alone.predict(dm).tobytes() == plain.predict(dm).tobytes()


def test_ranks_that_would_paint_other_bytes_are_refused() -> None:
    one = {"painter": "lodi", "device": "A", "compiled": True}
    check_alike([one, dict(one)])
    with pytest.raises(BadInput, match=r"compiled: True on rank 0, False on rank 2.*--compile off"):
        check_alike([one, one, one | {"compiled": False}])
    with pytest.raises(BadInput, match="device: 'A' on rank 0, 'B' on rank 1"):
        check_alike([one, one | {"device": "B"}])


@pytest.mark.parametrize(("memory", "wanted"), [(140e9, 32), (8e9, 32), (1e9, 4), (1e6, 1)])
def test_as_many_tiles_as_half_of_a_gpu_holds(
    memory: float, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: what it says of its memory is made up."""
    said = SimpleNamespace(total_memory=int(memory))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: said)
    each = activation_bytes(LODI["paper"], 32)
    found = tiles_on_gpu(each, 32, "cuda:0")
    assert found == wanted and (found == 1 or found * each <= memory / 2)
