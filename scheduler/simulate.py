"""How long a painting takes on any number of ranks: discrete events over the very policy objects.

    python -m bigbox.scheduler.simulate --shape 10240 --ranks 64 512 4096 --batch 16 --seconds 0.05

Each rank has one device. A painted batch is done at once on its own rank; the overlaps that other
ranks wait for reach them `latency` seconds later::

    rank 0  |== batch ==|== batch ==|== batch ==|
                        \\ latency
    rank 1  |== batch ==|.......|== batch ==|        idle until the overlaps are there

As in the engine, one batch is taken ahead while another is painted, but only a full one; a rank
with nothing else to do takes what is ready. Where haloes are predicted first (--halo-stride), a
rank paints tiles when its windows are done, and a tile waits for the haloes under it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment, Bricks, default_edge
from bigbox.scheduler.chains import critical_path, pending
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.simhaloes import SimulatedHaloes
from bigbox.scheduler.tiling import Ints, Tiling
from bigbox.scheduler.windows import Windows


@dataclass(frozen=True)
class CostModel:
    """What painting costs.

    Args:
        seconds_per_tile: device time of a tile.
        batch: tiles the device paints at once.
        latency: seconds from the end of a batch to its overlaps being in hand on another rank.
        fixed_per_batch: seconds added to every batch.
        slow: factors on the time of single ranks, 2 for a device of half the speed.
        seconds_per_window: device time of a window of haloes, where these are predicted.
        window_batch: windows the device predicts at once.
        filled: whether a batch that is not full takes as long as a full one, as it does for a
            network whose batches are filled up to one size.

    Raises:
        ValueError: a negative time, no time at all, a batch below 1, or a factor not above 0.
    """

    seconds_per_tile: float
    batch: int
    latency: float = 0.0
    fixed_per_batch: float = 0.0
    slow: Mapping[int, float] = field(default_factory=dict)
    filled: bool = True
    seconds_per_window: float = 0.0
    window_batch: int = 4

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"a batch of {self.batch} tiles: at least 1 is needed")
        for name in ("seconds_per_tile", "latency", "fixed_per_batch", "seconds_per_window"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it cannot be negative")
        if self.seconds_per_tile + self.fixed_per_batch == 0:
            raise ValueError("painting a tile takes 0 seconds: give seconds_per_tile a value")
        for rank, factor in self.slow.items():
            if not factor > 0:
                raise ValueError(f"rank {rank} is slow by {factor}: the factor must be above 0")

    def seconds(self, tiles: int, rank: int) -> float:
        """Time of a batch with so many tiles in it, on one rank."""
        paid = self.batch if self.filled else tiles
        return (self.fixed_per_batch + self.seconds_per_tile * paid) * self.slow.get(rank, 1.0)

    def window_seconds(self, windows: int, rank: int) -> float:
        """Time of a batch of windows, on one rank."""
        return self.seconds_per_window * windows * self.slow.get(rank, 1.0)


@dataclass(frozen=True)
class Report:
    """What a simulated painting came to.

    Attributes:
        makespan: seconds from the first batch to the last.
        efficiency: time that the tiles need on full devices, over the time they were there for.
        critical_path: seconds of the longest chain of tiles that wait for one another, messages
            between ranks included; no number of ranks is faster.
        peak_pending_tiles: most tiles kept at one time because a tile that waits for them is not
            painted yet, over all ranks.
        peak_pending_rank: the same of the rank that keeps the most of its own.
        busy: seconds each rank was painting, float64[n_ranks].
        batches: number of batches.
        messages: number of messages between ranks; one per batch and rank that waits, one for the
            sums of a block, one for the tiles of a rank that a block sets free.
        windows: windows predicted.
        most_open: most blocks of which one rank has sums at one time.
    """

    makespan: float
    efficiency: float
    critical_path: float
    peak_pending_tiles: int
    peak_pending_rank: int
    busy: NDArray[np.float64]
    batches: int
    messages: int
    windows: int = 0
    most_open: int = 0


Batch = tuple[bool, Ints]  # whether it is one of windows, and which


class _Rank:
    """One rank: its policy, its device, and the messages on their way to it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.inbox: deque[tuple[float, Ints | Callable[[], None]]] = deque()
        self.painting: Batch | None = None
        self.ahead: Batch | None = None
        self.busy = 0.0

    def open_mail(self, now: float) -> None:
        mail = []
        while self.inbox and self.inbox[0][0] <= now:
            message = self.inbox.popleft()[1]
            if callable(message):
                message()
            else:
                mail.append(message)
        if mail:
            self.policy.arrived(np.concatenate(mail) if len(mail) > 1 else mail[0])


