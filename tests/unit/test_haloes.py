"""Haloes painted window by window by the engine, against a whole-box average in numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bigbox.engine.job import Job
from bigbox.engine.sums import Sums
from bigbox.engine.transport import Kind, Message, Parcel
from bigbox.engine.windows import _packed, _unpacked
from bigbox.errors import BadInput, BigboxError, StoppedEarly
from bigbox.planning import make_plan
from bigbox.scheduler.bricks import Assignment, Bricks
from bigbox.scheduler.grid import triple
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.scheduler.window_order import WindowOrder
from bigbox.scheduler.windows import Windows
from bigbox.store.box import Box
from bigbox.store.ledger import Ledger, Source
from bigbox.store.recorded import haloes_of
from bigbox.store.status import status
from bigbox.testing.disks import CrashDisk, Killed, World
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialHaloes, TrivialOnHaloes
from bigbox.testing.ranks import LIMITS, paint_in_process, spec_of
from bigbox.testing.strategies import PERIODIC, tilings
from tests.boxes import new_box, scratch
from tests.reference.haloes import averaged
from tests.reference.painting import paint_by_stages

# Shrinking a whole painting takes minutes and tells little.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=PHASES
)
@given(
    tiling=tilings(tile=(7, 7), overlap=(1, 3), periodic=PERIODIC, largest=18, tiles=(1, 36)),
    window=st.sampled_from([6, 8]),
    stride=st.integers(2, 6),
    taper=st.sampled_from([1, 3]),
    block=st.sampled_from([3, 4, 5]),
    shard_edge=st.sampled_from([1, 2]),
    edge=st.sampled_from([1, 2]),
    n_ranks=st.integers(1, 5),
    batch=st.sampled_from([1, 3, 8]),
    memory=st.sampled_from([0, 20000, 1 << 20]),
    grid=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    tiling, window, stride, taper, block, shard_edge, edge, n_ranks, batch, memory, grid, seed
) -> None:
    shape = tiling.shape
    painter = TrivialOnHaloes(seed=1, box_shape=shape, tile=tiling.tile, grid=grid)
    haloes = TrivialHaloes(stride=stride, window=window, batch=batch, taper=taper, grid=grid)
    with scratch() as folder:
        path, dm = new_box(folder, triple(grid * n for n in shape), seed)
        paint_in_process(
            path,
            spec_of(
                painter,
                tiling,
                edge,
                batch=batch,
                haloes=haloes,
                block=block,
                shard_edge=shard_edge,
            ),
            n_ranks=n_ranks,
            rng=np.random.default_rng(seed),
            limits=replace(LIMITS, sum_bytes=memory),
        )
        halo = averaged(dm, haloes)
        assert (halo == 0).any() and (halo > 0).any()
        box = Box.open(path)
        assert box.array("halo")[...].tobytes() == halo.tobytes()
        tb = paint_by_stages(halo, tiling, painter, "levels")
        assert box.array("tb")[...].tobytes() == tb.tobytes()
        worked(tiling.size > 1)


WINDOWS = Windows((12, 9, 8), 6, 3, 4)


class Aside:
    """Memory in place of a disk."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.most = 0

    def put(self, block: int, windows: np.ndarray, sums: np.ndarray) -> None:
        assert block not in self.held
        self.held[block] = windows.copy(), sums.copy()
        self.most = max(self.most, len(self.held))

    def take(self, block: int) -> tuple[np.ndarray, np.ndarray] | None:
        return self.held.pop(block, None)


def sums_of(
    weights: np.ndarray,
    limit: int = 1 << 20,
    aside: Aside | None = None,
    left: tuple[np.ndarray, np.ndarray] | None = None,
) -> Sums:
    """Sums of a rank that awaits all windows, or so many of some blocks (`left`)."""
    order = WindowOrder(WINDOWS, Assignment(Bricks(Tiling((12, 9, 8), 4, 0), 1), 1), 0, 1, 4)
    if left is not None:
        order.blocks, order.left = left
    return Sums(order, weights, 2, aside or Aside(), limit)


def predictions(seed: int) -> np.ndarray:
    """log10 rho_h for every window."""
    rng = np.random.default_rng(seed)
    return rng.uniform(8, 12, (WINDOWS.size, 2, 6, 6, 6)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), limit=st.sampled_from([0, 5000, 1 << 20]))
