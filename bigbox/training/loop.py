"""Train by steps, with moving average, validation, checkpoints and curves, on one or many GPUs.

    torchrun --nproc-per-node 4 -m bigbox train lodi ...     one process for each GPU (torch's DDP)

A checkpoint holds everything, and a batch is a function of its step, so that a killed training
goes on where it was.
"""

from __future__ import annotations

import copy
import csv
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bigbox.devices import find_device
from bigbox.errors import BadInput, StoppedEarly
from bigbox.training.recipes import Recipe

Batch = dict[str, Tensor]
_STATEFUL = ("task", "average", "optimiser")
_KEPT = ("settings", "step", "best", "best_state", "spent")
LOOK_EVERY = 20  # steps after which ranks agree whether to stop: that waits for a GPU


@dataclass(frozen=True)
class Process:
    """Hold what this process is: its rank of how many, on which device, in which precision."""

    rank: int
    size: int
    device: torch.device
    autocast: bool

    @classmethod
    def here(cls, device: str) -> Process:
        """Find it from torchrun's environment, on device "auto", "cpu" or "cuda".

        Raises BadInput where there is no GPU for "cuda".
        """
        numbers = (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        size, rank, local = (int(os.environ.get(name, alone)) for name, alone in numbers)
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        where = find_device(f"cuda:{local}" if cuda else "cpu")
        if size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo")
        # bfloat16 pays where the processor multiplies it; elsewhere it is emulated and slow.
        return cls(rank, size, where, cuda or torch.cpu._is_avx512_bf16_supported())

    def sum(self, value: Tensor) -> float:
        """Return the sum of a scalar over the processes."""
        value = value.to(self.device)
        if self.size > 1:
            distributed.all_reduce(value)
        return float(value)

    def leave(self) -> None:
        """Part from the other processes: the first one goes on alone."""
        if self.size > 1:
            distributed.destroy_process_group()


@dataclass
class Trainer:
    """Train a task (network and loss in one module) with a recipe.

    Batches have what the task's forward takes, by name.
    """

    task: nn.Module
    recipe: Recipe
    process: Process
    folder: Path  # of checkpoint and curves
    name: str  # how their names begin
    settings: dict[str, Any]  # what must be the same when a training goes on
    batch: Callable[[int, int, int], Batch]  # of step, rank, sub-volumes; on the device
    validation_batch: Callable[[int, int], Batch]  # of index, sub-volumes: one of a fixed set
    deadline: float | None = None  # in seconds of time.monotonic
    within: float | None = None  # seconds of training, all starts together, that the rate fits into
    compiled: bool = False  # the network's training step, by torch.compile
    validate_every: int = 200  # steps
    checkpoint_every: float = 120.0  # seconds
    validation_batches: int = 8

    def __post_init__(self) -> None:
        # The weights of convolutions; nothing else has five axes.
        self.task.to(self.process.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        # Not torch's AveragedModel, which asks the device at every step how often it has averaged.
        self.average = copy.deepcopy(self.task).eval().requires_grad_(False)
        parameters, rate = self.task.parameters(), self.recipe.rate
        cuda = self.process.device.type == "cuda"
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.RMSprop(parameters, lr=rate)
            if self.recipe.optimiser == "rmsprop"
            else torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4, fused=cuda)
        )
        if self.compiled:
            self.task.network.compile()  # type: ignore[union-attr]
        if cuda:
            torch.backends.cudnn.benchmark = True
        self.wrapped = DistributedDataParallel(self.task) if self.process.size > 1 else self.task
        self.share = max(1, self.recipe.batch // self.process.size)  # of a batch, for this process
        self.checkpoint = self.folder / f"{self.name}.checkpoint.pt"
        self.curve = self.folder / f"{self.name}.csv"
        self.step, self.best, self.spent = 0, float("inf"), 0.0
        self.best_state: dict[str, Tensor] | None = None
        self._stop = ""

    def run(self) -> None:
        """Train to the last step, or for as long as was given.

        Raises StoppedEarly at SIGTERM, SIGUSR2 or the deadline: the same command goes on. Raises
        BadInput where the loss is no number any more; the checkpoint is of a time when it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._asked_to_stop)
        self._began, before, saved = time.monotonic(), self.spent, time.monotonic()
        first, self._share_over = self.step, self._progress()
        total, since = torch.zeros((), device=self.process.device), self.step
        while self._share_over < 1:
            total += self._train(self.batch(self.step, self.process.rank, self.share))
            self.step += 1
            self.spent = before + time.monotonic() - self._began
            if self._agreed():
                self._save()
                raise StoppedEarly(
                    f"training {self.name} stopped by {self._stop} at step {self.step} of "
                    f"{self.recipe.steps}; the same command goes on from here"
                )
            last = self._share_over >= 1
            if last or self.step % self.validate_every == 0:
                rate = (time.monotonic() - self._began) / (self.step - first)
                self._validate(float(total) / (self.step - since), rate)
                total.zero_()
                since = self.step
            if last or time.monotonic() - saved > self.checkpoint_every:
                self._save()
                saved = time.monotonic()

    def _progress(self) -> float:
        """Return the share of the training that is over, of steps or of time."""
        return max(self.step / self.recipe.steps, self.spent / self.within if self.within else 0.0)

    def _agreed(self) -> bool:
        """Return whether to stop before the end; all ranks come to the same, every so often."""
        if self.deadline and time.monotonic() > self.deadline:
            self._stop = self._stop or "the time limit"
        if self.process.size == 1:
            self._share_over = self._progress()
            return bool(self._stop)
        last = self.step >= self.recipe.steps
        if not last and self.step % LOOK_EVERY:
            return False
        if self.process.sum(torch.tensor(float(bool(self._stop)))):
            self._stop = self._stop or "another rank"
        self._share_over = self.process.sum(torch.tensor(self._progress())) / self.process.size
        return bool(self._stop)

    def best_network(self) -> nn.Module:
        """Return the task with the averaged weights of the best validation."""
        if self.best_state is not None:
            self.average.load_state_dict(self.best_state)
        return self.average

    def _autocast(self) -> Any:
        process = self.process
        return torch.autocast(process.device.type, torch.bfloat16, enabled=process.autocast)

    def _train(self, batch: Batch) -> Tensor:
        self.task.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step, self._share_over)
        self.optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.wrapped(**batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.parameters(), self.recipe.clip)
        self.optimiser.step()
        self._update_average()
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, else the average would remember the untrained weights.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        means: list[Tensor] = list(self.average.parameters())
        new: list[Tensor] = list(self.task.parameters())
        torch._foreach_lerp_(means, new, 1 - decay)

    @torch.no_grad()
    def _validate(self, training_loss: float, seconds: float) -> None:
        total = torch.zeros((), device=self.process.device)
        for index in range(self.process.rank, self.validation_batches, self.process.size):
            with self._autocast():
                total += self.average(**self.validation_batch(index, self.share))
        loss = self.process.sum(total) / self.validation_batches
        if not math.isfinite(loss + training_loss):
            raise BadInput(
                f"training {self.name}: the loss is {training_loss:g} at step {self.step}, in "
                f"validation {loss:g}; start again with a smaller --rate than {self.recipe.rate:g}"
                f" and another --out, or go on from {self.checkpoint}"
            )
        if loss < self.best:
            self.best = loss
            self.best_state = copy.deepcopy(self.average.state_dict())
        if self.process.rank:
            return
        with self.curve.open("a", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(["step", "rate", "training", "validation"])
            rate = self.recipe.rate_at(self.step - 1, self._share_over)
            writer.writerow([self.step, f"{rate:.3e}", training_loss, loss])
        print(
            f"{self.name} step {self.step}/{self.recipe.steps}: loss {training_loss:.4f}, "
            f"validation {loss:.4f} (best {self.best:.4f}), {seconds:.3f} s a step, "
            f"{self._seconds_left(seconds) / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    def _seconds_left(self, seconds: float) -> float:
        """Return what is left, at so many seconds a step."""
        left = (self.recipe.steps - self.step) * seconds
        return min(left, self.within - self.spent) if self.within else left

    def _asked_to_stop(self, number: int, frame: Any) -> None:
        self._stop = signal.Signals(number).name

    def _save(self) -> None:
        if self.process.rank:
            return
        partial = self.checkpoint.with_suffix(".partial")
        state = {name: getattr(self, name) for name in _KEPT}
        state |= {name: getattr(self, name).state_dict() for name in _STATEFUL}
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            self.curve.unlink(missing_ok=True)
            return
        try:
            saved = torch.load(self.checkpoint, map_location=self.process.device, weights_only=True)
        except Exception as error:  # torch raises whatever a damaged pickle or archive leads to
            raise BadInput(
                f"{self.checkpoint}: damaged ({str(error).splitlines()[0]}); remove it to "
                "begin anew"
            ) from None
        for key, value in self.settings.items():
            if saved["settings"].get(key) != value:
                raise BadInput(
                    f"{self.checkpoint}: trained with {key} {saved['settings'].get(key)!r}, now "
                    f"{value!r}; choose another --out, or remove the checkpoint to begin anew"
                )
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(saved[name])
        for name in _KEPT[1:]:
            setattr(self, name, saved[name])


def plot_curve(table: Path, picture: Path) -> None:
    """Draw the curves of a CSV table (step, rate, training, validation) as a PNG."""
    from matplotlib.figure import Figure

    curve = np.atleast_1d(np.genfromtxt(table, delimiter=",", names=True))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="optimiser step", ylabel="loss")
    for name in ("training", "validation"):
        axes.plot(curve["step"], curve[name], label=name)
    axes.legend()
    rates = axes.twinx()
    rates.plot(curve["step"], curve["rate"], color="0.7", lw=1)
    rates.set_ylabel("learning rate (grey)")
    figure.savefig(picture, dpi=120)
