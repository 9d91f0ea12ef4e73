"""Run many ranks of the real engine in one process, stepped in a seeded order.

Every interleaving of messages, commits and kills can be repeated.
Only the transport is a stand-in (a mock of MPI: in one process there is nothing to launch): it
holds messages back for a seeded while and keeps the order between two ranks, as MPI does. Store,
ledger, policy, loop and painter are the real ones, with jobs run in line.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.engine.loop import Engine
from bigbox.engine.run import make_engine
from bigbox.engine.stop import StopRequest
from bigbox.engine.workers import Inline
from bigbox.painters.base import HaloPainter, Painter
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.windows import Windows
from bigbox.store.box import Box
from bigbox.store.haloes import HaloPainting, halo_state, start_haloes
from bigbox.store.painting import Painting
from bigbox.store.writing import RunWriter


class Post:
    """All messages under way between the ranks of one process."""

    def __init__(self, size: int, rng: np.random.Generator, on_message: Callable[[], None]):
        self.size = size
        self.rng = rng
        self.on_message = on_message
        self.queues: dict[tuple[int, int], deque[bytearray]] = defaultdict(deque)
        self.finished: set[int] = set()


class PostTransport:
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
    painter: Painter,
    tiling: Tiling,
    edge: int,
    *,
    n_ranks: int,
    batch: int,
    rng: np.random.Generator,
    disk: Any = None,
    colouring: str = "levels",
    on_message: Callable[[], None] = lambda: None,
    overlap_bytes: int = 1 << 20,
    tb_edges: tuple[int, int] | None = None,
    haloes: HaloPainter | None = None,
    block: int = 4,
    shard_edge: int = 2,
    sum_bytes: int = 1 << 20,
    seconds_between_saves: float = 1e9,
) -> None:
    """Paint a whole box as `bigbox paint` does, all ranks in this process.

    Raises what a rank raises (a crash of `disk` or `on_message` ends all ranks, as MPI does), and
    AssertionError when no rank can go on although tiles are left. haloes: paints the input of a
    painter that takes "halo"; block, shard_edge: voxels, and blocks of a shard.
    """
    more = {} if disk is None else {"disk": disk}
    bricks = Bricks(tiling, edge)
    assignment = Assignment(bricks, n_ranks)
    identity = painter.identity()
    steps = painter.fields - 1
    paintings: list[Painting] = []
    halo_paintings: list[HaloPainting | None] = []
    halo_epoch = 0
    try:
        if haloes is not None:
            found = halo_state(Box.open(path))
            if found is None or not found[2].done.all():
                halo_epoch = start_haloes(
                    Box.open(path, "r+"),
                    haloes,
                    Windows(tiling.shape, haloes.window, haloes.stride, block),
                    n_ranks=n_ranks,
                    edge=shard_edge,
                    linger=0.0,
                    **more,
                )
        epoch = Painting.start_run(
            Box.open(path, "r+"),
            identity,
            tiling,
            bricks,
            n_ranks=n_ranks,
            n_steps=steps,
            tb_edges=tb_edges,
            linger=0.0,
            **more,
        )
        for rank in range(n_ranks):
            halo_paintings.append(
                HaloPainting(Box.open(path, "r+"), assignment, rank, halo_epoch, **more)
                if halo_epoch
                else None
            )
            paintings.append(
                Painting.begin(
                    Box.open(path, "r+"),
                    identity,
                    tiling,
                    bricks,
                    rank=rank,
                    n_ranks=n_ranks,
                    epoch=epoch,
                    n_steps=steps,
                    **more,
                )
            )
        post = Post(n_ranks, rng, on_message)
        engines = []
        for rank in range(n_ranks):
            engine, _ = make_engine(
                tiling,
                assignment,
                rank,
                painter=painter,
                painting=paintings[rank],
                box=Box.open(path),
                transport=PostTransport(post, rank),
                batch=batch,
                stop=StopRequest(),
                workers=Inline(),
                colouring=colouring,
                overlap_bytes=overlap_bytes,
                halo_painter=haloes,
                halo_painting=halo_paintings[rank],
                sum_bytes=sum_bytes,
                seconds_between_saves=seconds_between_saves,
            )
            # No report of progress but the last: their number would depend on the machine's speed.
            engine._told = float("inf")
            engines.append(engine)
        _step_until_idle(engines, rng)
        for engine in engines:
            if engine.failure:
                raise engine.failure
        if halo_paintings[0]:
            halo_paintings[0].finish()
        paintings[0].finish()
    except Exception:
        for hand in hands(paintings, halo_paintings):
            with suppress(OSError):
                hand.close()
        raise
    except BaseException:  # killed: no code of the ranks runs any more
        for hand in hands(paintings, halo_paintings):
            hand._reader.close()
        raise
    for hand in hands(paintings, halo_paintings):
        hand.close()


def hands(*every: Sequence[RunWriter | None]) -> list[RunWriter]:
    """All handles on the store that were got so far."""
    return [hand for some in every for hand in some if hand is not None]


def _step_until_idle(engines: list[Engine], rng: np.random.Generator) -> None:
    quiet = 0
    while not all(e.idle() and e.transport.sent() for e in engines):
        moved = engines[int(rng.integers(len(engines)))].one_pass()
        quiet = 0 if moved else quiet + 1
        assert quiet < 200 * len(engines), "no rank can go on: " + ", ".join(
            f"rank {e.rank} has {e.policy.remaining} tiles left, {e.left()} things" for e in engines
        )
