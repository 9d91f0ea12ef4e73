"""Write bytes and durations for people."""

from __future__ import annotations


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
