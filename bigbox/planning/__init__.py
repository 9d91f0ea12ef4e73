"""What painting a box will take, before it begins: stages, time, memory, disk, files.

    painting.py   the plan, haloes included, and the refusal of what cannot fit
    machine.py    what this machine has to give

Everything is arithmetic on the tiling, so a box of 10 240^3 voxels (61 million tiles) is planned in
seconds and without torch. What a painter takes is told by its row (`bigbox.painters.registry`).
"""

from __future__ import annotations

from bigbox.planning.painting import (
    HaloPlan,
    Plan,
    RegionPlan,
    begun_bricks,
    lacks_haloes,
    make_plan,
    plan_region,
    refuse,
)

__all__ = [
    "HaloPlan",
    "Plan",
    "RegionPlan",
    "begun_bricks",
    "lacks_haloes",
    "make_plan",
    "plan_region",
    "refuse",
]
