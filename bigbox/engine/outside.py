"""Say at the end of a painting how much of the box its networks have seen nothing like."""

from __future__ import annotations

from typing import Any

from bigbox.engine.job import Job
from bigbox.engine.mpi import World
from bigbox.networks.card import read_card
from bigbox.painters.models import KINDS
from bigbox.painters.trained_range import Outside, count_outside, words
from bigbox.store.attributes import add_attributes
from bigbox.store.durable import DISK
from bigbox.store.fields import TB

MEMORY = 256 << 20  # bytes of the blocks in work of a rank
NAME = "outside_training"  # attribute of tb


def outside_range(job: Job, world: World) -> str:
    """Count, note it with tb, and return it in words; nothing where tb is not whole yet.

    Every rank counts its share. A painting that knows already is not looked at again.
    """
    model, painters = job.spec.model, (job.spec.painter, job.spec.haloes)
    if model is None or job.spec.haloes_only or not (job.wanted is None or bool(job.wanted.all())):
        return ""
    known: Any = world.first(lambda: job.box.array(TB.name).attrs.asdict().get(NAME))
    if known is None:
        at_work = {one.name for one in painters if one is not None}
        cards = {kind: read_card(model.folder, kind) for kind in KINDS if kind in at_work}
        grid, share = job.spec.layout.grid, (world.rank, world.size)
        mine = world.each(lambda: count_outside(job.box, cards, grid, memory=MEMORY, share=share))
        found = Outside()
        for one in world.gather(mine):
            found.join(one)
        known = found.attributes()
        if found.total:
            world.first(lambda: add_attributes(DISK, job.box.place_of(TB.name), {NAME: known}))
    return words(known)
