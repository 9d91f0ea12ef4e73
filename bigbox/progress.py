"""Show how far a long piece of work is: a bar in a notebook or on a terminal, else log lines.

Lines go to the logger `bigbox.progress` at level INFO. The commands show it on stderr, each line
with the time; from Python, `logging.basicConfig(level="INFO")` does.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0  # where there is no bar

Item = TypeVar("Item")


def say(line: str) -> None:
    """Log a line; a notebook whose user has not set up a log is shown it all the same."""
    LOG.info("%s", line)
    if in_notebook() and not LOG.isEnabledFor(logging.INFO):
        print(line, file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def bar(total: float, unit: str, *, terminal: bool = True, **more: Any) -> Any | None:
    """Return a bar of tqdm in a notebook or, if so wished, on a terminal; None elsewhere.

    more: as for `tqdm.tqdm`.
    """
    if not in_notebook() and not (terminal and sys.stderr.isatty()):
        return None
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, **more)


def interval(seconds: float) -> str:
    """Return a time as it stands on a bar: 02:10, 1:05:00."""
    from tqdm import tqdm

    return tqdm.format_interval(int(seconds))


def shown(items: Sequence[Item], unit: str) -> Iterator[Item]:
    """Yield the items, shown by a bar, or by a line every so many seconds."""
    began = last = time.monotonic()
    shown_by = bar(len(items), unit)
    try:
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if shown_by is not None:
                shown_by.update()
            elif now - last >= SECONDS_BETWEEN_LINES:
                last, each = now, (now - began) / done
                left = interval(each * (len(items) - done))
                say(f"{done}/{len(items)} {unit}s, {each:.2g} s each, {left} left")
    finally:
        if shown_by is not None:
            shown_by.close()
