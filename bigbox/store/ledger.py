"""Who has done what: the identity of the painting, its runs, and the records of finished work.

    ledger/
      run.json                  what is being painted: identity, tiling, bricks, layout
      epochs/00001.json         each start of a run: host, pid, time, and the sealed lengths
      records/e00001-r00003.bin what rank 3 of run 1 finished: fixed-size records, append only
      tmp/e00001/               files that have no name yet; gone as soon as a later run starts
      set_aside.json            regions that failed: see `bigbox.store.set_aside`
    watch/00003.json          how run 3 gets on, for who looks on: see `bigbox.store.watch`
    lease.lock                see `bigbox.store.lease`

A ledger is about a few products, numbered from 0 (see `bigbox.store.product`). Number 0 is what
ranks append to (tiles, or blocks of haloes); the others are made of it, shard by shard (tb).

A chunk is done when its record stands here, and the record is written after the data is durable.
A record file ends at its first torn or bad record. When run k+1 starts it notes how long the record
files of run k are at that moment: bytes that a lost process of run k adds later are void.

Records are read in the order of the runs. Within one run a record that takes a chunk back voids
every record of its being made, whichever rank wrote them, in this run or an earlier one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput
from bigbox.scheduler.grid import Ints
from bigbox.store.latents import on_other_disk, unfinished_of
from bigbox.store.metadata import read_sealed, understood
from bigbox.store.records import COMPLETE, RECORD, Records, checks, made, revoked
from bigbox.store.shards import Index, empty_index

Bool = npt.NDArray[np.bool_]

# What is noted of a run, where it is.
_OF_EPOCH = {
    "epoch": int, "kind": str, "host": str, "pid": int, "n_ranks": int, "device": str,
    "started": str, "windows": int, "fresh": bool, "sealed": dict,
}  # fmt: skip
RECORD_FILE = re.compile(r"e(\d+)-r(\d+)\.bin")
# Records read at a time: 10 MB.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Source:
    """One record file and how many of its bytes count (None: all, its run is the newest)."""

    epoch: int
    rank: int
    path: Path
    sealed: int | None


@dataclass
class State:
    """What the ledger says is done.

    complete: a run has found everything done, nothing was taken back since, and all is done.
    """

    done: list[Bool]  # (chunks,) for each product
    ends: npt.NDArray[np.uint64]  # (bricks,), the committed end of each file of product 0
    complete: bool = False
    written: int = 0  # records of chunks of product 0, more than done where some were made again
    newest: int = 0  # number of the newest run at that time
    good: dict[str, int] = field(default_factory=dict)  # bytes that count of its record files
    seen: dict[str, int] = field(default_factory=dict)  # bytes that there were

    @classmethod
    def nothing(cls, products: Sequence[Any], newest: int = 0) -> State:
        """Return the state in which nothing is done; products: see `bigbox.store.product`."""
        ends = np.zeros(products[0].files if products else 0, np.uint64)
        return cls([np.zeros(one.size, np.bool_) for one in products], ends, newest=newest)

    def __getstate__(self) -> dict[str, Any]:
        """Pack the bits: one rank reads the ledger and sends what it says to all others."""
        packed = [(len(bits), np.packbits(bits)) for bits in self.done]
        return self.__dict__ | {"done": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpack the bits."""
        done = [np.unpackbits(bits, count=n).astype(bool) for n, bits in state["done"]]
        self.__dict__.update(state | {"done": done})


