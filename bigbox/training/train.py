"""Do the whole of `bigbox train`: from boxes to a model with its card."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bigbox import __version__
from bigbox.errors import BadInput
from bigbox.networks.model import Model, load_model, save_model
from bigbox.networks.presets import GRID, as_dict
from bigbox.physics.mass_bins import HALO_EDGES
from bigbox.training import data, losses, measures, told
from bigbox.training.data import Region, TrainingBox
from bigbox.training.lessons import Lesson, lesson
from bigbox.training.loop import Process, Trainer
from bigbox.training.options import TrainOptions
from bigbox.training.recipes import Recipe, recipe

LOG = logging.getLogger(__name__)
UNBOUND = 10**9  # steps of a training that is as long as its time
MEASURED = {"cuda": 16, "cpu": 2}  # batches that are measured for the card


@dataclass(frozen=True)
class Training:
    """Hold a training that is ready to run, and the card of its model as far as it is known."""

    options: TrainOptions
    lesson: Lesson
    trainer: Trainer
    card: dict[str, Any]


def train(options: TrainOptions, boxes: list[TrainingBox] | None = None) -> dict[str, Any]:
    """Train a network, write it to options.out, and return its card.

    boxes: in memory, in the place of those on disk that the options name; used up. Raises BadInput
    for boxes that cannot be trained on or a checkpoint of another training, and StoppedEarly at a
    signal or the time limit.
    """
    training = prepare(options, boxes)
    try:
        training.trainer.run()
    except RuntimeError as error:
        if not training.trainer.compiled or not _from_compiler(error):
            raise
        line = str(error).splitlines()[0]
        raise BadInput(f"--compile: not possible here ({line}); train with --compile off") from None
    training.trainer.process.leave()
    return finish(training)


def prepare(options: TrainOptions, boxes: list[TrainingBox] | None = None) -> Training:
    """Read boxes and set up the training. Raises BadInput."""
    began = time.monotonic()
    process = Process.begun(options)
    chosen = _recipe(options, process)
    start = load_model(options.further, options.kind) if options.further else None
    if boxes is None:
        names = ["dm", "halo"] if options.kind == "halogen" else ["halo", "tb"]
        names += ["dm"] if options.kind == "lodi" and options.halogen else []
        boxes = data.load_boxes(options.boxes, names)
    densest = told.densest_planes(boxes)
    what = lesson(options, boxes, start, process)
    if start:
        _go_on_from(start, options, what)
    card = _card(options, what, chosen, process.size, start)
    card["range"] = told.range_seen(what.boxes, densest, what.split.training)
    card |= told.provenance(what.boxes, str(process.device), options.seed)
    settings = {
        "recipe": asdict(chosen),
        "size": card["size"],
        "loss": card["loss"],
        "haloes": card.get("haloes"),
        "seed": options.seed,
        "start": str(options.further),
        "data": card["data"],
        "ranks": process.size,
    }
    training = what.sampler(what.split.training, options.seed)
    validation = what.sampler(what.split.validation, options.seed + 1)
    trainer = Trainer(
        what.task,
        chosen,
        process,
        options.out,
        options.kind,
        settings,
        lambda step, rank, share: training.batch(share, step, rank),
        lambda index, share: validation.batch(share, index),
        lambda task: measures.errors(task, trainer.validation_batch),
        began,
        began + 3600 * options.hours if options.hours else None,
        3600 * options.within if options.within else None,
        _compiled(options, process),
        validate_first=start is not None,
    )
    return Training(options, what, trainer, card)


def finish(training: Training) -> dict[str, Any]:
    """Measure what was trained, write the model, draw the curve and return the card."""
    trainer, card, options = training.trainer, training.card, training.options
    card["recipe"] |= {"steps": trainer.step, "seconds": round(trainer.spent)}
    measured: dict[str, Any] = {"validation loss": trainer.best, "of step": trainer.best_step}
    if options.further:
        measured["validation loss before"] = trainer.before
    card["measured"] = measured
    if trainer.process.rank:
        return card
    task: Any = trainer.best_network().eval()
    batches, count = trainer.validation_batch, MEASURED[trainer.process.device.type]
    with trainer.autocast():
        if isinstance(task, losses.LodiTask):
            card["gamma"] = list(task.gamma_ends())
            if levels := measures.errors_by_level(task, batches, count, measures.TILES):
                table = {f"{gamma:g}": round(error, 4) for gamma, error in levels.items()}
                measured |= {"error of v by gamma": table, "tiles": count * measures.TILES}
        else:
            rms = [
                round(error, 4) for error in measures.rms_by_channel(task.network, batches, count)
            ]
            measured |= {"rms error of each channel, network units": rms, "windows": count}
    dtype = torch.float32 if options.float32_weights else torch.bfloat16
    save_model(options.out, options.kind, task.network, card, dtype)
    trainer.curve.plot(trainer.curve.path.with_suffix(".png"))
    if options.further and not trainer.best_step:
        LOG.info(
            "no better than %s in validation: its weights are what is written", options.further
        )
    return card


def _recipe(options: TrainOptions, process: Process) -> Recipe:
    """Return how to train. Raises BadInput for a schedule that no time can be fitted to."""
    gpu, steps = process.on_gpu, options.steps
    preset = recipe(options.kind, options.preset, gpu)
    if options.within:
        if preset.epoch:
            raise BadInput(
                f"--within {options.within:g}: the schedule of {options.kind}, preset "
                f"{options.preset}, is the paper's, of fixed length; use --hours and go on"
            )
        steps = steps or UNBOUND
    return recipe(options.kind, options.preset, gpu, steps, options.batch, options.rate)


def _compiled(options: TrainOptions, process: Process) -> bool:
    """Return whether to compile: unasked on a GPU that has a compiler."""
    from torch.utils._triton import has_triton

    return options.compile == "on" or (
        options.compile == "auto" and process.on_gpu and has_triton()
    )


def _from_compiler(error: RuntimeError) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def _go_on_from(start: Model, options: TrainOptions, what: Lesson) -> None:
    """Take the weights of a model. Raises BadInput where it is another network."""
    mine, grid = what.task.network.size, GRID[options.preset]
    other: Any = start.network.size
    its_grid = start.card.get("grid", 1)
    if (other, its_grid) != (mine, grid):
        raise BadInput(
            f"--further {options.further}: {other} on grid {its_grid}, not {mine} on grid {grid}"
        )
    what.task.network.load_state_dict(start.network.state_dict())


def _card(
    options: TrainOptions, what: Lesson, recipe: Recipe, processes: int, start: Model | None
) -> dict[str, Any]:
    """Say what a user must know of the model. Boxes by name: their paths are elsewhere soon."""
    first, boxes = what.boxes[0].attributes, what.boxes

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
        "size": as_dict(what.task.network.size),
        **{key: first[key] for key in ("voxel_size", "smoothing", "redshift", "cosmology")},
        "halo_mass_edges": list(HALO_EDGES),
        "transforms": {name: asdict(fit) for name, fit in what.transforms.items()},
        "sources": told.sources(boxes),
        "data": {
            "boxes": [box.name for box in boxes],
            "split": "by simulation" if len(boxes) > 1 else "by slab with a gap",
            "training": where(what.split.training),
            "validation": where(what.split.validation),
        },
        "recipe": asdict(recipe) | {"seed": options.seed, "processes": processes},
        "trained further from": {key: start.card[key] for key in kept} if start else None,
        **what.card,
    }
