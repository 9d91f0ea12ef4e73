"""Do the whole of `bigbox train`: from boxes to a model with its card."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bigbox import __version__
from bigbox.errors import BadInput
from bigbox.networks.halogen import STEP, WINDOW, Halogen
from bigbox.networks.lodi import TILE, Lodi
from bigbox.networks.model import Model, load_model, save_model
from bigbox.networks.presets import GRID, HALOGEN, LODI, as_dict
from bigbox.networks.transforms import LogTransform
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.scheduler.windows import fitting_window
from bigbox.training import data, losses
from bigbox.training.data import Fields, LodiSampler, Region, Sampler, Split, TrainingBox
from bigbox.training.loop import Process, Trainer, plot_curve
from bigbox.training.measures import errors_by_level, rms_by_channel
from bigbox.training.predicted import predict_haloes
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


LOSSES = {"paper": "paper", "mini": "mean"}  # of HALOgen, by preset


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
    within: float | None = None
    compiled: bool | None = None
    loss: str | None = None
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

    task: losses.HalogenTask | losses.MeanHalogenTask | losses.LodiTask
    boxes: list[TrainingBox]  # their fields are in what the sampler draws from
    split: Split
    transforms: dict[str, LogTransform]
    sampler: Callable[[list[Region], int], Sampler]
    card: dict[str, Any]


def train(options: TrainOptions, boxes: list[TrainingBox] | None = None) -> dict[str, Any]:
    """Train a network, write it to options.out, and return its card.

    boxes: in memory, in the place of those on disk that the options name; used up. Raises BadInput
    for boxes that cannot be trained on or a checkpoint of another training, and StoppedEarly at a
    signal or the time limit.
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
    if boxes is None:
        names = ["dm", "halo"] if options.kind == "halogen" else ["halo", "tb"]
        names += ["dm"] if options.kind == "lodi" and options.halogen else []
        boxes = data.load_boxes(options.boxes, names)
    lesson = (_halogen if options.kind == "halogen" else _lodi)(options, boxes, start, process)
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
    trainer = Trainer(
        lesson.task,
        recipe,
        process,
        options.out,
        options.kind,
        settings,
        lambda step, rank, share: training.batch(share, step, rank),
        lambda index, share: validation.batch(share, index),
        time.monotonic() + 3600 * options.hours if options.hours else None,
        3600 * options.within if options.within else None,
        process.device.type == "cuda" if options.compiled is None else options.compiled,
        validate_every=max(1, min(200, recipe.steps // 20)),
    )
    trainer.run()
    process.leave()
    card["measured"] = {"validation loss": trainer.best}
    card["recipe"] |= {"steps": trainer.step, "seconds": round(trainer.spent)}
    if process.rank == 0:
        task = trainer.best_network().eval()
        if isinstance(task, losses.LodiTask):
            card["gamma"] = list(task.gamma_ends())
            card["measured"] |= errors_by_level(task, trainer.validation_batch)
        else:
            card["measured"] |= rms_by_channel(task.network, trainer.validation_batch)
        dtype = torch.float32 if options.float32_weights else torch.bfloat16
        save_model(options.out, options.kind, task.network, card, dtype)  # type: ignore[arg-type]
        plot_curve(trainer.curve, trainer.curve.with_suffix(".png"))
        measured = ", ".join(f"{name} {value}" for name, value in card["measured"].items())
        print(f"{options.out / options.kind}.json: {measured}")
    return card


def _halogen(
    options: TrainOptions, boxes: list[TrainingBox], start: Model | None, process: Process
) -> Lesson:
    size, grid = HALOGEN[options.preset], GRID[options.preset]
    window = _window(boxes, grid)
    split = data.split_boxes(boxes, window * grid, options.held_out)
    floors = {"dm": (DM_FLOOR, False), "halo": (HALOGEN_FLOOR, True)}
    transforms = _kept(start, "dm", "halo") or data.fit_transforms(
        boxes, split.training, floors, process.device
    )
    fields = Fields(boxes, transforms, process.device)
    halo = fields.of("halo", {region.box for region in split.training})
    network = Halogen(size)
    task: losses.HalogenTask | losses.MeanHalogenTask
    if (options.loss or LOSSES[options.preset]) == "mean":
        dex = transforms["halo"].std
        task = losses.MeanHalogenTask(network, dex, *losses.mean_scales(halo, dex))
        about: dict[str, Any] = {
            "loss": "Poisson and Tweedie (power 3/2) divergences of the density: its best network "
            "is the mean density given dm"
        }
    else:
        thresholds = losses.halo_thresholds(halo)
        weights = losses.halo_site_weights(halo > thresholds[:, None])
        mask = losses.halo_mask(halo[None, :, :, None, None], thresholds, weights.to(halo.device))
        task = losses.HalogenTask(network, thresholds, weights, float(mask.mean()))
        about = {
            "loss": "eqs. 2-7: alpha 0.6, quantile 0.7, beta 1, 2, 5, 8, lambda 1e-6",
            "mask": {"thresholds": thresholds.tolist(), "weights": weights.tolist()},
        }
    return Lesson(
        task,
        boxes,
        split,
        transforms,
        lambda regions, seed: Sampler(fields, boxes, regions, window, seed, grid),
        {"window": window} | about,
    )


def _lodi(
    options: TrainOptions, boxes: list[TrainingBox], start: Model | None, process: Process
) -> Lesson:
    size, grid = LODI[options.preset], GRID[options.preset]
    if options.parametrisation:
        size = replace(size, parametrisation=options.parametrisation)
    split = data.split_boxes(boxes, TILE * grid, options.held_out)
    floors = {"tb": (TB_FLOOR, False)}
    transforms = _kept(start, "tb", "halo") or (
        data.fit_transforms(boxes, split.training, floors, process.device) | {"halo": HALO_LOG}
    )
    halo = transforms["halo"]
    if options.halogen:
        _add_predicted(boxes, load_model(options.halogen, "halogen"), process)
    seen = transforms | ({"predicted": halo} if options.halogen else {})
    fields = Fields(boxes, seen, process.device)
    sites = tuple(((density - halo.mean) / halo.std, more) for density, more in HALO_WEIGHTS)
    threshold = (MANY_HALOES - halo.mean) / halo.std
    predicted = options.halogen_share if options.halogen else 0.0
    about = {
        "tile": TILE,
        "loss": f"mean squared error of v over its level's running mean, weight 1 + {HALO_WEIGHTS} "
        "(log10 rho_h, added weight)"
        if size.parametrisation == "v"
        else "eq. 13, T = 50",
        "haloes": f"{predicted:.0%} of the samples as HALOgen predicts them, the others as they "
        "are",
    }
    if size.masked:
        about["overlap masks"] = (
            "both ends of 0 to 3 axes (3 of 4 tiles) or any faces, 3 to 8 voxels"
        )
    sampler = partial(LodiSampler, threshold=threshold, predicted=predicted, masked=size.masked)
    return Lesson(
        losses.LodiTask(Lodi(size), sites),
        boxes,
        split,
        transforms,
        lambda regions, seed: sampler(fields, boxes, regions, TILE, seed, grid),
        about,
    )


def _window(boxes: list[TrainingBox], grid: int) -> int:
    """Return the voxels on an edge of HALOgen's windows: 64, or what fits into a smaller box."""
    return fitting_window([box.edge // grid for box in boxes], WINDOW, STEP)


def _kept(start: Model | None, *names: str) -> dict[str, LogTransform]:
    """Return the transforms of the model that is trained further; none without."""
    return {name: start.transform(name) for name in names} if start else {}


def _add_predicted(boxes: list[TrainingBox], model: Model, process: Process) -> None:
    """Put HALOgen's haloes in the place of dm, so that LODI learns to paint on them too."""
    card, halo = model.card, model.transform("halo")
    window, network = int(card["window"]), model.network.to(process.device)
    for box in boxes:
        dm = torch.from_numpy(box.fields.pop("dm")[0]).to(process.device)
        with torch.autocast(process.device.type, torch.bfloat16, enabled=process.autocast):
            found = predict_haloes(
                network,
                model.transform("dm").forward(dm),
                halo.std,
                halo.mean,
                window,
                window * 3 // 4,
                card.get("grid", 1),
            )
        box.fields["predicted"] = found.cpu().numpy()


def _card(
    options: TrainOptions, lesson: Lesson, recipe: Recipe, processes: int, start: Model | None
) -> dict[str, Any]:
    """Say what a user must know of the model. Boxes by name: their paths are elsewhere soon."""
    first, boxes = lesson.boxes[0].attributes, lesson.boxes
    sources = {str(s) for box in boxes for s in box.attributes["sources"].values() if s}

    def where(regions: list[Region]) -> list[dict[str, Any]]:
        """Return which voxels of which box they are."""
        return [
            {"box": one.name, "axis 0": [r.start, r.stop or one.edge], "of": one.edge}
            for r, one in ((r, boxes[r.box]) for r in regions)
        ]

    kept = ("sha256", "data", "recipe", "trained further from")
    return {
        "bigbox": __version__,
        "torch": torch.__version__,
        "preset": options.preset,
        "grid": GRID[options.preset],
        "size": as_dict(lesson.task.network.size),
        **{key: first[key] for key in ("voxel_size", "smoothing", "redshift", "cosmology")},
        "halo_mass_edges": list(HALO_EDGES),
        "transforms": {name: asdict(fit) for name, fit in lesson.transforms.items()},
        "sources": sorted(sources),
        "data": {
            "boxes": [box.name for box in boxes],
            "split": "by simulation" if len(boxes) > 1 else "by slab with a gap",
            "training": where(lesson.split.training),
            "validation": where(lesson.split.validation),
        },
        "recipe": asdict(recipe) | {"seed": options.seed, "processes": processes},
        "trained further from": {key: start.card[key] for key in kept} if start else None,
        **lesson.card,
    }
