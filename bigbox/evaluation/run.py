"""Evaluate models: paint truths with them again and again, measure, and compare with the draws.

    TRUTH ──draws────────────────────────────────────► measures ─┐
      │ halo ──LODI, R realizations──► tb ──measures─────────────┼─► summary ─► numbers, page, card
      │ dm ──HALOgen, LODI, R realizations──► halo, tb ──measures┤
      │ halo ──LODI, R pairs with moved tiles──► seams ──────────┘

Boxes are painted by the engine, in OUT/boxes, where they share dm and haloes with the truth. The
same command goes on after a stop; the boxes go when all is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bigbox
from bigbox.analysis.halo_mass import halo_mass
from bigbox.analysis.report.fields import open_field
from bigbox.analysis.report.page import made_folder, replacing
from bigbox.analysis.spectra.modes import Float, jsonable
from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.errors import BadInput
from bigbox.evaluation.measure import Measures, Numbers
from bigbox.evaluation.moved import measure_pairs, seam_numbers
from bigbox.evaluation.page import write_page
from bigbox.evaluation.summary import checks, in_words, summarise
from bigbox.evaluation.truth import Simulation, make_draws, open_truths
from bigbox.networks.card import read_card, write_remark
from bigbox.painters.models import Choice, Facts, KnownModel, choose_model
from bigbox.store.box import Box

MEMORY = 1 << 30
INPUTS = {"lodi": ("dm", "halo"), "pipeline": ("dm",)}  # arrays of the truth that are given


@dataclass(frozen=True)
class EvaluateOptions:
    """What `bigbox evaluate` was asked for; how: PaintOptions of the paintings."""

    models: Sequence[KnownModel]
    truths: Sequence[Path]
    out: Path
    realizations: int = 5
    draws: int | None = None
    catalogue: Path | None = None
    parts: Sequence[str] = ("lodi", "pipeline")
    write_card: bool = False
    keep_boxes: bool = False
    force: bool = False
    memory: int = MEMORY
    how: dict[str, Any] = field(default_factory=dict)


def evaluate(options: EvaluateOptions) -> Numbers:
    """Evaluate, write OUT/numbers.json and OUT/index.html, and return the numbers.

    Raises
    ------
    BadInput
        For a truth that is none, a model that is not for it, or draws that cannot be made.
    StoppedEarly
        A stop was asked for; the same command goes on.
    """
    names = _names(options.models)
    simulations = open_truths(options.truths)
    chosen = _chosen(options, simulations)
    if options.catalogue is not None and len(simulations) > 1:
        raise BadInput(
            f"{options.catalogue}: is the catalogue of one simulation, and {len(simulations)} are "
            "given; evaluate them one by one, or give draws as boxes"
        )
    for model in options.models if options.write_card else ():
        if not os.access(model.folder, os.W_OK):
            raise BadInput(
                f"{model.folder}: cannot be written; leave --write-card, or copy the model to a "
                "folder of yours"
            )
    with made_folder(options.out), _made_boxes(options) as boxes:
        results = []
        for simulation in simulations:
            if options.catalogue is not None:
                count = options.draws or max(2, options.realizations)
                make_draws(simulation, options.catalogue, count, boxes)
            elif options.draws is not None:
                del simulation.draws[options.draws :]
            results.append(_of_simulation(options, simulation, names, chosen, boxes))
        numbers: Numbers = jsonable(
            {
                "bigbox": bigbox.__version__,
                "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "command": {"realizations": options.realizations, **_told(options.how)},
                "models": [
                    _about(model, name) for model, name in zip(options.models, names, strict=True)
                ],
                "truths": results,
            }
        )
        text = json.dumps(numbers, indent=1)
        with replacing(options.out) as work:
            (work / "numbers.json").write_text(text + "\n", encoding="utf-8")
            write_page(work, numbers)
        if options.write_card:
            for model, name in zip(options.models, names, strict=True):
                _write_card(model, name, numbers)
    return numbers


@contextmanager
def _made_boxes(options: EvaluateOptions) -> Iterator[Path]:
    """Make the folder of what is painted; remove it at the end, or where nothing was painted."""
    boxes = options.out / "boxes"
    boxes.mkdir(exist_ok=True)
    try:
        yield boxes
    except BaseException:
        with suppress(OSError):
            boxes.rmdir()
        raise
    if not options.keep_boxes:
        shutil.rmtree(boxes)


def _chosen(
    options: EvaluateOptions, simulations: Sequence[Simulation]
) -> dict[tuple[str, str], Choice]:
    """Return each model's choice for each simulation, before anything is written."""
    return {
        (str(model.folder), one.checksum): choose_model(
            Facts.of(one.box), tuple({"lodi": 1} | model.cards), model.folder, force=options.force
        )
        for model in options.models
        for one in simulations
    }


