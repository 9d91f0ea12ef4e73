"""Count the voxels that a network has seen nothing like: denser than any in its training.

A card's "range" tells the largest smoothed 1 + delta, the largest halo density of each channel, and
the heaviest halo, as far as they are known. Arrays are read in blocks; of dm only those are
smoothed that have a denser voxel before, for smoothing makes none denser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigbox.blockwise import COPIES, Region, map_blocks, regions, workers
from bigbox.networks.card import Card
from bigbox.physics.smoothing import gaussian_kernel, smooth
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader

EDGE = 64  # voxels of a block
DM, HALO, MASS = "densest smoothed 1 + delta", "halo densities", "heaviest halo"


@dataclass
class Outside:
    """Hold voxels beyond a limit, by what they are; they add up over blocks and ranks."""

    limits: dict[str, float] = field(default_factory=dict)
    voxels: dict[str, int] = field(default_factory=dict)  # beyond
    total: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, limit: float, beyond: int, total: int, largest: float) -> None:
        """Count voxels, of which so many are beyond a limit."""
        self.limits[name] = limit
        self.voxels[name] = self.voxels.get(name, 0) + beyond
        self.total[name] = self.total.get(name, 0) + total
        self.largest[name] = max(self.largest.get(name, 0.0), largest)

    def join(self, other: Outside) -> None:
        """Add what another has counted."""
        for name, limit in other.limits.items():
            counts = (other.voxels[name], other.total[name], other.largest[name])
            self.add(name, limit, *counts)

    def attributes(self) -> dict[str, Any]:
        """Return JSON values of what lies outside: by name, the share and the numbers."""
        return {
            name: {
                "limit": limit,
                "largest": self.largest[name],
                "share": self.voxels[name] / self.total[name] if self.total[name] else 0.0,
            }
            for name, limit in self.limits.items()
            if self.voxels[name]
        }


def words(outside: dict[str, Any]) -> str:
    """Say of `Outside.attributes` what a reader must know; nothing where nothing is outside."""
    parts = [
        f"{name} {one['largest']:.3g} where training saw {one['limit']:.3g}"
        + (f" ({one['share']:.2g} of the voxels beyond)" if name != MASS else "")
        for name, one in outside.items()
    ]
    return f"outside of what the model was trained on: {'; '.join(parts)}" if parts else ""


def count_outside(
    box: Box, cards: dict[str, Card], grid: int, *, memory: int, share: tuple[int, int] = (0, 1)
) -> Outside:
    """Return the voxels of a box that lie outside the range of the networks that painted it.

    cards: by kind, of those that were at work; grid: the painting grid, on which dm is looked at;
    memory: bytes of the blocks in work; share: of which rank of how many this is.
    """
    found = Outside()
    halogen = cards.get("halogen")
    densest = ((halogen or {}).get("range") or {}).get(DM)
    if halogen is not None and densest is not None:
        for one in _dense_matter(box, halogen, float(densest), grid, memory, share):
            found.add(DM, float(densest), *one)
    told = (cards.get("lodi", {}).get("range")) or {}
    if box.has("halo"):
        edges: Any = box.array("halo").attrs.get("mass_edges")
        source = str(box.array("halo").attrs.get("source", ""))
        if told.get(MASS) and edges and source.startswith("catalogue") and not share[0]:
            heaviest = float(edges[-1])
            found.add(MASS, float(told[MASS]), int(heaviest > told[MASS]), 1, heaviest)
        if told.get(HALO):
            for row in _dense_haloes(box, told[HALO], memory, share):
                for channel, counts in enumerate(row):
                    found.add(f"halo density, mass bin {channel}", *counts)
    return found


def _dense_matter(
    box: Box, card: Card, limit: float, grid: int, memory: int, share: tuple[int, int]
) -> Iterator[tuple[int, int, float]]:
    kernel = gaussian_kernel(card["smoothing"], card["voxel_size"])
    margin, edge = len(kernel) // 2, EDGE * grid
    reader = CutoutReader(box.require("dm"), cache_bytes=memory // 2)

    def look(region: Region) -> tuple[int, int, float]:
        size = [s.stop - s.start for s in region]
        dm = reader.read([s.start - margin for s in region], [n + 2 * margin for n in size])
        total = int(np.prod([-(-n // grid) for n in size]))
        if float(dm.max()) <= limit:
            return 0, total, 0.0
        smoothed = smooth(dm, kernel, grid)
        return int((smoothed > limit).sum()), total, float(smoothed.max())

    parts = list(regions(box.shape, (edge,) * 3, 0))[share[0] :: share[1]]
    each = 4 * COPIES * (edge + 2 * margin) ** 3
    yield from map_blocks(look, parts, workers=workers(each, memory))


def _dense_haloes(
    box: Box, limits: Sequence[float], memory: int, share: tuple[int, int]
) -> Iterator[list[tuple[float, int, int, float]]]:
    halo = box.require("halo")

    def look(region: Region) -> list[tuple[float, int, int, float]]:
        values = np.asarray(halo[(slice(None), *region)])
        return [
            (float(limit), int((one > limit).sum()), one.size, float(one.max()))
            for limit, one in zip(limits, values, strict=True)
        ]

    parts = list(regions(halo.shape[-3:], (EDGE,) * 3, 0))[share[0] :: share[1]]
    each = 4 * COPIES * halo.shape[0] * EDGE**3
    yield from map_blocks(look, parts, workers=workers(each, memory))
