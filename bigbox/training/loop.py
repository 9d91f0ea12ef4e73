"""Train by steps, with moving average, validation, checkpoints and curves, on one or many GPUs.

    torchrun --nproc-per-node 4 -m bigbox train lodi ...     one process for each GPU (torch's DDP)

A checkpoint holds everything, and a batch is a function of its step, so that a killed training
goes on where it was.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bigbox.devices import find_device
from bigbox.errors import BadInput, StoppedEarly
from bigbox.progress import say
from bigbox.signals import handled
from bigbox.store.durable import DISK
from bigbox.store.metadata import understood
from bigbox.training.curve import Curve
from bigbox.training.options import RunOptions
from bigbox.training.recipes import Recipe

Batch = dict[str, Tensor]
_STATEFUL = ("task", "average", "optimiser")
_KEPT = ("settings", "step", "best", "best_step", "best_state", "before", "spent", "halved_at")
LOOK_EVERY = 20  # steps after which ranks on GPUs agree whether to stop: that waits for a GPU
VALIDATIONS = 20  # at least, in a training


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
        if cuda:
            torch.cuda.set_device(where)
        if size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo")
        # bfloat16 pays where the processor multiplies it; elsewhere it is emulated and slow.
        return cls(rank, size, where, cuda or torch.cpu._is_avx512_bf16_supported())

    @classmethod
    def begun(cls, options: RunOptions) -> Process:
        """Set up torch as any training wants it, and find this process."""
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        torch.set_flush_denormal(True)
        return cls.here(options.device)

    @property
    def on_gpu(self) -> bool:
        """Return whether it computes on a GPU."""
        return self.device.type == "cuda"

    def sum(self, *values: float) -> list[float]:
        """Return the sums of numbers over the processes, which wait for each other."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

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
    folder: Path  # of checkpoint and curve
    name: str  # how their names begin
    settings: dict[str, Any]  # what must be the same when a training goes on
    batch: Callable[[int, int, int], Batch]  # of step, rank, sub-volumes; on the device
    validation_batch: Callable[[int, int], Batch]  # of index, sub-volumes: one of a fixed set
    measure: Callable[[nn.Module], dict[str, float]] | None = None  # more errors for the curve
    began: float | None = None  # when this start of it began, of time.monotonic
    deadline: float | None = None  # when this start of it is to stop
    within: float | None = None  # seconds of training, all starts together, that the rate fits into
    compiled: bool = False  # the network's training step, by torch.compile
    validate_first: bool = False  # before the first step: the weights have been trained already
    validate_every: int = 200  # steps at most
    checkpoint_every: float = 120.0  # seconds
    validation_batches: int = 8

    def __post_init__(self) -> None:
        # The weights of convolutions; nothing else has five axes, or four where they are of maps.
        flat = any(weights.dim() == 4 for weights in self.task.parameters())
        layout = torch.channels_last if flat else torch.channels_last_3d
        self.task.to(self.process.device, memory_format=layout)  # type: ignore[call-overload]
        # Not torch's AveragedModel, which asks the device at every step how often it has averaged.
        self.average = copy.deepcopy(self.task).eval().requires_grad_(False)
        parameters, rate = self.task.parameters(), self.recipe.rate
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.RMSprop(parameters, lr=rate)
            if self.recipe.optimiser == "rmsprop"
            else torch.optim.AdamW(parameters, lr=rate, weight_decay=self.recipe.decay, fused=True)
        )
        if self.compiled:
            self.task.network.compile()  # type: ignore[union-attr]
        if self.process.on_gpu:
            torch.backends.cudnn.benchmark = True
        self.wrapped = DistributedDataParallel(self.task) if self.process.size > 1 else self.task
        self.share = max(1, self.recipe.batch // self.process.size)  # of a batch, for this process
        self.checkpoint = self.folder / f"{self.name}.checkpoint.pt"
        self.curve = Curve(self.folder / f"{self.name}.csv")
        self.step, self.spent = 0, 0.0
        self.best, self.best_step, self.before = float("inf"), 0, float("nan")
        self.best_state: dict[str, Tensor] | None = None
        self.halved_at: list[int] = []  # steps at which the rate was halved
        self._stop, self._time_over = "", 0.0
        self._a_step, self._a_validation = float("inf"), 0.0  # seconds

    def run(self) -> None:
        """Train to the last step, or for as long as was given.

        Raises StoppedEarly at a signal or the deadline: the same command goes on. Raises
        BadInput where the loss is no number any more; the checkpoint is of a time when it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        with handled(self._asked_to_stop):
            self._run()

    def _run(self) -> None:
        if self.began is None:
            self.began = time.monotonic()
        earlier, first = self.spent, self.step
        self._time_over = self.spent / self.within if self.within else 0.0
        started = saved = time.monotonic()
        total, since = torch.zeros((), device=self.process.device), self.step
        if self.validate_first and not self.step:
            self._validate(None, 0.0)
        while (over := self._over()) < 1:
            at = time.monotonic()
            total += self._train(self.batch(self.step, self.process.rank, self.share), over)
            self.step += 1
            now = time.monotonic()
            self._a_step = min(self._a_step, now - at)
            self.spent = earlier + now - self.began
            stopping = self._agreed_to_stop()
            last = self._over() >= 1
            twentieth = int(self._over() * VALIDATIONS) > int(over * VALIDATIONS)
            if last or twentieth or self.step % self.validate_every == 0:
                seconds = (time.monotonic() - started) / (self.step - first)
                self._validate(float(total) / (self.step - since), seconds)
                total.zero_()
                since = self.step
            if stopping and not last:
                self._save(total)
                self.process.sum(0.0)  # the others wait: torchrun ends all when one ends
                raise StoppedEarly(
                    f"training {self.name} stopped by {self._stop} at step {self._of_steps()}; "
                    "the same command goes on from here"
                )
            if last or time.monotonic() - saved > self.checkpoint_every:
                self._save(total)
                saved = time.monotonic()

    def _over(self) -> float:
        """Return the share of the training that is over, of steps or of time."""
        return max(self.step / self.recipe.steps, self._time_over)

    def _agreed_to_stop(self) -> bool:
        """Return whether to stop before the end; all ranks come to the same, every so often."""
        on_gpus = self.process.on_gpu and self.process.size > 1
        if on_gpus and self.step % LOOK_EVERY:
            return False
        # What would come yet, at least, before the next look.
        ahead = self._a_step + self._a_validation
        if self.deadline and time.monotonic() + ahead > self.deadline:
            self._stop = self._stop or "the time limit"
        over = (self.spent + ahead) / self.within if self.within else 0.0
        stops, over = self.process.sum(float(bool(self._stop)), over)
        self._time_over = max(self._time_over, over / self.process.size)
        if stops:
            self._stop = self._stop or "another rank"
        return stops > 0

    def best_network(self) -> nn.Module:
        """Return the task with the averaged weights of the best validation."""
        if self.best_state is not None:
            self.average.load_state_dict(self.best_state)
        return self.average

    def autocast(self) -> Any:
        """Return the context that a network is called in."""
        process = self.process
        return torch.autocast(process.device.type, torch.bfloat16, enabled=process.autocast)

    def _train(self, batch: Batch, over: float) -> Tensor:
        """Make one step of the optimiser; return its loss, which may not be there yet."""
        self.task.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step, over)
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.wrapped(**batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.parameters(), self.recipe.clip)
        self.optimiser.step()
        self._update_average()
        return loss.detach()

    def _rate(self, step: int, over: float) -> float:
        return self.recipe.rate_at(step, over) / 2 ** len(self.halved_at)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, else the average would remember the untrained weights.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        means: list[Tensor] = list(self.average.parameters())
        new: list[Tensor] = list(self.task.parameters())
        torch._foreach_lerp_(means, new, 1 - decay)

    @torch.no_grad()
    def _validate(self, training: float | None, seconds: float) -> None:
        """Validate the averaged weights; seconds: of a step, for what is printed."""
        at, process = time.monotonic(), self.process
        total = torch.zeros((), device=process.device)
        for index in range(process.rank, self.validation_batches, process.size):
            with self.autocast():
                total += self.average(**self.validation_batch(index, self.share))
        found, trained = process.sum(float(total), training or 0.0)
        loss, trained = found / self.validation_batches, trained / process.size
        if not math.isfinite(loss + trained):
            raise BadInput(
                f"training {self.name}: the loss is {trained:g} at step {self.step}, in validation "
                f"{loss:g}; start again with a smaller --rate than {self.recipe.rate:g} and "
                f"another --out" + (f"; {self.checkpoint} is of before" * self.checkpoint.exists())
            )
        if self.step == 0:
            self.before = loss
        if loss < self.best:
            self.best, self.best_step = loss, self.step
            self.best_state = copy.deepcopy(self.average.state_dict())
        waited = self.step - max([self.best_step, *self.halved_at])
        if self.recipe.patience and waited >= self.recipe.patience * self.validate_every:
            self.halved_at.append(self.step)
        if process.rank == 0:
            row = {"step": self.step, "validation": loss}
            row["rate"] = self._rate(max(0, self.step - 1), self._over())
            if training is not None:
                row["training"] = trained
            if self.measure is not None:
                with self.autocast():
                    row |= self.measure(self.average)
            self.curve.add(row)
            self._tell(row, seconds)
        self._a_validation = time.monotonic() - at

    def _tell(self, row: dict[str, float], seconds: float) -> None:
        """Print where the training stands."""
        if "training" in row:
            left = (self.recipe.steps - self.step) * seconds
            left = min(left, self.within - self.spent) if self.within else left
            text = f"loss {row['training']:.4f}, validation {row['validation']:.4f} (best "
            text += f"{self.best:.4f}), {seconds:.3f} s a step, {max(0.0, left) / 60:.0f} min left"
        else:
            text = f"validation {row['validation']:.4f}, of the weights as they were"
        say(f"{self.name} step {self._of_steps()}: {text}")

    def _of_steps(self) -> str:
        return str(self.step) if self.within else f"{self.step} of {self.recipe.steps}"

    def _asked_to_stop(self, number: int, frame: Any) -> None:
        self._stop = signal.Signals(number).name

    def _save(self, total: Tensor) -> None:
        """Write the checkpoint.

        Where the losses since the validation or the weights are no numbers, the last one is kept.
        """
        if self.process.rank:
            return
        with torch.no_grad(), self.autocast():
            total = total + self.average(**self.validation_batch(0, self.share))
        if not math.isfinite(float(total)):
            return
        # Durably, and in one step: a power loss leaves this one or the last one.
        partial = self.checkpoint.with_suffix(".partial")
        state = {name: getattr(self, name) for name in _KEPT}
        state |= {name: getattr(self, name).state_dict() for name in _STATEFUL}
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.checkpoint)
        DISK.fsync_dir(self.folder)

    def _resume(self) -> None:
        if self.checkpoint.exists():
            self._load()
        if self.process.rank == 0:
            self.curve.begin_after(self.step)

    def _load(self) -> None:
        try:
            with zipfile.ZipFile(self.checkpoint) as archive:  # torch reads without its checksums
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} is wrong")
            saved = torch.load(self.checkpoint, map_location=self.process.device, weights_only=True)
        except Exception as error:  # torch raises whatever a damaged pickle or archive leads to
            raise BadInput(
                f"{self.checkpoint}: damaged ({str(error).splitlines()[0]}); remove it to "
                "begin anew"
            ) from None
        way_out = "remove it to begin anew"
        with understood(self.checkpoint, way_out):
            for key, value in self.settings.items():
                if saved["settings"].get(key) != value:
                    raise BadInput(
                        f"{self.checkpoint}: trained with {key} {saved['settings'].get(key)!r}, "
                        f"now {value!r}; choose another --out, or {way_out}"
                    )
            for name in _STATEFUL:
                getattr(self, name).load_state_dict(saved[name])
            for name in set(_KEPT[1:]) & set(saved):
                setattr(self, name, saved[name])
