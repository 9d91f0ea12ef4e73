"""Several seeds in one call: snapshots, or boxes to train on; what is there whole is left alone.

    a GPU    this process     seed 1 | seed 2 | seed 3 | ...
             worker 0                  groups, boxes of 1 | groups, boxes of 4 | ...
             worker 1                           groups, boxes of 2 | ...

    a CPU    worker 0         seed 1, groups, boxes of 1 | seed 3, ...
             worker 1         seed 2, groups, boxes of 2 | seed 4, ...

A worker is a process with one thread. OUT holds simulate.json, what all seeds have in common, and

    OUT/seed001/              a snapshot, as `simulate` makes it
    OUT/seed001.zarr          a box of it: dm, halo, and T_b by the HI-halo relation
    OUT/seed001_draw1.zarr    the same with another draw of that relation's scatter
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from bigbox.devices import find_device
from bigbox.errors import BadInput
from bigbox.ingest.particles import ingest_snapshot
from bigbox.ingest.workfolder import check_room, making, new_place, sweep, work_folder
from bigbox.physics.mass_bins import HALO_CHANNELS
from bigbox.signals import stoppable
from bigbox.simulate import snapshot
from bigbox.simulate.initial import white_noise
from bigbox.simulate.linear import Spectrum, power_spectrum
from bigbox.simulate.options import Options
from bigbox.simulate.run import Evolved, check_memory, evolved, say, write

PROCESS = 500_000_000  # bytes of a worker's libraries
COMMON = "simulate.json"
ON = "what is whole stays, the same command goes on"


@dataclass(frozen=True)
class Series:
    """What is asked of several seeds. Raises BadInput for seeds that cannot be."""

    out: Path
    options: Options  # of all of them; its seed does not count
    seeds: tuple[int, ...]
    draws: int = 0  # boxes of each seed, with as many draws of T_b
    keep: bool = True  # the snapshots

    def __post_init__(self) -> None:
        twice = sorted(seed for seed in set(self.seeds) if self.seeds.count(seed) > 1)
        if twice:
            raise BadInput(f"seed {twice[0]} is given twice: once is enough")

    def snapshot(self, seed: int) -> Path:
        """Where a seed's snapshot is made."""
        return self.out / f"seed{seed:03d}"

    def boxes(self, seed: int) -> list[Path]:
        """Where the boxes of a seed are made, draw by draw."""
        more = [f"_draw{draw}" if draw else "" for draw in range(self.draws)]
        return [self.out / f"seed{seed:03d}{end}.zarr" for end in more]

    def missing(self, seed: int) -> bool:
        """Whether anything of a seed is still to be made, or taken away."""
        boxes = all(path.exists() for path in self.boxes(seed))
        return not boxes or self.snapshot(seed).exists() != self.keep

    @property
    def common(self) -> dict[str, Any]:
        """What all calls for one folder must have in common."""
        options = asdict(self.options)
        del options["seed"]
        return {**options, "snapshots": self.keep}


def simulate_seeds(series: Series, device: str = "auto", workers: int = 0) -> list[int]:
    """Make what is missing of all seeds; return the seeds that were worked on.

    `workers`: processes beside this one, 0: one for each core that memory suffices for. Raises
    BadInput, nothing written, where that cannot be; StoppedEarly on SIGTERM.
    """
    out, options = series.out, series.options
    where = find_device(device)
    place = _begun(series)
    for seed in series.seeds if place is None else ():
        for path in (series.snapshot(seed), *series.boxes(seed)):
            sweep(path)
    todo = [seed for seed in series.seeds if series.missing(seed)]
    if not todo:
        return []
    gpu = _evolves_here(where)
    workers = _fitting(series, workers, len(todo), gpu)
    if gpu:
        check_memory(options, where)
    _check_disk(series, todo, workers)
    spectrum = power_spectrum(options.cosmology, *options.wave_numbers)
    if place is not None:
        with making(place) as folder:
            folder.mkdir()
            (folder / COMMON).write_text(json.dumps(series.common, indent=1) + "\n")
    say(f"{len(todo)} of {len(series.seeds)} seeds, workers: {workers}")
    began, done = time.monotonic(), 0
    with stoppable(out, ON), _pool(out, workers) as submit:
        for line in submit(_jobs(series, todo, spectrum, where if gpu else None)):
            done += 1
            seconds = (time.monotonic() - began) / done
            say(f"{line}; {done} of {len(todo)} seeds, {seconds:.3g} s each")
    return todo


Job = tuple[Callable[..., str], tuple[Any, ...]]


