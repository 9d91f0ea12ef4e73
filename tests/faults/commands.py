"""Run real commands in processes of their own, killed or failed at a system call of our choice.

A server that has imported bigbox forks them, so that one takes a fraction of a second. Calls that
change nothing (reads, syncs) are left out: a kill before one shows the same as a kill before the
next one that does.
"""

from __future__ import annotations

import fcntl
import itertools
import multiprocessing
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# Names in `os` by which Python changes a file system, and the argument that is the path or file.
CALLS = {
    "open": 0, "pwritev": 0, "ftruncate": 0, "replace": 1, "rename": 1, "link": 1, "symlink": 1,
    "unlink": 0, "remove": 0, "rmdir": 0, "mkdir": 0, "truncate": 0,
}  # fmt: skip
KILLED = -int(signal.SIGKILL)
_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Fault:
    """What befalls a command.

    kill_at: it is killed before this call (0: not); power: the folder that an ext4 is mounted on,
    which loses its power then; fail_at: from this call on, or at it alone
    where it is not `lasting`, calls fail with `error`; first: a function, "module:name", that is
    called with `given` before the command.
    """

    kill_at: int = 0
    power: Path | None = None
    fail_at: int = 0
    error: int = 0
    lasting: bool = True
    first: str = ""
    given: tuple[Any, ...] = ()

    def strike(self, call: int, path: str) -> None:
        """End the process, or raise, where it is time."""
        if call == self.kill_at:
            if self.power:
                _cut(self.power)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at and (call == self.fail_at or (self.lasting and call > self.fail_at)):
            raise OSError(self.error, os.strerror(self.error), path)


@dataclass(frozen=True)
class Ended:
    """How a command came to its end."""

    status: int  # KILLED where it was
    calls: int  # that changed something under the folder, or were about to
    said: str  # on its standard error and output


class Commands:
    """Runs commands; what they change under `folder` counts. beside: where their words are kept."""

    def __init__(self, folder: Path, beside: Path | None = None) -> None:
        self.folder, self._beside = folder, beside or folder.parent
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.preloaded"])

    def run(
        self,
        *arguments: object,
        kill_at: int = 0,
        fault: Fault | None = None,
        timeout: float = 100,
    ) -> Ended:
        """Run a command to its end, killed before its call number `kill_at` (0: not killed)."""
        return self.start(*arguments, fault=fault or Fault(kill_at)).ended(timeout)

    def start(self, *arguments: object, fault: Fault = Fault()) -> Started:  # noqa: B008
        """Start a command."""
        said = self._beside / f"said-{next(_NUMBERS)}"
        count = self._context.Value("q", 0)
        process = self._context.Process(
            target=_command, args=([*map(str, arguments)], str(self.folder), fault, count, said)
        )
        process.start()
        return Started(process, count, said, arguments)


@dataclass(frozen=True)
class Started:
    """A command at work."""

    process: Any
    count: Any
    said: Path
    arguments: tuple[object, ...]

    def signal(self, number: int) -> None:
        """Send a signal, if it lives."""
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def ended(self, timeout: float = 100) -> Ended:
        """Wait for its end. Raises AssertionError where it does not come in time."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"{self.arguments}: still at work after {timeout} s")
        text = self.said.read_text(errors="replace") if self.said.exists() else ""
        self.said.unlink(missing_ok=True)
        return Ended(self.process.exitcode, self.count.value, text)


def _command(arguments: Sequence[str], folder: str, fault: Fault, count: Any, said: Path) -> None:
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    lock = threading.Lock()

    def counted(real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            changes = real is not really_open or args[1] & (os.O_CREAT | os.O_TRUNC)
            if changes and (path := _path(args[place], more)).startswith(folder):
                with lock:
                    count.value += 1
                    fault.strike(count.value, path)
            return real(*args, **more)

        return call

    really_open = os.open
    for name, place in CALLS.items():
        setattr(os, name, counted(getattr(os, name), place))
    if fault.first:
        module, _, name = fault.first.partition(":")
        getattr(import_module(module), name)(*fault.given)
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
