"""A step as one piece of work on the device against the plain loop over steps and tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.devices import own_stream
from bigbox.networks.model import load_model
from bigbox.painters.base import StepBatch, TileBatch
from bigbox.painters.diffusion import DiffusionPainter
from bigbox.painters.halogen import HalogenPainter, smooth_on_device
from bigbox.painters.lodi import LodiPainter
from bigbox.painters.stepper import Stepper
from bigbox.physics.smoothing import band, gaussian_kernel, smooth
from tests.models import write_model

T, STEPS = 32, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def painter(model: Path) -> LodiPainter:
    torch.set_num_threads(1)
    made = LodiPainter(seed=5, box_shape=(70, 64, 50), steps=STEPS, model=load_model(model, "lodi"))
    made.__dict__["dtype"] = torch.float32
    return made


def haloes(count: int) -> np.ndarray:
    return 10 ** np.random.default_rng(1).normal(10, 1, (count, 4, T, T, T)).astype(np.float32)


def near(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Sums in another order: float32 rounding, seen through a few calls of a network."""
    error = np.abs(found - wanted).max()
    return bool(np.isfinite(found).all() and error < 2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("sampler", ["dpmpp-sde", "dpmpp", "ancestral", "heun"])
def test_a_step_of_tiles_at_steps_of_their_own(painter: LodiPainter, sampler: str) -> None:
    rng, painter = np.random.default_rng(3), replace(painter, sampler=sampler)
    painter.__dict__["dtype"] = torch.float32
    steps = np.array([STEPS, 3, 2, 1])
    origin = np.array([[0, 0, 0], [60, 40, 30], [3, 4, 5], [50, 51, 49]])
    z, previous = rng.normal(size=(2, 4, T, T, T)).astype(np.float32)
    batch = StepBatch(np.arange(4), origin, haloes(4), z, previous, steps)
    stepper = Stepper(painter)
    wanted = DiffusionPainter._advance(painter, batch, np.arange(4))
    assert near(stepper.advance(batch, np.arange(4)), wanted)
    order = np.array([2, 0, 3, 1])
    again = stepper.advance(batch, order)
    assert again.tobytes() == stepper.advance(batch, order).tobytes()
    assert near(again, wanted[order])


def test_inputs_that_are_kept_need_not_be_given_again(painter: LodiPainter) -> None:
    painter = replace(painter)
    painter.__dict__["dtype"] = torch.float32
    painter.make_room(3)
    stepper, rng, inputs = Stepper(painter), np.random.default_rng(3), haloes(4)
    z, previous = rng.normal(size=(2, 4, T, T, T)).astype(np.float32)
    origin = np.array([[0, 0, 0], [60, 40, 30], [3, 4, 5], [50, 51, 49]])
    whole = StepBatch(np.arange(4), origin, inputs, z, previous, np.array([4, 3, 2, 1]))
    tiles = lambda rows: {  # noqa: E731
        name: getattr(whole, name)[rows] for name in ("tiles", "origin", "z", "previous", "step")
    }
    cases: list[tuple[list[int], list[int], list[int]]] = [
        ([0, 1, 2], [2, 0, -1], [0, 1, 2]),  # all new, one with no place
        ([1, 0], [0, 2], []),  # none is given: where the first were put
        ([3, 0, 2, 1], [1, 2, -1, 0], [0, 2]),  # some are
        ([3, 1], [1, 0], []),
    ]
    for rows, place, given in cases:
        part = np.resize(np.arange(len(rows)), painter.tiles_per_call)
        wanted = stepper.advance(replace(whole, **tiles(rows), inputs=inputs[rows]), part)
        now = {"inputs": inputs[rows][given], "given": np.array(given, int)}
        batch = replace(whole, **tiles(rows), **now, place=np.array(place))
        assert stepper.advance(batch, part).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("method", ["conditioned", "independent"])
def test_a_whole_painting(painter: LodiPainter, method: str) -> None:
    painter = replace(painter, overlap_method=method)
    painter.__dict__["dtype"] = torch.float32
    width = np.zeros((4, 3, 2), np.int64)
    width[1], width[2, 0, 1] = 4, 7
    known = 10 ** np.random.default_rng(4).normal(-1.5, 0.5, (4, 1, T, T, T)).astype(np.float32)
    origin = np.array([[0, 0, 0], [60, 40, 30], [3, 4, 5], [50, 51, 49]])
    batch = TileBatch(np.arange(4), origin, haloes(4), known, width)
    wanted = DiffusionPainter._paint(painter, batch, np.arange(4))
    stepper = Stepper(painter)
    shown = method == "conditioned"
    assert near(stepper.paint(batch, np.arange(4), shown), wanted)
    assert near(stepper.paint(batch, np.arange(4), shown), wanted)  # nothing is left of the first


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@needs_gpu
def test_a_graph_gives_the_bits_of_its_parts(model: Path) -> None:
    painter = LodiPainter(
        seed=5, box_shape=(70, 64, 50), steps=4, model=load_model(model, "lodi"), device="cuda"
    )
    rng, count = np.random.default_rng(3), painter.tiles_per_call
    z, previous = rng.normal(size=(2, count, T, T, T)).astype(np.float32)
    origin, steps = rng.integers(0, 50, (count, 3)), rng.integers(1, 5, count)
    batch = StepBatch(np.arange(count), origin, haloes(count), z, previous, steps)
    graph = painter.advance(batch)
    assert graph.tobytes() == painter.advance(batch).tobytes()
    with own_stream("cuda"):
        plain = Stepper(painter, graph=False).advance(batch, np.arange(count))
        eager = DiffusionPainter._advance(painter, batch, np.arange(count))
    assert plain.tobytes() == graph.tobytes()
    assert np.linalg.norm(graph[:, 1] - eager[:, 1]) < 5e-3 * np.linalg.norm(eager[:, 1])


@needs_gpu
def test_windows_on_a_gpu_are_those_of_a_cpu(model: Path) -> None:
    gpu = HalogenPainter(load_model(model, "halogen"), device="cuda")
    cpu = HalogenPainter(load_model(model, "halogen"))
    edge = 64 + 2 * gpu.margin
    dm = np.random.default_rng(1).lognormal(0, 1, (3, edge, edge, edge)).astype(np.float32)
    found, wanted = gpu.predict(dm), cpu.predict(dm)
    assert found.tobytes() == gpu.predict(dm).tobytes()
    assert np.square(found - wanted).mean() ** 0.5 < 0.02 * wanted.std()


def test_smoothing_by_matrices(model: Path) -> None:
    dm = np.random.default_rng(5).lognormal(0, 2, (2, 80, 80, 80)).astype(np.float32)
    kernel = gaussian_kernel(0.2, 0.1)
    matrix = torch.from_numpy(band(kernel, 80 - len(kernel) + 1))
    found = smooth_on_device(torch.from_numpy(dm), matrix).numpy()
    np.testing.assert_allclose(found, smooth(dm, kernel), rtol=3e-6)
    assert HalogenPainter(load_model(model, "halogen"))._band.shape[0] == 64
