"""Refuse boxes and arrays that cannot be: sizes, proportions, metadata that is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import zarr

from bigbox.errors import BadInput, of_system
from bigbox.scheduler.grid import triple

# Voxels on an axis, and bytes of a chunk, at most: what asks for more is damaged, or a trap.
LARGEST_SIDE = 1 << 16
LARGEST_CHUNK = 4 << 30
# Relative difference of the voxel's sides that still counts as cubic.
CUBIC_TOLERANCE = 1e-4


def open_array(place: Path, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Return the zarr array at a place. Raises BadInput where its metadata is damaged."""
    try:
        array = zarr.open_array(place, mode=mode)
    except Exception as error:  # zarr raises what it likes at metadata that is none
        if (fault := of_system(error)) is not None:
            raise fault from error
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BadInput(
            f"{place}/zarr.json: damaged ({why}); restore it from a copy, or make the array again"
        ) from error
    if not isinstance(array.metadata.attributes, dict):
        raise BadInput(
            f"{place}/zarr.json: damaged (its attributes are no JSON object); restore it from a"
            " copy, or make the array again"
        )
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise BadInput(
            f"{place}/zarr.json: chunks of {array.chunks} are {size / 2**30:.3g} GiB each, at most"
            f" {LARGEST_CHUNK >> 30} are read; make the array again with smaller ones"
        )
    return array


def three_sizes(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the voxels on each axis. Raises BadInput."""
    sizes = tuple(int(n) for n in shape)
    if len(sizes) != 3:
        raise BadInput(f"{path}: shape {sizes} has {len(sizes)} axes, a box has 3")
    if max(sizes) > LARGEST_SIDE:
        raise BadInput(f"{path}: shape {sizes} has an axis of more than {LARGEST_SIDE} voxels")
    if min(sizes) < 1:
        raise BadInput(f"{path}: shape {sizes} has an axis of less than one voxel")
    return triple(sizes)


def check_redshift(path: Path, redshift: float) -> None:
    """Raise BadInput unless it is a redshift."""
    if not math.isfinite(redshift) or redshift < 0:
        raise BadInput(f"{path}: redshift {redshift} must be a finite number of at least 0")


def sides_of(shape: Sequence[int], box_size: float | Sequence[float]) -> tuple[float, float, float]:
    """Return the sides of a box, Mpc/h: one number is the x axis of a box of cubic voxels."""
    if isinstance(box_size, (int, float)):
        box_size = [float(box_size) * n / shape[0] for n in shape]
    if len(box_size) != 3 or not all(math.isfinite(s) and s > 0 for s in box_size):
        raise BadInput(f"box size {box_size}: must be one or three lengths > 0 in Mpc/h")
    return triple(map(float, box_size))


def check_cubic(path: Path, shape: Sequence[int], size: Sequence[float]) -> None:
    """Raise BadInput unless voxels are cubes."""
    sides = [s / n for s, n in zip(size, shape, strict=True)]
    if max(sides) > min(sides) * (1 + CUBIC_TOLERANCE):
        raise BadInput(
            f"{path}: voxels of {sides[0]:.6g} x {sides[1]:.6g} x {sides[2]:.6g} Mpc/h are not"
            " cubic; give a grid and a box size of the same proportions"
        )
