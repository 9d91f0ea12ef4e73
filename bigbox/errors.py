"""End a command with one of these errors, each with its exit status.

Exit status 0: done. 2: bad input or usage (one line, nothing written). 75: stopped early and worth
starting again (EX_TEMPFAIL, what a requeue understands): also for faults of the system that may
pass, and where another run is at work on the same. A full disk is 2: at once, a requeue would only
fail again. 3: `bigbox validate` judged the box and it fails (no error: the report is written). 1: a
fault of ours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

# Faults of the system that may be gone a moment later.
_PASSING = tuple(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "EBUSY",
                 "ETIMEDOUT", "EREMOTEIO", "ENOBUFS", "ENOTCONN", "ECONNRESET", "EHOSTDOWN",
                 "EHOSTUNREACH", "ENETDOWN", "ESHUTDOWN")
    if hasattr(errno, name)
)  # fmt: skip
# What is wrong with a path that was given, or with a disk that somebody must see to.
_LASTING = (
    errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENXIO, errno.ENODEV,
)  # fmt: skip


class BigboxError(Exception):
    """Report a fault of ours. The command line turns it into exit status 1."""

    exit_status = 1


class BadInput(BigboxError, ValueError):
    """Refuse what the user gave. The message names the thing, its value, the limit and the fix."""

    exit_status = 2


class MissingPackage(BigboxError, ImportError):
    """Refuse what needs a package that is not installed. The message names its extra."""

    exit_status = 2


class StoppedEarly(BigboxError, RuntimeError):
    """Stop before the end. Nothing is lost, and the same command goes on from there."""

    exit_status = 75


class Busy(StoppedEarly):
    """Stop because another run holds the lease. `holder` is what it noted of itself."""

    def __init__(self, message: str, holder: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.holder = dict(holder or {})


def of_system(error: BaseException, place: object = None) -> BigboxError | None:
    """Return what to say of an error of the system; None of one that is a fault of ours.

    StoppedEarly for what may pass (a disk that does not answer, too many open files): the same
    command may be started again. BadInput for what somebody must see to first. Libraries that read
    for us tell only the words of the system: these are looked for too. place: what was worked on,
    to be named where the error names nothing.
    """
    if isinstance(error, MemoryError):
        return BadInput(f"not enough memory ({error or 'no more is said'}); see: bigbox plan")
    if isinstance(error, BigboxError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number is None and isinstance(error, (OSError, ValueError, RuntimeError)):
        number = next((n for n in _PASSING if os.strerror(n) in str(error)), None)
    if number is None:
        return None
    where = getattr(error, "filename", None)
    said = f"{os.fsdecode(where)}: {os.strerror(number)}" if where else str(error)
    said = f"{place}: {said}" if place and not where else said
    if number in _PASSING:
        return StoppedEarly(
            f"{said}; such a fault of the machine or its disk may pass: nothing that is recorded is"
            " lost, start the same command again"
        )
    return (
        BadInput(f"{said}; see to it, and start the same command again")
        if number in _LASTING
        else None
    )


def printable(text: str) -> str:
    """Return one line of text, escape sequences spelled out: a file may have held it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
