"""Bytes flipped, cut, blanked and lost in files at rest; folders lost in a copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.campaign.place import Bad, Place
from tests.faults.commands import Fault


def damaged_file(place: Place) -> None:
    """Any file of a finished or half-painted box is flipped, cut, blanked, lengthened or lost.

    What is said after that is a line; what is painted after that is right, or refused with a way
    out that works.
    """
    half = place.rng.random() < 0.5
    place.paint(fault=Fault(kill_at=place.rng.randint(60, 300) if half else 0))
    files = sorted(path for path in place.box.rglob("*") if path.is_file())
    path = place.rng.choice(files)
    kept = path.read_bytes()
    how = _damage(place, path)
    place.tell(f"{path.relative_to(place.box)} of a {'half' if half else 'whole'} box: {how}")
    looked = place.run("verify", place.box)
    place.said_well(looked, 0, 2)
    place.said_well(place.run("status", place.box), 0, 2)
    ended = place.paint()
    place.said_well(ended, 0, 2, 75)
    if ended.status == 75:  # found while painting, and marked
        ended = place.paint()
        place.said_well(ended, 0, 2)
    if ended.status == 2:
        _way_out(place, path, kept)
        return
    if not _of_inputs(place, path):
        place.finish()
        return
    # dm and what describes it cannot be made again: verify says so, and tb is not of other matter.
    if looked.status == 0 and path.exists() and path.read_bytes() != kept:
        place.tell("harmless")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kept)
    place.finish()


def _damage(place: Place, path: Path) -> str:
    raw, how = bytearray(path.read_bytes()), place.rng.choice("flip cut zeros more lost".split())
    if how == "lost":
        path.unlink()
        return how
    if how == "flip" and raw:
        for _ in range(place.rng.randint(1, 3)):
            raw[place.rng.randrange(len(raw))] ^= 1 << place.rng.randrange(8)
    elif how == "cut":
        raw = raw[: place.rng.randint(0, max(len(raw) - 1, 0))]
    elif how == "zeros" and raw:
        low = place.rng.randrange(len(raw))
        high = min(len(raw), low + place.rng.choice([1, 16, 4096]))
        raw[low:high] = bytes(high - low)
    elif how == "more":
        raw += place.rng.randbytes(place.rng.choice([1, 80, 5000]))
    path.write_bytes(raw)
    return how


def _of_inputs(place: Place, path: Path) -> bool:
    top = path.relative_to(place.box).parts[0]
    return top in ("dm", "zarr.json")


def _way_out(place: Place, path: Path, kept: bytes) -> None:
    """Where painting is refused: restoring the file helps, or giving the painting up."""
    inputs = _of_inputs(place, path)
    if inputs or place.rng.random() < 0.5:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept)
        place.tell("restored")
        place.finish()
        return
    option = "--discard-halo" if "halo" in place.recipe else "--discard"
    ended = place.paint(option)
    place.tell(f"{option}: {ended.status}")
    if ended.status != 0:
        raise Bad("refused", f"{option}: {ended.status}: {ended.said[-1500:]}")
    place.finish()


def copied_without_empty_folders(place: Place) -> None:
    """A half-painted box goes through a copy that keeps no empty folder, no link, no time."""
    place.paint(fault=Fault(kill_at=place.rng.randint(1, 300)))
    away = place.folder / "away.zarr"
    shutil.rmtree(away, ignore_errors=True)
    for path in sorted(place.box.rglob("*")):
        if path.is_file() and not path.is_symlink():
            target = away / path.relative_to(place.box)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            os.utime(target, (0, 0))
    shutil.rmtree(place.box)
    away.rename(place.box)
    place.finish()


def file_of_another_box(place: Place) -> None:
    """A file is put back as it was earlier in the painting: good checksums, old contents."""
    place.paint(fault=Fault(kill_at=place.rng.randint(60, 200)))
    files = {p: p.read_bytes() for p in place.box.rglob("*") if p.is_file()}
    place.paint(fault=Fault(kill_at=place.rng.randint(60, 300)))
    older = [p for p, raw in sorted(files.items()) if p.is_file() and p.read_bytes() != raw]
    if older:
        path = place.rng.choice(older)
        kept = path.read_bytes()
        path.write_bytes(files[path])
        place.tell(f"an old {path.relative_to(place.box)}")
        ended = place.paint()
        place.said_well(ended, 0, 2, 75)
        if ended.status == 2:
            _way_out(place, path, kept)
            return
    place.finish()


KINDS = {
    "bytes flipped, cut, blanked, lost in any file": damaged_file,
    "empty folders lost in a copy": copied_without_empty_folders,
    "an old version of a file put back": file_of_another_box,
}