def test_sums_are_the_same_in_any_order_and_in_parts(seed: int, limit: int) -> None:
    weights = np.array([1, 2, 5, 5, 2, 1])
    logs = predictions(seed)
    rng = np.random.default_rng(seed)
    straight, aside = sums_of(weights), Aside()
    order = [b for w in range(WINDOWS.size) for b in straight.add(w, logs[w])]
    truth = {b: straight.density(b, straight.take(b)[1]) for b in order}
    assert sorted(truth) == list(range(WINDOWS.blocks.size)), "each block is complete once"
    # Another rank has a random part of the windows, and hands its sums over.
    mine = rng.random(WINDOWS.size) < 0.5
    here = sums_of(weights, limit, aside)
    table = WINDOWS.meeting.of(np.arange(WINDOWS.size))
    count = np.bincount(table[~mine][table[~mine] >= 0], minlength=WINDOWS.blocks.size)
    blocks = np.flatnonzero(count)
    there = sums_of(weights, limit, left=(blocks, count[blocks]))
    complete: list[int] = []
    for window in rng.permutation(WINDOWS.size).tolist():
        if mine[window]:
            complete += here.add(window, logs[window])
            continue
        for block in there.add(window, logs[window]):
            windows, sums = there.take(block)
            assert windows.sum() == count[block]
            complete += here.add_sums(block, windows, sums.ravel())
    assert sorted(complete) == sorted(truth)
    for block in complete:
        windows, sums = here.take(block)
        assert windows.sum() == WINDOWS.meeting.inverse.degree([block])[0]
        assert here.density(block, sums).tobytes() == truth[block].tobytes()
    assert not aside.held and (limit or aside.most), "nothing is left behind"
    worked(len(complete) * mine.any() * (~mine).any())


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.zeros(6, int), "some voxels of the box get none"),
        (np.array([1, 1, 1, -1, 1, 1]), "whole numbers from 0"),
        (np.ones(5, int), "6 whole numbers"),
        (np.full(6, 1 << 14), "too large for sums of 64 bits"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: np.ndarray, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        sums_of(weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -50.0])
def test_a_prediction_that_is_none_is_refused(value: float) -> None:
    logs = predictions(0)[3]
    logs[1, 2, 3, 4] = value
    with pytest.raises(BadInput, match=r"window 3: .* check the model"):
        sums_of(np.ones(6, int)).add(3, logs)


def test_sums_of_the_same_windows_are_refused_twice() -> None:
    sums, windows = sums_of(np.ones(6, int)), np.zeros(WINDOWS.most_per_block, bool)
    windows[[0, 3]] = True
    assert not sums.add_sums(0, windows, np.zeros(2 * 4**3, np.int64))
    with pytest.raises(BigboxError, match="windows that it has"):
        sums.add_sums(0, windows, np.zeros(2 * 4**3, np.int64))


def test_the_cut_is_at_nine_and_a_half() -> None:
    sums = sums_of(np.ones(6, int))
    logs = np.full((2, 6, 6, 6), 9.5, np.float32)
    logs[1] = np.nextafter(np.float32(9.5), np.float32(0))
    done = [b for w in range(WINDOWS.size) for b in sums.add(w, logs)]
    for block in done:
        found = sums.density(block, sums.take(block)[1])
        inside = (slice(None), *(slice(0, n) for n in WINDOWS.blocks.extent(block)))
        assert (found[inside][0] == np.float32(10**9.5)).all() and (found[inside][1] == 0).all()
        assert np.isnan(found).sum() == found.size - found[inside].size


def test_sums_travel() -> None:
    rng = np.random.default_rng(1)
    sums = rng.integers(-(2**40), 2**40, (4, 3, 3, 3))
    windows = rng.random(130) < 0.5
    message = Message(Kind.MAIL, 1, np.array([77]), Parcel(_packed(windows), sums))
    back = Message.decode(message.encode())
    assert (back.kind, back.task, back.chunks.tolist()) == (Kind.MAIL, 1, [77])
    assert np.array_equal(_unpacked(back.parcel.numbers, 130), windows)
    assert np.array_equal(back.parcel.data.view(np.int64).reshape(sums.shape), sums)


def killed(
    folder: Path, at: int, voxels: int, stride: int, **options: Any
) -> tuple[Callable[..., None], Path, bytes]:
    """A painting on two ranks that ended at an operation; what paints on, and the bytes that must
    come of it."""
    shape = (voxels, 8, 8)
    path, dm = new_box(folder, shape, 1)
    tiling = Tiling(shape, 7, 1)
    painter = TrivialOnHaloes(seed=1, box_shape=shape, tile=7)
    haloes = TrivialHaloes(stride=stride, window=6, batch=2)
    world = World(folder / "world")
    world.arm(at, "kill", "before")

    def paint(ranks: int, **more: Any) -> None:
        plan = spec_of(painter, tiling, 1, batch=2, haloes=haloes)
        paint_in_process(path, plan, n_ranks=ranks, rng=np.random.default_rng(0), **more)

    with pytest.raises(Killed):
        paint(2, disk=CrashDisk(world), **options)
    world.close()
    return paint, path, averaged(dm, haloes).tobytes()


