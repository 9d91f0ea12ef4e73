"""`bigbox` with networks small enough to train in a test, for processes of their own.

    torchrun --standalone --nproc-per-node 2 -m tests.small_training train lodi ..
    torchrun --standalone --nproc-per-node 2 -m tests.small_training stop FOLDER

`stop` trains a line; the second rank alone is told to stop at its step 7, and each writes where it
stopped and with which weights.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from bigbox.cli import main
from bigbox.errors import StoppedEarly
from bigbox.networks import presets
from bigbox.networks.presets import HalogenSize, LodiSize
from bigbox.training import measures
from bigbox.training.loop import Process, Trainer
from bigbox.training.recipes import Recipe
from bigbox.training.train import MEASURED

STOPPING_STEP = 7


def use_small_networks() -> None:
    """Have the preset mini be networks of a few thousand weights, and measure few tiles."""
    measures.TILES = measures.CURVE_TILES = MEASURED["cpu"] = 1
    presets.HALOGEN["mini"] = HalogenSize(1, (8, 8, 8), 1, 1, 2, skips="add", groups=1)
    presets.LODI["mini"] = LodiSize(
        1, (8, 8, 8), 1, 2, 2, 16, "v", skips="add", masked=False, bypass=1
    )


class Line(torch.nn.Module):
    """A task small enough to train in a moment: y = a x."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.zeros_(self.network.weight)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.network(x) - y).square().mean()


def line_batch(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng([step, rank])
    x = torch.from_numpy(rng.standard_normal((share, 3)).astype(np.float32))
    return {"x": x, "y": x * torch.tensor([1.0, -2.0, 3.0])}


def line_trainer(folder: Path, steps: int = 60, rate: float = 0.2, **more: object) -> Trainer:
    settings = {
        "settings": {"recipe": 1},
        "process": Process(0, 1, torch.device("cpu"), autocast=False),
        "batch": line_batch,
        "validate_every": 10,
        "checkpoint_every": 0.0,
        "validation_batches": 2,
        **more,
    }
    return Trainer(
        Line(),
        Recipe("adamw", rate, 8, steps, 0, 0.9, 1.0),
        folder=folder,
        name="line",
        validation_batch=lambda index, share: line_batch(10_000 + index, 0, share),
        **settings,  # type: ignore[arg-type]
    )


def stop(folder: Path) -> int:
    """Train until the second rank is told to stop; return the exit status."""
    process = Process.here("cpu")

    def batch(step: int, rank: int, share: int) -> dict[str, torch.Tensor]:
        if rank == 1 and step == STOPPING_STEP:
            os.kill(os.getpid(), signal.SIGTERM)
        return line_batch(step, rank, share)

    trainer = line_trainer(folder, process=process, batch=batch)
    try:
        trainer.run()
    except StoppedEarly as stopped:
        weights = trainer.task.network.weight.detach().flatten().tolist()  # type: ignore[union-attr]
        (folder / f"{process.rank}.txt").write_text(f"{trainer.step}\n{weights}\n{stopped}\n")
        process.leave()
        return 0
    return 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    use_small_networks()
    sys.exit(stop(Path(sys.argv[2])) if sys.argv[1] == "stop" else main(sys.argv[1:]))
