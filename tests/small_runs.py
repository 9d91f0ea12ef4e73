"""`bigbox simulate`, quick enough for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
import torch

from bigbox.physics.cosmology import Cosmology
from bigbox.simulation.linear import Spectrum


@contextmanager
def quick_runs(*modules: ModuleType) -> Iterator[None]:
    """Have one thread, and in the modules `bent_power` instead of CAMB, which takes seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "power_spectrum", bent_power)
        yield
    torch.set_num_threads(before)


def bent_power(cosmology: Cosmology, k_least: float, k_most: float) -> Spectrum:
    """A power law bent at 0.1 h/Mpc."""
    k = np.geomspace(k_least, k_most, 300)
    x = k / 0.1
    return k, 2e4 * x / (1 + x**2) ** 1.9 * cosmology.sigma8**2
