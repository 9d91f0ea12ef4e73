"""Read boxes to train on, split them by simulation or by slab, and cut sub-volumes of them.

Fields lie on the device that trains, and sub-volumes are cut and turned there
(`bigbox.training.sampling` draws which).

    one box, split by slab (axis 0, periodic):      several boxes: split by simulation

     gap   validation   gap        training             box 1 .. n-1   training
    |---|--------------|---|--------------------|       box n          validation

No sub-volume reaches into a gap, so no voxel, smoothed or not, is seen on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from bigbox.store.recorded import is_painted

VALIDATION_SHARE = 0.25  # of a single box (section 2.3)
GAP = 2.0  # Mpc/h between training and validation of one box: more than twice the kernel's reach
SAME_VOXEL = 0.02  # relative difference of voxel sizes that may be trained on together


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
    found: dict[tuple[int, int], TrainingBox] = {}
    stores: list[Box] = []
    for path in paths:
        store = Box.open(path)
        if any(store.path.samefile(other.path) for other in stores):
            raise BadInput(f"{path}: given twice; training and validation would share it")
        stores.append(store)
        if "tb" in names and is_painted(store.place_of("tb")):
            raise BadInput(
                f"{path}: its tb was painted by bigbox, it is no truth to learn from; give boxes "
                "that were ingested with --gas or --hi-halo"
            )
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
        box = TrainingBox([path], fields["halo"].shape[-1], fields, attributes)
        simulation = (box.edge, int(google_crc32c.value(fields["halo"].tobytes())))
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
    if held_out and len(boxes) == 1:
        raise BadInput(
            f"--held-out {held_out}: {boxes[0].name} is one simulation, which is split by slab; "
            "leave it out, or give a second simulation"
        )
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
