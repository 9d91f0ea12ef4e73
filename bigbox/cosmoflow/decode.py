"""Decompress a box: all tiles together on the engine, on any number of ranks.

    OUT (latents) ──LatentPainter──► BOX/latents/painted ──assemble──► BOX/dm
                                     BOX/ledger: tile for tile, until dm is whole; then it goes

While it is in the making BOX is a painting like any other: restartable, with the same bytes for any
number of ranks. Once dm is whole, ledger and tiles are removed, and BOX is a box like any other.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bigbox.cosmoflow.compressed import Compressed
from bigbox.cosmoflow.local import CELL
from bigbox.cosmoflow.local_model import load_local, shipped_model
from bigbox.cosmoflow.painter import TILE, LatentPainter
from bigbox.devices import find_device
from bigbox.diffusion.overlap import overlap_method, tiling_for
from bigbox.engine.job import Job
from bigbox.engine.limits import limits_of
from bigbox.engine.mpi import World
from bigbox.engine.options import check_alike
from bigbox.engine.prepared import PaintSpec, prepare
from bigbox.engine.run import on_all_ranks, run_job
from bigbox.engine.shards import AssembleTask
from bigbox.engine.stop import StopRequest
from bigbox.engine.task import Task
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER
from bigbox.networks.model import Model
from bigbox.painters import Painter
from bigbox.painters.settings import PainterSettings
from bigbox.scheduler.bricks import Bricks, default_edge
from bigbox.scheduler.region import Region
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.durable import DISK, explained
from bigbox.store.fields import DM
from bigbox.store.layouts import PaintLayout
from bigbox.store.metadata import read_json
from bigbox.store.recorded import is_painted, painting_of

JOINT = "joint"
STEPS = 6  # calls for a tile with the default sampler: cells are right with any number
DECODED = "decoded"  # attribute of dm: what it was decoded with, once it is whole


@dataclass(frozen=True)
class DecompressOptions:
    """What `bigbox decompress` was asked for; see its --help."""

    source: Path
    box: Path
    model: Path | None = None
    seed: int = 0
    sampler: str = DEFAULT_SAMPLER
    steps: int | None = None
    margin: int | None = None
    region: str | None = None
    batch: int | None = None
    device: str = "auto"
    threads: int | None = None
    latent_memory: float | None = None
    quiet: bool = False


class DecodeJob(Job):
    """One rank's hand on a decompression: dm is assembled of the tiles."""

    def tasks(self) -> list[Task]:
        """Return this rank's kinds of work."""
        return [self.tile_task(), AssembleTask(self, DM.name)]


def decompress(options: DecompressOptions) -> dict[str, Any]:
    """Decode a box, or go on with it; return the report's numbers. Raises as `engine.run.paint`."""
    return on_all_ranks(options.box, lambda world, stop: _decompress(options, world, stop))


def _decompress(options: DecompressOptions, world: World, stop: StopRequest) -> dict[str, Any]:
    threads = options.threads or max(1, int(world.cores))
    source = world.each(lambda: Compressed.open(options.source))
    model = world.each(lambda: _model_of(options, source))
    if world.first(lambda: _is_whole(options.box)):
        world.first(lambda: _settle(options.box))
        return {"tiles": 0, "total": 0}
    tiling = world.first(lambda: _tiling(options, source))
    device = world.each(lambda: _device(options.device, world, threads))
    settings = world.each(
        lambda: PainterSettings(
            options.seed,
            source.shape,
            overlap_method=JOINT,
            sampler=options.sampler,
            steps=options.steps or (STEPS if options.sampler == DEFAULT_SAMPLER else None),
            tile=TILE,
            device=device,
            threads=threads,
        )
    )
    painter = world.each(lambda: LatentPainter.from_settings(settings, model=model, latents=source))
    check_alike(world.gather(painter.identity()))
    layout, region = world.first(lambda: _begun(options, source, tiling, world.size))
    spec = PaintSpec(
        layout,
        cast(Painter, painter),
        batch=options.batch or painter.batch,
        task=overlap_method(JOINT).task,
        region=region,
    )
    prepared = world.first(
        lambda: prepare(spec, Box.open(options.box, "r+"), n_ranks=world.size, device=device)
    )
    limits, place = limits_of(options.latent_memory), (world.rank, world.size)
    job = world.each(
        lambda: DecodeJob(Box.open(options.box, "r+"), spec, prepared, *place, limits=limits)
    )
    try:
        report = run_job(world, stop, job, quiet=options.quiet)
        whole = job.wanted is None or job.painting.all_recorded()
    finally:
        job.close()
    if all(world.gather(whole)):
        world.first(lambda: _settle(options.box))
    return report


