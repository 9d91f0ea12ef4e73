"""Paint regions of one box side by side on workers that join, leave and die: `paint --workers`.

::

    coordinator ── region ──► queue of dask.distributed ──► worker: bigbox paint --region, in a box
     holds the lease,                                        of its own that shares dm and haloes
     commits tiles ◄───────────── its place ◄────────────────┘

The coordinator alone writes to the box: it takes the tiles of a region from the worker's box and
commits them. So nothing that a worker does, twice or half, can harm what is done, and the bytes are
those of any other run. The queue, the retries and the watch over workers are dask's. A worker's box
stands in the run's own folder of files without a name, which is gone as soon as another run starts;
a region that is tried again goes on in it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbox.engine.monitor import Monitor
from bigbox.engine.mpi import LAUNCHERS
from bigbox.engine.options import PaintOptions
from bigbox.engine.progress import Goal
from bigbox.engine.stop import StopRequest
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.painters import painter_row
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.fields import DM, HALO
from bigbox.store.layouts import HALOGEN
from bigbox.store.recorded import haloes_of, has_given_haloes, painting_of
from bigbox.store.repair import remake_shards
from bigbox.store.set_aside import SetAside, write_set_aside
from bigbox.store.watch import watch_path

if TYPE_CHECKING:
    from bigbox.engine.job import Job

TRIES = 3  # of a region, then it is set aside
AT_ONCE = 4  # tries of a region that was stopped early, within one of these
_COMMITTED_AT_A_TIME = 256  # tiles
_NOT_PASSED_ON = ("box", "region", "quiet", "log", "workers", "worker_tiles", "discard",
                  "discard_halo", "drop_latents", "realization")  # fmt: skip


class RegionFailed(Exception):
    """A worker could not paint a region; the last words of the command that tried."""


def check_can_be_shared(options: PaintOptions) -> None:
    """Raise BadInput where the options, the box or this installation are not for workers."""
    for name, given in (("--region", options.region), ("--field", options.field),
                        ("--discard-halo", options.discard_halo),
                        ("--haloes-only", options.haloes_only)):  # fmt: skip
        if given:
            raise BadInput(f"{name} is not for --workers: leave one of them out")
    box = options.open()
    if painter_row(options.painter).input == HALO.name and not has_given_haloes(box):
        found = haloes_of(box)
        if found is None or not found.complete:
            raise BadInput(
                f"{box.path}: haloes are not all there, and workers share them: predict them first,"
                " with the same command without --workers and with --haloes-only"
            )
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise BadInput(
            "--workers: dask.distributed is not installed; pip install 'bigbox[elastic]'"
        ) from None


def default_edge(tiling: Tiling) -> int:
    """Return the tiles on an axis of a region: what is painted beside it must be little of it.

    Where tiles go together a region takes those with it that are as many steps away, in part.
    """
    return 64 if tiling.halved else 16


def regions_of(tiling: Tiling, edge: int) -> Iterator[tuple[str, Ints]]:
    """Yield regions that together are the box, of edge^3 tiles or less: voxels, and their tiles.

    The text is in voxels of the tiling's own grid.
    """
    owned, counts = tiling.owned_grid, tiling.counts
    for corner in np.ndindex(*(-(-count // edge) for count in counts)):
        low = [at * edge for at in corner]
        high = [min(at + edge, count) for at, count in zip(low, counts, strict=True)]
        ends = []
        for axis, (first, last) in enumerate(zip(low, high, strict=True)):
            starts, lengths = owned.axes[axis].first, owned.axes[axis].length
            ends.append((int(starts[first]), int(starts[last - 1] + lengths[last - 1])))
        cells = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 3)
        tiles = np.asarray(np.ravel_multi_index(tuple(cells.T), counts), np.int64)
        yield ",".join(f"{a}:{b}" for a, b in ends), tiles


def paint_on_workers(
    options: PaintOptions, stop: StopRequest, begin: Callable[[PaintOptions], Job]
) -> dict[str, Any]:
    """Paint a box on the workers of a dask scheduler; return the report's numbers.

    begin: begins the run. Raises StoppedEarly where a stop was asked for or regions were set aside.
    """
    import distributed

    with _connected(distributed.Client, str(options.workers)) as client:
        job = begin(replace(options, workers=None))
        began = time.monotonic()
        try:
            set_aside = _Coordinator(options, job, client, stop).run()
        finally:
            job.close()
        made = remake_shards(job.box)
        left = job.total - job.already
        stop.clear()
        if set_aside:
            raise StoppedEarly(
                f"{job.box.place}: {len(set_aside)} regions failed {TRIES} times and are set aside"
                f" (bigbox status names them), the first is {set_aside[0].region}:"
                f" {set_aside[0].why}; all else is painted, the same command tries them again"
            )
        seconds = time.monotonic() - began
        return {
            "tiles": left, "windows": 0, "already": job.already, "total": job.total, "ranks": 1,
            "batches": 0, "shards": made, "seconds": seconds, "painting_seconds": 0.0,
            "span": seconds, "busy": 0.0,
        }  # fmt: skip


def _connected(client: Any, address: str) -> Any:
    try:
        return client(address, timeout="30s")
    except (OSError, ValueError, TimeoutError) as error:
        raise BadInput(f"--workers {address}: no dask scheduler answers ({error})") from None


class _Coordinator:
    """Hands regions to workers and commits what they made."""

    def __init__(self, options: PaintOptions, job: Job, client: Any, stop: StopRequest) -> None:
        self.options, self.job, self.client, self.stop = options, job, client, stop
        self.painting = job.painting
        self.done = self.painting.was_done("latents/painted")
        self.folder = self.painting.temporary("regions")
        self.folder.mkdir()
        goal = Goal("tile", job.total, job.already, main=True)
        path = watch_path(self.painting.ledger, self.painting.epoch)
        self.monitor = Monitor(path, self.painting.epoch, [goal], 1)
        self.new = 0

    def run(self) -> list[SetAside]:
        """Have all regions painted; return those that are set aside."""
        state, said = "failed", ""
        try:
            found = self._run()
            state = "stopped" if found else "done"
            return found
        except BigboxError as error:
            state, said = ("stopped" if isinstance(error, StoppedEarly) else "failed"), str(error)
            raise
        finally:
            self.monitor.end(state, said)

    def _run(self) -> list[SetAside]:
        import distributed

        wait: Any = distributed.wait
        grid, tiling, work = self.job.spec.layout.grid, self.job.tiling, {}
        for number, (text, tiles) in enumerate(
            regions_of(tiling, self.options.worker_tiles or default_edge(tiling))
        ):
            if self.done[tiles].all():
                continue
            region = _scaled(text, grid)
            place = self.folder / f"{number:06d}.zarr"
            line = command_line(self.options, place, region)
            future = self.client.submit(
                paint_region, str(self.job.box.path), str(place), line, pure=False,
                retries=TRIES - 1, key=f"region-{self.painting.epoch}-{number}",
            )  # fmt: skip
            work[future] = region, tiles, place
        failed: list[SetAside] = []
        while work:
            if why := self.stop.asked():
                self.client.cancel(list(work))
                raise StoppedEarly(f"stopped by {why}; the same command goes on from here")
            self.painting.check()
            try:
                ended = wait(list(work), timeout=1, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in ended:
                region, tiles, place = work.pop(future)
                if future.status != "finished":
                    failed.append(SetAside(region, tiles.tolist(), _words(future)))
                    continue
                self._commit(Path(place))
            self.monitor.note(0, [self.new], 0.0)
        write_set_aside(self.painting, failed)
        return failed

    def _commit(self, place: Path) -> None:
        """Take the tiles of a worker's box that are not done yet."""
        found = painting_of(Box.open(place))
        wanted = self.painting.layout
        if found is None or found.layout.tiling != wanted.tiling:
            raise BigboxError(f"{place}: is not the painting that was asked for")
        mine = painting_of(self.job.box)
        if mine is None or found.identity != mine.identity:
            raise BadInput(
                f"{place}: painted as {found.identity}, this box is painted as"
                f" {mine.identity if mine else None}; workers must be of one kind"
            )
        reader = found.reader()
        try:
            new = np.flatnonzero(found.state.done[0] & ~self.done)
            for low in range(0, len(new), _COMMITTED_AT_A_TIME):
                tiles = new[low : low + _COMMITTED_AT_A_TIME]
                self.painting.note_begun(tiles)
                self.painting.append(tiles, [reader.read(tile) for tile in tiles.tolist()])
        finally:
            reader.close()
        self.done[new] = True
        self.new += len(new)
        shutil.rmtree(place)


