"""A few scenarios of the campaign, and a few losses of power; the rest by hand: tests/campaign."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boxes import scratch
from tests.campaign.__main__ import KINDS, kind_of, run, table
from tests.campaign.place import Sources
from tests.campaign.powerloss import story

# A kill, failing calls, no memory, NaN, a damaged file, an old file: none starts a launcher.
SEEDS = [int(s) for s in os.environ.get("BIGBOX_SCENARIOS", "100000 100014 100015 100020").split()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_scenarios_lose_nothing() -> None:
    results = run(SEEDS)
    assert len(results) == len(SEEDS) and not [bad for _, _, bad in results if bad]
    assert table(results).count("\n") == len(KINDS) + 2


def test_every_kind_has_its_turn() -> None:
    assert {kind_of(seed) for seed in range(100)} == set(KINDS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_power_may_be_lost_at_any_change() -> None:
    assert shutil.which("cc"), "a C compiler is needed"
    with scratch() as folder:
        library = folder / "record.so"
        source = Path(__file__).parents[1] / "campaign" / "record.c"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
        results = story("paint, joint", 4, 1, folder, Sources(folder), library)
    assert len(results) == 4 and not [where for bad, where in results if bad]
