"""Read numbers from the command line, and show bytes and durations on it."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bigbox.errors import BadInput

if TYPE_CHECKING:
    from bigbox.store.box import Box

_Number = TypeVar("_Number", int, float)


def add_value(
    group: Any, flag: str, metavar: str, read: Any, help: str, default: Any = None, **more: Any
) -> None:
    """Add an option that takes a value; read: its argparse type."""
    group.add_argument(flag, metavar=metavar, type=read, help=help, default=default, **more)


def add_choice(group: Any, flag: str, names: Sequence[str], help: str) -> None:
    """Add an option that takes one of these names, by default the first."""
    group.add_argument(flag, choices=names, help=help, default=names[0])


def add_box(parser: argparse.ArgumentParser, help: str = "the box") -> None:
    """Add the box and --realization, which `open_box` reads."""
    parser.add_argument("box", metavar="BOX", type=Path, help=help)
    text = "the tb of this realization (0); BOX/realizations/000R names the same"
    add_value(parser, "--realization", "R", whole(0, 2**16 - 1), text, 0)


def add_cosmology(
    parser: argparse.ArgumentParser, title: str, *about: str, defaults: bool = False
) -> None:
    """Add the options of the cosmology, named with their defaults; `cosmology` reads them."""
    from bigbox.physics.cosmology import Cosmology

    group = parser.add_argument_group(title, *about)
    for name, text in (
        ("omega_m", "matter density over critical, today"),
        ("omega_b", "baryon density over critical, today"),
        ("h", "H0 / (100 km/s/Mpc)"),
        ("sigma8", "amplitude of the linear power spectrum at 8 Mpc/h"),
        ("n_s", "slope of the primordial power spectrum"),
    ):
        more = f" ({getattr(Cosmology, name)})" if defaults else ""
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=number(0, above=True), metavar="X", help=text + more)


def cosmology(options: argparse.Namespace) -> dict[str, float]:
    """Return the parameters that were given."""
    from bigbox.physics.cosmology import PARAMETERS

    given = {name: getattr(options, name) for name in PARAMETERS}
    return {name: value for name, value in given.items() if value is not None}


def open_box(options: argparse.Namespace) -> Box:
    """Open the box, or the realization of it that was asked for."""
    from bigbox.store.box import Box, realization_path

    return Box.open(realization_path(options.box, options.realization))


def numbers_of(text: str) -> list[int] | None:
    """Return the numbers that a text like 3 or 0-9 names, in their order; None for other texts."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return list(range(first, last + 1))


def realizations_of(box: Box, given: Sequence[str]) -> list[Path]:
    """Return other paintings: boxes by their paths, realizations of `box` by number, as in 0-9.

    The one that `box` itself is does not count among the numbers.
    """
    from bigbox.store.box import realization_path

    paths: list[Path] = []
    for text in given:
        numbers = None if Path(text).exists() else numbers_of(text)
        if numbers is None:
            paths.append(Path(text))
            continue
        others = [number for number in numbers if number != box.realization]
        if not numbers:
            raise BadInput(f"--realizations {text}: ends before it begins; give the smaller first")
        paths += [realization_path(box.path, number) for number in others]
    return paths


def beside(box: Box, end: str) -> Path:
    """Return where a command leaves a file of a box by itself: BOX without .zarr, and an end.

    Raises BadInput where another box beside it would have the same: box and box.zarr.
    """
    from bigbox.store.box import realization_path

    place, stem = box.path.resolve(), box.stem
    named = re.fullmatch(r"(.*)_r(\d{4})", stem)
    whose = [(stem, 0)] + ([(named[1], int(named[2]))] if named else [])
    others = [(place.with_name(n + zarr), r) for n, r in whose for zarr in ("", ".zarr")]
    for path, realization in others:
        other = realization_path(path, realization)
        if (other / "zarr.json").is_file() and (path, realization) != (place, box.realization):
            raise BadInput(f"{box.place}: {stem}{end} is also the name for {other}; give --out")
    return place.with_name(stem + end)


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Make an argparse type: a whole number within limits."""
    limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
    return _reader(int, "a whole number", lambda value: least <= value <= most, limits)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Make an argparse type: a finite number, at least or above a limit, and at most another."""
    limits = f"{'above' if above else 'at least'} {least:g}"
    limits += "" if most == math.inf else f", at most {most:g}"
    first = math.nextafter(least, math.inf) if above else least
    last = min(most, sys.float_info.max)
    return _reader(float, "a number", lambda value: first <= value <= last, limits)


def finite(text: str) -> float:
    """Read a finite number, of either sign: an argparse type."""
    return _reader(float, "a number", math.isfinite, "must be finite")(text)


def _reader(
    kind: Callable[[str], _Number], name: str, inside: Callable[[_Number], bool], limits: str
) -> Callable[[str], _Number]:
    def read(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}") from None
        if not inside(value):
            raise argparse.ArgumentTypeError(f"{text} is out of range: {limits}")
        return value

    return read


def count(number: int, what: str) -> str:
    """Write a number of things for people: 1 halo, 2 haloes."""
    return f"{number:,} {what}" + ("" if number == 1 else "es" if what.endswith("o") else "s")


def in_bytes(count: float) -> str:
    """Write bytes for people, in powers of ten: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"


def in_time(seconds: float) -> str:
    """Write a duration for people: 0.2 s, 4 min 10 s, 3 h 5 min, 12 days 4 h."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        big, small, in_big, in_small = "min", "s", 60, 1
    elif seconds < 2 * 86400:
        big, small, in_big, in_small = "h", "min", 3600, 60
    else:
        big, small, in_big, in_small = "days", "h", 86400, 3600
    first, rest = divmod(round(seconds / in_small) * in_small, in_big)
    return f"{first:,} {big} {rest // in_small} {small}"