def simulate(
    tiling: Tiling,
    edge: int,
    n_ranks: int,
    cost: CostModel,
    colouring: str = "levels",
    progress: Callable[[int, int], None] | None = None,
    windows: Windows | None = None,
) -> Report:
    """Paint the box on so many ranks, in simulated time.

    Args:
        tiling: the box.
        edge: tiles along a brick, see `bigbox.scheduler.bricks.default_edge`.
        n_ranks: ranks.
        cost: what painting costs.
        colouring: "levels" or "paper".
        progress: called now and then with tiles painted and tiles in all.
        windows: in which haloes are predicted first; None: they are there.

    Raises:
        ValueError: from the cost model, the bricks, or an unknown colouring.
    """
    assignment = Assignment(Bricks(tiling, edge), n_ranks)
    gated = windows is not None
    ranks = [_Rank(Policy(assignment, r, colouring, gated)) for r in range(n_ranks)]
    # The batch in which each tile was painted, counted in order of completion.
    batch_of = np.full(tiling.size, -1, np.int32)
    events = [(0.0, r, r, False) for r in range(n_ranks)]
    now, order, batches, messages, painted = 0.0, n_ranks, 0, 0, 0

    def send(to: int, message: Ints | Callable[[], None]) -> None:
        nonlocal order, messages
        ranks[to].inbox.append((now + cost.latency, message))
        messages += 1
        if ranks[to].painting is None:
            heapq.heappush(events, (now + cost.latency, order, to, False))
            order += 1

    def opened(by: int, tiles: Ints) -> None:
        of = assignment.rank_of(tiles)
        ranks[by].policy.opened(tiles[of == by])
        for to in np.unique(of[of != by]).tolist():
            send(to, partial(ranks[to].policy.opened, tiles[of == to]))

    haloes = SimulatedHaloes(windows, assignment, opened, send) if windows else None

    def choose(r: int, idle: bool) -> Batch | None:
        """As `bigbox.engine.loop` does: windows, full batches of tiles, what there is."""
        if haloes is not None:
            some = haloes.next_batch(r, cost.window_batch)
            if some.size:
                return True, some
        tiles = ranks[r].policy.next_batch(cost.batch, partial=False)
        if not tiles.size and idle:
            tiles = ranks[r].policy.next_batch(cost.batch, partial=True)
        return (False, tiles) if tiles.size else None

    while events:
        now_event, _, r, ended = heapq.heappop(events)
        rank = ranks[r]
        if not ended and rank.painting is not None:
            continue
        now = now_event
        rank.open_mail(now)
        if ended and rank.painting is not None:
            (of_windows, batch), rank.painting = rank.painting, None
            if of_windows and haloes is not None:
                haloes.predicted(r, batch)
            else:
                batch_of[batch] = batches
                batches += 1
                painted += len(batch)
                rank.policy.done(batch)
                rows, readers = rank.policy.readers(batch)
                for reader in np.unique(readers).tolist():
                    send(reader, batch[rows[readers == reader]])
                if progress is not None and batches % 4096 == 0:
                    progress(painted, tiling.size)
        take, rank.ahead = rank.ahead, None
        if take is None:
            take = choose(r, idle=True)
        if take is not None:
            rank.painting = take
            seconds = (cost.window_seconds if take[0] else cost.seconds)(len(take[1]), r)
            rank.busy += seconds
            heapq.heappush(events, (now + seconds, order, r, True))
            order += 1
            rank.ahead = choose(r, idle=False)
        elif rank.inbox:
            heapq.heappush(events, (rank.inbox[0][0], order, r, False))
            order += 1
    if painted != tiling.size:
        raise RuntimeError(f"{tiling.size - painted} tiles were never painted: the policy is wrong")
    speed = sum(1.0 / cost.slow.get(r, 1.0) for r in range(n_ranks))
    needed = tiling.size * (cost.seconds_per_tile + cost.fixed_per_batch / cost.batch)
    needed += cost.seconds_per_window * (windows.size if windows else 0)
    total, most = pending(assignment, batch_of, batches, colouring)
    return Report(
        makespan=now,
        efficiency=needed / (speed * now),
        critical_path=critical_path(assignment, cost, colouring),
        peak_pending_tiles=total,
        peak_pending_rank=most,
        busy=np.array([rank.busy for rank in ranks]),
        batches=batches,
        messages=messages,
        windows=windows.size if windows else 0,
        most_open=haloes.most_open if haloes else 0,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bigbox.scheduler.simulate",
        description=__doc__.split("\n\n")[0]
        + " Nothing is painted: use it to choose the number of ranks and the batch before a run.",
        epilog="example: --shape 10240 --ranks 64 512 --batch 16 --seconds 0.05 --latency 0.02   "
        "Efficiency is lost where ranks are too many for the box (tiles per rank in the table), "
        "where bricks do not share out evenly (a smaller --edge), and where the latency is longer "
        "than a rank can fill with its inner tiles.",
    )
    add = parser.add_argument
    add("--shape", type=int, nargs="+", required=True, metavar="N", help="voxels: one, or x y z")
    add("--ranks", type=int, nargs="+", required=True, metavar="R", help="ranks; several: a table")
    add("--tile", type=int, default=32, help="voxels of a tile on each axis (32)")
    add("--overlap", type=int, default=4, help="least voxels shared by neighbours (4)")
    add("--open", action="store_true", help="the box does not wrap round")
    add("--edge", type=int, help="tiles along a brick, the unit that a rank owns (chosen by size)")
    add("--colouring", choices=stages.COLOURINGS, default="levels", help="4 levels or 8 stages")
    add("--batch", type=int, default=16, help="tiles that the device paints at once (16)")
    add("--seconds", type=float, default=0.05, help="device time of a tile (0.05)")
    add("--fixed", type=float, default=0.0, help="seconds added to every batch (0)")
    add("--halo-stride", type=int, metavar="N", help="predict haloes first, at this stride")
    add("--window-seconds", type=float, default=0.05, help="device time of a window (0.05)")
    add("--window-batch", type=int, default=4, help="windows predicted at once (4)")
    add("--latency", type=float, default=0.02, help="seconds for overlaps to reach a rank (0.02)")
    add("--slow", nargs="*", default=[], metavar="RANK:FACTOR", help="ranks that take longer")
    add("--json", action="store_true", help="one JSON object per rank count instead of a table")
    return parser


