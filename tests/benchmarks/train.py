"""The speed of `bigbox train` beside that of the bare network's training step.

    python -m tests.benchmarks.train [halogen] [lodi] [--steps 20] [--batch N] [--threads 2]
    python -m tests.benchmarks.train --device cuda --steps 200

The bare step is forward, a squared error, backward and the optimiser, on one batch that never
changes, in the same precision and compiled or not as the training is. The whole step is what
`bigbox train` does from one validation to the next: drawing, cutting and turning sub-volumes, the
loss, clipping, the weights' average, and a look at signals and the clock. Both are taken in turns,
so that other users of the machine slow both. Validation, which comes every 200 steps at most, and
the checkpoint are timed on their own, and what they take of a training is told.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bigbox.training.data import TrainingBox
from bigbox.training.loop import Trainer
from bigbox.training.options import TrainOptions
from bigbox.training.train import prepare

VOXEL = 12.5 / 128
TURNS = 5  # each of bare and whole steps


def made_up(edge: int, seed: int) -> TrainingBox:
    """A box of which only the sizes matter, and that some voxels have haloes."""
    rng = np.random.default_rng(seed)
    shape = (edge,) * 3
    halo = np.zeros((4, *shape), np.float32)
    for channel in range(4):
        sites = rng.integers(0, edge, (3, edge**3 // 2000))
        halo[(channel, *sites)] = 10 ** rng.normal(11.5, 0.5, sites.shape[1])
    attributes = {"voxel_size": VOXEL, "redshift": 0.0, "smoothing": 0.2, "cosmology": {}}
    fields = {
        "dm": rng.lognormal(-1, 1, (1, *shape)).astype(np.float32),
        "halo": halo,
        "tb": rng.lognormal(-4, 2, (1, *shape)).astype(np.float32),
    }
    return TrainingBox([Path(f"seed{seed}")], edge, fields, attributes | {"sources": {}})


def bare_step(trainer: Trainer) -> Callable[[], None]:
    """The training step of the network alone, on one batch."""
    batch = trainer.batch(0, 0, trainer.share)
    network: Any = trainer.task.network
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-9, fused=True)
    if "dm" in batch:
        wanted = batch["halo"]

        def forward() -> torch.Tensor:
            return network(batch["dm"])
    else:
        wanted = batch["tb"]

        def forward() -> torch.Tensor:
            prepared = network.prepare(batch["halo"], batch["tb"] * batch["known"], batch["known"])
            return network(batch["noise"], batch["uniform"], prepared)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with trainer.autocast():
            loss = nn.functional.mse_loss(forward().float(), wanted)
        loss.backward()
        optimiser.step()

    return step


def seconds(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Seconds, and seconds of CPUs, of each of so many calls, until the last is done."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start, used = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - start) / times, (time.process_time() - used) / times


def measure(kind: str, options: argparse.Namespace, folder: Path) -> str:
    """Time one network; return what is to be printed."""
    chosen = TrainOptions(
        kind,
        [],
        folder,
        device=options.device,
        compile=options.compile,
        threads=options.threads,
        batch=options.batch,
        rate=1e-9,
    )
    trainer = prepare(chosen, [made_up(options.edge, seed) for seed in (1, 2)]).trainer
    trainer.validation_batches = options.validation_batches

    def whole() -> None:
        trainer._train(trainer.batch(trainer.step, 0, trainer.share), 0.5)
        trainer.step += 1
        trainer._agreed_to_stop()

    bare = bare_step(trainer)
    for work in (bare, whole):  # compilers, and memory that is kept
        seconds(work, 2)
    each = max(1, options.steps // TURNS)
    times = np.array([(seconds(bare, each), seconds(whole, each)) for _ in range(TURNS)])
    share = times[:, 0] / times[:, 1]  # (turns, wall and CPU)
    alone, train = np.median(times[:, :, 0], axis=0)
    folder.mkdir(exist_ok=True)
    validation, _ = seconds(lambda: trainer._validate(1.0, 1.0), 1)
    nothing = torch.zeros((), device=trainer.process.device)
    checkpoint, _ = seconds(lambda: trainer._save(nothing), 1)
    steps = trainer.validate_every
    with_all = steps * train + validation + checkpoint * min(1, steps * train / 120)
    return (
        f"{kind}, batch {trainer.share}, {trainer.process.device}: bare step {alone:.3f} s, whole "
        f"step {train:.3f} s ({trainer.share / train:.1f} sub-volumes a second): "
        f"{np.median(share[:, 0]):.0%} of the bare speed ({TURNS} turns: {share[:, 0].min():.0%} "
        f"to {share[:, 0].max():.0%}), by seconds of the CPUs {np.median(share[:, 1]):.0%} "
        f"({share[:, 1].min():.0%} to {share[:, 1].max():.0%}); a validation of {validation:.1f} s "
        f"every {steps} steps and a checkpoint of {checkpoint:.1f} s every 2 minutes leave "
        f"{steps * train / with_all:.0%} of that"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["halogen", "lodi"])
    parser.add_argument("--steps", type=int, default=20, help="of each kind")
    parser.add_argument("--batch", type=int, help="sub-volumes, by default the recipe's")
    parser.add_argument("--edge", type=int, default=128, help="voxels of the made-up boxes")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--validation-batches", type=int, default=8)
    options = parser.parse_args()
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(kind, options, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
