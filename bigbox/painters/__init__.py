"""Painters: a batch of tiles, or of windows, in; what is painted out (see base.py)."""

from __future__ import annotations

from bigbox.painters.base import (
    PAINTERS,
    HaloPainter,
    Painter,
    TileBatch,
    make_halo_painter,
    make_painter,
)

__all__ = [
    "PAINTERS",
    "HaloPainter",
    "Painter",
    "TileBatch",
    "make_halo_painter",
    "make_painter",
]
