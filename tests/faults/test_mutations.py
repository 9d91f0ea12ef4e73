"""A few of the changes of tests.faults.mutations; the same ones in every run (BIGBOX_SEED)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.mutations import SUBJECTS, campaign

CHANGES = 3  # of each subject


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_damage_is_told_in_one_line_or_changes_nothing(place: Path, name: str) -> None:
    seed = int(os.environ.get("BIGBOX_SEED", "1"))
    tried, wrong = campaign(name, 100, seed, place / "campaign", CHANGES)
    assert tried == CHANGES and not wrong
