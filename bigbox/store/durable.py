"""The one small object through which every write, fsync, rename and unlink of the store goes.

Nothing else in `bigbox.store` changes the file system, so a test can put a `Disk` in its place that
dies at any chosen operation and forgets whatever was not yet synced. What is promised after a
power loss is only what the operating system promises: bytes after `fsync` of their file, names
after `fsync_dir` of their directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput, of_system

# One writev call takes at most this many buffers on Linux (IOV_MAX).
IOV_MAX = 1024

# What a file system without working flock answers.
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class File:
    """An open file: descriptor and path; `fd` is -1 once closed."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path


class Disk:
    """The file system as the store uses it; every method is one operation that may fail."""

    def open(self, path: str | Path, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing; `exclusive` creates it and fails where it exists."""
        flags = os.O_RDWR | os.O_CLOEXEC
        if exclusive:
            flags |= os.O_CREAT | os.O_EXCL
        elif create:
            flags |= os.O_CREAT
        return File(os.open(path, flags, 0o666), os.fspath(path))

    def write_at(self, file: File, offset: int, buffers: Sequence[Any]) -> int:
        """Write the buffers one after the other from `offset` on; returns the bytes written."""
        views = [memoryview(b).cast("B") for b in buffers]
        total = 0
        while views:
            part = views[:IOV_MAX]
            want = sum(v.nbytes for v in part)
            done = os.pwritev(file.fd, part, offset + total)
            total += done
            if done == want:
                views = views[IOV_MAX:]
                continue
            while done:  # a short write, as of a disk that is nearly full: go on behind it
                take = min(done, views[0].nbytes)
                done -= take
                views[0] = views[0][take:]
                if not views[0].nbytes:
                    views.pop(0)
        return total

    def truncate(self, file: File, size: int) -> None:
        """Cut the file to `size` bytes, or extend it by zeros."""
        os.ftruncate(file.fd, size)

    def fsync(self, file: File) -> None:
        """Make the bytes and the length of the file durable (not its times: nobody reads them)."""
        os.fdatasync(file.fd)

    def close(self, file: File) -> None:
        """Close the descriptor; closing twice does nothing."""
        fd, file.fd = file.fd, -1
        if fd >= 0:
            os.close(fd)

    def fsync_dir(self, path: str | Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: str | Path, target: str | Path) -> None:
        """Rename over whatever `target` was, atomically."""
        os.replace(source, target)

    def link(self, source: str | Path, target: str | Path) -> None:
        """Give `source` a second name; raises FileExistsError where `target` exists."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No hard links here: the run lease is then the only thing that keeps two starts apart.
            if os.path.exists(target):
                raise FileExistsError(errno.EEXIST, "exists", os.fspath(target)) from error
            os.replace(source, target)

    def unlink(self, path: str | Path) -> None:
        """Remove a file; a missing one is no error."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def mkdir(self, path: str | Path) -> None:
        """Make one directory; an existing one is no error, a missing parent is."""
        with suppress(FileExistsError):
            os.mkdir(path)

    def remove_tree(self, path: str | Path) -> None:
        """Remove a directory and everything in it; a missing one is no error."""
        with suppress(FileNotFoundError):
            shutil.rmtree(path)

    def lock(self, file: File, *, exclusive: bool) -> bool | None:
        """Lock without waiting (flock): True got it, False another holds it, None no locks here."""
        try:
            fcntl.flock(file.fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
        return True

    # ------------------------------------------------------------ made of the operations above

    def write_atomic(self, path: str | Path, data: bytes, temporary: str | Path = "") -> None:
        """Durably put `data` at `path`: readers see the old bytes or the new, never a mixture."""
        partial = os.fspath(temporary) or f"{os.fspath(path)}.partial"
        self._write_new(partial, data)
        self.replace(partial, path)
        self.fsync_dir(os.path.dirname(os.fspath(path)) or ".")

    def create_once(self, path: str | Path, data: bytes, temporary: str | Path) -> None:
        """Durably put `data` at a new `path`; of two callers one gets FileExistsError."""
        self._write_new(temporary, data)
        try:
            self.link(temporary, path)
        finally:
            self.unlink(temporary)
        self.fsync_dir(os.path.dirname(os.fspath(path)) or ".")

    def _write_new(self, path: str | Path, data: bytes) -> None:
        self.unlink(path)
        file = self.open(path, exclusive=True)
        try:
            self.write_at(file, 0, [data])
            self.fsync(file)
        finally:
            self.close(file)

    def make_dir(self, path: str | Path) -> None:
        """Durably make one directory; its parent must exist."""
        self.mkdir(path)
        self.fsync_dir(os.path.dirname(os.fspath(path)) or ".")


# The disk of everybody who does not bring one.
DISK = Disk()


def own_name(place: Path) -> Path:
    """Return a name that no other process gives a file: several may make a group at a time."""
    return place / f"start-{os.urandom(8).hex()}.partial"


@contextmanager
def explained(path: str | Path, needed: int = 0) -> Iterator[None]:
    """Turn a full disk or a read-only store, met while writing at `path`, into a BadInput."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise BadInput(
                f"{path}: no space left ({os.strerror(error.errno)}): {needed} bytes needed here,"
                f" {free_bytes(path)} bytes free; free space and run the same command again:"
                " it resumes"
            ) from error
        if error.errno in _READ_ONLY:
            raise BadInput(
                f"{error.filename or path}: cannot be written"
                f" ({os.strerror(error.errno)}); make the store writable or work on a copy"
            ) from error
        if (fault := of_system(error, path)) is not None:
            raise fault from error
        raise


def free_bytes(path: str | Path) -> int:
    """Bytes that an ordinary user may still write on the file system of `path` (or a parent)."""
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize
