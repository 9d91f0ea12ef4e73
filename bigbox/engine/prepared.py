"""Resolve a painting once: box, tiling, painters, identities, ledgers; begin its runs.

Rank 0 does so. What it finds goes to all ranks (`Prepared`), so that the ledger of a box is read
once, however many ranks there are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, cast

from bigbox.engine.latents import assignment_of
from bigbox.engine.limits import Limits
from bigbox.errors import BadInput, Busy
from bigbox.painters import HaloPainter, Painter
from bigbox.painters.models import Choice
from bigbox.scheduler.bricks import Assignment
from bigbox.scheduler.region import Region
from bigbox.store.box import Box
from bigbox.store.discard import discard as throw_away
from bigbox.store.durable import DISK, Disk
from bigbox.store.fields import HALO
from bigbox.store.haloes import (
    BegunHaloes,
    HaloStart,
)
from bigbox.store.layouts import HaloLayout, Layout, LayoutT, PaintLayout
from bigbox.store.lease import LINGER, holder
from bigbox.store.mend import mend
from bigbox.store.painting import BegunPainting, PaintStart
from bigbox.store.recorded import Recorded, haloes_of, has_given_haloes, painting_of
from bigbox.store.run import Begun, first_difference, refuse_others

LOG = logging.getLogger(__name__)
# What an identity says of the machine: no longer of interest once all is painted.
HOW = ("device", "dtype", "together", "compiled")


@dataclass(frozen=True)
class PaintSpec:
    """What is to be painted: the same on every rank."""

    layout: PaintLayout  # tiles, bricks, and fields
    painter: Painter  # of tiles
    haloes: HaloPainter | None = None  # None where the box has them, or they are of no interest
    halo_layout: HaloLayout | None = None
    batch: int = 16  # tiles
    colouring: str = "levels"  # order of the tiles
    task: str = "bigbox.engine.tiles:TileTask"  # that paints tiles, as the overlap method names it
    region: Region | None = None  # that is painted; None: the whole box
    model: Choice | None = None  # of trained networks
    haloes_only: bool = False  # no tb

    def assignment(self, n_ranks: int, limits: Limits) -> Assignment:
        """Return who paints what."""
        steps = getattr(self.painter, "steps", 0)
        return assignment_of(self.layout.bricks, n_ranks, steps, limits.latent_bytes)


@dataclass(frozen=True)
class Prepared:
    """What rank 0 has found and begun, for all ranks."""

    painting: BegunPainting | None  # None where haloes alone are painted
    haloes: BegunHaloes | None = None  # None where all are there
    halo_found: Recorded[HaloLayout] | None = None  # where bigbox has painted all of them


def whole_haloes(
    spec: PaintSpec, found: Recorded[HaloLayout] | None
) -> Recorded[HaloLayout] | None:
    """Return the ledger of haloes that are all there, and this painter's; None of others.

    Once all are there it no longer matters on what kind of device they were made.
    """
    if found is None or spec.haloes is None or not found.complete:
        return None
    return found if _is_of(found, spec.haloes.identity(), but=HOW) else None


def identity_of(spec: PaintSpec, box: Box, whole: Recorded[HaloLayout] | None) -> dict[str, Any]:
    """Return what decides the bytes of tb: the painter, and where its haloes are from.

    whole: the ledger of haloes that are all there.
    """
    identity = spec.painter.identity()
    if spec.haloes is not None:
        identity["halo"] = whole.identity if whole else spec.haloes.identity()
    elif spec.painter.input == HALO.name:
        source = box.require(HALO.name).attrs.get("source", "unknown")
        identity["halo"] = {"source": str(source)}
    return identity


class HaloesUnderWay(Busy):
    """Another run paints the haloes that this one needs, and not the tb that it is to paint."""


def prepare(
    spec: PaintSpec,
    box: Box,
    *,
    n_ranks: int = 1,
    device: str = "",
    discard: bool = False,
    discard_halo: bool = False,
    disk: Disk = DISK,
    linger: float = LINGER,
) -> Prepared:
    """Begin the runs of a painting, for rank 0 alone; nothing is written where one is refused.

    discard, discard_halo: throw away what is painted, but not what this very command has begun: a
    job that is requeued with its command line keeps what it painted before. Raises BadInput;
    HaloesUnderWay where there is something to wait for, and Busy where another run paints the same.
    """
    found = None
    if spec.haloes is not None or discard_halo:
        found = haloes_of(box, giving_up=discard_halo)
    given_up = _given_up(spec, box, found, discard_halo) if discard or discard_halo else []
    if given_up and not any(kind is HaloLayout for _, kind in given_up):
        _halo_start(spec, box, found)  # refused before anything has gone
    throw_away(given_up, disk=disk, linger=linger)
    found = haloes_of(box) if discard_halo else found
    if spec.haloes is not None and found and _is_of(found, spec.haloes.identity(), but=HOW):
        found = _mended(found, lambda: haloes_of(box), disk, linger)
    about = {"n_ranks": n_ranks, "device": device}
    if spec.haloes_only:
        whole, halo_start = _halo_start(spec, box, found)
        haloes = _begin_haloes(spec, halo_start, disk, about, linger)
        return Prepared(None, haloes, whole)
    painted = painting_of(box)
    identity = identity_of(spec, box, whole_haloes(spec, found))
    if painted and _is_of(painted, identity):
        painted = _mended(painted, lambda: painting_of(box), disk, linger)
    whole, halo_start = _halo_start(spec, box, found)
    start = PaintStart(box, spec.layout, identity_of(spec, box, whole), painted)
    start.check()  # both, so that nothing is written where one of them is refused
    try:
        haloes = _begin_haloes(spec, halo_start, disk, about, linger)
    except Busy as busy:
        at_work = holder(start.ledger) if start.ledger.path.exists() else {}
        if all(at_work.get(key) == busy.holder.get(key) for key in ("host", "pid")):
            raise  # one run, which paints this tb too
        raise HaloesUnderWay(str(busy), busy.holder) from busy
    try:
        # Few painters say more of tb.
        attributes = getattr(spec.painter, "attributes", dict)() | _forced(spec)
        painting = cast(BegunPainting, start.begin(disk, about, attributes, linger))
        return Prepared(painting, haloes, whole)
    except BaseException:
        let_go(haloes)
        raise


def _is_of(found: Recorded[Any], identity: dict[str, Any], but: Container[str] = ()) -> bool:
    """Return whether a painting has this identity, all but some keys of it."""
    one, other = (
        {key: value for key, value in each.items() if key not in but}
        for each in (found.identity, json.loads(json.dumps(identity)))
    )
    return first_difference("", one, other) is None


def _mended(
    found: Recorded[LayoutT],
    again: Callable[[], Recorded[LayoutT] | None],
    disk: Disk,
    linger: float,
) -> Recorded[LayoutT] | None:
    """Return a painting as its ledger has it when what it has lost is taken back, and say so."""
    if not (lines := mend(found, disk=disk, linger=linger)):
        return found
    for line in lines:
        LOG.warning("%s", line)
    return again()


def _halo_start(
    spec: PaintSpec, box: Box, found: Recorded[HaloLayout] | None
) -> tuple[Recorded[HaloLayout] | None, HaloStart | None]:
    """Return the ledger of haloes that are all there, else the start of a run that paints them.

    found: what their ledger says. Raises BadInput where the run would be refused.
    """
    whole = whole_haloes(spec, found)
    if spec.haloes is not None and spec.halo_layout is not None and whole is None:
        start = HaloStart(box, spec.halo_layout, spec.haloes.identity(), found)
        start.check()
        return None, start
    if spec.painter.input:
        box.steps_between(spec.painter.input, spec.layout.grid)
    return whole, None


def _begin_haloes(
    spec: PaintSpec, start: HaloStart | None, disk: Disk, about: dict[str, Any], linger: float
) -> BegunHaloes | None:
    """Begin the run that paints the haloes; None where they are all there."""
    if start is None or spec.haloes is None:
        return None
    attributes = spec.haloes.attributes() | _forced(spec)
    return cast(BegunHaloes, start.begin(disk, about, attributes, linger))


def _forced(spec: PaintSpec) -> dict[str, Any]:
    """Return what arrays say of a model that paints what it does not know."""
    return {"forced": spec.model.forced} if spec.model and spec.model.forced else {}


def let_go(begun: Begun[Any] | None) -> None:
    """Let go of the lease of a run that is begun."""
    if begun is not None and begun.lease is not None:
        begun.lease.close()


def _given_up(
    spec: PaintSpec, box: Box, found: Recorded[HaloLayout] | None, discard_halo: bool
) -> list[tuple[Box, type[Layout]]]:
    """Return the paintings to be thrown away. Raises BadInput where the new one would be refused.

    found: the haloes' ledger, None where it is damaged too.
    """
    if spec.haloes_only and found is not None and spec.haloes is not None and not found.complete:
        if _is_of(found, spec.haloes.identity()):
            return []
    painted = painting_of(box, giving_up=True)
    if painted is not None and not painted.complete and not spec.haloes_only:
        same = _is_of(painted, identity_of(spec, box, whole_haloes(spec, found)))
        # Their ledger is damaged: it goes, whoever began what is painted on them.
        damaged = discard_halo and found is None and spec.haloes is not None
        if same and painted.layout.tiling == spec.layout.tiling and not damaged:
            return []
    refuse_others(box.place, spec.layout.arrays())
    if not discard_halo:
        return [(box, PaintLayout)]
    if has_given_haloes(box):
        raise BadInput(f"{box.path}/halo: was not painted by bigbox and is never discarded")
    boxes = [Box.open(box.path, "r+", realization) for realization in (0, *box.realizations())]
    on_them = [
        one
        for one in boxes
        if one.realization == box.realization
        or (
            found
            and (run := painting_of(one, giving_up=True))
            and run.identity.get("halo") == found.identity
        )
    ]
    return [*((one, PaintLayout) for one in on_them), (box, HaloLayout)]
