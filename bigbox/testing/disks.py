"""A disk that dies: the store's own `Disk` with crash points and loss of what was not synced.

The model.  Everything happens in a real directory; `World` remembers what could still be undone.

* A **kill** ends all processes of a run between two operations, or in the middle of a write (of
  which a part is then done).  The operating system lives: all that was done stays, synced or not,
  and so remains to be lost by a later power loss.  Locks are gone.
* A **power loss** is a kill after which what was not synced is, file by file and directory by
  directory, kept, lost, or kept in part:
    - bytes written since the last fsync of their file: all there, all gone, cut at any length, or
      of full length with stretches of zeros;
    - names changed since the last fsync of their directory (create, rename, link, unlink, mkdir):
      a prefix of the changes of each directory survives, independently of other directories.  A
      rename of a file from one directory to another is a change of each: the file may then have
      both names or neither, and the one that it replaced may be back.  A directory is renamed
      for good when either of the two is synced.
* A **full disk** fails every write, creation and rename from one operation on, the first write
  after a part of it; the process lives and may clean up behind itself.  Later it is free again.

fsync of a file never makes its name durable, and nothing becomes durable by itself.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from bigbox.store.durable import Disk, File

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Undo = Callable[[], None]


class Killed(BaseException):
    """The process is gone; no code of it runs after this (nothing may catch it)."""


class World:
    """What several processes share: the directory, what is not durable in it, and the fault."""

    def __init__(self, root: Path, *, locks: bool = True) -> None:
        self.root, self.locks = root, locks
        self.grave = root / "grave"
        self.grave.mkdir(parents=True)
        self.buried = 0
        self.names: list[tuple[str, Undo, list[str]]] = []
        self.data: dict[int, Pending] = {}  # by inode
        self.files: list[File] = []
        self.hits: Counter[str] = Counter()
        self.arm(0, "", "")

    def arm(self, at: int, mode: str, phase: str) -> None:
        """Let the fault happen at operation `at` from now on (0: never)."""
        self.count, self.trace = 0, list[str]()
        self.at, self.mode, self.phase = at, mode, phase
        self.dead = self.full = False

    def after(self, rng: random.Random) -> None:
        """End the processes; after a power loss undo some of what they did."""
        self.close()
        if self.mode == "power":
            self.lose(rng)

    def close(self) -> None:
        """Close what the processes had open: their locks go with it."""
        for file in self.files:
            Disk.close(DISK, file)
        self.files.clear()

    def lose(self, rng: random.Random) -> None:
        """Undo what was not durable, as a seeded choice."""
        for pending in self.data.values():
            pending.lose(rng)
        self.data.clear()
        left = Counter(directory for directory, _, _ in self.names)
        keep = {d: rng.choice([0, many, rng.randint(0, many)]) for d, many in left.items()}
        for directory, undo, _ in reversed(self.names):
            left[directory] -= 1
            if left[directory] >= keep[directory]:
                undo()
        self.names.clear()

    def grave_place(self) -> str:
        """Return a new name out of sight, from where an undo can bring something back."""
        self.buried += 1
        return str(self.grave / str(self.buried))

    def bury(self, path: str | Path) -> str:
        """Move a file or directory out of sight, and return where to."""
        place = self.grave_place()
        os.rename(path, place)
        return place


DISK = Disk()


class Pending:
    """Writes to one inode since its last fsync, each with what it replaced."""

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)
        self.undo: list[tuple[int, bytes, int, int]] = []  # offset, old bytes, old size, length

    def note(self, offset: int, length: int) -> None:
        """Remember the bytes that a write is about to replace."""
        old = os.pread(self.fd, length, offset)
        self.undo.append((offset, old, os.fstat(self.fd).st_size, length))

    def lose(self, rng: random.Random) -> None:
        """Keep, lose, cut or blank what was written, as a seeded choice."""
        how = rng.choice(["keep", "lose", "cut", "zeros"])
        if how in ("lose", "cut"):
            stay = 0 if how == "lose" else rng.randint(0, len(self.undo) - 1)
            offset, _, before, length = self.undo[stay]
            for place, old, size, _ in reversed(self.undo[stay + (how == "cut") :]):
                os.pwrite(self.fd, old, place)
                os.ftruncate(self.fd, size)
            if how == "cut":
                size = os.fstat(self.fd).st_size
                os.ftruncate(self.fd, max(before, min(size, offset + rng.randint(0, length))))
        elif how == "zeros":
            for offset, _, _, length in self.undo:
                size = os.fstat(self.fd).st_size
                low = offset + rng.randint(0, max(length - 1, 0))
                high = min(offset + length, size, low + rng.randint(1, 4096))
                if high > low:
                    os.pwrite(self.fd, bytes(high - low), low)
        self.close()

    def close(self) -> None:
        """Forget what was written: it is durable."""
        os.close(self.fd)


def _crash_point(name: str, *, of: int = 0, allocates: bool = False) -> Callable[[F], F]:
    """Make a method of CrashDisk a crash point; of: which argument is its path or file."""

    def decorate(operation: F) -> F:
        @wraps(operation)
        def point(disk: CrashDisk, *args: Any) -> Any:
            path, do = getattr(args[of], "path", args[of]), partial(operation, disk, *args)
            return disk.crash_point(name, path, do, allocates=allocates)

        return cast(F, point)

    return decorate


class CrashDisk(Disk):
    """The store's disk, every operation of it a crash point of the world it lives in."""

    def __init__(self, world: World, before: Callable[[int], None] | None = None) -> None:
        self.world, self.count = world, 0
        self.before = before  # called before each operation with its number, for interleaving

    def open(self, path: str | Path, *, create: bool = False, exclusive: bool = False) -> File:
        """Open a file; a new name is not durable."""

        def do() -> File:
            fresh = (create or exclusive) and not os.path.exists(path)
            file = super(CrashDisk, self).open(path, create=create, exclusive=exclusive)
            self.world.files.append(file)
            if fresh:
                self._named(path)
            return file

        makes = exclusive or (create and not os.path.exists(path))
        return self.crash_point("create" if makes else "open", path, do, allocates=makes)

    def write_at(self, file: File, offset: int, buffers: Sequence[Any]) -> int:
        """Write at an offset, or a part of it where the fault strikes half-way."""
        raw = b"".join(bytes(memoryview(b).cast("B")) for b in buffers)

        def part(length: int) -> int:
            self._changing(file).note(offset, length)
            return super(CrashDisk, self).write_at(file, offset, [raw[:length]])

        return self.crash_point(
            "write",
            file.path,
            lambda: part(len(raw)),
            half=lambda: part(max(1, len(raw) * (self.world.count % 7) // 7)),
            allocates=True,
        )

    @_crash_point("truncate")
    def truncate(self, file: File, size: int) -> None:
        """Cut a file; its old bytes may come back."""
        old = os.fstat(file.fd).st_size
        self._changing(file).note(min(size, old), abs(old - size))
        super().truncate(file, size)

    @_crash_point("fsync", allocates=True)
    def fsync(self, file: File) -> None:
        """Make the bytes of a file durable, but not its name."""
        if pending := self.world.data.pop(os.fstat(file.fd).st_ino, None):
            pending.close()

    @_crash_point("fsync_dir")
    def fsync_dir(self, path: str | Path) -> None:
        """Make the names in a directory durable."""
        here = os.path.abspath(path)
        for directory, _, durable in self.world.names:
            if directory == here:
                durable.append(here)
        self.world.names = [n for n in self.world.names if n[0] != here]

    @_crash_point("rename", of=1, allocates=True)
    def replace(self, source: str | Path, target: str | Path) -> None:
        """Rename; each directory remembers its own half of it."""
        if os.path.isdir(source):
            super().replace(source, target)
            # One change of two directories, durable with either: it cannot have two names.
            durable: list[str] = []

            def undo() -> None:
                # Where the folder of the old name is gone for good, so is the old name.
                there = os.path.isdir(os.path.dirname(source))
                if not durable and there and os.path.isdir(target) and not os.path.lexists(source):
                    os.rename(target, source)

            self._named(target, undo, durable)
            self._named(source, undo, durable)
            return
        # Two names change, and each is durable when its own directory is synced.
        moved, over = self._shadow(source), self._shadow(target)
        super().replace(source, target)

        def undo_target() -> None:
            self._gone(target)
            if over:
                os.link(over, target)

        self._named(target, undo_target)
        self._named(source, lambda: self._back(os.link, moved, source))

    @_crash_point("link", of=1, allocates=True)
    def link(self, source: str | Path, target: str | Path) -> None:
        """Give a file a second name, not durable."""
        super().link(source, target)
        self._named(target)

    @_crash_point("unlink")
    def unlink(self, path: str | Path) -> None:
        """Remove a name; it may come back."""
        self._away(path)

    @_crash_point("remove_tree")
    def remove_tree(self, path: str | Path) -> None:
        """Remove a directory; it may come back."""
        self._away(path)

    @_crash_point("mkdir", allocates=True)
    def mkdir(self, path: str | Path) -> None:
        """Create a directory, whose name is not durable."""
        if not os.path.isdir(path):
            super().mkdir(path)
            self._named(path)

    def close(self, file: File) -> None:
        """Close a file, if the process lives."""
        if not self.world.dead:
            super().close(file)

    def lock(self, file: File, *, exclusive: bool) -> bool | None:
        """Lock a file, where this world has locks."""
        return super().lock(file, exclusive=exclusive) if self.world.locks else None

    def crash_point(
        self,
        name: str,
        path: str | Path,
        do: Callable[[], T],
        *,
        half: Callable[[], T] | None = None,
        allocates: bool = False,
    ) -> T:
        """Do an operation, or fail before it, after it, or half-way through it."""
        world = self.world
        if world.dead:
            raise Killed
        world.count += 1
        self.count += 1
        if self.before:
            self.before(self.count)
        label = f"{name} {kind_of(path)}"
        world.trace.append(label)
        if world.mode == "full":
            world.full |= bool(world.at) and world.count >= world.at
            if world.full and allocates:
                if half and world.hits.get(f"full {label}", 0) % 2:
                    half()
                world.hits[f"full {label}"] += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            return do()
        if world.at != world.count:
            return do()
        world.hits[f"{world.mode} {label}"] += 1
        with suppress(OSError):
            if world.phase == "after":
                do()
            elif world.phase == "half" and half:
                half()
        world.dead = True
        raise Killed

    def _changing(self, file: File) -> Pending:
        key = os.fstat(file.fd).st_ino
        if key not in self.world.data:
            self.world.data[key] = Pending(file.fd)
        return self.world.data[key]

    def _named(
        self, path: str | Path, undo: Undo | None = None, durable: list[str] | None = None
    ) -> None:
        """Remember that a name changed, and how to undo it: by removing it, unless told."""
        directory = os.path.abspath(os.path.dirname(os.fspath(path)))
        undo = undo or partial(self._gone, path)
        self.world.names.append((directory, undo, [] if durable is None else durable))

    def _shadow(self, path: str | Path) -> str:
        """Another name for a file, under which its bytes outlive the first one."""
        if not os.path.isfile(path):
            return ""
        place = self.world.grave_place()
        os.link(path, place)
        return place

    def _gone(self, path: str | Path) -> None:
        if os.path.lexists(path):
            self.world.bury(path)

    def _back(self, how: Callable[[str, str | Path], None], place: str, path: str | Path) -> None:
        """Bring something back from the grave, where its directory is and its name is free."""
        if place and not os.path.lexists(path) and os.path.isdir(os.path.dirname(path)):
            how(place, path)

    def _away(self, path: str | Path) -> None:
        if os.path.lexists(path):
            place = self.world.bury(path)
            self._named(path, lambda: self._back(os.rename, place, path))


def kind_of(path: str | Path) -> str:
    """Return what sort of thing of the store a path is, for counting crash points."""
    parts = os.fspath(path).rsplit("/", 2)
    name = parts[-1]
    if name.endswith((".partial", "zarr.json", "run.json", "lease.lock")):
        return "start" if "start-" in name else name.removesuffix(".partial")
    if name.startswith(("old-", "gone-")):
        return name.split("-")[0]
    for sort in ("brick", "steps", "dead", "tb", "dat", "idx"):
        if name.endswith(f"-{sort}"):
            return f"temporary {sort}"
    if name.startswith("c."):
        return parts[-2]
    if parts[-2] in ("records", "epochs", "tmp", "sums") and "." in name:
        return parts[-2]
    return "directory"
