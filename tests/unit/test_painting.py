"""A painting in progress: what is committed is there, and identities are kept apart."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.errors import BadInput, BigboxError, Busy, StoppedEarly
from bigbox.scheduler.bricks import Assignment, Bricks, default_shard
from bigbox.scheduler.tiling import Tiling
from bigbox.store import product, writer
from bigbox.store.discard import discard
from bigbox.store.durable import Disk, File
from bigbox.store.footprint import footprint
from bigbox.store.layouts import PaintLayout
from bigbox.store.painting import Painting
from bigbox.store.recorded import painting_of
from bigbox.store.run import Start
from bigbox.store.shards import DamagedChunk
from bigbox.store.status import status
from bigbox.store.verify import verify
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import tilings
from tests.faults.paint import TB_EDGES, Case, Run, check_complete, make_box, painted


def case_of(tmp_path: Path, shape=(9, 12, 9), edge=2, **more) -> Case:
    return Case(make_box(tmp_path / "b.zarr", shape), Tiling(shape, 4, 1), edge, **more)


def finish(case: Case, n_ranks: int = 1, seed: int = 0, steps: int = 10**9) -> Run:
    run = Run(case, n_ranks, random.Random(seed), Disk())
    run.check()
    while steps and run.step():
        steps -= 1
    run.close()
    return run


def damage(path: Path, at: int = 5) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 16
    path.write_bytes(raw)


@pytest.mark.parametrize("n_steps", [0, 2])
def test_ranks_and_resumes_change_no_byte(tmp_path: Path, n_steps: int) -> None:
    case = case_of(tmp_path, n_steps=n_steps)
    for n_ranks, steps in ((2, 4), (3, 3), (1, 5)):
        finish(case, n_ranks, n_ranks, steps)
    finish(case, 4)
    check_complete(case, with_zarr=True)
    left = list((case.box.path / "latents").glob("steps/c.*"))
    assert not left, "per-step latents are removed in the end"
    told = status(case.box)
    assert told["complete"] and told["tiles_done"] == case.tiling.size
    assert told["painted_again"] == 0 and [r["n_ranks"] for r in told["runs"]] == [2, 3, 1, 4]


def open_files(folder: Path) -> int:
    """Those of this process under the folder: what others open and close has no say."""
    return sum(folder in f.resolve().parents for f in Path("/proc/self/fd").iterdir())


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "OPEN_BRICKS", 2)
    monkeypatch.setattr(product, "OPEN_FILES", 3)
    case = case_of(tmp_path, edge=1)
    run = Run(case, 1, random.Random(0), Disk())
    before = open_files(tmp_path)
    while run.step():
        assert open_files(tmp_path) <= before + 2 + 3 + 1
    run.close()
    check_complete(case, with_zarr=True)


def test_readable_by_zarr_while_it_goes_on(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    run = Run(case, 2, random.Random(1), Disk())
    while run.step():
        tb = case.box.array("tb")[:]
        latents = case.box.array("latents/painted")
        known = ~np.isnan(tb)
        assert np.array_equal(tb[known], case.truth[1][known])
        for tile in list(run.done)[:3]:
            at = tuple(case.tiling.coords(tile).tolist())
            assert np.array_equal(latents[at], case.truth[0][tile, 0])
    run.close()


def test_another_identity_is_refused_only_over_painted_tiles(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    Start(case.box, case.layout, {"seed": 0}).begin(Disk(), {}).lease.close()
    finish(case, steps=1)  # nothing was painted: seed 1 simply takes its place
    other = Case(case.box, case.tiling, case.edge, seed=2)
    with pytest.raises(BadInput, match=r"seed = 1, this run asks for 2.*--discard"):
        finish(other)
    coarser = Case(case.box, case.tiling, 4)
    with pytest.raises(BadInput, match=r"edge = 2, this run asks for 4"):
        finish(coarser)
    other_tiling = Case(case.box, Tiling((9, 12, 9), 5, 1), 2)
    with pytest.raises(BadInput, match=r"tiling.tile = 4, this run asks for 5"):
        finish(other_tiling)
    assert discard([(case.box, PaintLayout)])
    assert not (case.box.path / "tb").exists() and not (case.box.path / "latents").exists()
    assert status(case.box) == {"painting": None, "haloes": None}
    finish(other)
    check_complete(other, with_zarr=True)


def test_what_another_run_has_begun_meanwhile_is_kept(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    finish(case, steps=2)
    start = Start(case.box, case.layout, case.identity)
    start.found = None  # as seen while the other run had a number, but no run.json yet
    begun = start.begin(Disk(), {})
    begun.lease.close()
    assert set(np.flatnonzero(begun.state.done[0]).tolist()) == case.committed != set()


def test_a_tb_from_elsewhere_is_not_painted_over(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    case.box.create_array("tb")
    with pytest.raises(BadInput, match="not painted by bigbox"):
        finish(case)


def test_an_overtaken_run_stops(tmp_path: Path) -> None:
    class NoLocks(Disk):
        def lock(self, file, *, exclusive):
            return None

    case = case_of(tmp_path)
    old = Run(case, 1, random.Random(0), NoLocks())
    for _ in range(3):
        old.step()
    new = Run(case, 1, random.Random(1), NoLocks())
    with pytest.raises(StoppedEarly, match="taken over"):
        while True:
            old.step()
    while new.step():
        pass
    old.close()
    new.close()
    check_complete(case, with_zarr=True)


def test_a_second_run_is_refused_at_once(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    run = Run(case, 1, random.Random(0), Disk())
    with pytest.raises(Busy, match=f"lease.*pid {os.getpid()}"):
        finish(case)
    run.close()
    finish(case)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    class Full(Disk):
        left = 10**9

        def write_at(self, file, offset, buffers):
            self.left -= sum(memoryview(b).nbytes for b in buffers)
            if self.left < 0:
                super().write_at(file, offset, [bytes(10)])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write_at(file, offset, buffers)

    case = case_of(tmp_path)
    disk = Full()
    run = Run(case, 1, random.Random(0), disk)
    disk.left = 6000
    with pytest.raises(BadInput, match="bytes needed.*bytes free.*it resumes") as caught:
        while run.step():
            pass
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="no space left"):
        run.paint(0, [sorted(set(range(case.tiling.size)) - run.done)[0]])
    run.close()
    assert 0 < len(case.committed)
    for path in (case.box.path / "latents" / "painted").glob("c.*"):
        assert path.stat().st_size > 0
    case.box.array("latents/painted")[:]  # cut back at once: still readable
    finish(case)
    check_complete(case, with_zarr=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    case.box.path.chmod(0o555)
    try:
        with pytest.raises(BadInput, match="writable or work on a copy"):
            finish(case)
    finally:
        case.box.path.chmod(0o755)


def test_read_only_file_system_is_named_in_one_line(tmp_path: Path) -> None:
    class ReadOnly(Disk):
        def mkdir(self, path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    case = case_of(tmp_path)
    with pytest.raises(BadInput, match="ledger.*writable or work on a copy"):
        Run(case, 1, random.Random(0), ReadOnly())


@pytest.mark.parametrize("what", ["chunk", "index", "cut", "gone"])
def test_damage_is_named_revoked_and_painted_again(tmp_path: Path, what: str) -> None:
    case = case_of(tmp_path, n_steps=1 if what == "cut" else 0)
    finish(case, steps=6)
    tile = max(case.committed, key=lambda t: (case.bricks.of_tile([t])[0], t))
    path = case.brick_file(int(case.bricks.of_tile([tile])[0]))
    if what == "chunk":
        damage(path)
    elif what == "index":
        damage(path, path.stat().st_size - 9)
    elif what == "cut":
        os.truncate(path, path.stat().st_size - 200)
    else:
        path.unlink()
    case.committed.clear()
    case.assembled.clear()
    for _ in range(40):
        run = Run(case, 2, random.Random(0), Disk())
        try:
            for t in sorted(run.done):
                assert np.array_equal(run.ranks[1].reader.read(t), case.truth[0][t, 0])
            while run.step():
                pass
            break
        except DamagedChunk as error:
            assert error.array.startswith("latents/") and str(error.chunk) in str(error)
            run.ranks[1].revoke({"latents/painted": [error.chunk]})
        finally:
            run.close()
    check_complete(case, with_zarr=what != "index")


def test_done_is_never_told_over_a_hole(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    run = Run(case, 1, random.Random(0), Disk())
    run.step()
    with pytest.raises(BigboxError, match="not complete.*tile"):
        run.ranks[0].finish()
    run.close()


def test_tiles_of_other_ranks_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    run = Run(case, 2, random.Random(0), Disk())
    foreign = Assignment(case.bricks, 2).tiles_of(1)[:1]
    good = np.zeros((1, 1, 4, 4, 4), np.float32)
    with pytest.raises(ValueError, match="not all of rank 0"):
        run.ranks[0].commit_tiles(foreign, good)
    with pytest.raises(ValueError, match="must be float32"):
        run.ranks[1].commit_tiles(foreign, good[:, 0])
    run.close()


def test_a_torn_tail_is_cut_when_the_next_run_starts(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    finish(case, steps=5)
    paths = sorted((case.box.path / "latents" / "painted").glob("c.*"))
    sizes = [p.stat().st_size for p in paths]
    for p in paths:
        with open(p, "ab") as file:
            file.write(b"torn")
    run = Run(case, 2, random.Random(0), Disk())
    assert [p.stat().st_size for p in paths] == sizes
    case.box.array("latents/painted")[:]
    run.close()


def test_a_lone_rank_begins_and_joins_its_own_run(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    begun = Start(case.box, case.layout, {"a": 1}).begin(Disk(), {})
    with closing(Painting(case.box, begun)) as rank:
        assert rank.epoch == 1 and not list(rank.done_before("latents/painted"))
        tile = int(np.flatnonzero((case.tiling.coords(np.arange(36)) == 0).all(1))[0])
        rank.commit_tiles([tile], painted(case.tiling, tile, 1, lambda t: np.zeros(1))[None, None])


@settings(max_examples=60, deadline=None)
@given(
    tilings(tile=(4, 8), overlap=(1, 3), largest=26, tiles=(1, 216)), st.sampled_from([4, 8, 16])
)
def test_shards_of_tb_cover_every_voxel_once(tiling: Tiling, shard: int) -> None:
    shape = tiling.shape
    layout = PaintLayout(Bricks(tiling, 1), edges=(shard, 4))
    tb, meeting = layout.shards, layout.shards_of_tiles
    owner = tiling.owner(np.stack(np.indices(shape), -1).reshape(-1, 3)).reshape(shape)
    seen = np.zeros(shape, int)
    meets: dict[int, set[int]] = {}
    for i in range(tb.size):
        where = tb.slices(i)
        tiles = set()
        for t, target, inside in meeting.inverse.pieces(i):
            tiles.add(t)
            meets.setdefault(t, set()).add(i)
            origin = tiling.origin([t])[0]
            assert (owner[where][target] == t).all()
            seen[where][target] += 1
            for axis in range(3):  # the voxel in the tile is the voxel in the box
                local = np.arange(inside[axis].start, inside[axis].stop) + origin[axis]
                place = np.arange(target[axis].start, target[axis].stop) + where[axis].start
                assert np.array_equal(local % shape[axis], place)
        expected = np.unique(owner[where]).tolist()
        assert sorted(tiles) == meeting.inverse.touched([i]).tolist() == expected
    assert (seen == 1).all()
    for t, found in zip(range(tiling.size), meeting.of(np.arange(tiling.size)), strict=True):
        assert set(found[found >= 0].tolist()) == meets[t]
    worked(tb.size * tiling.size > 1)


def test_footprint_is_what_stands_on_disk(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    run = Run(case, 1, random.Random(0), Disk())
    for tile in range(case.tiling.size):
        run.ranks[0].note_begun([tile])
        run.ranks[0].commit_tiles([tile], case.truth[0][tile][None])
    for i in range(case.layout.shards.size):
        run.ranks[0].write("tb", i, run.ranks[0].assembled(i))
    run.close()
    told = footprint(case.tiling, case.edge, tb_edges=TB_EDGES)

    def stands(pattern: str) -> tuple[int, int]:
        files = list(case.box.path.glob(pattern))
        return sum(f.stat().st_size for f in files), len(files)

    assert stands("latents/painted/c.*") == (told.painted_bytes, told.painted_files)
    assert stands("tb/c.*") == (told.tb_bytes, told.tb_files)
    assert stands("ledger/records/*")[0] == told.ledger_bytes
    assert told.painted_bytes >= footprint(case.tiling, case.edge, batch=4).painted_bytes


def test_footprint_of_a_vast_box() -> None:
    told = footprint(Tiling((10240,) * 3), 8, n_steps=25)
    assert told.painted_files < 100_000 and told.tb_files == 64_000
    assert 4 * 10240**3 < told.tb_bytes < 1.001 * 4 * 10240**3
    assert told.steps_bytes == (25 * 4 * 32**3 + 4) * 366**3


def test_layout_of_a_run_is_what_was_asked(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    finish(case, steps=1)
    found = painting_of(case.box)
    assert found is not None and found.identity == dict(case.identity)
    assert found.layout == case.layout and found.layout.edges == (4, 2)
    assert [default_shard(n) for n in (256, 257, 1025)] == [(64, 32), (128, 32), (256, 64)]


class Slow(Disk):
    """Data of tiles becomes durable only when it is let."""

    def __init__(self) -> None:
        self.syncing, self.go_on = threading.Event(), threading.Event()

    def fsync(self, file: File) -> None:
        if file.path.endswith("-brick"):
            self.syncing.set()
            assert self.go_on.wait(60)
        super().fsync(file)


def test_nothing_waits_for_the_data_of_a_commit(tmp_path: Path) -> None:
    case = case_of(tmp_path, (6, 6, 6), n_steps=1)
    finish(case, steps=3)
    disk = Slow()
    run = Run(case, 1, random.Random(0), disk)
    rank = run.ranks[0]
    tiles = sorted(set(range(case.tiling.size)) - run.done)
    commit = threading.Thread(target=rank.commit_tiles, args=(tiles[:1], case.truth[0][tiles[:1]]))
    commit.start()
    assert disk.syncing.wait(60)
    others = [
        threading.Thread(target=rank.note_begun, args=(tiles[1:],)),
        threading.Thread(target=rank.drop_steps, args=(sorted(run.done),)),
        threading.Thread(target=rank.revoke, args=({"latents/painted": tiles[-1:]},)),
    ]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(60)
        assert not thread.is_alive() and commit.is_alive()
    disk.go_on.set()
    commit.join()
    rank.commit_tiles(tiles[1:], case.truth[0][tiles[1:]])
    run.close()
    assert verify(painting_of(case.box)).intact
    assert status(case.box)["runs"][1]["tiles_begun"] == len(tiles) - 1


def test_threads_at_work_together_lose_nothing(tmp_path: Path) -> None:
    case = case_of(tmp_path, n_steps=1)
    run = Run(case, 1, random.Random(0), Disk())
    rank, fields = run.ranks[0], case.truth[0]
    durable = [threading.Event() for _ in range(case.tiling.size)]
    failed: list[BaseException] = []

    def guarded(work: Callable[..., None], *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failed.append(error)

    def paint(first: int) -> None:
        for tile in range(first, case.tiling.size, 2):
            rank.note_begun([tile])
            rank.commit_tiles([tile], fields[tile][None])
            durable[tile].set()

    def drop() -> None:
        for tile, event in enumerate(durable):
            assert event.wait(60)
            assert np.array_equal(rank.read_fields(tile), fields[tile])
            rank.drop_steps([tile])

    def assemble() -> None:
        meeting = case.layout.shards_of_tiles.inverse
        for i in range(meeting.a.size):
            assert all(durable[t].wait(60) for t in meeting.touched([i]).tolist())
            rank.write("tb", i, rank.assembled(i))

    work = [(paint, 0), (paint, 1), (drop,), (assemble,)]
    threads = [threading.Thread(target=guarded, args=job) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    rank.finish()
    run.close()
    check_complete(case, with_zarr=True)
    assert verify(painting_of(case.box)).complete and status(case.box)["painted_again"] == 0


def test_done_tiles_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHUNK", 16)
    case = case_of(tmp_path)
    finish(case)
    run = Run(case, 1, random.Random(0), Disk())
    pieces = list(run.ranks[0].done_before("latents/painted"))
    run.close()
    assert len(pieces) == 3 and np.concatenate(pieces).tolist() == list(range(case.tiling.size))


def test_a_lost_index_costs_one_look_at_the_records_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(product, "RECORDED", 1)
    case = case_of(tmp_path)
    finish(case)
    run = Run(case, 1, random.Random(0), Disk())
    lost = [0, 1]
    for brick in lost:
        path = case.brick_file(brick)
        damage(path, path.stat().st_size - 9)
    rank, fields = run.ranks[0], case.truth[0]
    elsewhere = int(case.bricks.tiles(2)[0])
    looks = []
    look = rank.ledger.file_index

    def looking(cell, brick, slots, size):
        looks.append(brick)
        other = threading.Thread(target=rank.reader.read, args=(elsewhere,))
        other.start()
        other.join(60)
        assert not other.is_alive(), "a look at the records holds up other reads"
        return look(cell, brick, slots, size)

    monkeypatch.setattr(rank.ledger, "file_index", looking)
    for brick in [*lost, lost[0]]:
        for tile in case.bricks.tiles(brick).tolist():
            assert np.array_equal(rank.reader.read(tile), fields[tile, 0])
    assert looks == [0, 1, 0]
    run.close()
