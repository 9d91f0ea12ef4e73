"""Do the whole of `bigbox train`: from boxes to a model with its card."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox import __version__
from bigbox.errors import BadInput
from bigbox.networks.halogen import WINDOW, Halogen
from bigbox.networks.lodi import TILE, Lodi
from bigbox.networks.model import Model, load_model, save_model
from bigbox.networks.presets import HALOGEN, LODI, as_dict
from bigbox.networks.transforms import LogTransform
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box
from bigbox.training import data, losses
from bigbox.training.data import LodiSampler, Region, Sampler, Split, TrainingBox
from bigbox.training.loop import Batch, Process, Trainer, plot_curve
from bigbox.training.recipes import RECIPES, Recipe

# Floors of the logarithms, in the fields' units. 1 + delta never comes near 0.01 at this
# resolution. Halo densities under 10^9.5 are none (the paper's cut of HALOgen's maps); HALOgen
# itself learns a lower floor, so that its noise around the floor stays under the cut. T_b of
# 5e-3 mK is a tenth of the mean; what lies below adds nothing to any spectrum.
DM_FLOOR = 0.01
HALO_CUT = 10**9.5
HALOGEN_FLOOR = 10**9.0
TB_FLOOR = 5e-3
# What LODI sees of haloes: dex above the cut. Mean and variance of all voxels would make numbers up
# to 17 of them, for most voxels have none.
HALO_LOG = LogTransform(HALO_CUT, math.log10(HALO_CUT), 1.0, clip=True)
MANY_HALOES = 10.0  # log10 rho_h from which a sub-volume counts as having a halo (section 2.3.2)
# Weights of LODI's voxels by the log10 rho_h of their densest channel, added to 1: half of all
# power is in the densest 1e-3 of the volume.
HALO_WEIGHTS = ((10.5, 4.0), (11.5, 10.0), (12.5, 20.0))


@dataclass(frozen=True)
class TrainOptions:
    """Hold what `bigbox train` was asked for. Its --help says more."""

    kind: str
    boxes: list[Path]
    out: Path
    preset: str = "mini"
    held_out: int | None = None
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    hours: float | None = None
    parametrisation: str | None = None
    further: Path | None = None
    halogen: Path | None = None
    halogen_share: float = 0.5
    float32_weights: bool = False


@dataclass(frozen=True)
class Lesson:
    """Hold what one of the two networks is trained on, and what its card says of it alone.

    `sampler` makes what draws from regions, with a seed.
    """

    task: losses.HalogenTask | losses.LodiTask
    boxes: list[TrainingBox]
    split: Split
    transforms: dict[str, LogTransform]
    sampler: Callable[[list[Region], int], Sampler]
    card: dict[str, Any]


def train(options: TrainOptions) -> dict[str, Any]:
    """Train a network, write it to options.out, and return its card.

    Raises BadInput for boxes that cannot be trained on or a checkpoint of another training, and
    StoppedEarly at a signal or the time limit.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    process = Process.here(options.device)
    changes = {name: getattr(options, name) for name in ("steps", "batch", "rate")}
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = replace(RECIPES[options.kind][options.preset], **given)
    start = load_model(options.further, options.kind) if options.further else None
    lesson = (_halogen if options.kind == "halogen" else _lodi)(options, start)
    if start:
        size, network = start.network.size, lesson.task.network
        if size != network.size:
            raise BadInput(f"--further {options.further}: {size}, not {network.size}")
        network.load_state_dict(start.network.state_dict())
    card = _card(options, lesson, recipe, process.size, start)
    settings = {
        "recipe": asdict(recipe),
        "size": card["size"],
        "seed": options.seed,
        "start": str(options.further),
        "data": card["data"],
        "ranks": process.size,
    }
    training = lesson.sampler(lesson.split.training, options.seed)
    validation = lesson.sampler(lesson.split.validation, options.seed + 1)

    def batch(sampler: Sampler, step: int, rank: int, share: int) -> Batch:
        fields = sampler.batch(share, sampler.generator(step, rank))
        return {name: torch.from_numpy(field) for name, field in fields.items()}

    trainer = Trainer(
        lesson.task,
        recipe,
        process,
        options.out,
        options.kind,
        settings,
        partial(batch, training),
        lambda index, share: batch(validation, index, 0, share),
        time.monotonic() + 3600 * options.hours if options.hours else None,
        validate_every=max(1, min(200, recipe.steps // 20)),
    )
    trainer.run()
    process.leave()
    card["measured"] = {"validation loss": trainer.best}
    if process.rank == 0:
        task = trainer.best_network()
        if isinstance(task, losses.HalogenTask):
            card["measured"] |= _measure(task, trainer)
        if isinstance(task, losses.LodiTask):
            card["gamma"] = list(task.gamma_ends())
        dtype = torch.float32 if options.float32_weights else torch.bfloat16
        save_model(options.out, options.kind, task.network, card, dtype)  # type: ignore[arg-type]
        plot_curve(trainer.curve, trainer.curve.with_suffix(".png"))
        measured = ", ".join(f"{name} {value}" for name, value in card["measured"].items())
        print(f"{options.out / options.kind}.json: {measured}")
    return card


def _halogen(options: TrainOptions, start: Model | None) -> Lesson:
    boxes = data.load_boxes(options.boxes, ["dm", "halo"])
    split = data.split_boxes(boxes, WINDOW, options.held_out)
    floors = {"dm": (DM_FLOOR, False), "halo": (HALOGEN_FLOOR, True)}
    transforms = _kept(start, "dm", "halo") or data.fit_transforms(boxes, split.training, floors)
    data.normalise(boxes, transforms)
    halo = torch.from_numpy(
        np.concatenate([boxes[r.box].fields["halo"].reshape(4, -1) for r in split.training], axis=1)
    )
    thresholds = losses.halo_thresholds(halo)
    weights = losses.halo_site_weights(halo > thresholds[:, None])
    mean_mask = float(losses.halo_mask(halo[None, :, :, None, None], thresholds, weights).mean())
    return Lesson(
        losses.HalogenTask(Halogen(HALOGEN[options.preset]), thresholds, weights, mean_mask),
        boxes,
        split,
        transforms,
        lambda regions, seed: Sampler(boxes, regions, WINDOW, seed),
        {
            "window": WINDOW,
            "loss": "eqs. 2-7: alpha 0.6, quantile 0.7, beta 1, 2, 5, 8, lambda 1e-6",
            "mask": {"thresholds": thresholds.tolist(), "weights": weights.tolist()},
        },
    )


def _lodi(options: TrainOptions, start: Model | None) -> Lesson:
    size = LODI[options.preset]
    if options.parametrisation:
        size = replace(size, parametrisation=options.parametrisation)
    boxes = data.load_boxes(options.boxes, ["halo", "tb"])
    split = data.split_boxes(boxes, TILE, options.held_out)
    if options.halogen:
        _add_predicted(boxes, options.halogen, options.threads or torch.get_num_threads())
    transforms = _kept(start, "tb", "halo") or (
        data.fit_transforms(boxes, split.training, {"tb": (TB_FLOOR, False)}) | {"halo": HALO_LOG}
    )
    halo = transforms["halo"]
    data.normalise(boxes, transforms | ({"predicted": halo} if options.halogen else {}))
    sites = tuple(((density - halo.mean) / halo.std, more) for density, more in HALO_WEIGHTS)
    threshold = (MANY_HALOES - halo.mean) / halo.std
    predicted = options.halogen_share if options.halogen else 0.0
    loss = (
        f"mean squared error of v, weight 1 + {HALO_WEIGHTS} (log10 rho_h, added weight), "
        f"{losses.NEAR_WEIGHT:g} more within {losses.NEAR_REACH} voxels of known ones, and of its "
        f"sums over blocks {losses.BLOCK_SHARES} (voxels on an edge, share)"
        if size.parametrisation == "v"
        else "eq. 13, T = 50"
    )
    return Lesson(
        losses.LodiTask(Lodi(size), sites),
        boxes,
        split,
        transforms,
        lambda regions, seed: LodiSampler(boxes, regions, TILE, seed, threshold, predicted),
        {
            "tile": TILE,
            "loss": loss,
            "overlap masks": "both ends of 0 to 3 axes (3 of 4 tiles) or any faces, 3 to 8 voxels",
            "haloes": f"{predicted:.0%} of the samples as HALOgen predicts them, the others as "
            "they are",
        },
    )


def _kept(start: Model | None, *names: str) -> dict[str, LogTransform]:
    """Return the transforms of the model that is trained further; none without."""
    return {name: start.transform(name) for name in names} if start else {}


def _add_predicted(boxes: list[TrainingBox], model: Path, threads: int) -> None:
    """Add HALOgen's haloes of every box, so that LODI learns to paint on them too."""
    painter = HalogenPainter(load_model(model, "halogen"), threads=threads)
    found: dict[bytes, np.ndarray] = {}  # boxes that differ in T_b only have the same
    for box in boxes:
        dm = np.asarray(Box.open(box.path).require("dm")[...], dtype=np.float32)
        key = hashlib.sha256(dm.tobytes()).digest()
        if key not in found:
            found[key] = paint_haloes(painter, dm)
        box.fields["predicted"] = found[key]


def _card(
    options: TrainOptions, lesson: Lesson, recipe: Recipe, processes: int, start: Model | None
) -> dict[str, Any]:
    """Say what a user must know of the model. Boxes by name: their paths are elsewhere soon."""
    first, boxes = lesson.boxes[0].attributes, lesson.boxes
    sources = {str(s) for box in boxes for s in box.attributes["sources"].values() if s}

    def where(regions: list[Region]) -> list[dict[str, Any]]:
        """Return which voxels of which box they are."""
        return [
            {"box": one.path.name, "axis 0": [r.start, r.stop or one.edge], "of": one.edge}
            for r, one in ((r, boxes[r.box]) for r in regions)
        ]

    kept = ("sha256", "data", "recipe", "trained further from")
    return {
        "bigbox": __version__,
        "torch": torch.__version__,
        "preset": options.preset,
        "size": as_dict(lesson.task.network.size),
        **{key: first[key] for key in ("voxel_size", "smoothing", "redshift", "cosmology")},
        "halo_mass_edges": list(HALO_EDGES),
        "transforms": {name: asdict(fit) for name, fit in lesson.transforms.items()},
        "sources": sorted(sources),
        "data": {
            "boxes": [box.path.name for box in boxes],
            "split": "by simulation" if len(boxes) > 1 else "by slab with a gap",
            "training": where(lesson.split.training),
            "validation": where(lesson.split.validation),
        },
        "recipe": asdict(recipe) | {"seed": options.seed, "processes": processes},
        "trained further from": {key: start.card[key] for key in kept} if start else None,
        **lesson.card,
    }


@torch.no_grad()
def _measure(task: losses.HalogenTask, trainer: Trainer) -> dict[str, Any]:
    """Measure errors on validation data that a card states with the loss."""
    task.eval()
    errors = []
    for index in range(trainer.validation_batches):
        batch = trainer.validation_batch(index, 1)
        where = trainer.process.device
        error = task.network(batch["dm"].to(where)).float() - batch["halo"].to(where)
        errors.append(error.square().mean(dim=(0, 2, 3, 4)).cpu())
    rms = torch.stack(errors).mean(0).sqrt()
    return {"rms error of each channel, network units": [round(float(e), 4) for e in rms]}
