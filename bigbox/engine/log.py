"""Write what a run says through `logging` to a file, a JSON object a line: `bigbox paint --log`.

Rank 0 writes FILE; of the others only who has a warning or an error makes one, FILE.r00003.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bigbox.errors import BadInput, BigboxError

ROOT = "bigbox"


class Lines(logging.Formatter):
    """One JSON object a record: time (UTC), level, rank, logger, said, and what `extra` has."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "rank": self._rank,
            "from": record.name,
            "said": record.getMessage(),
        }
        line |= getattr(record, "data", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to(path: Path | None, rank: int) -> logging.Handler | None:
    """Have the log written to a file, appended to what is there; None: nowhere. Raises BadInput."""
    if path is None:
        return None
    file = path if rank == 0 else path.with_name(f"{path.name}.r{rank:05d}")
    try:
        handler = logging.FileHandler(file, encoding="utf-8", delay=rank > 0)
    except OSError as error:
        raise BadInput(f"{path}: the log cannot be written ({error.strerror})") from None
    handler.setFormatter(Lines(rank))
    handler.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    logger = logging.getLogger(ROOT)
    logger.addHandler(handler)
    if logging.lastResort is not None:
        logger.addHandler(logging.lastResort)  # warnings still go to the terminal too
    logger.setLevel(logging.INFO)
    return handler


def log_end(handler: logging.Handler | None, error: BigboxError) -> None:
    """Write the error that ends the run to the file alone: the command line says it itself."""
    if handler is None:
        return
    record = logging.LogRecord(ROOT, logging.ERROR, __file__, 0, str(error), None, None)
    record.data = {"event": "end", "status": error.exit_status}
    handler.handle(record)


def log_no_more(handler: logging.Handler | None) -> None:
    """Close the file."""
    if handler is None:
        return
    logger = logging.getLogger(ROOT)
    logger.removeHandler(handler)
    if logging.lastResort is not None:
        logger.removeHandler(logging.lastResort)
    handler.close()
