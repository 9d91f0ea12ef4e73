"""The hidden folder in which an ingest makes its box: its name, its removal after a stop or kill.

    .box.zarr.ingest-node7-4711

holds box.zarr while process 4711 of the machine node7 makes it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from bigbox.errors import StoppedEarly

LOG = logging.getLogger(__name__)


def work_folder(place: Path) -> Path:
    """Where this process makes the box that will be at ``place``."""
    return place.parent / f"{_prefix(place)}{socket.gethostname()}-{os.getpid()}"


def remove_stale(place: Path) -> None:
    """Remove what killed ingests of ``place`` have left, and say so.

    Only folders of processes of this machine that are gone; one of another machine is named.
    """
    for folder in sorted(place.parent.iterdir()):
        if not folder.name.startswith(_prefix(place)):
            continue
        host, _, process = folder.name.removeprefix(_prefix(place)).rpartition("-")
        if not process.isdigit():
            continue
        if host != socket.gethostname():
            LOG.warning("%s: of an ingest on %s; remove it if that has been killed", folder, host)
        # Of this very process: one of the same number before it, as containers have them.
        elif int(process) == os.getpid() or not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
            LOG.warning("%s: removed; a killed ingest had left it", folder)


@contextmanager
def stoppable(place: Path) -> Iterator[None]:
    """SIGTERM raises StoppedEarly inside, so that what has been begun is removed on the way out.

    A second one is dealt with in the usual way. Only the main thread can be stopped like this.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise StoppedEarly(
            f"{place}: stopped by {signal.Signals(number).name}; nothing is left behind, the same "
            "command begins anew"
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prefix(place: Path) -> str:
    return f".{place.name}.ingest-"
