"""Take logarithms of fields to mean 0 and variance 1, as networks see them (paper section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bigbox.errors import BadInput

Field = TypeVar("Field", np.ndarray, Tensor)


@dataclass(frozen=True)
class LogTransform:
    """Take x = (log10(field + floor) - mean) / std, or of max(field, floor) where `clip`.

    The floor is in the field's units. It keeps the logarithm finite where the field is zero.
    """

    floor: float
    mean: float
    std: float
    clip: bool = False

    def forward(self, field: Field) -> Field:
        """Return a float32 field, numpy or torch, in network units."""
        library: Any = torch if isinstance(field, Tensor) else np
        lifted = field.clip(self.floor) if self.clip else field + self.floor
        x: Field = (library.log10(lifted) - self.mean) / self.std
        return x

    def inverse(self, x: Field) -> Field:
        """Return x in the field's units, at least 0, and 0 where it was clipped."""
        power = 10.0 ** (x * self.std + self.mean)
        field = power * (power > self.floor) if self.clip else power - self.floor
        return field.clip(0.0)

    @classmethod
    def fit(cls, fields: Iterable[Field], floor: float, clip: bool = False) -> LogTransform:
        """Fit mean and std to all voxels of all fields, each field weighing the same.

        Raises BadInput where a field is the same everywhere.
        """
        raw = cls(floor, 0.0, 1.0, clip)
        means, squares = [], []
        for field in fields:  # one at a time
            x: Any = raw.forward(field)
            x = x.double() if isinstance(x, Tensor) else x.astype(np.float64)
            means.append(float(x.mean()))
            squares.append(float((x * x).mean()))
        mean = float(np.mean(means))
        variance = float(np.mean(squares)) - mean**2
        if not variance > 0:
            raise BadInput(f"normalisation: the field is the same everywhere (log10 {mean:.3g})")
        return cls(floor, mean, variance**0.5, clip)
