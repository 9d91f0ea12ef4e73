"""The table of fields: every array that a box can hold, its unit, its shape, and who makes it.

A new output field is one row here (or an entry point of the group `bigbox.fields`), and one task.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from bigbox.errors import BadInput
from bigbox.extensions import installed, load_installed

GROUP = "bigbox.fields"
AXES = ("x", "y", "z")
_AXIS = re.compile(r"[xyz]([2-9]|[1-9]\d+)?")  # as `axes_of` names them
_TILE_AXES = ("tile_x", "tile_y", "tile_z", "in_x", "in_y", "in_z")


@dataclass(frozen=True)
class Field:
    """One array of a box: its name in its group, its attributes and dimensions."""

    name: str
    units: str
    long_name: str
    dims: tuple[str, ...] = AXES  # those that end in x, y, z span the box
    realization: bool = False  # whether each realization has one of its own
    task: str = ""  # "module:Class" of the engine's task that makes its shards, if one does

    @property
    def spans_box(self) -> bool:
        """Whether the array has a value for every voxel of the box."""
        return self.dims[-3:] == AXES

    def attributes(self) -> dict[str, Any]:
        """Return what the array says of itself."""
        return {"units": self.units, "long_name": self.long_name}

    def on_grid(self, step: int) -> Field:
        """Return the row of the same array on the painting grid of every `step`-th voxel of dm."""
        return replace(self, dims=(*self.dims[:-3], *axes_of(step))) if self.spans_box else self


DM = Field("dm", "1", "dark-matter density over its mean, 1 + delta")
HALO = Field(
    "halo",
    "(M_sun/h) / (Mpc/h)^3",
    "halo mass per voxel volume, one channel per mass bin",
    ("channel", *AXES),
)
PAINTED = Field(
    "latents/painted", "mK", "painted tiles, overlaps included", _TILE_AXES, realization=True
)
STEPS = Field(
    "latents/steps",
    "1",
    "latents of the tiles that are still needed",
    (*_TILE_AXES[:3], "step", *_TILE_AXES[3:]),
    realization=True,
)
TB = Field(
    "tb",
    "mK",
    "21 cm brightness temperature",
    realization=True,
    task="bigbox.engine.shards:AssembleTask",
)

FIELDS = (DM, HALO, PAINTED, STEPS, TB)


def axes_of(step: int) -> tuple[str, str, str]:
    """Return the dimensions of arrays on every `step`-th voxel of dm: x, y, z; x2, y2, z2; ..."""
    x, y, z = (f"{axis}{step}" if step > 1 else axis for axis in AXES)
    return x, y, z


def is_axis(name: str) -> bool:
    """Return whether an array of this name is a coordinate."""
    return _AXIS.fullmatch(name) is not None


def known_field(name: str) -> Field | None:
    """Return the row of a field; None where no row has that name."""
    for row in FIELDS:
        if row.name == name:
            return row
    found: Field | None = load_installed(GROUP, name)
    return found


def field_of(name: str) -> Field:
    """Return the row of a field, or one for an array over the box that no row names."""
    return known_field(name) or Field(name, "", "")


def output_field(name: str) -> Field:
    """Return the row of a field that a painting can make. Raises BadInput."""
    row = known_field(name)
    if row is None or not row.task:
        made = [*(f.name for f in FIELDS if f.task), *installed(GROUP)]
        raise BadInput(f"field: {name!r} is not one of {', '.join(made)}")
    return row


def is_of_realization(name: str) -> bool:
    """Return whether each realization has an array (or group) of this name of its own."""
    if name in ("latents", "ledger"):
        return True
    row = known_field(name)
    return row is not None and row.realization
