"""Say how each preset is trained: optimiser, learning rate, batch, length. One table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """Say how a network is trained."""

    optimiser: Literal["rmsprop", "adamw"]
    rate: float  # the highest learning rate
    batch: int  # sub-volumes over all ranks
    steps: int  # of the optimiser
    epoch: int  # steps of one in the paper's schedule, or 0 for warm-up and cosine to zero
    average: float  # decay of the weights' moving average
    clip: float  # largest norm of the gradient
    decay: float = 1e-4  # of the weights, by AdamW
    patience: int = 0  # validations without a better one after which the rate is halved; 0: cosine

    def rate_at(self, step: int, share: float) -> float:
        """Return the learning rate of a step, when a share of the training is over."""
        if self.epoch:
            # Section 2.3.1: ten epochs at 2e-4, then cosine warm restarts from 1e-4 to 3e-5 of
            # period 50.
            place = step / self.epoch - 10
            if place < 0:
                return self.rate
            high, low = self.rate / 2, self.rate * 0.15
            return low + (high - low) * (1 + math.cos(math.pi * (place % 50) / 50)) / 2
        if self.patience:
            return self.rate
        warm = min(1.0, max((step + 1) / max(1.0, min(200.0, 0.05 * self.steps)), share / 0.05))
        return self.rate * warm * (1 + math.cos(math.pi * min(1.0, share))) / 2


# HALOgen's paper recipe: 64 sub-volumes of 64³ in 48 orientations, 75 % of them for training, are
# 144 batches of 16 an epoch; 260 epochs. LODI's paper recipe: 600 000 iterations of 16.
# On a CPU a step of a GPU's batch would take a minute: smaller ones, at a smaller rate.
RECIPES = {
    "halogen": {
        #                   optimiser  rate  batch  steps   epoch average clip
        "paper": Recipe("rmsprop", 2e-4, 16, 260 * 144, 144, 0.999, 1.0),
        "mini": Recipe("adamw", 1e-3, 8, 6000, 0, 0.999, 1.0),
        "mini, CPU": Recipe("adamw", 5e-4, 1, 3000, 0, 0.999, 1.0),
    },
    "lodi": {
        "paper": Recipe("adamw", 2e-4, 16, 600_000, 0, 0.9999, 1.0),
        "mini": Recipe("adamw", 1e-3, 128, 12_000, 0, 0.999, 1.0),
        "mini, CPU": Recipe("adamw", 5e-4, 8, 6000, 0, 0.999, 1.0),
    },
}


def recipe(
    kind: str,
    preset: str,
    gpu: bool,
    steps: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
) -> Recipe:
    """Return the recipe of a preset on a GPU or a CPU, changed where a value is given."""
    table = RECIPES[kind]
    found = table[preset] if gpu else table.get(f"{preset}, CPU", table[preset])
    return changed(found, steps, batch, rate)


def changed(
    recipe: Recipe,
    steps: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
) -> Recipe:
    """Return a recipe, changed where a value is given."""
    given: dict[str, Any] = {"steps": steps, "batch": batch, "rate": rate}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})
