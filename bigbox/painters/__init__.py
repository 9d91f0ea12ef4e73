"""Painters: a batch of tiles, or of windows, in; what is painted out (see base.py, registry.py)."""

from __future__ import annotations

from bigbox.painters.base import HaloPainter, Painter, TileBatch
from bigbox.painters.registry import (
    make_halo_painter,
    make_painter,
    painter_names,
    painter_row,
    stand_in,
)

__all__ = [
    "HaloPainter",
    "Painter",
    "TileBatch",
    "make_halo_painter",
    "make_painter",
    "painter_names",
    "painter_row",
    "stand_in",
]
