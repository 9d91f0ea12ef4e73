"""Hold the options of `bigbox paint`, and make painters of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.mpi import World
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER
from bigbox.painters import HaloPainter, Painter, make_halo_painter, make_painter, painter_row
from bigbox.painters.models import Choice, Facts, choose_model
from bigbox.painters.registry import method_of, painting_grid_of
from bigbox.painters.settings import PainterSettings
from bigbox.physics.interpolation import REACH
from bigbox.scheduler.bricks import Bricks, default_edge
from bigbox.scheduler.region import Region
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.fields import DM, HALO, TB, output_field
from bigbox.store.layouts import PaintLayout
from bigbox.store.recorded import haloes_of, painting_of

_OF_PAINTER = {one.name for one in fields(PainterSettings)}


@dataclass(frozen=True)
class PaintOptions:
    """What `bigbox paint` was asked for; see its --help for the meaning of each."""

    box: Path
    painter: str = "lodi"
    model: Path | None = None
    force: bool = False
    seed: int = 0
    realization: int = 0
    overlap_method: str | None = None
    sampler: str = DEFAULT_SAMPLER
    steps: int | None = None
    batch: int | None = None
    tile: int = 32
    overlap: int | None = None
    margin: int | None = None
    colouring: str = "levels"
    device: str = "auto"
    threads: int | None = None
    compile: str = "auto"
    halo_stride: int | None = None
    halo_weighting: str | None = None
    field: list[str] = field(default_factory=list)
    region: str | None = None
    haloes_only: bool = False
    latent_memory: float | None = None
    discard: bool = False
    discard_halo: bool = False
    drop_latents: bool = False
    seconds_per_tile: float = 0.0
    seconds_per_window: float = 0.0
    painting_grid: int | None = None
    quiet: bool = False
    log: Path | None = None
    workers: str | None = None
    worker_tiles: int | None = None

    def open(self, mode: Literal["r", "r+"] = "r") -> Box:
        """Open the box and the realization of it that is painted."""
        return Box.open(self.box, mode, self.realization)

    @property
    def method(self) -> str:
        """The overlap method: as asked for, or the painter's own."""
        return method_of(self.painter, self.overlap_method)

    @property
    def grid(self) -> int:
        """Voxels of dm on an axis for one that is painted: the model's, or as asked for.

        Read from the model's card each time.
        """
        return painting_grid_of(self.painter, self.model, self.painting_grid)

    def layout(self, box: Box, n_ranks: int) -> PaintLayout:
        """Cut the box into tiles and bricks; a painting that has begun keeps its bricks."""
        box.require_input()
        if painter_row(self.painter).input == DM.name:
            box.require(DM.name)
        grid = self.grid
        shape = box.on_grid(grid).shape
        tiling = tiling_for(self.method, shape, self.tile, self.overlap, self.margin)
        bricks = Bricks(tiling, default_edge(tiling, n_ranks))
        found = painting_of(box, giving_up=self.discard or self.discard_halo)
        if found is not None and found.layout.tiling == tiling:
            bricks = found.layout.bricks
        fields = [output_field(name).name for name in dict.fromkeys((TB.name, *self.field))]
        return PaintLayout(bricks, fields=tuple(fields), grid=grid)

    def check(self) -> None:
        """Raise BadInput where options do not go together."""
        given = {"--field": bool(self.field), "--drop-latents": self.drop_latents}
        for name in (name for name in given if given[name]):
            if self.region is not None:
                raise BadInput(f"{name} is for a whole box: leave out --region {self.region}")
        given["--discard"] = self.discard
        for name in (name for name in given if given[name]):
            if self.haloes_only:
                raise BadInput(f"{name} is of tb, which --haloes-only does not paint: leave it out")

    def region_of(self, box: Box, tiling: Tiling) -> Region | None:
        """Return the region that is painted; None: the whole box. Raises BadInput."""
        if self.region is None:
            return None
        grid = self.grid
        reach = REACH if grid > 1 else 0  # of what is interpolated
        return Region.read(self.region, tiling, box.voxel, grid, reach)

    def painter_of(self, tiling: Tiling, device: str, threads: int) -> Painter:
        """Make the painter of tiles."""
        mine = {name: value for name, value in vars(self).items() if name in _OF_PAINTER}
        mine |= {"device": device, "threads": threads, "overlap_method": self.method}
        mine |= {"grid": self.grid}
        return make_painter(self.painter, box_shape=tiling.shape, **mine)

    def halo_painter_of(self, tiling: Tiling, device: str, threads: int) -> HaloPainter:
        """Make the painter of haloes that goes with it."""
        return make_halo_painter(
            self.painter,
            box_shape=tiling.shape,
            stride=self.halo_stride,
            weighting=self.halo_weighting,
            device=device,
            threads=threads,
            seconds_per_window=self.seconds_per_window,
            model=self.model,
            compile=self.compile,
            grid=self.grid,
        )


def device_of(options: PaintOptions, world: World, threads: int) -> str:
    """Return the device of this rank's painter: a GPU by local rank, or the CPU's share."""
    if not painter_row(options.painter).needs_torch:
        return "cpu"
    import torch

    from bigbox.devices import find_device

    torch.set_num_threads(threads)
    if options.device not in ("auto", "cuda"):
        return str(find_device(options.device))
    if torch.cuda.is_available():
        return f"cuda:{world.local_rank % torch.cuda.device_count()}"
    if options.device == "cuda":
        raise BadInput(
            "device cuda: torch sees no GPU here; use --device cpu, or torch's GPU build"
        )
    return "cpu"


def choose_networks(options: PaintOptions, box: Box) -> Choice | None:
    """Return the model to paint the box with; None for painters without networks.

    A painting that has begun goes on with its own. Raises BadInput where none is for the box.
    """
    row = painter_row(options.painter)
    if not row.model:
        return None
    haloes, painted = haloes_of(box), painting_of(box)
    paints_haloes = bool(row.halo_model) and (not box.has(HALO.name) or haloes is not None)
    kinds = (row.model, row.halo_model) if paints_haloes else (row.model,)
    runs = [] if options.discard or options.discard_halo else [haloes, painted]
    begun = {str(run.identity.get("model")) for run in runs if run is not None}
    facts = Facts.of(box)
    if options.discard_halo:  # they are painted anew
        values = {name: value for name, value in facts.values.items() if name != "smoothing"}
        facts = Facts(facts.name, values)
    return choose_model(facts, kinds, options.model, force=options.force, begun=begun)


def check_alike(identities: list[dict[str, Any]]) -> None:
    """Raise BadInput unless all ranks would paint the same bytes."""
    for rank, identity in enumerate(identities):
        for key, value in identity.items():
            if value != identities[0][key]:
                raise BadInput(
                    f"{key}: {identities[0][key]!r} on rank 0, {value!r} on rank {rank}; tiles of "
                    "one painting come from one kind of device and software: start it on equal "
                    "nodes" + (", or with --compile off" if key == "compiled" else "")
                )