def _names(models: Sequence[KnownModel]) -> list[str]:
    names = [model.name for model in models]
    return [n if names.count(n) == 1 else f"{n} {i + 1}" for i, n in enumerate(names)]


def _told(how: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in how.items() if value is not None}


def _about(model: KnownModel, name: str) -> Numbers:
    card = model.card
    kept = ("voxel_size", "smoothing", "redshift", "grid", "sources", "licence", "stand_in")
    weights = {kind: one["sha256"] for kind, one in model.cards.items()}
    return {"name": name, "folder": str(model.folder), "weights": weights} | {
        key: card.get(key) for key in kept
    }


def _of_simulation(
    options: EvaluateOptions,
    simulation: Simulation,
    names: Sequence[str],
    chosen: dict[tuple[str, str], Choice],
    boxes: Path,
) -> Numbers:
    """Return all numbers of one simulation: the draws', and those of each model."""
    box = simulation.box
    found: Numbers = {
        "name": simulation.name,
        "path": str(box.path),
        "checksum": simulation.checksum,
        "shape": list(box.shape),
        "box_size": list(box.box_size),
        "redshift": box.redshift,
        "source": box.array("tb").attrs.get("source"),
        "draws": len(simulation.draws),
        "models": {},
    }
    drawn: dict[tuple[Any, ...], list[Numbers]] = {}
    for model, name in zip(options.models, names, strict=True):
        measures = measures_of(model, simulation, options)
        key = (measures.grid, measures.tiling, measures.floor)
        if key not in drawn:  # seams are looked for where this model's tiles meet
            drawn[key] = [measures.of(open_field(one.path)) for one in simulation.draws]
            _say(f"{simulation.name}: {len(drawn[key])} draws measured")
        rows: Numbers = {"forced": chosen[str(model.folder), simulation.checksum].forced}
        if "seams" in options.parts:
            work = Paintings(model, simulation, "seams", boxes, options)
            rows["seams"] = seam_numbers(list(work.pairs(measures, f"{simulation.name}: {name}")))
        for part in ("lodi", "pipeline"):
            if part not in options.parts:
                continue
            if part == "pipeline" and "halogen" not in model.cards:
                _say(f"{name}: has no halogen.json: no pipeline from dm alone")
                continue
            work = Paintings(model, simulation, part, boxes, options)
            painted = list(work.measured(measures, f"{simulation.name}: {name}, {part}"))
            rows[part] = summarise(painted, drawn[key], measures)
            if part == "pipeline":
                mass = halo_mass(Box.open(work.path), box, options.memory)
                rows["haloes"] = {"mass": mass.ratio, "error": mass.error, "rms": mass.rms}
        rows["checks"] = checks(rows)
        found["models"][name] = rows
    return found


def measures_of(model: KnownModel, simulation: Simulation, options: EvaluateOptions) -> Measures:
    """Return how what the model paints on a simulation is measured, and the draws with it."""
    box, card = simulation.box, read_card(model.folder, "lodi")
    asked = PaintOptions(box.path, model=model.folder, **options.how)
    shape = box.on_grid(asked.grid).shape
    tiling = tiling_for(asked.method, shape, asked.tile, asked.overlap, asked.margin)
    first, floor = open_field(box.path), float(card["transforms"]["tb"]["floor"])
    return Measures(first, tiling, asked.grid, floor, {"memory": options.memory})


