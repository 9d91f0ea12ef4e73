"""What a painter is made from: the settings of tiles, and those of windows of haloes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bigbox.diffusion.overlap import overlap_method
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_OVERLAP_METHOD, DEFAULT_SAMPLER, DEFAULT_STEPS, SAMPLERS


@dataclass(frozen=True, kw_only=True)
class _Settings:
    device: str = "cpu"  # of torch
    threads: int = 1  # of the CPU, for one painter
    model: Path | None = None  # folder of trained networks, by default those that bigbox ships
    compile: str = "auto"  # the networks, see `bigbox.painters.network`
    grid: int | None = None  # voxels of dm on an axis for one that is painted: the model's

    def of(self, painter: Any) -> dict[str, Any]:
        """Return what this class of painters has as fields, where it is not left to the painter."""
        names = {field.name for field in fields(self)} & {field.name for field in fields(painter)}
        chosen = {name: getattr(self, name) for name in names}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class PainterSettings(_Settings):
    """How tiles are painted; a painter takes of it what concerns it.

    Raises BadInput where a value is out of range, or a name is unknown.
    """

    seed: int
    box_shape: tuple[int, int, int]  # voxels, for the noise's periodic wrap
    realization: int = 0
    overlap_method: str = DEFAULT_OVERLAP_METHOD
    sampler: str = DEFAULT_SAMPLER
    steps: int | None = None  # network calls for a tile, by default DEFAULT_STEPS'
    tile: int = 32  # voxels on a side
    seconds_per_tile: float = 0.0  # at least, of a trivial painter

    def __post_init__(self) -> None:
        from bigbox.noise import MAX_STEP, check_key  # numpy: not needed to list names

        if self.sampler not in SAMPLERS:
            raise BadInput(f"sampler: {self.sampler!r} is not one of {', '.join(SAMPLERS)}")
        overlap_method(self.overlap_method)
        if not 1 <= self.calls < MAX_STEP:
            enough = f"{DEFAULT_STEPS[self.sampler]} do for {self.sampler}"
            raise BadInput(f"steps: {self.calls} is outside 1 .. {MAX_STEP - 1}; {enough}")
        check_key(self.seed, self.realization)

    @property
    def calls(self) -> int:
        """Network calls for a tile."""
        return DEFAULT_STEPS[self.sampler] if self.steps is None else self.steps

    @property
    def fields(self) -> int:
        """Values kept for a voxel: T_b, and z of steps 1 .. T - 1 where the method stores it."""
        return self.calls if overlap_method(self.overlap_method).stores_latents else 1


@dataclass(frozen=True)
class HaloSettings(_Settings):
    """How haloes are painted in windows; None is the painter's own choice."""

    stride: int | None = None  # voxels between windows
    weighting: str | None = None  # of a window's voxels in the average, one of HALO_WEIGHTINGS
    batch: int | None = None  # windows that the painter is given at once
    window: int | None = None  # voxels on a side
    box_shape: tuple[int, int, int] | None = None  # voxels, that windows fit into
    seconds_per_window: float = 0.0  # at least, of a trivial painter
