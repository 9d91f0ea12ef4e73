"""Split boxes by simulation or by slab, and cut them into random sub-volumes for training.

Fields lie on the device that trains, and sub-volumes are cut and turned there. A batch is a pure
function of (seed, step, rank), so that a resumed training sees what an undisturbed one would have
seen.

    one box, split by slab (axis 0, periodic):      several boxes: split by simulation

     gap   validation   gap        training             box 1 .. n-1   training
    |---|--------------|---|--------------------|       box n          validation

No sub-volume reaches into a gap, so no voxel, smoothed or not, is seen on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from bigbox.errors import BadInput
from bigbox.networks.transforms import LogTransform
from bigbox.physics.smoothing import DEFAULT_RADIUS, gaussian_kernel, smooth_periodic
from bigbox.store.box import Box

VALIDATION_SHARE = 0.25  # of a single box (section 2.3)
GAP = 2.0  # Mpc/h between training and validation of one box: more than twice the kernel's reach
SAME_VOXEL = 0.02  # relative difference of voxel sizes that may be trained on together
# The 48 symmetries of a cube (section 2.3): an order of the axes, and which are then reversed.
ORDERS = tuple(permutations(range(3)))
CANDIDATES = 12  # sub-volumes that are drawn for one of LODI's that is kept


@dataclass(frozen=True)
class TrainingBox:
    """Hold the fields of one simulation, float32 (C, N, N, N) each.

    tb has a channel for each draw of the hydrogen. In network units once normalised.
    """

    paths: list[Path]  # one for each draw
    edge: int  # N
    fields: dict[str, np.ndarray]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """Return what it is called in a card."""
        return ", ".join(path.name for path in self.paths)


@dataclass(frozen=True)
class Region:
    """Say where sub-volumes of a box may lie: within voxels start .. stop of axis 0.

    With stop None they may lie anywhere in the periodic box.
    """

    box: int
    start: int = 0
    stop: int | None = None

    def origins(self, box_edge: int, reach: int) -> int:
        """Count the origins along axis 0 that keep sub-volumes of `reach` voxels inside."""
        return box_edge if self.stop is None else self.stop - self.start - reach + 1


@dataclass(frozen=True)
class Split:
    """Hold disjoint regions to train on and to validate on."""

    training: list[Region]
    validation: list[Region]


def load_boxes(paths: list[Path], names: list[str]) -> list[TrainingBox]:
    """Read whole arrays of boxes into memory, about 4 bytes a voxel and channel.

    Of the arrays "dm", "halo" and "tb", dm is smoothed as the others are (section 2.1.2). Boxes
    with the same haloes are draws of one simulation, and become one. Raises BadInput where an array
    is missing, a box is given twice, or boxes differ in voxel size, redshift or smoothing.
    """
    found: dict[int, TrainingBox] = {}
    stores: list[Box] = []
    for path in paths:
        store = Box.open(path)
        if any(store.path.samefile(other.path) for other in stores):
            raise BadInput(f"{path}: given twice; training and validation would share it")
        stores.append(store)
        arrays = {name: store.require(name) for name in names}
        fields, smoothing = {}, {}
        for name, array in arrays.items():
            field = np.asarray(array[...], dtype=np.float32)
            fields[name] = field if field.ndim == 4 else field[None]
            smoothing[name] = float(array.attrs.get("smoothing", 0.0))  # type: ignore[arg-type]
        radius = smoothing.get("halo", DEFAULT_RADIUS)
        if "dm" in fields and smoothing["dm"] == 0:
            kernel = gaussian_kernel(radius, store.voxel)
            fields["dm"] = smooth_periodic(fields["dm"][0], kernel)[None]
        attributes = {
            "voxel_size": store.voxel,
            "redshift": store.redshift,
            "cosmology": store.attributes["cosmology"],
            "smoothing": radius,
            "sources": {name: array.attrs.get("source", "") for name, array in arrays.items()},
        }
        simulation = int(google_crc32c.value(fields["halo"].tobytes()))
        box = TrainingBox([path], fields["halo"].shape[-1], fields, attributes)
        _check_alike([*found.values(), box])
        if (same := found.get(simulation)) is None:
            found[simulation] = box
            continue
        same.paths.append(path)
        if "tb" in fields:
            same.fields["tb"] = np.concatenate([same.fields["tb"], fields["tb"]])
    return list(found.values())


def _check_alike(boxes: list[TrainingBox]) -> None:
    first = boxes[0].attributes
    for box in boxes[1:]:
        mine = box.attributes
        if abs(mine["voxel_size"] / first["voxel_size"] - 1) > SAME_VOXEL:
            raise BadInput(
                f"{box.name}: voxels of {mine['voxel_size']:.5g} Mpc/h, those of {boxes[0].name} "
                f"are {first['voxel_size']:.5g}; one model knows one resolution"
            )
        for what in ("redshift", "smoothing"):
            if abs(mine[what] - first[what]) > 1e-3:
                raise BadInput(
                    f"{box.name}: {what} {mine[what]:.4g}, {boxes[0].name} has {first[what]:.4g}; "
                    "train one model for each"
                )


def split_boxes(boxes: list[TrainingBox], window: int, held_out: int | None = None) -> Split:
    """Split by simulation where there are several boxes, else by slab with a gap.

    The sub-volumes are `window` voxels of the boxes on an edge. The last `held_out` boxes validate,
    by default a quarter, at least one. Raises BadInput where a box is too small, or none is left to
    train on.
    """
    for box in boxes:
        if box.edge < window:
            raise BadInput(f"{box.name}: {box.edge} voxels an axis, the network sees {window}")
    if len(boxes) > 1:
        last = held_out or max(1, round(VALIDATION_SHARE * len(boxes)))
        if last >= len(boxes):
            raise BadInput(f"{last} of {len(boxes)} boxes held out: none is left to train on")
        regions = [Region(i) for i in range(len(boxes))]
        return Split(regions[:-last], regions[-last:])
    edge, gap = boxes[0].edge, round(GAP / boxes[0].attributes["voxel_size"])
    validation = max(window, round(VALIDATION_SHARE * edge))
    if edge - validation - 2 * gap < window:
        raise BadInput(
            f"{boxes[0].name}: {edge} voxels are too few to split into {validation} for "
            f"validation, two gaps of {gap} and {window} or more for training; give a second box"
        )
    return Split([Region(0, validation + gap, edge - gap)], [Region(0, 0, validation)])


def fit_transforms(
    boxes: list[TrainingBox],
    training: list[Region],
    floors: dict[str, tuple[float, bool]],
    device: torch.device,
) -> dict[str, LogTransform]:
    """Fit the transform of each field to the training boxes alone.

    `floors` has the floor of each field, and whether it clips (see LogTransform). Channels of one
    field share their constants, so that a network can compare them.
    """
    used = sorted({region.box for region in training})
    return {
        name: LogTransform.fit(
            (torch.from_numpy(boxes[i].fields[name]).to(device) for i in used), floor, clip
        )
        for name, (floor, clip) in floors.items()
    }


class Fields:
    """Fields of boxes side by side on a device, in network units, and sub-volumes cut out of them.

    Each is float16 (channels, voxels of all boxes); network units need no more. The boxes' own
    fields are let go.
    """

    def __init__(
        self,
        boxes: list[TrainingBox],
        transforms: dict[str, LogTransform],
        device: torch.device,
    ) -> None:
        edges = [box.edge for box in boxes]
        first = np.concatenate([[0], np.cumsum([n**3 for n in edges])])
        self.device, self.edges = device, torch.tensor(edges, device=device)
        self.first = torch.tensor(first[:-1], device=device)
        self.values: dict[str, Tensor] = {}
        for name, transform in transforms.items():
            channels = max(len(box.fields[name]) for box in boxes)
            whole = torch.empty((channels, int(first[-1])), dtype=torch.float16, device=device)
            for box, start, n in zip(boxes, first, edges, strict=False):
                field = box.fields.pop(name)
                for channel in range(channels):  # fewer draws than another's come again
                    part = torch.from_numpy(field[channel % len(field)].reshape(-1)).to(device)
                    whole[channel, start : start + n**3] = transform.forward(part)
            self.values[name] = whole

    def of(self, name: str, boxes: set[int]) -> Tensor:
        """Return all voxels of a field in some of the boxes, float32 (C, voxels)."""
        parts = [
            self.values[name][:, first : first + n**3]
            for first, n in ((int(self.first[i]), int(self.edges[i])) for i in sorted(boxes))
        ]
        return torch.cat(parts, dim=1).float()

    def voxels(
        self, box: Tensor, corner: Tensor, order: Tensor, flip: Tensor, window: int, spacing: int
    ) -> Tensor:
        """Return places in the flat fields of turned sub-volumes, int64 (B, w, w, w).

        box (B,); corner (B, 3), its lowest voxel; order (B, 3): the box's axis that runs along each
        axis of the sub-volume; flip bool (B, 3): which then run backwards; spacing: of the box's
        voxels.
        """
        run, n = torch.arange(window, device=self.device), self.edges[box][:, None]
        axes = []
        for axis in range(3):
            along = order[:, axis, None]
            steps = torch.where(flip[:, axis, None], window - 1 - run, run) * spacing
            place = (corner.gather(1, along) + steps) % n
            axes.append(place * torch.where(along == 0, n * n, torch.where(along == 1, n, 1)))
        x, y, z = axes[0][:, :, None, None], axes[1][:, None, :, None], axes[2][:, None, None, :]
        return self.first[box][:, None, None, None] + x + y + z

    def cut(self, name: str, voxels: Tensor, channel: Tensor | None = None) -> Tensor:
        """Return the field at `voxels`, float32 (B, C, w, w, w); of one channel each, C = 1."""
        field = self.values[name]
        channels = torch.arange(len(field), device=self.device)[None]
        channels = channels if channel is None else channel[:, None]
        places = channels[..., None] * field.shape[1] + voxels.reshape(len(voxels), 1, -1)
        cut = field.view(-1)[places].float()
        return cut.view(len(voxels), -1, *voxels.shape[1:])


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
            rich, some = (_within(part.any(0), reach) for part in (has[2:], has))
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


def _within(field: Tensor, reach: int) -> Tensor:
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
