"""Run real commands in processes of their own, killed before a system call of our choice.

A server that has imported bigbox forks them, so that one takes a fraction of a second. Calls that
change nothing (reads, syncs) are left out: a kill before one shows the same as a kill before the
next one that does.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Names in `os` by which Python changes a file system, and the argument that is the path or file.
CALLS = {
    "open": 0, "pwritev": 0, "ftruncate": 0, "replace": 1, "rename": 1, "link": 1, "symlink": 1,
    "unlink": 0, "remove": 0, "rmdir": 0, "mkdir": 0, "truncate": 0,
}  # fmt: skip
KILLED = -int(signal.SIGKILL)
_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH


@dataclass(frozen=True)
class Ended:
    """How a command came to its end."""

    status: int  # KILLED where it was
    calls: int  # that changed something under the folder, or were about to
    said: str  # on its standard error and output


class Commands:
    """Runs commands; what they change under `folder` counts.

    power: the folder that an ext4 is mounted on, which loses its power where a command is killed.
    """

    def __init__(self, folder: Path, power: Path | None = None) -> None:
        self.folder, self._power = folder, power
        self._said = (power or folder).parent / "said"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.preloaded"])

    def run(self, *arguments: object, kill_at: int = 0, timeout: float = 100) -> Ended:
        """Run a command, killed before its call number `kill_at` (0: not killed)."""
        said, count = self._said, self._context.Value("q", 0)
        process = self._context.Process(
            target=_command,
            args=([*map(str, arguments)], str(self.folder), kill_at, count, said, self._power),
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"{arguments}: still at work after {timeout} s")
        return Ended(process.exitcode, count.value, said.read_text(errors="replace"))


def _command(
    arguments: Sequence[str], folder: str, kill_at: int, count: Any, said: Path, power: Path | None
) -> None:
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    lock = threading.Lock()

    def counted(real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            changes = real is not really_open or args[1] & (os.O_CREAT | os.O_TRUNC)
            if changes and _path(args[place], more).startswith(folder):
                with lock:
                    count.value += 1
                    if count.value == kill_at:
                        if power:
                            _cut(power)
                        os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    really_open = os.open
    for name, place in CALLS.items():
        setattr(os, name, counted(getattr(os, name), place))
    from bigbox.cli import main

    try:
        status = main(arguments)
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _cut(mounted: Path) -> None:
    """Have an ext4 forget what it has not written, its journal's newest entries too."""
    file = os.open(mounted, os.O_RDONLY)
    fcntl.ioctl(file, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))


def _path(given: Any, more: dict[str, Any]) -> str:
    """Return the path of an argument: a path, an open file, or a name in an open folder."""
    if isinstance(given, int):
        return os.readlink(f"/proc/self/fd/{given}")
    path = os.fspath(given)
    folder = next((fd for key, fd in more.items() if "dir_fd" in key and fd is not None), None)
    if folder is not None:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.abspath(path)
