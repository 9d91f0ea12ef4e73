"""The whole of `bigbox train`: from boxes to a model with its card."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox import __version__
from bigbox.errors import BadInput
from bigbox.networks.halogen import WINDOW, Halogen
from bigbox.networks.lodi import TILE, Lodi
from bigbox.networks.model import load_model, read_card, save_model
from bigbox.networks.presets import as_dict, halogen_size, lodi_size
from bigbox.networks.transforms import LogTransform
from bigbox.painters.halogen import HalogenPainter, paint_haloes
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.store.box import Box
from bigbox.training.curves import plot_curve
from bigbox.training.data import (
    HaloRichSampler,
    Sampler,
    Split,
    TrainingBox,
    apply,
    load_boxes,
    normalise,
    overlap_mask,
    split_boxes,
)
from bigbox.training.loop import Batch, Place, Schedule, Trainer
from bigbox.training.losses import (
    BESIDE,
    COHERENT,
    NEAR,
    HalogenTask,
    HalogenWeights,
    Levels,
    LodiTask,
    halo_mask,
    halo_site_weights,
    halo_thresholds,
)
from bigbox.training.recipes import Recipe, recipe

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
    """What `bigbox train` was asked for; see its --help."""

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
    start: Path | None = None
    halogen: Path | None = None
    halogen_share: float = 0.5
    float32_weights: bool = False


def train(options: TrainOptions) -> dict[str, Any]:
    """Train a network, write it to options.out, and return its card.

    Raises:
        BadInput: boxes that cannot be trained on, or a checkpoint of another training.
        StoppedEarly: a signal or the time limit; the same command goes on.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    place = Place.here(options.device)
    make = _halogen if options.kind == "halogen" else _lodi
    trainer, card = make(options, _recipe(options), place)
    trainer.run()
    place.leave()
    card["measured"] = {"validation loss": trainer.best}
    if place.rank == 0:
        task = trainer.best_network()
        card["measured"] |= _measure(task, trainer)
        if options.kind == "lodi":
            low, high = task.gamma_ends()  # type: ignore[operator]
            card["gamma"] = [low, high]
        dtype = torch.float32 if options.float32_weights else torch.bfloat16
        save_model(options.out, options.kind, task.network, card, dtype)  # type: ignore[arg-type]
        plot_curve(trainer.curve, trainer.curve.with_suffix(".png"))
        measured = ", ".join(f"{name} {value}" for name, value in card["measured"].items())
        print(f"{options.out / options.kind}.json: {measured}")
    return card


def _recipe(options: TrainOptions) -> Recipe:
    chosen = recipe(options.kind, options.preset)
    changes: dict[str, Any] = {"steps": options.steps, "batch": options.batch, "rate": options.rate}
    return replace(chosen, **{k: v for k, v in changes.items() if v is not None})


def _halogen(options: TrainOptions, how: Recipe, place: Place) -> tuple[Trainer, dict[str, Any]]:
    size = halogen_size(options.preset)
    boxes = load_boxes(options.boxes, ["dm", "halo"])
    split = split_boxes(boxes, WINDOW, options.held_out)
    floors = {"dm": (DM_FLOOR, False), "halo": (HALOGEN_FLOOR, True)}
    transforms = _transforms(options, boxes, split, floors)
    halo = torch.from_numpy(
        np.concatenate([boxes[r.box].fields["halo"].reshape(4, -1) for r in split.training], axis=1)
    )
    thresholds = halo_thresholds(halo)
    weights = halo_site_weights(halo > thresholds[:, None])
    mean_mask = float(halo_mask(halo[None, :, :, None, None], thresholds, weights).mean())
    task = HalogenTask(
        _started(options, Halogen(size)), HalogenWeights(), thresholds, weights, mean_mask
    )
    training = Sampler(boxes, split.training, WINDOW, options.seed)
    validation = Sampler(boxes, split.validation, WINDOW, options.seed + 1)

    def batch(sampler: Sampler, step: int, rank: int, share: int) -> Batch:
        fields = sampler.batch(share, sampler.generator(step, rank))
        return {name: torch.from_numpy(fields[name]) for name in ("dm", "halo")}

    card = _card(options, how, place, boxes, split, transforms, as_dict(size))
    card |= {
        "window": WINDOW,
        "loss": "eqs. 2-7: alpha 0.6, quantile 0.7, beta 1, 2, 5, 8, lambda 1e-6",
        "mask": {"thresholds": thresholds.tolist(), "weights": weights.tolist()},
    }
    trainer = _trainer(options, how, place, task, card, training, validation, batch)
    return trainer, card


def _lodi(options: TrainOptions, how: Recipe, place: Place) -> tuple[Trainer, dict[str, Any]]:
    size = lodi_size(options.preset)
    if options.parametrisation:
        size = replace(size, parametrisation=options.parametrisation)
    boxes = load_boxes(options.boxes, ["halo", "tb"])
    split = split_boxes(boxes, TILE, options.held_out)
    floors = {"tb": (TB_FLOOR, False)}
    if options.halogen:
        _add_predicted(boxes, options.halogen, options.threads or torch.get_num_threads())
    transforms = _transforms(options, boxes, split, floors)
    halo = HALO_LOG
    if options.start:
        halo = LogTransform(**read_card(options.start, "lodi")["transforms"]["halo"])
    transforms["halo"] = halo
    apply(halo, boxes, "halo")
    if options.halogen:
        apply(halo, boxes, "predicted")
    sites = tuple(((density - halo.mean) / halo.std, more) for density, more in HALO_WEIGHTS)
    task = LodiTask(_started(options, Lodi(size)), Levels(), sites=sites)
    threshold = (MANY_HALOES - halo.mean) / halo.std
    share = options.halogen_share if options.halogen else 0.0
    training = HaloRichSampler(boxes, split.training, TILE, options.seed, threshold, share)
    validation = HaloRichSampler(boxes, split.validation, TILE, options.seed + 1, threshold, share)

    def batch(sampler: Sampler, step: int, rank: int, share: int) -> Batch:
        rng = sampler.generator(step, rank)
        fields = sampler.batch(share, rng)
        tb = fields["tb"][:, 0]
        # One stratum a sample: the noise levels of a batch cover the whole range.
        uniform = (np.arange(share) + rng.random(share)) / share
        return {
            "tb": torch.from_numpy(tb),
            "halo": torch.from_numpy(fields["halo"]),
            "known": torch.from_numpy(np.stack([overlap_mask(rng, TILE) for _ in range(share)])),
            "uniform": torch.from_numpy(uniform.astype(np.float32)),
            "noise": torch.from_numpy(rng.standard_normal(tb.shape, dtype=np.float32)),
        }

    card = _card(options, how, place, boxes, split, transforms, as_dict(size))
    card |= {
        "tile": TILE,
        "loss": (
            f"mean squared error of v, weight 1 + {HALO_WEIGHTS} (log10 rho_h, added weight), "
            f"{BESIDE:g} more within {NEAR} voxels of known ones, and of its sums over blocks "
            f"{COHERENT} (voxels on an edge, share)"
            if size.parametrisation == "v"
            else "eq. 13, T = 50"
        ),
        "overlap masks": "both ends of 0 to 3 axes (3 of 4 tiles) or any faces, 3 to 8 voxels",
        "haloes": f"{share:.0%} of the samples as HALOgen predicts them, the others as they are",
    }
    trainer = _trainer(options, how, place, task, card, training, validation, batch)
    return trainer, card


def _transforms(
    options: TrainOptions,
    boxes: list[TrainingBox],
    split: Split,
    floors: dict[str, tuple[float, bool]],
) -> dict[str, LogTransform]:
    """Normalisation from the training boxes, or that of the model that is trained further."""
    if options.start is None:
        return normalise(boxes, split.training, floors)
    card = read_card(options.start, options.kind)
    transforms = {name: LogTransform(**card["transforms"][name]) for name in floors}
    for name, transform in transforms.items():
        apply(transform, boxes, name)
    return transforms


