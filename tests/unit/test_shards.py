"""Shards written by hand: zarr-python reads them, appends keep them whole, damage is seen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbox.store.durable import Disk
from bigbox.store.metadata import array_metadata
from bigbox.store.shards import (
    EMPTY,
    AppendShard,
    check_shard,
    decode_chunk,
    decode_index,
    empty_index,
    encode_index,
    pread_all,
    read_index,
    write_shard,
)
from bigbox.testing.exercised import worked
from bigbox.testing.strategies import boxes

DISK = Disk()


def start(tmp: Path, end: int = 0, index: np.ndarray | None = None) -> AppendShard:
    index = empty_index(8) if index is None else index
    return AppendShard.start(DISK, tmp / "c.0.0", tmp / "partial", end, index)


def zarr_of(tmp: Path) -> zarr.Array:
    meta = array_metadata((8, 5), (1, 5), shard=(8, 5), names=("a", "b"), separator=".")
    (tmp / "zarr.json").write_bytes(meta)
    return zarr.open_array(tmp, mode="r")


def test_zarr_reads_the_file_after_every_append(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.full((8, 5), np.nan, np.float32)
    shard = start(tmp_path)
    for slots in ([3], [0, 7, 1], [3, 2], [4, 5, 6]):  # 3 is painted again
        chunks = rng.random((len(slots), 5), dtype=np.float32)
        truth[slots] = chunks
        shard.append(slots, list(chunks))
        shard.sync()
        shard.publish()
        assert np.array_equal(zarr_of(tmp_path)[:], truth, equal_nan=True)
    shard.close()
    # The next run takes over the committed prefix, in a file of its own.
    inode = os.stat(tmp_path / "c.0.0").st_ino
    later = start(tmp_path, shard.end, shard.index)
    truth[0] = 1.0
    later.append([0], [np.ones(5, np.float32)])
    later.sync()
    assert later.publish() and os.stat(tmp_path / "c.0.0").st_ino != inode
    later.close()
    assert np.array_equal(zarr_of(tmp_path)[:], truth)
    again = AppendShard.resume(DISK, tmp_path / "c.0.0", later.end, 8)
    assert np.array_equal(again.index, later.index)
    again.close()


def test_undo_leaves_what_was_there(tmp_path: Path) -> None:
    shard = start(tmp_path)
    shard.append([1], [np.ones(5, np.float32)])
    shard.publish()
    before = (tmp_path / "c.0.0").read_bytes()
    shard.append([2], [np.zeros(5, np.float32)])
    shard.undo()
    assert (tmp_path / "c.0.0").read_bytes() == before
    shard.append([2], [np.full(5, 2, np.float32)])
    assert np.array_equal(zarr_of(tmp_path)[1:3, 0], [1, 2])
    shard.close()


def test_a_shortened_file_never_gives_its_offsets_away_again(tmp_path: Path) -> None:
    shard = start(tmp_path)
    offsets, _ = shard.append([0, 1], [np.ones(5, np.float32)] * 2)
    shard.publish()
    shard.close()
    os.truncate(tmp_path / "c.0.0", offsets[1] + 3)
    later = start(tmp_path, shard.end, shard.index)
    new, _ = later.append([2], [np.ones(5, np.float32)])
    later.publish()
    later.close()
    assert new[0] == shard.end
    with pytest.raises(ValueError, match="checksum"):
        zarr_of(tmp_path)[1]
    assert zarr_of(tmp_path)[0, 0] == zarr_of(tmp_path)[2, 0] == 1


@settings(max_examples=30, deadline=None)
@given(byte=st.integers(0, 23), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_chunk_is_seen(byte: int, bit: int) -> None:
    values = np.arange(5, dtype="<f4")
    raw = bytearray(values.tobytes())
    import google_crc32c

    raw += int(google_crc32c.value(bytes(raw))).to_bytes(4, "little")
    assert np.array_equal(decode_chunk(bytes(raw)), values)
    raw[byte] ^= 1 << bit
    assert decode_chunk(bytes(raw)) is None
    worked()


def test_index_round_trip_and_damage() -> None:
    index = empty_index(8)
    index[3] = 5, 7
    raw = bytearray(encode_index(index))
    assert np.array_equal(decode_index(bytes(raw), 8), index)
    assert decode_index(bytes(raw[:-1]), 8) is None and decode_index(bytes(raw), 7) is None
    raw[9] ^= 4
    assert decode_index(bytes(raw), 8) is None


@settings(max_examples=25, deadline=None)
@given(shape=boxes(1, 8), chunk=st.sampled_from([1, 2, 4]), seed=st.integers(0))
def test_a_whole_shard_is_what_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory, shape, chunk: int, seed: int
) -> None:
    place = tmp_path_factory.mktemp("s")
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    meta = array_metadata(
        shape, (chunk,) * 3, shard=(8, 8, 8), names=("x", "y", "z"), separator="."
    )
    (place / "zarr.json").write_bytes(meta)
    file = DISK.open(place / "c.0.0.0", exclusive=True)
    size, crc = write_shard(DISK, file, values, (8, 8, 8), (chunk,) * 3)
    DISK.close(file)
    assert (place / "c.0.0.0").stat().st_size == size
    assert np.array_equal(zarr.open_array(place, mode="r")[:], values)
    slots = (8 // chunk) ** 3
    assert check_shard(place / "c.0.0.0", slots) == ([], size, crc, "")
    fd = os.open(place / "c.0.0.0", os.O_RDONLY)
    index = read_index(fd, size, slots)
    os.close(fd)
    used = np.flatnonzero(index[:, 0] != EMPTY)
    raw = bytearray((place / "c.0.0.0").read_bytes())
    raw[int(index[used[-1], 0])] ^= 1
    (place / "c.0.0.0").write_bytes(raw)
    assert check_shard(place / "c.0.0.0", slots)[0] == [used[-1]]
    (place / "c.0.0.0").write_bytes(raw[:-3])
    assert "index" in check_shard(place / "c.0.0.0", slots)[3]
    worked(used.size)


def test_many_chunks_in_one_append(tmp_path: Path) -> None:
    """More buffers than one writev takes."""
    shard = AppendShard.start(DISK, tmp_path / "c", tmp_path / "p", 0, empty_index(4096))
    chunks = np.arange(3 * 1500, dtype=np.float32).reshape(1500, 3)
    offsets, _ = shard.append(list(range(1500)), list(chunks))
    shard.publish()
    fd = os.open(tmp_path / "c", os.O_RDONLY)
    for at, wanted in zip(offsets, chunks, strict=True):
        assert np.array_equal(decode_chunk(os.pread(fd, 16, at)), wanted)
    os.close(fd)
    shard.close()


def test_short_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((4, 4, 4), dtype=np.float32)
    file = DISK.open(tmp_path / "c", exclusive=True)
    size, crc = write_shard(DISK, file, values, (4, 4, 4), (2, 2, 2))
    raw = (tmp_path / "c").read_bytes()
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: whole(fd, min(n, 7), at))
    assert check_shard(tmp_path / "c", 8) == ([], size, crc, "")
    for many, at in ((size, 0), (20, 3), (7, 0), (0, 5), (100, size - 30), (9, size)):
        assert pread_all(file.fd, many, at) == raw[at : at + many]
    DISK.close(file)
