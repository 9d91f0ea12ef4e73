"""Make a field Gaussian point by point by its normal scores, from a sample of its values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Float = npt.NDArray[np.float64]

# The scores' range and steps; the cut-outs that are sampled, per axis, and their edge.
SCORE_LIMIT, SCORE_STEP = 4.5, 1 / 64
SAMPLES, SAMPLE_EDGE = 3, 32


@dataclass(frozen=True)
class NormalScores:
    """The function that makes a field Gaussian point by point: value to normal score.

    A field that is statistically the same everywhere stays so, and no longer do a few bright
    voxels decide what the mean of a plane is. values: ascending; scores: of them.
    """

    values: Float
    scores: Float

    @classmethod
    def of(cls, sample: npt.NDArray[Any]) -> NormalScores:
        """Make the function from a sample of the field's values."""
        scores = np.linspace(-SCORE_LIMIT, SCORE_LIMIT, 1 + int(2 * SCORE_LIMIT / SCORE_STEP))
        values, first = np.unique(np.quantile(sample, ndtr(scores)), return_index=True)
        return cls(np.asarray(values, np.float64), scores[first])

    def __call__(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores of values; beyond the sample's range, those of its ends."""
        return np.interp(values, self.values, self.scores).astype(np.float32)


def sample_values(array: Any, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return values of a few small cut-outs spread over the box, as many as there are."""
    starts = [
        np.unique(np.linspace(0, max(0, n - SAMPLE_EDGE), SAMPLES).astype(int)) for n in shape
    ]
    return np.concatenate(
        [
            np.asarray(
                array[x : x + SAMPLE_EDGE, y : y + SAMPLE_EDGE, z : z + SAMPLE_EDGE], np.float32
            ).ravel()
            for x, y, z in itertools.product(*starts)
        ]
    )
