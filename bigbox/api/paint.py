"""`bigbox.paint`: paint T_b onto a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigbox.names import DEFAULT_SAMPLER

if TYPE_CHECKING:
    from bigbox.api.opening import BoxDataset

PathLike = str | Path


@dataclass(frozen=True)
class Painted:
    """What a call of `paint` did, over all ranks."""

    box: Path
    realization: int
    tiles: int  # painted by this call
    windows: int  # of haloes, predicted by this call
    total: int  # tiles that there are
    ranks: int
    seconds: float
    busy: float  # share of the time that the painters painted

    def to_xarray(self) -> BoxDataset:
        """Return the painted box as `bigbox.open` does."""
        from bigbox.api.opening import open as open_box

        return open_box(self.box, realization=self.realization)


def paint(
    box: PathLike,
    *,
    painter: str = "lodi",
    model: PathLike | None = None,
    force: bool = False,
    seed: int = 0,
    realization: int = 0,
    overlap_method: str | None = None,
    sampler: str = DEFAULT_SAMPLER,
    steps: int | None = None,
    batch: int | None = None,
    tile: int = 32,
    overlap: int | None = None,
    margin: int | None = None,
    colouring: str = "levels",
    device: str = "auto",
    threads: int | None = None,
    compile: str = "auto",
    halo_stride: int | None = None,
    halo_weighting: str | None = None,
    field: Sequence[str] = (),
    region: str | None = None,
    latent_memory: float | None = None,
    discard: bool = False,
    discard_halo: bool = False,
    drop_latents: bool = False,
    seconds_per_tile: float = 0.0,
    seconds_per_window: float = 0.0,
    painting_grid: int | None = None,
    haloes_only: bool = False,
    workers: str | None = None,
    worker_tiles: int | None = None,
    log: PathLike | None = None,
    quiet: bool = False,
) -> Painted:
    """Paint T_b (mK) onto a box, haloes first where it has none.

    The same call goes on where an earlier one was stopped, and gives the same bytes. In a script
    that mpirun has started, all ranks make this call and share the work.

    Parameters
    ----------
    box : The box, as `bigbox.ingest` makes it.
    model : Networks: a folder, or a name that `bigbox models` lists. None: the known model that is
        for the box's voxel, redshift and cosmology.
    force : Paint where the model is not for the box; what is painted says so.
    seed, realization : Of the noise. Realizations 0 to 65535 stand beside each other in the box.
    sampler, steps : "dpmpp-sde", "dpmpp" or "ancestral"; network calls for a tile.
    batch : Tiles painted at once. It changes no byte.
    region : A part of the box, as "0:40,0:40,0:40" (voxels) or "0:4,0:4,0:4Mpc/h".
    latent_memory : Memory of a rank for the noisy field, GB (0.5).
    discard, discard_halo : Throw away the T_b, or haloes and T_b, that are painted.
    painter, overlap_method, tile, overlap, margin, colouring, device, threads, compile,
    halo_stride, halo_weighting, field, drop_latents, seconds_per_tile, seconds_per_window,
    painting_grid : As the options of `bigbox paint`.
    haloes_only : Paint the haloes and no T_b, as a job of its own.
    workers, worker_tiles : Paint regions of so many tiles on an axis on the workers of the dask
        scheduler of that address. None: as many tiles as `bigbox paint` takes.
    quiet : Show no progress.
    log : Append what the run says to this file, a JSON object a line.

    Raises
    ------
    BadInput
        A ValueError: the box, the options or the machine cannot be used. Nothing is changed.
    StoppedEarly
        A RuntimeError: a signal, or a file STOP in the box. The same call goes on.

    Examples
    --------
    >>> import bigbox
    >>> bigbox.paint("small.zarr", painter="gaussian", seed=1, steps=2, quiet=True).total
    27
    >>> box = bigbox.open("small.zarr")
    >>> box.tb.attrs["units"]
    'mK'
    """
    asked = {**locals(), "box": Path(box), "field": list(field)}
    asked |= {name: value and Path(value) for name, value in (("model", model), ("log", log))}

    from bigbox.engine.stop import StopRequest

    stop = StopRequest()
    with stop.listening():  # a warning may come while the rest is being imported
        from bigbox.engine.options import PaintOptions
        from bigbox.engine.run import paint as run

        options = PaintOptions(**asked)
        done = run(options, stop)
    named = options.open()
    return Painted(
        named.path,
        named.realization,
        *(done.get(name, 0) for name in ("tiles", "windows", "total", "ranks", "seconds", "busy")),
    )
