"""Painters: a batch of tiles in, the painted batch out (see base.py)."""

from __future__ import annotations

from bigbox.painters.base import PAINTERS, Painter, TileBatch, make_painter

__all__ = ["PAINTERS", "Painter", "TileBatch", "make_painter"]
