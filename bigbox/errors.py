"""The ways a command can end, and the exit status of each.

Exit status 0: done. 2: bad input or usage (one line, nothing written). 75: stopped early and worth
starting again (EX_TEMPFAIL, what a requeue understands). 3: `bigbox validate` judged the box and it
fails (no error: the report is written). 1: a fault of ours.
"""

from __future__ import annotations


class BigboxError(Exception):
    """A fault of ours; the command line turns it into exit status 1."""

    exit_status = 1


class BadInput(BigboxError, ValueError):
    """What the user gave cannot be used: names the thing, the value, the limit and the way out."""

    exit_status = 2


class StoppedEarly(BigboxError):
    """The work stopped before its end, nothing is lost, and the same command goes on from there."""

    exit_status = 75