class Ledger:
    """Reading side of the ledger; opening and reading it changes nothing on disk."""

    def __init__(
        self, box_path: str | Path, give_up: str = "--discard", own_group: bool = False
    ) -> None:
        self.path = Path(box_path) / "ledger"
        self.way_out = (
            f"restore it from a copy, or give up the painting with: bigbox paint {give_up}"
        )
        self.epochs_path = self.path / "epochs"
        self.records_path = self.path / "records"
        self.tmp_path = self.path / "tmp"
        self.lock_path = self.path / "lease.lock"
        self._group = (self.path.parent,) if own_group else ()

    def run(self) -> dict[str, Any] | None:
        """run.json; None where no painting was begun, or one was discarded or never fully made.

        Raises BadInput where it is damaged, or where it or files of runs are lost: then there is
        something that tells of them.
        """
        # A run that begins meanwhile makes its number first, then run.json, then records: look
        # again before anything is called lost.
        for last in (False, True):
            path, recorded = self.path / "run.json", self.newest_recorded()
            run = read_sealed(path, self.way_out)
            newest, base = self.newest(), self.base()
            if run is not None and run.get("base") == base:
                lost = self.epoch_path(recorded) if recorded > newest else None
            elif run is not None and not (type(of := run.get("base")) is int and of < base):
                lost = self.epochs_path
            else:
                run, lost = None, path if recorded >= base and recorded else None
            if lost is None:
                return run
            if last:
                raise BadInput(f"{lost}: lost, with what it told of the painting; {self.way_out}")
        return None

    def newest_recorded(self) -> int:
        """Return the newest run that has recorded anything, 0 where none has."""
        newest = 0
        for name in _names(self.records_path):
            if match := RECORD_FILE.fullmatch(name):
                with suppress(FileNotFoundError):  # given up meanwhile
                    if (self.records_path / name).stat().st_size >= RECORD.itemsize:
                        newest = max(newest, int(match[1]))
        return newest

    def refuse_links(self) -> None:
        """Raise BadInput where a part of the ledger is a link, before it is written to.

        A box may come from somebody else, and a link lead anywhere.
        """
        parts = (self.path, self.epochs_path, self.records_path, self.tmp_path, self.lock_path)
        places = (self.path / name for name in ("sums", "field", "watch"))
        more = (*places, self.tmp_of(self.newest() + 1))
        for path in (*self._group, *parts, *more):
            if path.is_symlink():
                raise BadInput(
                    f"{path}: is a link to {os.readlink(path)}; bigbox follows none among its own"
                    " records, as it writes and removes files there: remove the link, and put what"
                    " it leads to in its place"
                )

    def newest(self) -> int:
        """Return the number of the newest run, 0 where there is none."""
        numbers = [int(n[:-5]) for n in _names(self.epochs_path) if re.fullmatch(r"\d+\.json", n)]
        return max(numbers, default=0)

    def epoch_path(self, epoch: int) -> Path:
        """Return the file that says when and where a run started."""
        return self.epochs_path / f"{epoch:05d}.json"

    def tmp_of(self, epoch: int) -> Path:
        """Directory of the files of one run that have no name yet."""
        return self.tmp_path / f"e{epoch:05d}"

    def tmp_for(self, path: Path, epoch: int) -> Path:
        """Directory of the same, on the file system that `path` is to stand on."""
        link = on_other_disk(self.path.parent)
        inside = link is not None and path.is_relative_to(link)
        return unfinished_of(link, epoch) if link and inside else self.tmp_of(epoch)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Return what was noted when a run started; raise BadInput where its file is damaged."""
        path = self.epoch_path(epoch)
        found = read_sealed(path, self.way_out)
        if found is None:
            raise BadInput(f"{path}: missing; {self.way_out}")
        with understood(path, self.way_out):
            for key, kind in _OF_EPOCH.items():
                value = found.get(key)
                plain = not isinstance(value, str) or value.isprintable()
                if key in found and not (type(value) is kind and plain):
                    raise ValueError(f"{key} = {value!r:.40} is no {kind.__name__}")
            if "started" in found:
                datetime.fromisoformat(found["started"])
        return found

    def base(self) -> int:
        """Return the run that began the present painting: records of earlier ones are void."""
        for epoch in range(self.newest(), 0, -1):
            if self.epoch(epoch).get("fresh"):
                return epoch
        return 0

    def sources(self) -> list[Source]:
        """Return the record files that count, in order of runs and ranks."""
        base, newest = self.base(), self.newest()
        seals = self._seals()
        found = []
        for name in _names(self.records_path):
            source = self._source(name, seals.get(name, 0))
            if source is None or not base <= source.epoch <= newest:
                continue
            found.append(replace(source, sealed=None) if source.epoch == newest else source)
        return sorted(found, key=lambda s: (s.epoch, s.rank))

    def shortfalls(self) -> list[tuple[Source, int]]:
        """Record files with fewer good bytes than were sealed, and how many these are.

        What is sealed was durable, so something has damaged such a file since.
        """
        found = []
        for name, sealed in sorted(self._seals().items()):
            source = self._source(name, sealed)
            if source is not None:
                good = sum(map(len, self.blocks(source))) if source.path.exists() else 0
                if (good := good * RECORD.itemsize) < sealed:
                    found.append((source, good))
        return found

    def _seals(self) -> dict[str, int]:
        """Bytes that count of each record file of the runs before the newest, by name.

        A file is sealed by the next run; again, shorter, by a `verify` that found it damaged.
        """
        seals: dict[str, int] = {}
        for epoch in range(max(self.base(), 1) + 1, self.newest() + 1):
            with understood(self.epoch_path(epoch), self.way_out):
                sealed = self.epoch(epoch).get("sealed", {})
                seals |= {name: int(size) for name, size in sealed.items()}
        return seals

    def _source(self, name: str, sealed: int) -> Source | None:
        match = RECORD_FILE.fullmatch(name)
        if not match:
            return None
        return Source(int(match[1]), int(match[2]), self.records_path / name, sealed)

    def blocks(self, source: Source) -> Iterator[Records]:
        """Return the good records of one file, some at a time, up to its first torn or bad one."""
        left = source.sealed
        if source.path.is_symlink():
            raise BadInput(
                f"{source.path}: damaged (a link, and bigbox makes none there); {self.way_out}"
            )
        # Buffered: its read goes on after a short one, which would end the file here for good.
        with open(source.path, "rb") as file:
            while left is None or left >= RECORD.itemsize:
                want = BLOCK * RECORD.itemsize
                raw = file.read(want if left is None else min(want, left))
                records = np.frombuffer(
                    raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD
                )
                bad = (records["check"] != checks(records)) | (records["epoch"] != source.epoch)
                if bad.any():
                    yield records[: int(np.argmax(bad))]
                    return
                if len(records):
                    yield records
                if len(raw) < want:
                    return
                if left is not None:
                    left -= len(raw)

    def state(self, products: Sequence[Any]) -> State:
        """Read the whole ledger, file by file."""
        state = State.nothing(products, self.newest())
        sources = self.sources()
        for epoch in sorted({s.epoch for s in sources}):
            taken_back: list[Records] = []
            complete = False
            for source in (s for s in sources if s.epoch == epoch):
                good = 0
                if epoch == state.newest:
                    state.seen[source.path.name] = source.path.stat().st_size
                for block in self.blocks(source):
                    good += len(block)
                    for number, done in enumerate(state.done):
                        some = block[block["kind"] == made(number)]
                        index = some["index"].astype(np.int64)
                        done[index] = True
                        if number == 0:
                            state.written += len(index)
                            # In order, so the last append to a file is what stays: one run has one
                            # writer for each.
                            state.ends[products[0].file_of(index)] = some["end"]
                    complete |= bool((block["kind"] == COMPLETE).any())
                    kinds = [revoked(number) for number in range(len(products))]
                    if len(other := block[np.isin(block["kind"], kinds)]):
                        taken_back.append(other)
                if epoch == state.newest:
                    state.good[source.path.name] = good * RECORD.itemsize
            state.complete = (state.complete or complete) and not taken_back
            for other in taken_back:
                index = other["index"].astype(np.int64)
                for number, done in enumerate(state.done):
                    done[index[other["kind"] == revoked(number)]] = False
        # Records that are lost to damage leave no other trace.
        state.complete = state.complete and all(bool(done.all()) for done in state.done)
        return state

    def is_current(self, state: State) -> bool:
        """Return whether nothing was recorded since a state was read; reads no record."""
        if self.newest() != state.newest:
            return False
        now = {s.path.name: s.path.stat().st_size for s in self.sources() if s.sealed is None}
        return now == state.seen

    def crcs(self, sizes: Sequence[int]) -> list[npt.NDArray[np.uint32]]:
        """Return the crc of the latest record of every chunk of every product, 0 where none is."""
        found = [np.zeros(n, np.uint32) for n in sizes]
        for source in self.sources():
            for block in self.blocks(source):
                for number, crcs in enumerate(found):
                    some = block[block["kind"] == made(number)]
                    crcs[some["index"].astype(np.int64)] = some["crc"]
        return found

    def file_index(self, cell: Callable[[Ints], Ints], file: int, slots: int, size: int) -> Index:
        """Return the index of a file of product 0 as the records have it: when its own is lost.

        cell: returns file * slots + slot of chunks; size: bytes of a chunk. Returns (slots, 2).
        """
        index = empty_index(slots)
        for source in self.sources():
            for block in self.blocks(source):
                some = block[block["kind"] == made(0)]
                at = cell(some["index"].astype(np.int64))
                mine = at // slots == file
                index[at[mine] % slots, 0] = some["offset"][mine]
                index[at[mine] % slots, 1] = size
        return index


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