def _jobs(
    series: Series, todo: Sequence[int], spectrum: Spectrum, gpu: torch.device | None
) -> Iterator[Job]:
    """Yield what the workers do. What a GPU does is done here, meanwhile."""
    for seed in todo:
        if series.snapshot(seed).exists():
            yield _finish, (series, seed, None)
        elif gpu is None:
            yield _whole, (series, seed, spectrum)
        else:
            options, began = replace(series.options, seed=seed), time.monotonic()
            end = evolved(options, white_noise(options.grid, seed, gpu), spectrum, iter)
            say(f"seed {seed}: evolved in {time.monotonic() - began:.3g} s")
            yield _finish, (series, seed, end)


def _whole(series: Series, seed: int, spectrum: Spectrum) -> str:
    options = replace(series.options, seed=seed)
    noise = white_noise(options.grid, seed, torch.device("cpu"))
    return _finish(series, seed, evolved(options, noise, spectrum, iter))


def _finish(series: Series, seed: int, end: Evolved | None) -> str:
    """Make the snapshot of an evolved seed, or take the one that is there, and its boxes."""
    options, place, said = replace(series.options, seed=seed), series.snapshot(seed), []
    if end is not None:
        with making(new_place(place)) as folder:
            said.append(f"{len(write(folder, options, end, threads=1).lengths)} haloes")
    del end
    for draw, box in enumerate(series.boxes(seed)):
        if not box.exists():
            ingest_snapshot(
                [(place / snapshot.SNAPSHOT).parent],
                box,
                grid=options.grid,
                haloes=[(place / snapshot.CATALOGUE).parent],
                hi_halo=True,
                hi_draw=draw,
                memory=1,  # one thread
            )
            said.append(box.name)
    if not series.keep:
        away = work_folder(place)  # a snapshot that is half gone must not look like one
        place.rename(away)
        shutil.rmtree(away)
    return f"seed {seed}: {', '.join(said)}"


@contextmanager
def _pool(out: Path, workers: int) -> Iterator[Callable[[Iterator[Job]], Iterator[str]]]:
    """Yield what runs jobs in processes and yields what they return, as they are done.

    A job is taken only when a worker is free. On any error the workers are stopped, and leave
    nothing behind.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _quiet)

    def run(jobs: Iterator[Job]) -> Iterator[str]:
        running: set[Future[str]] = set()
        for function, arguments in jobs:
            while len(running) >= workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (job.result() for job in done)
            running.add(pool.submit(function, *arguments))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (job.result() for job in done)

    try:
        yield run
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise BadInput(
                f"{out}: a process was killed, perhaps for want of memory; {ON}: give fewer "
                f"--workers ({workers})"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _quiet() -> None:
    """Begin a worker: one thread, and an interrupt is its parent's business."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _evolves_here(device: torch.device) -> bool:
    """Whether this process evolves all seeds: a GPU runs one at a time."""
    return device.type == "cuda"


def _begun(series: Series) -> Path | None:
    """Return where the folder is to be made; None where it is there, begun by the same options."""
    path = series.out / COMMON
    if not path.is_file():
        return new_place(series.out)
    if not os.access(series.out, os.W_OK):
        raise BadInput(f"{series.out}: is read-only; choose another folder")
    try:
        known = json.loads(path.read_text())
    except ValueError:
        raise BadInput(f"{path}: is damaged; choose another folder or remove it") from None
    for name, value in json.loads(json.dumps(series.common)).items():
        if known.get(name) != value:
            raise BadInput(
                f"{series.out}: was begun with {name} {known.get(name)}, not {value}: give the "
                "same options or another folder"
            )
    return None


def _fitting(series: Series, asked: int, seeds: int, gpu: bool) -> int:
    """Return how many workers there are, as asked, or as cores and memory suffice for."""
    options = series.options
    # Beside a GPU, positions and velocities are in this process, on their way, and in the worker.
    each = PROCESS + (options.groups_memory + 56 * options.particles if gpu else options.memory)
    free = psutil.virtual_memory().available
    if max(asked, 1) * each > free:
        raise BadInput(
            f"{max(asked, 1)} processes of {each / 1e9:.1f} GB need more memory than the "
            f"{free / 1e9:.1f} GB that are free: give fewer --workers, or a smaller --grid "
            f"({options.grid}) or --mesh-factor ({options.mesh_factor})"
        )
    cores = len(os.sched_getaffinity(0))
    return asked or min(seeds, free // each, max(1, cores - gpu))


def _check_disk(series: Series, todo: Sequence[int], workers: int) -> None:
    """Raise BadInput where the snapshots and boxes of these seeds have no room."""
    options = series.options
    box = 4 * options.grid**3 * (2 + HALO_CHANNELS) + (1 << 20)
    # Beside a box, while it is made, its particles lie sorted.
    meanwhile = workers * (16 * options.particles + (0 if series.keep else options.disk))
    need = len(todo) * (series.draws * box + (options.disk if series.keep else 0))
    inside = series.out / COMMON
    check_room(inside if series.out.exists() else series.out, "its files need", need, meanwhile)
