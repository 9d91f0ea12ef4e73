"""End a command with one of these errors, each with its exit status.

Exit status 0: done. 2: bad input or usage (one line, nothing written). 75: stopped early and worth
starting again (EX_TEMPFAIL, what a requeue understands). 3: `bigbox validate` judged the box and it
fails (no error: the report is written). 1: a fault of ours.
"""

from __future__ import annotations


class BigboxError(Exception):
    """Report a fault of ours. The command line turns it into exit status 1."""

    exit_status = 1


class BadInput(BigboxError, ValueError):
    """Refuse what the user gave. The message names the thing, its value, the limit and the fix."""

    exit_status = 2


class StoppedEarly(BigboxError):
    """Stop before the end. Nothing is lost, and the same command goes on from there."""

    exit_status = 75
