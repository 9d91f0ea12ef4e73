"""Say what HALOgen and LODI are trained on: transforms, sub-volumes, and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bigbox.errors import BadInput
from bigbox.networks.halogen import STEP, STRIDE, WINDOW, Halogen
from bigbox.networks.lodi import TILE, Lodi
from bigbox.networks.model import Model, load_model
from bigbox.networks.presets import GRID, HALOGEN, LODI
from bigbox.networks.transforms import LogTransform
from bigbox.painters.models import TOLERANCES
from bigbox.scheduler.windows import fitting_window, usual_stride
from bigbox.training import data, losses
from bigbox.training.data import Fields, Region, Split, TrainingBox
from bigbox.training.loop import Process
from bigbox.training.options import TrainOptions
from bigbox.training.predicted import predict_haloes
from bigbox.training.sampling import LodiSampler, Sampler

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


def lesson(
    options: TrainOptions, boxes: list[TrainingBox], start: Model | None, process: Process
) -> Lesson:
    """Make what the options ask for; the boxes' fields are used up.

    start: the model whose training goes on. Raises BadInput where boxes do not serve.
    """
    return (_halogen if options.kind == "halogen" else _lodi)(options, boxes, start, process)


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
        model = load_model(options.halogen, "halogen")
        _check_halogen(options.halogen, model.card, boxes[0])
        _add_predicted(boxes, model, process)
    seen = transforms | ({"predicted": halo} if options.halogen else {})
    fields = Fields(boxes, seen, process.device)
    sites = tuple(((density - halo.mean) / halo.std, more) for density, more in HALO_WEIGHTS)
    threshold = (MANY_HALOES - halo.mean) / halo.std
    predicted = options.predicted_share
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


def _check_halogen(folder: Path, card: dict[str, Any], box: TrainingBox) -> None:
    """Refuse a HALOgen of other boxes than LODI is trained on, or on another grid."""
    limits = {
        "voxel_size": data.SAME_VOXEL * card["voxel_size"],
        "redshift": TOLERANCES["redshift"].most,
    }
    for what, most in {**limits, "smoothing": 1e-3}.items():
        if abs(card[what] - box.attributes[what]) > most:
            raise BadInput(
                f"--halogen {folder}: {what} {card[what]:.4g}, that of {box.name} is "
                f"{box.attributes[what]:.4g}; train a HALOgen on these boxes first"
            )
    if box.edge % card.get("grid", 1):
        raise BadInput(
            f"--halogen {folder}: paints every {card['grid']}th voxel, and {box.name} has "
            f"{box.edge} on an edge; ingest with a --grid that is a multiple"
        )


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
                usual_stride(window, STRIDE),
                card.get("grid", 1),
            )
        box.fields["predicted"] = found.cpu().numpy()
