"""Do the whole of `bigbox cosmoflow train`: from maps to a model with its card."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox import __version__
from bigbox.cosmoflow.loss import FlowTask
from bigbox.cosmoflow.maps import PARAMETERS, Maps, Split, fit_transform
from bigbox.cosmoflow.model import check_edge, maps_of_card
from bigbox.cosmoflow.networks import PRESETS, Flow
from bigbox.cosmoflow.vae import Vae, VaeSize, VaeTask
from bigbox.networks.model import save_model
from bigbox.networks.transforms import LogTransform
from bigbox.training.loop import Batch, Process, Trainer
from bigbox.training.options import RunOptions
from bigbox.training.recipes import Recipe, changed

UNBOUND = 10**9  # steps of a training that is as long as its time
# paper: appendix A.1.3, 150 epochs of 14 000 maps. The batch of the paper is not told. Its code
# applies each gradient twice and ignores the rate; here each counts once, at the rate that is said.
EPOCH = 14_000 // 32
RECIPES = {
    #                  optimiser rate batch steps  epoch average clip
    "small": Recipe("adamw", 1e-3, 16, 6000, 0, 0.999, 1.0),
    "paper": Recipe("adamw", 5e-5, 32, 150 * EPOCH, 0, 0.999, 1.0, decay=0.01, patience=10),
}


@dataclass(frozen=True)
class FlowTrainOptions(RunOptions):
    """Hold what `bigbox cosmoflow train` was asked for. None is the preset's own choice."""

    out: Path
    kind: str = "flow"  # or "vae", the baseline
    preset: str = "small"
    latent: int | None = None  # channels


class Batches:
    """Draw maps, moved, turned and mirrored at random, with noise and times.

    A batch is a function of the seed, the step and the rank alone. Maps are periodic: a map that is
    moved by any number of pixels is another as good.
    """

    def __init__(self, maps: Maps, transform: LogTransform, kind: str, latent: int, factor: int):
        self.values = transform.forward(np.asarray(maps.values)).astype(np.float32)
        self.kind, self.latent, self.factor = kind, latent, factor

    def batch(self, key: list[int], size: int, device: torch.device) -> Batch:
        """Return what the task of this kind takes: x1 (B, 1, n, n), and its random numbers."""
        rng = np.random.default_rng(key)
        fields = np.stack([self._one(rng) for _ in range(size)])[:, None]
        made = {"x1": fields}
        if self.kind == "flow":
            made["x0"] = rng.standard_normal(fields.shape, dtype=np.float32)
            # Each part of 0 .. 1 as often as every other: less noise, and still uniform.
            made["t"] = ((np.arange(size) + rng.random(size)) / size).astype(np.float32)
        else:
            n = fields.shape[-1] // self.factor
            made["noise"] = rng.standard_normal((size, self.latent, n, n), dtype=np.float32)
        return {name: torch.from_numpy(one).to(device) for name, one in made.items()}

    def _one(self, rng: np.random.Generator) -> np.ndarray:
        field = self.values[rng.integers(len(self.values))]
        n = field.shape[-1]
        field = np.roll(field, rng.integers(0, n, 2).tolist(), (0, 1))
        field = field.T if rng.random() < 0.5 else field
        return field[tuple(slice(None, None, int(rng.choice((1, -1)))) for _ in range(2))]


def train_maps(maps: Maps, options: FlowTrainOptions) -> dict[str, Any]:
    """Train a network on maps, write it to options.out, and return its card.

    Raises BadInput for maps that cannot be trained on or a checkpoint of another training, and
    StoppedEarly at a signal or the time limit: the same command goes on.
    """
    began = time.monotonic()
    process = Process.begun(options)
    task, card = _task(options)
    check_edge(card, maps)
    split = Split.of(maps)
    parts = {name: maps.of(numbers) for name, numbers in split.as_dict().items()}
    transform = fit_transform(parts["training"])
    card |= _about(maps, split, transform, options)
    recipe = changed(
        RECIPES[options.preset],
        steps=options.steps or (UNBOUND if options.within else None),
        batch=options.batch,
        rate=options.rate,
    )
    card["recipe"] = asdict(recipe) | {"seed": options.seed, "processes": process.size}
    shape = (options.kind, card["size"]["latent"], maps.edge // _latent_edge(task, maps.edge))
    training = Batches(parts["training"], transform, *shape)
    validation = Batches(parts["validation"], transform, *shape)
    seed, where = options.seed, process.device
    trainer = Trainer(
        task,
        recipe,
        process,
        options.out,
        options.kind,
        {name: card[name] for name in ("size", "data", "maps")} | {"recipe": asdict(recipe)},
        lambda step, rank, share: training.batch([seed, 0, step, rank], share, where),
        lambda index, share: validation.batch([seed, 1, index], share, where),
        began=began,
        deadline=began + 3600 * options.hours if options.hours else None,
        within=3600 * options.within if options.within else None,
        validate_every=EPOCH if recipe.patience else 200,
    )
    trainer.run()
    process.leave()
    if process.rank:
        return card
    card["recipe"] |= {"steps": trainer.step, "seconds": round(trainer.spent)}
    card["measured"] = {"validation loss": trainer.best, "of step": trainer.best_step}
    network: Any = trainer.best_network().network
    save_model(options.out, options.kind, network.cpu(), card, torch.float32)
    trainer.curve.plot(trainer.curve.path.with_suffix(".png"))
    print(f"{options.out / options.kind}.json: validation loss {trainer.best:.4f}")
    return card


def _task(options: FlowTrainOptions) -> tuple[Any, dict[str, Any]]:
    """Build the networks, and begin their card. Raises BadInput."""
    size = PRESETS[options.preset, 2]
    if options.latent is not None:
        size = size.with_latent(options.latent)
    head = {"kind": options.kind, "bigbox": __version__, "torch": torch.__version__}
    head["preset"] = options.preset
    if options.kind == "vae":
        vae = VaeSize.beside(size, options.preset)
        return VaeTask(Vae(vae)), head | {"size": vae.as_dict()}
    return FlowTask(Flow(size)), head | {"size": size.as_dict()}


def _latent_edge(task: Any, edge: int) -> int:
    size = task.network.size
    return edge // int(size.factor)


def _about(
    maps: Maps, split: Split, transform: LogTransform, options: FlowTrainOptions
) -> dict[str, Any]:
    """Say which maps a model was trained on."""
    ends = {
        name: [float(one.min()), float(one.max())]
        for name, one in zip(PARAMETERS, maps.of(split.training).parameters.T, strict=True)
    }
    return {
        "voxel_size": maps.pixel,
        "smoothing": 0.0,
        "redshift": float(maps.about["redshift"]),
        "cosmology": {},
        "parameters": ends,
        "transforms": {str(maps.about["field"]): asdict(transform)},
        "maps": maps_of_card(maps),
        "data": split.as_dict(),
        "licence": "not stated",
    }