def killed_with_sums(folder: Path) -> tuple[Callable[..., None], Path, bytes]:
    """The same, its sums saved all the time."""
    return killed(
        folder, 1500, 36, 3, limits=replace(LIMITS, seconds_between_saves=0.0, sum_bytes=4000)
    )


def test_a_restart_predicts_only_what_open_blocks_need(tmp_path: Path) -> None:
    paint, path, halo = killed(tmp_path, 200, 24, 4)
    found = haloes_of(Box.open(path))
    assert found is not None
    windows, done = found.layout.windows, found.state.done[0]
    left = windows.left(done)
    assert 0 < done.sum() < len(done) and 0 < left < windows.size
    paint(3)
    runs = status(Box.open(path))["haloes"]["runs"]
    assert [run["windows"] for run in runs] == [windows.size, left]
    assert runs[1]["windows_begun"] == left
    assert Box.open(path).array("halo")[...].tobytes() == halo
    # All is there: nothing is predicted, and no run of the haloes begins.
    paint(2)
    assert len(status(Box.open(path))["haloes"]["runs"]) == 2


def test_haloes_are_planned() -> None:
    tiling = Tiling((256,) * 3)
    one, four = (make_plan(tiling, (25.0,) * 3, painter="lodi", ranks=r) for r in (1, 4))
    without = make_plan(tiling, (25.0,) * 3, painter="lodi", haloes=False)
    fine = make_plan(tiling, (25.0,) * 3, painter="lodi", halo_stride=16)
    assert one.haloes and four.haloes and fine.haloes and without.haloes is None
    assert one.haloes.most_windows == one.haloes.windows.size == 6**3
    assert fine.haloes.windows.size == 16**3
    assert four.haloes.most_windows == 6**3 // 4
    assert one.seconds > without.seconds and one.disk_bytes > without.disk_bytes + 16 * 256**3
    assert one.memory_per_rank > without.memory_per_rank
    measured = make_plan(tiling, (25.0,) * 3, painter="lodi", seconds_per_window=2.0)
    assert measured.haloes and measured.haloes.seconds == 2.0 * 6**3
    small = make_plan(Tiling((56,) * 3), (5.0,) * 3, painter="lodi").haloes
    assert small and small.windows.window == 48, "windows fit into a small box"
    with pytest.raises(TilingError, match="less than a window of 64"):
        make_plan(Tiling((56,) * 3), (5.0,) * 3, painter="trivial-halo")


def test_a_restart_goes_on_from_saved_sums(tmp_path: Path) -> None:
    paint, path, halo = killed_with_sums(tmp_path)
    found = haloes_of(Box.open(path))
    assert found is not None
    assert list((path / "halogen" / "ledger" / "sums").glob("*.idx"))
    left = status(Box.open(path))["haloes"]["windows_left"]
    assert 0 < left < 0.8 * found.layout.windows.left(found.state.done[0]), "else nothing was saved"
    paint(3)
    runs = status(Box.open(path))["haloes"]["runs"]
    assert runs[1]["windows"] == runs[1]["windows_begun"] == left
    assert Box.open(path).array("halo")[...].tobytes() == halo
    assert not (path / "halogen" / "ledger" / "sums").exists()


@pytest.mark.parametrize("what", ["dat", "idx", "both are gone"])
def test_saved_sums_that_are_damaged_only_cost_time(tmp_path: Path, what: str) -> None:
    paint, path, halo = killed_with_sums(tmp_path)
    for file in (path / "halogen" / "ledger" / "sums").iterdir():
        if what == "both are gone":
            file.unlink()
        elif file.suffix == f".{what}":
            raw = np.fromfile(file, np.uint8)
            raw[::97] ^= 255
            raw.tofile(file)
    if what == "dat":
        for _ in range(2):  # one of each rank's files
            with pytest.raises(StoppedEarly, match="came back damaged; they are given up"):
                paint(1)
    paint(1)
    assert Box.open(path).array("halo")[...].tobytes() == halo


def test_a_resume_reads_each_ledger_once_for_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint, path, halo = killed(tmp_path, 240, 24, 4)
    reads: Counter[str] = Counter()
    blocks = Ledger.blocks

    def counted(ledger: Ledger, source: Source) -> Iterator[np.ndarray]:
        reads[str(source.path.relative_to(path))] += 1
        return blocks(ledger, source)

    monkeypatch.setattr(Ledger, "blocks", counted)
    monkeypatch.setattr(Job, "finish", lambda job: None)  # it looks whether all is there
    paint(4)
    files = ("e00001-r00000.bin", "e00001-r00001.bin")  # of the run that was killed
    places = ("halogen/ledger/records", "ledger/records")
    assert set(reads) == {f"{place}/{file}" for place in places for file in files}
    assert set(reads.values()) == {1}
    assert Box.open(path).array("halo")[...].tobytes() == halo