@dataclass(frozen=True)
class Paintings:
    """Paint a truth again and again: on its haloes ("lodi"), or from dm alone ("pipeline")."""

    model: KnownModel
    simulation: Simulation
    part: str
    boxes: Path
    options: EvaluateOptions

    @property
    def path(self) -> Path:
        """The box that is painted; another one for other weights or another way to paint."""
        how = json.dumps([self.model.card["sha256"], _told(self.options.how)], sort_keys=True)
        tag = hashlib.sha256(how.encode()).hexdigest()[:8]
        return self.boxes / f"{self.simulation.name}-{self.part}-{tag}.zarr"

    def measured(self, measures: Measures, name: str) -> Iterator[Numbers]:
        """Paint and measure one realization after the other."""
        self._make()
        for realization in range(self.options.realizations):
            began = time.monotonic()
            paint(replace(self._job, realization=realization))
            took = time.monotonic() - began
            place = Box.open(self.path, realization=realization).place
            yield measures.of(open_field(place)) | {"seconds": took}
            _say(f"{name}: {realization + 1} of {self.options.realizations} ({took:.0f} s)")

    def pairs(self, measures: Measures, name: str) -> Iterator[Float]:
        """Paint every realization twice, with its tiles in other places; yield what seams make."""
        many, folder = self.options.realizations, self.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        found = measure_pairs(self.simulation.box, self._job, measures, many, folder)
        for number, ratios in enumerate(found, start=1):
            yield ratios
            _say(f"{name}, seams: {number} of {many} pairs")

    @property
    def _job(self) -> PaintOptions:
        return PaintOptions(
            self.path,
            model=self.model.folder,
            force=self.options.force,
            quiet=True,
            **self.options.how,
        )

    def _make(self) -> None:
        """Make the box, which shares what it is given with the truth."""
        truth, path = self.simulation.box, self.path
        if not (path / "zarr.json").exists():
            shutil.rmtree(path, ignore_errors=True)
            known = truth.attributes["cosmology"]
            Box.create(path, truth.shape, truth.box_size, truth.redshift, cosmology=known)
        for name in INPUTS[self.part]:
            if not (path / name).is_symlink():
                (path / name).symlink_to(truth.place_of(name).resolve())


def _write_card(model: KnownModel, name: str, numbers: Numbers) -> None:
    """Add the results to the cards of a model, those on the same truth in place of older ones."""
    for kind, parts in (
        ("lodi", ("lodi", "pipeline", "haloes", "seams")),
        ("halogen", ("haloes",)),
    ):
        if kind not in model.cards:
            continue
        entries = []
        for truth in numbers["truths"]:
            rows = truth["models"][name]
            about = {
                k: truth[k] for k in ("name", "checksum", "shape", "box_size", "draws", "source")
            }
            entries.append(
                {
                    "truth": about,
                    "summary": f"{in_words(rows, parts)} ({truth['name']})",
                    "made": numbers["made"],
                    "bigbox": numbers["bigbox"],
                    **numbers["command"],
                    **{part: _kept(rows[part]) for part in parts if part in rows},
                }
            )
        new = {one["truth"]["checksum"] for one in entries}
        before = read_card(model.folder, kind).get("evaluated") or []
        kept = [one for one in before if one["truth"]["checksum"] not in new]
        write_remark(model.folder, kind, "evaluated", [*kept, *entries])


def _kept(rows: Numbers) -> Numbers:
    """Return of a part's numbers those that a card holds; numbers.json has all."""
    left_out = ("bispectrum", "onepoint", "triangles", "seconds")
    return {name: value for name, value in rows.items() if name not in left_out}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
