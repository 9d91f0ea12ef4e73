"""How numbers are read from and shown on the command line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any


def add_command(commands: Any, name: str, *, summary: str, text: str) -> argparse.ArgumentParser:
    """A command's parser; `text` is its whole help, of which `summary` is the one line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_realization(parser: argparse.ArgumentParser) -> None:
    """The option --realization; `box_path` reads it."""
    parser.add_argument(
        "--realization",
        type=whole(0, 2**16 - 1),
        default=0,
        metavar="R",
        help="the tb of this realization (0); BOX/realizations/000R names the same",
    )


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


def box_path(options: argparse.Namespace) -> Path:
    """The box, or the realization of it that was asked for."""
    from bigbox.store.box import realization_path

    return realization_path(options.box, options.realization)


def whole(least: int, most: int | None = None) -> Any:
    """An argparse type: a whole number within limits."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{value} is out of range: {limits}")
        return value

    return read


def number(least: float, *, above: bool = False) -> Any:
    """An argparse type: a finite number, at least or above a limit."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value) or value < least or (above and value == least):
            word = "above" if above else "at least"
            raise argparse.ArgumentTypeError(f"{text} is out of range: {word} {least:g}")
        return value

    return read


def in_bytes(count: float) -> str:
    """Bytes for people, in powers of ten: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"


def in_time(seconds: float) -> str:
    """A duration for people: 0.2 s, 4 min 10 s, 3 h 5 min, 12 days 4 h."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    for big, small, of_big, of_small in (
        ("min", "s", 60, 1),
        ("h", "min", 3600, 60),
        ("days", "h", 86400, 3600),
    ):
        if seconds < {60: 3600, 3600: 2 * 86400}.get(of_big, math.inf):
            first, rest = divmod(round(seconds / of_small) * of_small, of_big)
            return f"{first:,} {big} {rest // of_small} {small}"
    raise ValueError(f"{seconds} is not a duration")
