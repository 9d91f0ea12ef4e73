"""The hidden folder in which an ingest makes its box: there whole in the end, or not at all.

    .box.zarr.ingest-node7-4711

holds box.zarr while process 4711 of the machine node7 makes it. `bigbox simulate` and
`bigbox export` do the same.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bigbox.errors import BadInput
from bigbox.signals import stoppable

LOG = logging.getLogger(__name__)


def new_place(box: Path) -> Path:
    """Return where the box will be, as an absolute path, and remove what killed ingests have left.

    Only folders of processes of this machine that are gone are removed. One of another machine is
    named. Raises BadInput where the box cannot be made.
    """
    place = Path(os.path.abspath(box))
    if os.path.lexists(place):
        raise BadInput(f"{box}: exists already; choose another name or remove it first")
    if not place.parent.is_dir():
        raise BadInput(f"{box}: there is no folder {place.parent}; make it first")
    if not os.access(place.parent, os.W_OK):
        raise BadInput(f"{box}: the folder {place.parent} is read-only; choose another")
    sweep(place)
    return place


def sweep(place: Path) -> None:
    """Remove the hidden folders in which killed processes of this machine were making a place."""
    left = re.compile(rf"\.{re.escape(place.name)}\.ingest-(.*)-(\d+)")
    for folder in sorted(place.parent.iterdir()):
        if not (found := left.fullmatch(folder.name)):
            continue
        host, process = found[1], int(found[2])
        if host != socket.gethostname():
            LOG.warning("%s: of an ingest on %s; remove it if that has been killed", folder, host)
        # Of this very process: one of the same number before it, as containers have them.
        elif process == os.getpid() or not psutil.pid_exists(process):
            _remove(folder)
            LOG.warning("%s: removed; a killed ingest had left it", folder)


def scratch_folder(parent: Path, name: str) -> Path:
    """Make a folder for a while in a scratch; remove those that killed processes have left there.

    Only of this user and this machine.
    """
    host = socket.gethostname()
    left = re.compile(rf"{re.escape(name)}-{re.escape(host)}-(\d+)-\w+")
    for folder in sorted(parent.iterdir()):
        found = left.fullmatch(folder.name)
        if found and not psutil.pid_exists(int(found[1])) and not folder.is_symlink():
            with suppress(OSError):
                if folder.stat().st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
                    LOG.warning("%s: removed; a killed process had left it", folder)
    return Path(tempfile.mkdtemp(prefix=f"{name}-{host}-{os.getpid()}-", dir=parent))


def check_room(place: Path, needs: str, need: float, meanwhile: float = 0.0) -> None:
    """Raise BadInput where the disk has no room for so many bytes, and others for a while.

    `needs` is as "the box needs".
    """
    free = shutil.disk_usage(place.parent).free
    if need + meanwhile > free:
        more = f", and {meanwhile / 1e9:.1f} GB while it is made" if meanwhile else ""
        raise BadInput(
            f"{place}: {needs} {need / 1e9:.1f} GB{more}, but "
            f"{free / 1e9:.1f} GB are free: choose another folder or make room"
        )


def work_folder(place: Path) -> Path:
    """Return where this process makes what will be at that place; `sweep` finds it."""
    return place.parent / f".{place.name}.ingest-{socket.gethostname()}-{os.getpid()}"


@contextmanager
def making(place: Path) -> Iterator[Path]:
    """Yield where to make the box or file; then make it durable and rename it to ``place``.

    On any error and at a signal nothing is left behind. Raises BadInput for what the disk refuses.
    """
    work = work_folder(place)
    try:
        with stoppable(place):
            yield work
            for path in (*sorted(work.rglob("*"), reverse=True), work):
                _sync(path)
            if place.exists():
                raise BadInput(f"{place}: exists already; it came while the source was read")
            os.rename(work, place)
            _sync(place.parent)
    except OSError as error:
        raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from None
    finally:
        _remove(work)


def _remove(work: Path) -> None:
    if work.is_dir():
        shutil.rmtree(work, ignore_errors=True)
    else:
        work.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
