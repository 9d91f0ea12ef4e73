"""Records: checksums, torn ends, seals, revocations, and the lease."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from bigbox.errors import BadInput, BigboxError, Busy, StoppedEarly
from bigbox.scheduler.bricks import Bricks
from bigbox.scheduler.tiling import Tiling
from bigbox.store.durable import Disk
from bigbox.store.layouts import PaintLayout
from bigbox.store.lease import Lease
from bigbox.store.ledger import Ledger, Source
from bigbox.store.records import COMPLETE, RECORD, RecordWriter, checks, made, make_records, revoked

DISK = Disk()
BRICKS = Bricks(Tiling((9, 9, 9), 4, 1), 2)
PRODUCTS = PaintLayout(BRICKS, edges=(16, 4)).products(Path())
TILE, SHARD, REVOKE_TILE = made(0), made(1), revoked(0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for place in (ledger.path, ledger.epochs_path, ledger.records_path, ledger.tmp_path):
        place.mkdir()
    return ledger


def start(ledger: Ledger, epoch: int, sealed: dict[str, int] | None = None, fresh=False) -> None:
    about = {"epoch": epoch, "sealed": sealed or {}, "fresh": fresh}
    ledger.epoch_path(epoch).write_text(json.dumps(about))


def write(ledger: Ledger, epoch: int, rank: int, *records: np.ndarray) -> Path:
    writer = RecordWriter(DISK, ledger.records_path, epoch, rank)
    for r in records:
        writer.append(r)
    writer.close()
    return writer.path


def done(ledger: Ledger) -> list[int]:
    return np.flatnonzero(ledger.state(PRODUCTS).done[0]).tolist()


def test_records_are_forty_bytes_and_their_checks_are_crc32c() -> None:
    assert RECORD.itemsize == 40
    rng = np.random.default_rng(0)
    records = np.frombuffer(rng.bytes(40 * 20000), RECORD)
    wanted = [google_crc32c.value(r.tobytes()[:36]) for r in records]
    assert np.array_equal(checks(records), wanted)
    for many in (3, 200):  # both ways of computing them
        some = make_records(TILE, 7, np.arange(many), 5, 6, 2**32 - 1)
        assert np.array_equal(some["check"], checks(some))


@pytest.mark.parametrize("cut", range(0, 121, 7))
def test_a_torn_record_ends_the_file(ledger: Ledger, cut: int) -> None:
    start(ledger, 1, fresh=True)
    path = write(ledger, 1, 0, make_records(TILE, 1, [3, 4, 5]))
    path.write_bytes(path.read_bytes()[:cut])
    assert done(ledger) == [3, 4, 5][: cut // 40]


def test_a_flipped_bit_ends_the_file(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    path = write(ledger, 1, 0, make_records(TILE, 1, [3, 4, 5]))
    raw = bytearray(path.read_bytes())
    raw[50] ^= 8
    path.write_bytes(raw)
    assert done(ledger) == [3]


def test_what_a_stale_rank_adds_after_the_seal_is_void(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    write(ledger, 1, 0, make_records(TILE, 1, [1, 2]))
    start(ledger, 2, {"e00001-r00000.bin": 40})
    write(ledger, 1, 1, make_records(TILE, 1, [9]))  # not in the seal at all
    write(ledger, 2, 0, make_records(TILE, 2, [5]))
    assert done(ledger) == [1, 5]


def test_revocations_reach_the_whole_run_and_no_later_one(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    write(ledger, 1, 0, make_records(REVOKE_TILE, 1, [1]))
    write(ledger, 1, 1, make_records(TILE, 1, [1, 2]))
    assert done(ledger) == [2]
    start(ledger, 2, {"e00001-r00000.bin": 40, "e00001-r00001.bin": 80})
    write(ledger, 2, 0, make_records(TILE, 2, [1]))
    assert done(ledger) == [1, 2]
    assert ledger.state(PRODUCTS).written == 3


def test_complete_until_something_is_taken_back(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    tiles = make_records(TILE, 1, np.arange(BRICKS.grid.size))
    path = write(ledger, 1, 0, make_records(SHARD, 1, 0), make_records(COMPLETE, 1, 0))
    assert not ledger.state(PRODUCTS).complete, "whatever a record says: no tile is done"
    assert ledger.state(PRODUCTS).done[1].all()
    write(ledger, 1, 1, tiles)
    assert ledger.state(PRODUCTS).complete
    start(ledger, 2, {path.name: 80, "e00001-r00001.bin": 40 * len(tiles)})
    assert ledger.state(PRODUCTS).complete
    write(ledger, 2, 0, make_records(REVOKE_TILE, 2, 4))
    assert not ledger.state(PRODUCTS).complete


def test_committed_ends_are_those_of_the_last_append(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    one, two = BRICKS.tiles(0)[:2]
    write(
        ledger,
        1,
        0,
        make_records(TILE, 1, one, 0, 100),
        make_records(TILE, 1, [two], 100, 200),
    )
    assert ledger.state(PRODUCTS).ends[0] == 200
    index = ledger.file_index(BRICKS.cell, 0, BRICKS.slots, 77)
    assert index[BRICKS.slot([two])[0]].tolist() == [100, 77]


def test_a_new_painting_starts_from_nothing(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    write(ledger, 1, 0, make_records(TILE, 1, [1]))
    start(ledger, 2, fresh=True)
    assert done(ledger) == [] and ledger.base() == 2


def test_a_damaged_start_of_a_run_is_named(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    ledger.epoch_path(1).write_text("{")
    with pytest.raises(BadInput, match="00001.json.*damaged"):
        done(ledger)


def test_blocks_are_bounded_and_whole(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigbox.store.ledger.BLOCK", 7)
    start(ledger, 1, fresh=True)
    write(ledger, 1, 0, make_records(TILE, 1, np.arange(27)))
    sizes = [len(b) for s in ledger.sources() for b in ledger.blocks(s)]
    assert sizes == [7, 7, 7, 6] and done(ledger) == list(range(27))


def test_one_lease_at_a_time(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    first = Lease.exclusive(DISK, ledger)
    with pytest.raises(Busy, match="another run holds the lease"):
        Lease.exclusive(DISK, ledger, linger=0.0)
    first.share()
    ranks = [first, Lease.shared(DISK, ledger, 1)]
    with pytest.raises(Busy, match="lease"):
        Lease.exclusive(DISK, ledger, linger=0.0)
    ranks[0].close()
    with pytest.raises(Busy, match="lease"):
        Lease.exclusive(DISK, ledger, linger=0.0)
    ranks[1].close()
    Lease.exclusive(DISK, ledger, linger=0.0).close()
    start(ledger, 2)
    with pytest.raises(StoppedEarly, match="run 2 has taken over"):
        Lease.shared(DISK, ledger, 1)


def test_without_locks_one_warning_and_the_number_decides(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    class NoLocks(Disk):
        def lock(self, file, *, exclusive):
            return None

    disk = NoLocks()
    start(ledger, 1, fresh=True)
    lease = Lease.exclusive(disk, ledger)
    lease.share()
    assert sum("no file locks" in r.message for r in caplog.records) == 1
    rank = Lease.shared(disk, ledger, 1)
    start(ledger, 2)
    with pytest.raises(StoppedEarly):
        rank.check()


def test_short_reads_do_not_end_a_record_file(ledger: Ledger) -> None:
    """A pipe gives what was written so far, never all that is asked for."""
    raw = make_records(TILE, 1, np.arange(9)).tobytes()
    path = ledger.records_path / "e00001-r00000.bin"
    os.mkfifo(path)

    def slowly() -> None:
        with open(path, "wb", buffering=0) as file:
            for at in range(0, len(raw), 50):
                file.write(raw[at : at + 50])

    for sealed in (None, len(raw)):
        thread = threading.Thread(target=slowly)
        thread.start()
        read = np.concatenate(list(ledger.blocks(Source(1, 0, path, sealed))))
        assert read.tobytes() == raw
        thread.join()


def test_damage_to_a_sealed_file_is_told_until_it_is_sealed_again(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    one = write(ledger, 1, 0, make_records(TILE, 1, [1, 2, 3]))
    two = write(ledger, 1, 1, make_records(TILE, 1, [7]))
    assert ledger.shortfalls() == []
    os.truncate(two, 41)  # the newest run's: what a killed rank leaves
    start(ledger, 2, {one.name: 120, two.name: 40})
    assert ledger.shortfalls() == [] and done(ledger) == [1, 2, 3, 7]
    raw = bytearray(one.read_bytes())
    raw[50] ^= 8
    one.write_bytes(raw)
    two.unlink()
    found = [(s.path, s.sealed, good) for s, good in ledger.shortfalls()]
    assert found == [(one, 120, 40), (two, 40, 0)] and done(ledger) == [1]
    start(ledger, 3, {one.name: 40, two.name: 0})
    assert ledger.shortfalls() == [] and done(ledger) == [1]


def test_records_of_many_threads_are_all_there(ledger: Ledger) -> None:
    start(ledger, 1, fresh=True)
    writer = RecordWriter(DISK, ledger.records_path, 1, 0)

    def some(first: int) -> None:
        for tile in range(first, BRICKS.grid.size, 3):
            writer.append(make_records(TILE, 1, [tile]), sync=bool(tile % 2))

    threads = [threading.Thread(target=some, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert done(ledger) == list(range(BRICKS.grid.size))
    with pytest.raises(BigboxError, match="closed"):
        writer.append(make_records(TILE, 1, [0]))


def test_sharing_the_lease_waits_for_whoever_slipped_in(ledger: Ledger) -> None:
    class SlippedIn(Disk):
        looks = 2

        def lock(self, file, *, exclusive):
            if not exclusive and self.looks:
                self.looks -= 1
                fcntl.flock(file.fd, fcntl.LOCK_UN)
                return False
            return super().lock(file, exclusive=exclusive)

    disk = SlippedIn()
    start(ledger, 1, fresh=True)
    lease = Lease.exclusive(disk, ledger)
    lease.share()
    assert disk.looks == 0
    with pytest.raises(Busy, match="another run holds the lease"):
        Lease.exclusive(DISK, ledger, linger=0.0)
    lease.close()
    disk.looks = 10**6
    lease = Lease.exclusive(disk, ledger)
    with pytest.raises(StoppedEarly, match="another run is starting"):
        lease.share(linger=0.0)
    Lease.exclusive(DISK, ledger, linger=0.0).close()
