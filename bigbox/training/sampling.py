"""Draw random sub-volumes of boxes, turned by random symmetries, for one optimiser step each.

A batch is a pure function of (seed, step, rank), so that a resumed training sees what an
undisturbed one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from bigbox.training.data import Fields, Region, TrainingBox

# The 48 symmetries of a cube (section 2.3): an order of the axes, and which are then reversed.
ORDERS = tuple(permutations(range(3)))
CANDIDATES = 12  # sub-volumes that are drawn for one of LODI's that is kept


class Sampler:
    """Draw random sub-volumes of regions, turned by a random symmetry of the cube.

    window: voxels of the painting grid on an edge; spacing: of the box's voxels in that grid.
    """

    def __init__(
        self,
        fields: Fields,
        boxes: list[TrainingBox],
        regions: Sequence[Region],
        window: int,
        seed: int,
        spacing: int = 1,
    ) -> None:
        self.fields, self.window, self.seed, self.spacing = fields, window, seed, spacing
        reach = (window - 1) * spacing + 1
        self.region_box, self._start, self._count, shares = [], [], [], []
        for region in regions:
            edge = boxes[region.box].edge
            self.region_box.append(region.box)
            self._start.append(region.start)
            self._count.append(region.origins(edge, reach))
            shares.append(float(self._count[-1] * edge**2))
        where = fields.device
        self._of_region = torch.tensor([self.region_box, self._start, self._count], device=where)
        # A region's share of the samples is its share of the origins.
        self._upto = torch.tensor(np.cumsum(shares) / np.sum(shares), device=where)
        self._orders = torch.tensor(ORDERS, device=where)

    def generator(self, step: int, rank: int = 0) -> torch.Generator:
        """Make the generator of the random numbers of one batch."""
        state = np.random.SeedSequence([self.seed, step, rank]).generate_state(1, np.uint64)
        return torch.Generator(self.fields.device).manual_seed(int(state[0] >> np.uint64(1)))

    def places(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw boxes, int64 (count,), and corners in them, (count, 3)."""
        where = self.fields.device
        u = torch.rand((count, 4), generator=random, device=where, dtype=torch.float64)
        region = torch.searchsorted(self._upto, u[:, 0].clamp(max=1 - 1e-12))
        box, start, origins = self._of_region[:, region]
        edge = self.fields.edges[box]
        most = torch.stack([origins, edge, edge], dim=1)
        corner = (u[:, 1:] * most).long().minimum(most - 1)
        corner[:, 0] += start
        return box, corner

    def turned(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw symmetries: orders of the axes, int64 (count, 3), and flips, bool (count, 3)."""
        where = self.fields.device
        order = torch.randint(len(ORDERS), (count,), generator=random, device=where)
        flip = torch.randint(2, (count, 3), generator=random, device=where).bool()
        return self._orders[order], flip

    def batch(self, size: int, step: int, rank: int = 0) -> dict[str, Tensor]:
        """Return `size` sub-volumes of every field, float32 (size, C, w, w, w)."""
        random = self.generator(step, rank)
        box, corner = self.places(size, random)
        voxels = self.fields.voxels(
            box, corner, *self.turned(size, random), self.window, self.spacing
        )
        return {name: self.fields.cut(name, voxels) for name in self.fields.values}


class LodiSampler(Sampler):
    """Draw sub-volumes for LODI, halo-poor ones less often (section 2.3.2).

    Kept are all with a halo in the two high-mass channels, half of those with a halo in the two
    low-mass ones only, and a tenth of those without any, which the paper does not speak of but
    which a box is full of.

    threshold: the density from which there is a halo, in network units; predicted: share of the
    samples with the haloes of the field "predicted"; masked: whether some voxels are known.
    """

    def __init__(
        self,
        fields: Fields,
        boxes: list[TrainingBox],
        regions: Sequence[Region],
        window: int,
        seed: int,
        spacing: int = 1,
        *,
        threshold: float,
        predicted: float = 0.0,
        masked: bool = True,
    ) -> None:
        super().__init__(fields, boxes, regions, window, seed, spacing)
        self._predicted, self._masked = predicted, masked
        reach = (window - 1) * spacing + 1
        self._keep = torch.zeros(fields.values["halo"].shape[1], dtype=torch.float16)
        self._keep = self._keep.to(fields.device)
        for box in sorted(set(self.region_box)):
            n, first = int(fields.edges[box]), int(fields.first[box])
            inside = slice(first, first + n**3)
            has = (fields.values["halo"][:, inside] >= threshold).view(-1, n, n, n)
            rich, some = (any_within(part.any(0), reach) for part in (has[2:], has))
            keep = torch.where(rich, 1.0, torch.where(some, 0.5, 0.1))
            self._keep[inside] = keep.view(-1).to(self._keep.dtype)

    def places(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw boxes and corners: of several candidates the first that is kept."""
        box, corner = super().places(count * CANDIDATES, random)
        n = self.fields.edges[box]
        at = self.fields.first[box] + (corner[:, 0] * n + corner[:, 1]) * n + corner[:, 2]
        u = torch.rand(len(at), generator=random, device=at.device)
        kept = (u < self._keep[at]).view(count, CANDIDATES)
        # argmax is the first of the kept; where none is, as once in 1e-1 deserts, the first of all.
        chosen = kept.byte().argmax(1) + torch.arange(count, device=at.device) * CANDIDATES
        return box[chosen], corner[chosen]

    def batch(self, size: int, step: int, rank: int = 0) -> dict[str, Tensor]:
        """Draw what `bigbox.training.losses.LodiTask` takes, float32 (size, ...) each."""
        random, where, fields = self.generator(step, rank), self.fields.device, self.fields
        box, corner = self.places(size, random)
        turned, window = self.turned(size, random), self.window
        voxels = fields.voxels(box, corner, *turned, window, self.spacing)
        draws = len(fields.values["tb"])
        draw = torch.randint(draws, (size,), generator=random, device=where)
        tb = fields.cut("tb", voxels, draw)[:, 0]
        halo = fields.cut("halo", voxels)
        if "predicted" in fields.values:
            use = torch.rand(size, generator=random, device=where) < self._predicted
            predicted = fields.cut("predicted", voxels)
            halo = torch.where(use[:, None, None, None, None], predicted, halo)
        # One stratum a sample: the noise levels of a batch cover the whole range.
        u = torch.rand(size, generator=random, device=where)
        uniform = (torch.arange(size, device=where) + u) / size
        known = torch.zeros_like(tb)
        if self._masked:
            known = overlap_masks(size, window, random)
        return {
            "tb": tb,
            "halo": halo,
            "known": known,
            "uniform": uniform.clamp(1e-6, 1 - 1e-6),
            "noise": torch.randn(tb.shape, generator=random, device=where),
        }


def any_within(field: Tensor, reach: int) -> Tensor:
    """Return where any of the `reach` voxels on from a voxel is true, periodic, bool (N, N, N)."""
    for axis in range(3):
        have = 1
        while have < reach:
            step = min(have, reach - have)
            field = field | field.roll(-step, axis)
            have += step
    return field


def overlap_masks(count: int, tile: int, random: torch.Generator) -> Tensor:
    """Draw which voxels of tiles are known, as at any stage, float32 (count, t, t, t).

    Mostly both ends of none, one, two or three axes, as with the eight stages of a box that is an
    even number of tiles wide. Sometimes any of the six faces. Mostly 4 voxels, else 3 to 8, for an
    overlap of 4 is stretched to close a box.
    """
    where = random.device

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, device=where)

    both = (chance(count, 3, 1) < 0.5).expand(-1, -1, 2)
    faces = torch.where(chance(count, 1, 1) < 0.75, both, chance(count, 3, 2) < 0.5)
    widths = torch.randint(3, 9, (count, 3, 2), generator=random, device=where)
    widths = torch.where(chance(count, 3, 2) < 0.5, 4, widths) * faces
    run = torch.arange(tile, device=where)
    mask = torch.zeros((count, tile, tile, tile), device=where)
    for axis in range(3):
        low, high = widths[:, axis, :1], widths[:, axis, 1:]
        shape = [count, 1, 1, 1]
        shape[axis + 1] = tile
        known = (run < low) | (run >= tile - high)
        mask = torch.maximum(mask, known.view(shape).float())
    return mask
