"""Split boxes by simulation or by slab, and cut them into random sub-volumes for training.

A batch is a pure function of (seed, step, rank), so that a resumed training sees what an
undisturbed one would have seen.

    one box, split by slab (axis 0, periodic):      several boxes: split by simulation

     gap   validation   gap        training             box 1 .. n-1   training
    |---|--------------|---|--------------------|       box n          validation

No sub-volume reaches into a gap, so no voxel, smoothed or not, is seen on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from bigbox.errors import BadInput
from bigbox.networks.transforms import LogTransform
from bigbox.physics.smoothing import DEFAULT_RADIUS, gaussian_kernel, smooth_periodic
from bigbox.store.box import Box

VALIDATION_SHARE = 0.25  # of a single box (section 2.3)
GAP = 2.0  # Mpc/h between training and validation of one box: more than twice the kernel's reach
SAME_VOXEL = 0.02  # relative difference of voxel sizes that may be trained on together
# The 48 of a cube (section 2.3): an order of the axes, and which of them are then reversed.
SYMMETRIES = tuple(product(permutations(range(3)), product((False, True), repeat=3)))


@dataclass(frozen=True)
class TrainingBox:
    """Hold the fields of one box, float32 (C, N, N, N) each, in network units once normalised."""

    path: Path
    fields: dict[str, np.ndarray]
    attributes: dict[str, Any]

    @property
    def edge(self) -> int:
        """Return N, the voxels on an axis."""
        return int(self.fields["halo"].shape[-1])


@dataclass(frozen=True)
class Region:
    """Say where sub-volumes of a box may lie: within voxels start .. stop of axis 0.

    With stop None they may lie anywhere in the periodic box.
    """

    box: int
    start: int = 0
    stop: int | None = None

    def origins(self, box_edge: int, window: int) -> int:
        """Count the origins along axis 0 that keep a window inside."""
        return box_edge if self.stop is None else self.stop - self.start - window + 1


@dataclass(frozen=True)
class Split:
    """Hold disjoint regions to train on and to validate on."""

    training: list[Region]
    validation: list[Region]


def load_boxes(paths: list[Path], names: list[str]) -> list[TrainingBox]:
    """Read whole arrays of boxes into memory, about 4 bytes a voxel and channel.

    Of the arrays "dm", "halo" and "tb", dm is smoothed as the others are (section 2.1.2). Raises
    BadInput where an array is missing, a box is given twice, or boxes differ in voxel size,
    redshift or smoothing.
    """
    boxes: list[TrainingBox] = []
    for path in paths:
        store = Box.open(path)
        if any(store.path.samefile(other.path) for other in boxes):
            raise BadInput(f"{path}: given twice; training and validation would share it")
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
            "simulation": int(google_crc32c.value(fields["halo"].tobytes())),
            "sources": {name: array.attrs.get("source", "") for name, array in arrays.items()},
        }
        boxes.append(TrainingBox(path, fields, attributes))
    _check_alike(boxes)
    return boxes


def _check_alike(boxes: list[TrainingBox]) -> None:
    first = boxes[0].attributes
    for box in boxes[1:]:
        mine = box.attributes
        if abs(mine["voxel_size"] / first["voxel_size"] - 1) > SAME_VOXEL:
            raise BadInput(
                f"{box.path}: voxels of {mine['voxel_size']:.5g} Mpc/h, those of {boxes[0].path} "
                f"are {first['voxel_size']:.5g}; one model knows one resolution"
            )
        for what in ("redshift", "smoothing"):
            if abs(mine[what] - first[what]) > 1e-3:
                raise BadInput(
                    f"{box.path}: {what} {mine[what]:.4g}, {boxes[0].path} has {first[what]:.4g}; "
                    "train one model for each"
                )


def split_boxes(boxes: list[TrainingBox], window: int, held_out: int | None = None) -> Split:
    """Split by simulation where there are several boxes, else by slab with a gap.

    The sub-volumes are `window` voxels on an edge. The last `held_out` boxes validate, by default a
    quarter, at least one. Raises BadInput where a box is too small, or none is left to train on.
    """
    for box in boxes:
        if box.edge < window:
            raise BadInput(f"{box.path}: {box.edge} voxels an axis, the network sees {window}")
    if len(boxes) > 1:
        last = held_out or max(1, round(VALIDATION_SHARE * len(boxes)))
        if last >= len(boxes):
            raise BadInput(f"{last} of {len(boxes)} boxes held out: none is left to train on")
        simulations = [box.attributes.get("simulation", box.path) for box in boxes]
        for box, simulation in zip(boxes[:-last], simulations, strict=False):
            if simulation in simulations[-last:]:
                raise BadInput(
                    f"{box.path}: has the haloes of a box that is held out for validation; put all "
                    "draws of one simulation on one side"
                )
        regions = [Region(i) for i in range(len(boxes))]
        return Split(regions[:-last], regions[-last:])
    edge, gap = boxes[0].edge, round(GAP / boxes[0].attributes["voxel_size"])
    validation = max(window, round(VALIDATION_SHARE * edge))
    if edge - validation - 2 * gap < window:
        raise BadInput(
            f"{boxes[0].path}: {edge} voxels are too few to split into {validation} for "
            f"validation, two gaps of {gap} and {window} or more for training; give a second box"
        )
    return Split([Region(0, validation + gap, edge - gap)], [Region(0, 0, validation)])


def fit_transforms(
    boxes: list[TrainingBox], training: list[Region], floors: dict[str, tuple[float, bool]]
) -> dict[str, LogTransform]:
    """Fit the transform of each field to the training boxes alone.

    `floors` has the floor of each field, and whether it clips (see LogTransform). Channels of one
    field share their constants, so that a network can compare them.
    """
    used = sorted({region.box for region in training})
    return {
        name: LogTransform.fit([boxes[i].fields[name] for i in used], floor, clip)
        for name, (floor, clip) in floors.items()
    }


def normalise(boxes: list[TrainingBox], transforms: dict[str, LogTransform]) -> None:
    """Turn fields of all boxes into network units, in place."""
    for box in boxes:
        for name, transform in transforms.items():
            box.fields[name] = transform.forward(box.fields[name])


@dataclass
class Sampler:
    """Draw random sub-volumes of regions, turned by a random symmetry of the cube."""

    boxes: list[TrainingBox]
    regions: list[Region]
    window: int  # voxels on an edge
    seed: int

    @cached_property
    def _shares(self) -> np.ndarray:
        """A region's share of the samples is its share of the origins."""
        edges = [self.boxes[region.box].edge for region in self.regions]
        pairs = zip(self.regions, edges, strict=True)
        origins = np.array([float(r.origins(n, self.window) * n**2) for r, n in pairs])
        return origins / origins.sum()

    def generator(self, step: int, rank: int = 0) -> np.random.Generator:
        """Make the generator of the random numbers of one batch."""
        return np.random.default_rng([self.seed, step, rank])

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw one sub-volume of every field: float32 views (C, w, w, w), not contiguous."""
        region = self.regions[rng.choice(len(self.regions), p=self._shares)]
        box = self.boxes[region.box]
        corner = rng.integers(0, box.edge, 3)
        corner[0] = region.start + rng.integers(region.origins(box.edge, self.window))
        symmetry = int(rng.integers(len(SYMMETRIES)))
        return {n: turn(cut(f, corner, self.window), symmetry) for n, f in box.fields.items()}

    def batch(self, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw `size` sub-volumes of every field, float32 (size, C, w, w, w)."""
        samples = [self.draw(rng) for _ in range(size)]
        return {n: np.stack([s[n] for s in samples]) for n in samples[0]}


