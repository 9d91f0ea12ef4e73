"""Run many ranks of the real engine in one process, stepped in a seeded order.

Every interleaving of messages, commits and kills can be repeated.
Only the transport is a stand-in (a mock of MPI: in one process there is nothing to launch): it
holds messages back for a seeded while and keeps the order between two ranks, as MPI does. Store,
ledger, policy, loop and painter are the real ones, with jobs run in line.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.diffusion.overlap import overlap_method
from bigbox.engine.job import Job
from bigbox.engine.limits import Limits
from bigbox.engine.loop import Loop
from bigbox.engine.prepared import PaintSpec, prepare
from bigbox.engine.stop import StopRequest
from bigbox.engine.transport import Transport
from bigbox.engine.workers import Threads
from bigbox.painters.base import HaloPainter, Painter
from bigbox.scheduler.bricks import Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.windows import Windows
from bigbox.store.box import Box
from bigbox.store.durable import DISK, Disk
from bigbox.store.layouts import HaloLayout, PaintLayout


class Inline(Threads):
    """Every job runs at once in the caller: the same bytes, and an order that can be repeated."""

    def submit(self, queue: str, job: Callable[..., Any], *args: Any) -> Future[Any]:
        """Do a job."""
        future: Future[Any] = Future()
        try:
            future.set_result(job(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, seconds: float) -> None:
        """Return: no job runs."""


LIMITS = Limits(
    overlap_bytes=1 << 20, sum_bytes=1 << 20, latent_bytes=1 << 20, seconds_between_saves=1e9
)


def spec_of(
    painter: Painter,
    tiling: Tiling,
    edge: int,
    *,
    batch: int = 4,
    colouring: str = "levels",
    haloes: HaloPainter | None = None,
    block: int = 4,
    shard_edge: int = 2,
    edges: tuple[int, int] = (0, 0),
) -> PaintSpec:
    """Return the spec of a small painting.

    Parameters
    ----------
    painter, haloes : of tiles, and of their input where that is predicted.
    tiling : the tiles.
    edge : tiles along a brick.
    batch : tiles of a batch.
    colouring : order of the tiles.
    block, shard_edge : voxels along a block of haloes, and blocks along a shard.
    edges : (shard, chunk) of tb, voxels.
    """
    layout = PaintLayout(Bricks(tiling, edge), painter.fields - 1, edges, grid=painter.grid)
    halo_layout = None
    if haloes is not None:
        windows = Windows(tiling.shape, haloes.window, haloes.stride, block)
        halo_layout = HaloLayout.new(windows, haloes.channels, shard_edge, haloes.grid)
    task = overlap_method("joint" if tiling.halved else "conditioned").task
    return PaintSpec(layout, painter, haloes, halo_layout, batch, colouring, task)


class Post:
    """All messages under way between the ranks of one process."""

    def __init__(self, size: int, rng: np.random.Generator, on_message: Callable[[], None]):
        self.size = size
        self.rng = rng
        self.on_message = on_message
        self.queues: dict[tuple[int, int], deque[bytearray]] = defaultdict(deque)
        self.finished: set[int] = set()


class PostTransport(Transport):
    """One rank's end of the post."""

    def __init__(self, post: Post, rank: int):
        self.post, self.rank, self.size = post, rank, post.size

    def send(self, to: int, block: bytearray) -> None:
        """Post a message."""
        self.post.on_message()
        self.post.queues[self.rank, to].append(block)

    def poll(self) -> list[bytearray]:
        """Take some of the messages that have been sent here, as a seeded choice."""
        blocks = []
        for sender in range(self.size):
            queue = self.post.queues[sender, self.rank]
            for _ in range(int(self.post.rng.integers(0, len(queue) + 1))):
                self.post.on_message()
                blocks.append(queue.popleft())
        return blocks

    def sent(self) -> bool:
        """Tell whether all messages of this rank have been taken."""
        return not any(self.post.queues[self.rank, to] for to in range(self.size))

    def finished(self) -> bool:
        """Say that this rank is done, and tell whether all are."""
        self.post.finished.add(self.rank)
        return len(self.post.finished) == self.size


def paint_in_process(
    path: Path,
    spec: PaintSpec,
    *,
    n_ranks: int,
    rng: np.random.Generator,
    disk: Disk = DISK,
    on_message: Callable[[], None] = lambda: None,
    limits: Limits = LIMITS,
) -> None:
    """Paint a whole box as `bigbox paint` does, all ranks in this process.

    Parameters
    ----------
    path : the box.
    spec : what is painted.
    n_ranks : ranks.
    rng : decides the order in which ranks pass, and how long messages take.
    disk : what writes, such as one that crashes.
    on_message : called at each message, may raise as a kill.
    limits : what ranks keep in hand.

    Raises
    ------
    Exception
        What a rank raises. A crash of `disk` or `on_message` ends all ranks, as MPI does.
    AssertionError
        No rank can go on although work is left.
    """
    jobs: list[Job] = []
    try:
        box = Box.open(path, "r+")
        prepared = prepare(spec, box, n_ranks=n_ranks, disk=disk, linger=0.0)
        for rank in range(n_ranks):
            box = Box.open(path, "r+")
            jobs.append(Job(box, spec, prepared, rank, n_ranks, disk, limits))
        post = Post(n_ranks, rng, on_message)
        loops = []
        for job in jobs:
            loop = job.loop(PostTransport(post, job.rank), StopRequest(), Inline())
            # No report of progress but the last: their number would depend on the machine's speed.
            loop._reported = float("inf")
            loops.append(loop)
        _step_until_idle(loops, rng)
        for loop in loops:
            if loop.failure:
                raise loop.failure
        jobs[0].finish()
    except Exception:
        for job in jobs:
            with suppress(OSError):
                job.close()
        raise
    except BaseException:  # killed: no code of the ranks runs any more
        for job in jobs:
            for hand in job.hands:
                hand.reader.close()
        raise
    for job in jobs:
        job.close()


def _step_until_idle(loops: list[Loop], rng: np.random.Generator) -> None:
    quiet = 0
    while not all(e.idle() and e.transport.sent() for e in loops):
        moved = loops[int(rng.integers(len(loops)))].one_pass()
        quiet = 0 if moved else quiet + 1
        assert quiet < 200 * len(loops), "no rank can go on: " + ", ".join(
            f"rank {e.rank} has {e.left()} things left" for e in loops
        )
