"""Paint a box on any number of ranks in simulated time, to choose ranks and batch before a run.

    python -m bigbox.scheduler.simulate --shape 10240 --ranks 64 512 4096 --batch 16 --seconds 0.05

The simulator drives the very orders that the engine drives (`bigbox.scheduler.orders`). Only time
is made up: a batch takes what the cost model says, and messages arrive `latency` seconds later::

    rank 0  |== batch ==|== batch ==|== batch ==|
                        | latency
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
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.scheduler import stages
from bigbox.scheduler.bricks import Assignment, Bricks, default_edge, default_shard
from bigbox.scheduler.chains import critical_path, pending
from bigbox.scheduler.costs import CostModel
from bigbox.scheduler.grid import Ints
from bigbox.scheduler.orders import Order, Outcome, TileOrder, next_work, tile_gate
from bigbox.scheduler.policy import Policy
from bigbox.scheduler.steps import StepOrder
from bigbox.scheduler.tiling import Tiling
from bigbox.scheduler.together import assignment_for, together_of
from bigbox.scheduler.window_order import WindowOrder, WindowsDone
from bigbox.scheduler.windows import Windows


@dataclass(frozen=True)
class Report:
    """What a simulated painting came to.

    Attributes
    ----------
    makespan : seconds from the first batch to the last.
    efficiency : time that the tiles need on full devices, over the time they were there for.
    critical_path : seconds of the longest chain of tiles that wait for one another, messages
        between ranks included; no number of ranks is faster.
    peak_pending_tiles : most tiles kept at one time because a tile that waits for them is not
        painted yet, over all ranks. Where all are painted together, the sum of what each rank has
        at most, tiles of others that it touches included.
    peak_pending_rank : the same of the rank that keeps the most of its own.
    batches : number of batches.
    messages : number of messages between ranks; one per batch and rank that waits, one for the
        sums of a block, one for the tiles of a rank that a block sets free.
    windows : windows predicted.
    most_open : most blocks of which one rank has sums at one time.
    busy : seconds each rank was painting, float64[n_ranks].
    """

    makespan: float
    efficiency: float
    critical_path: float
    peak_pending_tiles: int
    peak_pending_rank: int
    batches: int
    messages: int
    windows: int
    most_open: int
    busy: NDArray[np.float64]


class _Rank:
    """One rank: its orders, its device, and the messages on their way to it."""

    def __init__(self, orders: list[Order]) -> None:
        self.orders = orders
        self.inbox: deque[tuple[float, Callable[[], None]]] = deque()
        self.painting: tuple[Order, Ints] | None = None
        self.ahead: tuple[Order, Ints] | None = None
        self.busy = 0.0


def orders_of(
    assignment: Assignment,
    rank: int,
    cost: CostModel,
    how: str | int,
    done: WindowsDone | None,
) -> list[Order]:
    """Return one rank's orders of a new painting, as the engine makes them.

    how: the colouring of tiles that wait for finished ones, or the steps of such as go together.
    """
    orders: list[Order] = []
    gate = None
    if done is not None:
        windows = done.windows
        edge = max(1, default_shard(max(windows.shape))[0] // windows.block)
        orders.append(WindowOrder(windows, assignment, rank, edge, cost.window_batch, done))
        gate = tile_gate(assignment, rank, 0, windows.blocks, done.final)
    if isinstance(how, int):
        goals = np.broadcast_to(np.int16(how), assignment.tiling.size)
        nodes = StepOrder(
            together_of(assignment.tiling),
            assignment,
            rank,
            how,
            cost.batch,
            goals,
            gate=gate,
            reads="halo",
        )
        return [*orders, nodes]
    policy = Policy(assignment, rank, how, gated=gate is not None)
    return [*orders, TileOrder(policy, cost.batch, gate=gate, reads="halo")]


class Simulation:
    """All ranks of one painting, their messages, and the clock."""

    def __init__(
        self,
        assignment: Assignment,
        cost: CostModel,
        how: str | int,
        windows: Windows | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        n = assignment.n_ranks
        self.cost, self.progress, self.tiles = cost, progress, assignment.tiling.size
        done = WindowsDone.nothing(windows) if windows else None
        self.ranks = [_Rank(orders_of(assignment, r, cost, how, done)) for r in range(n)]
        # The batch in which each tile was finished, counted in order of completion.
        self.batch_of = np.full(self.tiles, -1, np.int32)
        self.batches = self.messages = self.painted = 0
        self.now = 0.0
        self._events = [(0.0, r, r, False) for r in range(n)]
        self._number = n

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        while self._events:
            at, _, r, ended = heapq.heappop(self._events)
            rank = self.ranks[r]
            if not ended and rank.painting is not None:
                continue
            self.now = at
            while rank.inbox and rank.inbox[0][0] <= at:
                rank.inbox.popleft()[1]()
            if ended and rank.painting is not None:
                (order, units), rank.painting = rank.painting, None
                outcome = order.done(units)
                if not isinstance(order, WindowOrder):
                    self._count(outcome.final)
                self._settle(r, order, outcome)
            take, rank.ahead = rank.ahead, None
            if take is None:
                take = next_work(rank.orders, idle=True)
            if take is not None:
                rank.painting = take
                windows = isinstance(take[0], WindowOrder)
                price = self.cost.window_seconds if windows else self.cost.seconds
                seconds = price(len(take[1]), r)
                rank.busy += seconds
                self._at(at + seconds, r, ended=True)
                rank.ahead = next_work(rank.orders, idle=False)
            elif rank.inbox:
                self._at(rank.inbox[0][0], r)

    def _count(self, tiles: Ints) -> None:
        self.batch_of[tiles] = self.batches
        self.batches += 1
        self.painted += len(tiles)
        if self.progress is not None and self.batches % 4096 == 0:
            self.progress(self.painted, self.tiles)

    def _at(self, when: float, rank: int, ended: bool = False) -> None:
        heapq.heappush(self._events, (when, self._number, rank, ended))
        self._number += 1

    def _send(self, to: int, message: Callable[[], None]) -> None:
        rank = self.ranks[to]
        rank.inbox.append((self.now + self.cost.latency, message))
        self.messages += 1
        if rank.painting is None:
            self._at(self.now + self.cost.latency, to)

    def _settle(self, r: int, order: Order, outcome: Outcome) -> None:
        """Send what became of units to the ranks concerned, and take note on rank r itself."""
        number = self.ranks[r].orders.index(order)
        for mail in outcome.mail:
            self._send(mail.to, partial(self._mail, mail.to, number, mail.what))
        if not len(outcome.final):
            return
        readers: dict[int, set[int]] = defaultdict(set)
        for one in self.ranks[r].orders:
            for row, to in zip(*one.readers(order.product, outcome.final), strict=True):
                readers[int(to)].add(int(row))
        for to in sorted(readers):
            chunks = outcome.final[sorted(readers[to])]
            self._send(to, partial(self._final, to, order.product, chunks))
        self._final(r, order.product, outcome.final)

    def _mail(self, r: int, number: int, what: Any) -> None:
        order = self.ranks[r].orders[number]
        self._settle(r, order, order.receive(what))

    def _final(self, r: int, product: str, chunks: Ints) -> None:
        for order in self.ranks[r].orders:
            order.final(product, chunks)


def simulate(
    tiling: Tiling,
    edge: int,
    n_ranks: int,
    cost: CostModel,
    colouring: str = "levels",
    progress: Callable[[int, int], None] | None = None,
    windows: Windows | None = None,
    steps: int = 0,
    limit: int = 0,
) -> Report:
    """Paint the box on so many ranks, in simulated time.

    Bricks have `edge` tiles along them. Haloes are predicted in `windows` first, unless they are
    there. Now and then `progress` is called with the tiles that are painted, and all. steps: that
    the tiles of a `halved` tiling take together, else they are ordered by the colouring; limit:
    tiles whose field a rank can keep in memory, 0 for any number.

    Raises
    ------
    ValueError
        From the cost model, the bricks, or an unknown colouring.
    """
    bricks = Bricks(tiling, edge)
    assignment = Assignment(bricks, n_ranks)
    if steps:
        cost = replace(cost, seconds_per_tile=cost.seconds_per_tile / steps)
        assignment = assignment_for(bricks, n_ranks, steps, limit or tiling.size)
    run = Simulation(assignment, cost, steps or colouring, windows, progress)
    run.run()
    if run.painted != tiling.size:
        left = tiling.size - run.painted
        raise RuntimeError(f"{left} tiles were never painted: the policy is wrong")
    speed = sum(1.0 / cost.slow.get(r, 1.0) for r in range(n_ranks))
    needed = (
        tiling.size * max(steps, 1) * (cost.seconds_per_tile + cost.fixed_per_batch / cost.batch)
    )
    needed += cost.seconds_per_window * (windows.size if windows else 0)
    if steps:
        alive = [
            o.most_alive for rank in run.ranks for o in rank.orders if isinstance(o, StepOrder)
        ]
        total, most = sum(alive), max(alive)
        hop = cost.seconds(1, 0) + (cost.latency if n_ranks > 1 else 0.0)
        longest = steps * hop - (cost.latency if n_ranks > 1 else 0.0)
    else:
        total, most = pending(assignment, run.batch_of, run.batches, colouring)
        longest = critical_path(assignment, cost, colouring)
    predict = [o for rank in run.ranks for o in rank.orders if isinstance(o, WindowOrder)]
    return Report(
        makespan=run.now,
        efficiency=needed / (speed * run.now),
        critical_path=longest,
        peak_pending_tiles=total,
        peak_pending_rank=most,
        busy=np.array([rank.busy for rank in run.ranks]),
        batches=run.batches,
        messages=run.messages,
        windows=windows.size if windows else 0,
        most_open=max((order.most_open for order in predict), default=0),
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
    add("--margin", type=int, metavar="N", help="tiles go together, with a margin (joint)")
    add("--steps", type=int, default=12, help="of tiles that go together (12)")
    add("--limit", type=int, default=0, help="tiles whose field fits a rank's memory (any number)")
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
    """Run the command; return its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        shape = tuple(args.shape) * (3 if len(args.shape) == 1 else 1)
        joint = args.margin is not None
        overlap = 2 * args.margin if joint else args.overlap
        tiling = Tiling(shape, args.tile, overlap, (not args.open,) * 3, halved=joint)
        together = (args.steps, args.limit) if joint else (0, 0)
        slow = _slow(args.slow, max(args.ranks))
        cost = CostModel(
            args.seconds, args.batch, args.latency, args.fixed, slow,
            seconds_per_window=args.window_seconds, window_batch=args.window_batch,
        )  # fmt: skip
        stride = args.halo_stride
        windows = None if stride is None else Windows(tiling.shape, stride=stride)
        edges = [args.edge or default_edge(tiling, n) for n in args.ranks]
        for n, edge in zip(args.ranks, edges, strict=True):
            Assignment(Bricks(tiling, edge), n)
    except ValueError as error:
        parser.error(str(error))
    if not args.json:
        count = args.steps if joint else stages.stages(tiling, args.colouring)
        print(f"{tiling.describe()}; {count} stages")
        print(
            "  ranks edge tiles/rank  makespan s efficiency  critical s    pending on a rank  run s"
        )
    for n, edge in zip(args.ranks, edges, strict=True):
        began = time.perf_counter()
        watch = _show if sys.stderr.isatty() else None
        report = simulate(tiling, edge, n, cost, args.colouring, watch, windows, *together)
        if watch is not None:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
        took = time.perf_counter() - began
        if args.json:
            row = {"ranks": n, "edge": edge, **vars(report), "busy": report.busy.tolist()}
            print(json.dumps(row))
            continue
        print(
            f"{n:7d} {edge:4d} {tiling.size / n:10.0f} {report.makespan:11.1f} "
            f"{report.efficiency:10.4f} {report.critical_path:11.2f} "
            f"{report.peak_pending_tiles:10,d} {report.peak_pending_rank:9,d} {took:6.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