@dataclass
class LodiSampler(Sampler):
    """Draw sub-volumes for LODI, halo-poor ones less often (section 2.3.2).

    Kept are all with a halo in the two high-mass channels, half of those with a halo in the two
    low-mass ones only, and a tenth of those without any, which the paper does not speak of but
    which a box is full of.
    """

    threshold: float  # the density from which there is a halo, in network units
    predicted: float = 0.0  # share of the samples with the haloes of the field "predicted"

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw one sub-volume of every field, its haloes true or predicted."""
        while True:
            sample = super().draw(rng)
            highest = sample["halo"].max(axis=(1, 2, 3)) >= self.threshold
            keep = 1.0 if highest[2:].any() else 0.5 if highest.any() else 0.1
            if rng.random() < keep:
                predicted = sample.pop("predicted", None)
                if predicted is not None and rng.random() < self.predicted:
                    sample["halo"] = predicted
                return sample

    def batch(self, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw what `bigbox.training.losses.LodiTask` takes, float32 (size, ...) each."""
        fields = super().batch(size, rng)
        tb = fields["tb"][:, 0]
        # One stratum a sample: the noise levels of a batch cover the whole range.
        uniform = (np.arange(size) + rng.random(size)) / size
        return {
            "tb": tb,
            "halo": fields["halo"],
            "known": np.stack([overlap_mask(rng, self.window) for _ in range(size)]),
            "uniform": uniform.astype(np.float32),
            "noise": rng.standard_normal(tb.shape, dtype=np.float32),
        }


def cut(field: np.ndarray, corner: np.ndarray, window: int) -> np.ndarray:
    """Cut a sub-volume (C, w, w, w) out of a periodic field (C, N, N, N)."""
    edge = field.shape[-1]
    if (corner + window <= edge).all():
        x, y, z = (slice(int(c), int(c) + window) for c in corner)
        return field[:, x, y, z]
    index = [(np.arange(window) + c) % edge for c in corner]
    return field[(slice(None), *np.ix_(*index))]


def turn(field: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a view of a field (C, n, n, n), turned by one of the 48 symmetries of a cube."""
    order, flips = SYMMETRIES[symmetry]
    turned = field.transpose(0, *(1 + axis for axis in order))
    return np.flip(turned, tuple(1 + axis for axis in range(3) if flips[axis]))


def overlap_mask(rng: np.random.Generator, tile: int) -> np.ndarray:
    """Draw which voxels of a tile are known, as at any stage, float32 (t, t, t).

    Mostly both ends of none, one, two or three axes, as with the eight stages of a box that is an
    even number of tiles wide. Sometimes any of the six faces. Mostly 4 voxels, else 3 to 8, for an
    overlap of 4 is stretched to close a box.
    """
    mask = np.zeros((tile,) * 3, dtype=np.float32)
    if rng.random() < 0.75:
        faces = np.repeat(rng.random(3) < 0.5, 2).reshape(3, 2)
    else:
        faces = rng.random((3, 2)) < 0.5
    for axis, side in np.argwhere(faces):
        width = 4 if rng.random() < 0.5 else int(rng.integers(3, 9))
        slab = slice(0, width) if side == 0 else slice(tile - width, tile)
        mask[(*(slice(None),) * axis, slab)] = 1.0
    return mask
