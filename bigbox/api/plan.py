"""`bigbox.plan`: what painting a box will take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bigbox.bench.record import Speed
    from bigbox.painters.models import Choice, Facts
    from bigbox.planning import Plan, RegionPlan

PathLike = str | Path
Three = tuple[int, int, int]
_ESTIMATE = "an estimate; bigbox bench measures it, or use --seconds-per-{}"


@dataclass(frozen=True)
class Planned:
    """What painting a box will take; printed, it is the text of `bigbox plan`."""

    plan: Plan  # every number
    region: RegionPlan | None  # of the part that was asked for
    refusal: str  # why it cannot be done here, "" where it can
    notes: tuple[str, ...]
    words: str = field(repr=False)

    @property
    def fits(self) -> bool:
        """Whether it fits into memory and disk, and a model is for it."""
        return not self.refusal

    @property
    def seconds(self) -> float:
        """Time of the whole painting, haloes included."""
        return self.plan.seconds

    @property
    def memory_per_rank(self) -> int:
        """Bytes of a rank at its peak."""
        return self.plan.memory_per_rank

    @property
    def disk_bytes(self) -> int:
        """Bytes on the disk at the most."""
        return self.plan.disk_bytes

    def __str__(self) -> str:
        return self.words

    def to_xarray(self) -> xarray.DataArray:
        """Return the memory of a rank, GB, by what it is for."""
        import xarray

        terms = list(self.plan.memory)
        values = [self.plan.memory[term] / 1e9 for term in terms]
        return xarray.DataArray(values, {"term": terms}, ("term",), "memory", {"units": "GB"})

    def plot(self, ax: Axes | None = None, **bars: Any) -> Axes:
        """Draw the memory of a rank by what it is for; return the axes, new ones if None."""
        from bigbox.analysis.spectra.shown import axes_of

        place, memory = axes_of(ax), self.to_xarray()
        place.barh(memory.term.values.tolist(), memory.values, **bars)
        place.set(xlabel="memory of a rank  [GB]")
        return place


def plan(
    box: PathLike | None = None,
    *,
    shape: int | Sequence[int] | None = None,
    box_size: float | None = None,
    ranks: int = 1,
    threads: int | None = None,
    batch: int = 16,
    painter: str = "lodi",
    model: PathLike | None = None,
    force: bool = False,
    overlap_method: str | None = None,
    sampler: str = DEFAULT_SAMPLER,
    steps: int | None = None,
    tile: int = 32,
    overlap: int | None = None,
    margin: int | None = None,
    halo_stride: int | None = None,
    painting_grid: int | None = None,
    region: str | None = None,
    colouring: str = "levels",
    latent_memory: float | None = None,
    seconds_per_tile: float | None = None,
    seconds_per_window: float | None = None,
    bench: PathLike | None = None,
    ranks_per_node: int | None = None,
    memory: float | None = None,
    disk: float | None = None,
) -> Planned:
    """Tell what painting a box will take: time, memory of a rank, disk. Nothing is written.

    Parameters
    ----------
    box : The box; or shape, voxels on a side, and box_size, comoving Mpc/h, of one that is only
        thought of.
    ranks, threads : MPI ranks, and CPU threads of each.
    batch : Tiles painted at once.
    seconds_per_tile, seconds_per_window : As measured where it will run. None: by `bigbox bench`
        (bench: a file of it), else an estimate.
    ranks_per_node, memory, disk : Of the machine it will run on, GB. None: of this one.
    painter, model, force, overlap_method, sampler, steps, tile, overlap, margin, halo_stride,
    painting_grid, region, colouring, latent_memory : As for `paint`.

    Returns
    -------
    Planned
        Also where it does not fit: `fits` and `refusal` tell.

    Raises
    ------
    BadInput
        A ValueError: no such box, a size that no tiles fit.

    Examples
    --------
    >>> import bigbox
    >>> nodes = {"ranks": 64, "ranks_per_node": 4, "memory": 64, "disk": 60_000}
    >>> plan = bigbox.plan(shape=10_240, box_size=1000, **nodes)
    >>> plan.fits, plan.plan.ranks
    (True, 64)
    """
    from bigbox.bench.record import PAINTER, load_speed
    from bigbox.diffusion.overlap import tiling_for
    from bigbox.engine.limits import limits_of
    from bigbox.painters.registry import method_of, painting_grid_of
    from bigbox.physics.interpolation import REACH
    from bigbox.planning import begun_bricks, lacks_haloes, make_plan, plan_region
    from bigbox.planning.words import cost_words, plan_words, region_words
    from bigbox.scheduler.region import Region
    from bigbox.scheduler.tiling import TilingError
    from bigbox.store.painting_grid import PaintingGrid

    path = None if box is None else Path(box)
    sides = [shape] * 3 if isinstance(shape, int) else shape
    voxels, lengths, facts = _geometry(path, sides, box_size)
    named = None if model is None else Path(model)
    if choice := _chosen(path, painter, named, force, facts):
        named = choice.folder
    overlap_method = method_of(painter, overlap_method)
    grid = painting_grid_of(painter, named, painting_grid)
    on = PaintingGrid.of(voxels, lengths[0] / voxels[0], grid)
    tiling = tiling_for(overlap_method, on.shape, tile, overlap, margin)
    tile_source = window_source = "as given"
    speed = load_speed(None if bench is None else Path(bench)) if painter == PAINTER else None
    # Estimates are of a core.
    threads = (threads or _threads(path, speed, ranks, ranks_per_node)) if speed else 1
    calls = steps or DEFAULT_STEPS[sampler]
    if seconds_per_tile is None:
        tile_source = _ESTIMATE.format("tile")
        if speed and tile == 32:
            seconds_per_tile, tile_source = speed.seconds_per_tile(calls, threads), speed.where()
    if seconds_per_window is None:
        window_source = _ESTIMATE.format("window")
        if speed:
            seconds_per_window, window_source = speed.seconds_per_window(threads), speed.where()
    common: dict[str, Any] = {
        "ranks": ranks,
        "batch": batch,
        "painter": painter,
        "sampler": sampler,
        "steps": steps,
        "overlap_method": overlap_method,
        "colouring": colouring,
        "halo_stride": halo_stride,
        "seconds_per_tile": seconds_per_tile,
        "seconds_per_window": seconds_per_window,
        "haloes": path is None or lacks_haloes(path),
        "limits": limits_of(latent_memory),
    }
    bricks = begun_bricks(path, tiling) if path else None
    made, every = make_plan(tiling, lengths, grid=grid, bricks=bricks, **common), None
    if grid > 1:
        with suppress(TilingError):  # of what cannot be cut into tiles, nothing is saved
            whole = tiling_for(overlap_method, voxels, tile, overlap, margin)
            every = make_plan(whole, lengths, **common)
    notes = tuple(choice.words()) if choice and path else ()
    lines = [
        plan_words(made, tile_source, window_source, every),
        f"cost    {cost_words(made, speed, threads)}",
        *(f"note: {line}" for line in notes),
    ]
    part = None
    if region is not None:
        reach = REACH if grid > 1 else 0
        asked = Region.read(region, tiling, lengths[0] / voxels[0], grid, reach)
        part = plan_region(made, asked, calls)
        lines.append(region_words(part, made))
    refusal = _refusal(made, path, memory, disk, ranks_per_node)
    if not refusal and choice is not None and path is None and choice.differences and not force:
        refusal = choice.refusal
    return Planned(made, part, refusal, notes, "\n".join(lines))


def _refusal(
    made: Plan,
    box: Path | None,
    memory: float | None,
    disk: float | None,
    ranks_per_node: int | None,
) -> str:
    """Return why the plan cannot be done with so many GB, here where none are told; else ""."""
    from bigbox.planning import refuse
    from bigbox.planning.machine import available_disk, available_memory, written_bytes

    try:
        refuse(
            made,
            memory=available_memory() if memory is None else memory * 1e9,
            disk=available_disk(box or Path.cwd()) if disk is None else disk * 1e9,
            written=written_bytes(box) if box else 0,
            ranks_per_node=ranks_per_node,
        )
    except BadInput as why:
        return str(why)
    return ""


def _threads(box: Path | None, speed: Speed, ranks: int, ranks_per_node: int | None) -> int:
    """Return the CPU threads of a rank: those that paint would give it here.

    A rank of a box that is only thought of is a device like the one that was measured, as bench
    has it, unless it is told how many share a node.
    """
    if box is None and ranks_per_node is None:
        return speed.threads
    here = min(ranks, ranks_per_node or ranks)
    return max(1, len(os.sched_getaffinity(0)) // here)


def _chosen(
    box: Path | None, painter: str, model: Path | None, force: bool, facts: Facts
) -> Choice | None:
    """Return the model that would paint the box; None for painters without.

    For a box that is only thought of, the nearest: the refusal says so. Raises BadInput.
    """
    from bigbox.engine.options import PaintOptions, choose_networks
    from bigbox.painters.models import choose_model
    from bigbox.painters.registry import painter_row

    row = painter_row(painter)
    if box is not None:
        asked = PaintOptions(box, painter=painter, model=model, force=force)
        return choose_networks(asked, asked.open())
    if not row.model:
        return None
    return choose_model(facts, (row.model, row.halo_model), model, force=True)


def _geometry(
    box: Path | None, shape: Sequence[int] | None, box_size: float | None
) -> tuple[Three, tuple[float, float, float], Facts]:
    """Return voxels, Mpc/h, and what a model must know of the box."""
    from bigbox.painters.models import Facts

    if (box is None) == (shape is None):
        raise BadInput("plan takes a BOX, or --shape N with --box-size L, and not both")
    if box is not None:
        if box_size is not None:
            raise BadInput(f"{box} tells its own size; leave out --box-size")
        from bigbox.store.box import Box

        opened = Box.open(box)
        opened.require_input()
        return opened.shape, opened.box_size, Facts.of(opened)
    sides = list(shape or ())
    if len(sides) not in (1, 3):
        raise BadInput(f"--shape takes one number or three, not {len(sides)}")
    if box_size is None:
        raise BadInput("--shape needs --box-size, the side of the box on x in Mpc/h")
    x, y, z = sides * 3 if len(sides) == 1 else sides
    voxel = box_size / x
    facts = Facts(f"a box of {x} voxels", {"voxel_size": voxel})
    return (x, y, z), (x * voxel, y * voxel, z * voxel), facts
