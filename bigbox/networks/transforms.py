"""What the networks see of a field: its logarithm, to mean 0 and variance 1 (paper section 2.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bigbox.errors import BadInput

Field = TypeVar("Field", np.ndarray, Tensor)


@dataclass(frozen=True)
class LogTransform:
    """x = (log10(field + floor) - mean) / std; where `clip`, log10(max(field, floor)) instead.

    floor: in the field's units; keeps the logarithm finite where the field is zero.
    """

    floor: float
    mean: float
    std: float
    clip: bool = False

    def forward(self, field: Field) -> Field:
        """A float32 field in its units, numpy or torch, to network units, of the same shape."""
        library: Any = torch if isinstance(field, Tensor) else np
        lifted = field.clip(self.floor) if self.clip else field + self.floor
        return (library.log10(lifted) - self.mean) / self.std

    def inverse(self, x: Field) -> Field:
        """Network units to the field in its units, at least 0; what was clipped is 0."""
        power = 10.0 ** (x * self.std + self.mean)
        field = power * (power > self.floor) if self.clip else power - self.floor
        return field.clip(0.0)

    @classmethod
    def fit(cls, fields: list[np.ndarray], floor: float, clip: bool = False) -> LogTransform:
        """Mean and std over all voxels of all fields, each field weighing the same.

        Raises BadInput where there is nothing to normalise.
        """
        raw = cls(floor, 0.0, 1.0, clip)
        means, squares = [], []
        for field in fields:
            logs = raw.forward(field)
            means.append(logs.mean(dtype=np.float64))
            squares.append(np.square(logs).mean(dtype=np.float64))
        mean = float(np.mean(means))
        variance = float(np.mean(squares)) - mean**2
        if not variance > 0:
            raise BadInput(f"normalisation: the field is the same everywhere (log10 {mean:.3g})")
        return cls(floor, mean, variance**0.5, clip)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; `LogTransform(**dict)` gives it back."""
        return asdict(self)