def _slow(pairs: list[str], n_ranks: int) -> dict[int, float]:
    found = {}
    for pair in pairs:
        rank, colon, factor = pair.partition(":")
        if not colon or not rank.isdigit():
            raise ValueError(f"--slow {pair} is not understood: write RANK:FACTOR, such as 3:1.5")
        if int(rank) >= n_ranks:
            raise ValueError(f"--slow {pair}: rank {rank} does not exist among {n_ranks} ranks")
        found[int(rank)] = float(factor)
    return found


def _show(done: int, total: int) -> None:
    print(f"\r{done / total:6.1%} of {total:,} tiles", end="", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        shape = tuple(args.shape) * (3 if len(args.shape) == 1 else 1)
        tiling = Tiling(shape, args.tile, args.overlap, (not args.open,) * 3)
        slow = _slow(args.slow, max(args.ranks))
        cost = CostModel(
            args.seconds,
            args.batch,
            args.latency,
            args.fixed,
            slow,
            seconds_per_window=args.window_seconds,
            window_batch=args.window_batch,
        )
        stride = args.halo_stride
        windows = None if stride is None else Windows(tiling.shape, stride=stride)
        edges = [args.edge or default_edge(tiling, n) for n in args.ranks]
        for n, edge in zip(args.ranks, edges, strict=True):
            Assignment(Bricks(tiling, edge), n)
    except ValueError as error:
        parser.error(str(error))
    if not args.json:
        print(f"{tiling.describe()}; {stages.stages(tiling, args.colouring)} stages")
        print(
            "  ranks edge tiles/rank  makespan s efficiency  critical s    pending on a rank  run s"
        )
    for n, edge in zip(args.ranks, edges, strict=True):
        began = time.perf_counter()
        watch = _show if sys.stderr.isatty() else None
        report = simulate(tiling, edge, n, cost, args.colouring, watch, windows)
        if watch is not None:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
        took = time.perf_counter() - began
        if args.json:
            row = {k: v for k, v in vars(report).items() if k != "busy"}
            print(json.dumps({"ranks": n, "edge": edge, **row, "busy": report.busy.tolist()}))
            continue
        print(
            f"{n:7d} {edge:4d} {tiling.size / n:10.0f} {report.makespan:11.1f} "
            f"{report.efficiency:10.4f} {report.critical_path:11.2f} "
            f"{report.peak_pending_tiles:10,d} {report.peak_pending_rank:9,d} {took:6.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