def _scaled(text: str, grid: int) -> str:
    """Return a region of a painting grid in voxels of dm."""
    ends = ((int(end) for end in part.split(":")) for part in text.split(","))
    return ",".join(f"{a * grid}:{b * grid}" for a, b in ends)


def _words(future: Any) -> str:
    error = future.exception()
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def command_line(options: PaintOptions, box: Path, region: str) -> list[str]:
    """Return the command that paints a region in a worker's box."""
    line = ["paint", str(box), "--quiet", "--region", region]
    for one in fields(options):
        value, flag = getattr(options, one.name), "--" + one.name.replace("_", "-")
        if one.name in _NOT_PASSED_ON or value in (None, False, [], one.default):
            continue
        line += [flag] if value is True else [flag, str(value)]
    return [*line, *(["--realization", str(options.realization)] if options.realization else [])]


# ------------------------------------------------------------------ on a worker


def paint_region(box: str, place: str, line: list[str]) -> str:
    """Paint a region in a box of its own that shares the inputs; return where that is.

    Raises RegionFailed with the last words of the command.
    """
    _share(Path(box), Path(place))
    alone = {k: v for k, v in os.environ.items() if k not in LAUNCHERS}
    for _ in range(AT_ONCE):
        done = subprocess.run(
            [sys.executable, "-m", "bigbox", *line], env=alone, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, preexec_fn=_die_with_me,
        )  # fmt: skip
        if done.returncode == 0:
            return place
        if done.returncode != StoppedEarly.exit_status:
            break
    words = [text for text in done.stderr.splitlines() if text.strip()]
    raise RegionFailed(f"status {done.returncode}: {words[-1] if words else 'no word'}")


def _share(box: Path, place: Path) -> None:
    """Make a box whose inputs are links to those of another; one that is there goes on."""
    place.mkdir(exist_ok=True)
    for name in (DM.name, HALO.name, HALOGEN, "x", "y", "z"):
        source, link = box / name, place / name
        if source.exists() and not link.is_symlink():
            try:
                link.symlink_to(source.resolve())
            except FileExistsError:  # another worker that was thought dead
                continue
    if not (place / "zarr.json").exists():
        shutil.copy(box / "zarr.json", place / "zarr.json.partial")
        os.replace(place / "zarr.json.partial", place / "zarr.json")


def _die_with_me() -> None:
    """Have the command killed where its worker dies (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