def _model_of(options: DecompressOptions, source: Compressed) -> Model:
    """Return the model that the latents are of. Raises BadInput for another one."""
    if not source.attributes.get("complete"):
        raise BadInput(
            f"{source.path}: is not compressed to its end; run bigbox compress again, it goes on"
        )
    noted = str(source.attributes.get("model_folder", "shipped"))
    folder = options.model or (shipped_model() if noted == "shipped" else Path(noted))
    model = load_local(folder)
    if model.sha256 != source.model:
        raise BadInput(
            f"{source.path}: its latents are of another model, {source.model[:12]}.., than that of"
            f" {folder}, {model.sha256[:12]}..; name theirs with --model (it was {noted})"
        )
    return model


def _tiling(options: DecompressOptions, source: Compressed) -> Tiling:
    if options.margin is not None and options.margin < CELL - 1:
        raise BadInput(
            f"--margin {options.margin}: must be at least {CELL - 1}, so that a tile has all of its"
            " cells"
        )
    return tiling_for(JOINT, source.shape, TILE, None, options.margin)


def _device(name: str, world: World, threads: int) -> str:
    torch.set_num_threads(threads)
    if name == "auto" and torch.cuda.is_available():
        return f"cuda:{world.local_rank % torch.cuda.device_count()}"
    return str(find_device(name))


def _begun(
    options: DecompressOptions, source: Compressed, tiling: Tiling, n_ranks: int
) -> tuple[PaintLayout, Region | None]:
    """Return how the box is cut, the box made or found. Raises BadInput for any other box."""
    about = source.attributes
    region = None
    if options.region is not None:
        voxel = float(about["box_size"][0]) / source.shape[0]
        region = Region.read(options.region, tiling, voxel)
    if not options.box.exists():
        Box.create(
            options.box,
            source.shape,
            about["box_size"],
            about["redshift"],
            cosmology=about.get("cosmology"),
            provenance={"decompressed_from": str(source.path), **(about.get("provenance") or {})},
        )
    box = Box.open(options.box)
    if (box.path / DM.name).exists() and not is_painted(box.path / DM.name):
        raise BadInput(f"{box.path}: has a dm of its own; choose another BOX")
    if box.shape != source.shape:
        raise BadInput(
            f"{box.path}: {box.shape} voxels, {source.path} has {source.shape}; choose another BOX"
        )
    found = painting_of(box)
    bricks = Bricks(tiling, default_edge(tiling, n_ranks))
    if found is not None and found.layout.tiling == tiling:
        bricks = found.layout.bricks
    return PaintLayout(bricks, fields=(DM.name,)), region


def _is_whole(path: Path) -> bool:
    """Return whether dm was decoded to its end."""
    attributes = (read_json(path / DM.name / "zarr.json") or {}).get("attributes", {})
    return DECODED in attributes


def _settle(path: Path) -> None:
    """Make a box like any other of one that is decoded: its ledger and tiles go."""
    meta_path = path / DM.name / "zarr.json"
    with explained(path):
        meta = read_json(meta_path) or {}
        attributes = meta["attributes"]
        if "painting" in attributes:
            meta["attributes"] = {
                **{name: value for name, value in attributes.items() if name != "painting"},
                DECODED: attributes["painting"],
            }
            DISK.write_atomic(meta_path, json.dumps(meta, indent=2).encode())
        for name in ("ledger", "latents"):
            shutil.rmtree(path / name, ignore_errors=True)