def _started(options: TrainOptions, network: Any) -> Any:
    """The network with the weights of the model that is trained further, if there is one."""
    if options.start is not None:
        trained = load_model(options.start, options.kind)
        if trained.network.size != network.size:
            raise BadInput(f"--further {options.start}: {trained.network.size}, not {network.size}")
        network.load_state_dict(trained.network.state_dict())
    return network


def _add_predicted(boxes: list[TrainingBox], model: Path, threads: int) -> None:
    """HALOgen's haloes of every box, so that LODI learns to paint on them too."""
    painter = HalogenPainter(load_model(model, "halogen"), threads=threads)
    found: dict[bytes, np.ndarray] = {}  # boxes that differ in T_b only have the same
    for box in boxes:
        dm = np.asarray(Box.open(box.path).require("dm")[...], dtype=np.float32)
        key = hashlib.sha256(dm.tobytes()).digest()
        if key not in found:
            found[key] = paint_haloes(painter, dm)
        box.fields["predicted"] = found[key]


def _trainer(
    options: TrainOptions,
    how: Recipe,
    place: Place,
    task: torch.nn.Module,
    card: dict[str, Any],
    training: Sampler,
    validation: Sampler,
    batch: Any,
) -> Trainer:
    settings = {
        "recipe": how.as_dict(),
        "size": card["size"],
        "seed": options.seed,
        "start": str(options.start),
        "data": card["data"],
        "ranks": place.size,
    }
    return Trainer(
        task,
        how,
        place,
        options.out,
        options.kind,
        settings,
        lambda step, rank, share: batch(training, step, rank, share),
        lambda index, share: batch(validation, index, 0, share),
        Schedule(validate_every=max(1, min(200, how.steps // 20))),
        time.monotonic() + 3600 * options.hours if options.hours else None,
    )


def _card(
    options: TrainOptions,
    how: Recipe,
    place: Place,
    boxes: list[TrainingBox],
    split: Split,
    transforms: dict[str, LogTransform],
    size: dict[str, Any],
) -> dict[str, Any]:
    """What a model's user must know of it; `boxes` by name, for their paths are elsewhere soon."""
    first = boxes[0].attributes
    sources = sorted(
        {s for box in boxes for s in map(str, box.attributes["sources"].values()) if s}
    )
    return {
        "bigbox": __version__,
        "torch": torch.__version__,
        "preset": options.preset,
        "size": size,
        "voxel_size": first["voxel_size"],
        "smoothing": first["smoothing"],
        "redshift": first["redshift"],
        "cosmology": first["cosmology"],
        "halo_mass_edges": list(HALO_EDGES),
        "transforms": {name: fit.as_dict() for name, fit in transforms.items()},
        "sources": sources,
        "data": {
            "boxes": [box.path.name for box in boxes],
            "split": "by simulation" if len(boxes) > 1 else "by slab with a gap",
            "training": [r.as_dict(boxes) for r in split.training],
            "validation": [r.as_dict(boxes) for r in split.validation],
        },
        "recipe": how.as_dict() | {"seed": options.seed, "processes": place.size},
        "trained further from": _origin(options),
    }


def _origin(options: TrainOptions) -> dict[str, Any] | None:
    if options.start is None:
        return None
    before = read_card(options.start, options.kind)
    return {key: before[key] for key in ("sha256", "data", "recipe", "trained further from")}


@torch.no_grad()
def _measure(task: torch.nn.Module, trainer: Trainer) -> dict[str, Any]:
    """Errors on validation data that a card should state beside the loss."""
    if not isinstance(task, HalogenTask):
        return {}
    task.eval()
    errors = []
    for index in range(trainer.schedule.validation):
        batch = trainer.validation_batch(index, 1)
        where = trainer.place.device
        error = task.network(batch["dm"].to(where)).float() - batch["halo"].to(where)
        errors.append(error.square().mean(dim=(0, 2, 3, 4)).cpu())
    rms = torch.stack(errors).mean(0).sqrt()
    return {"rms error of each channel, network units": [round(float(e), 4) for e in rms]}
