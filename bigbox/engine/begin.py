"""Before the first batch of `bigbox paint`: the options, and what they mean for this box."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigbox.data import default_model
from bigbox.engine.mpi import World
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER
from bigbox.painters import HaloPainter, Painter, make_halo_painter, make_painter
from bigbox.scheduler.bricks import Bricks, default_edge
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.haloes import discard_haloes, halo_state
from bigbox.store.ledger import Ledger
from bigbox.store.run import discard_painting, layout

# What an identity says of the machine: no longer of interest once all is painted.
HOW = ("device", "dtype", "together", "compiled")


@dataclass(frozen=True)
class PaintOptions:
    """What `bigbox paint` was asked for; see its --help for the meaning of each."""

    box: Path
    painter: str = "lodi"
    model: Path | None = None
    force: bool = False
    seed: int = 0
    realization: int = 0
    overlap_method: str = "conditioned"
    sampler: str = DEFAULT_SAMPLER
    steps: int | None = None
    batch: int | None = None
    tile: int = 32
    overlap: int = 4
    colouring: str = "levels"
    device: str = "auto"
    threads: int | None = None
    compile: str = "auto"
    halo_stride: int | None = None
    halo_weighting: str | None = None
    discard: bool = False
    discard_halo: bool = False
    drop_latents: bool = False
    seconds_per_tile: float = 0.0
    seconds_per_window: float = 0.0
    quiet: bool = False

    def open(self, mode: Literal["r", "r+"] = "r") -> Box:
        """The box and the realization of it that is painted."""
        return Box.open(self.box, mode, self.realization)


def paints_haloes(box: Box) -> bool:
    """Whether the haloes of the box are bigbox's to paint: it has none, or they are a painting."""
    return halo_state(box) is not None or not box.has("halo")


def haloes_done(box: Box, painter: HaloPainter) -> bool:
    """Whether these very haloes are painted to their end; others are refused by what comes next.

    Once all are there it no longer matters on what kind of device they were made.
    """
    found = halo_state(box)
    if found is None or not found[2].done.all():
        return False
    stored, wanted = (
        {key: value for key, value in identity.items() if key not in HOW}
        for identity in (found[0]["identity"], json.loads(json.dumps(painter.identity())))
    )
    return bool(stored == wanted)


def identity_of(box: Box, painter: Painter, haloes: HaloPainter | None) -> dict[str, Any]:
    """What decides the bytes of tb: the painter's, and where the haloes that it reads are from."""
    identity = painter.identity()
    if haloes:
        found = halo_state(box)
        stored = found and haloes_done(box, haloes)
        identity["halo"] = found[0]["identity"] if found and stored else haloes.identity()
    elif painter.input == "halo":
        identity["halo"] = {"source": str(box.require("halo").attrs.get("source", "unknown"))}
    return identity


def discard(
    options: PaintOptions,
    box: Box,
    painter: Painter,
    haloes: HaloPainter | None,
    tiling: Tiling,
) -> None:
    """Throw away what the options say; not what this very command has begun.

    A job that is requeued with --discard in its command line must not lose what it painted before.
    """
    if not options.discard and not options.discard_halo:
        return
    if resumes(box, identity_of(box, painter, haloes), tiling):
        return
    if not options.discard_halo:
        discard_painting(box)
        return
    found = halo_state(box)
    if found is None and box.has("halo"):
        raise BadInput(f"{box.path}/halo: was not painted by bigbox and is never discarded")
    for realization in (0, *box.realizations()):
        one = Box.open(box.path, "r+", realization)
        run = Ledger(one.place).run()
        on_them = found and run and run["identity"].get("halo") == found[0]["identity"]
        if on_them or realization == box.realization:
            discard_painting(one)
    discard_haloes(box)


def bricks_of(options: PaintOptions, n_ranks: int) -> Bricks:
    """The box cut into tiles and bricks; a painting that has begun keeps its bricks."""
    box = options.open()
    box.require("dm")
    tiling = Tiling(box.shape, options.tile, options.overlap)
    run = Ledger(box.place).run()
    if run is not None:
        begun, bricks, _ = layout(run)
        if begun == tiling:
            return bricks
    return Bricks(tiling, default_edge(tiling, n_ranks))


def resumes(box: Box, identity: dict[str, Any], tiling: Tiling) -> bool:
    """Whether the box holds the very painting that is asked for, not yet complete: its bytes are
    those that a new start would give."""
    run = Ledger(box.place).run()
    if run is None:
        return False
    begun, bricks, tb = layout(run)
    same = begun == tiling and run["identity"] == json.loads(json.dumps(identity))
    return same and not Ledger(box.place).state(bricks, tb.size).complete


def device_of(options: PaintOptions, world: World, threads: int) -> str:
    """The device of this rank's painter: one GPU a rank by local rank, or the CPU's share."""
    if options.painter.startswith("trivial"):
        return "cpu"
    import torch

    from bigbox.devices import find_device

    torch.set_num_threads(threads)
    if options.device not in ("auto", "cuda"):
        return str(find_device(options.device))
    if torch.cuda.is_available():
        return f"cuda:{world.local_rank % torch.cuda.device_count()}"
    if options.device == "cuda":
        raise BadInput(
            "device cuda: torch sees no GPU here; use --device cpu, or torch's GPU build"
        )
    return "cpu"


def check_model(options: PaintOptions) -> None:
    """That the networks are made for boxes like this one. Raises BadInput; --force does without."""
    if options.painter != "lodi" or options.force:
        return
    from bigbox.networks.model import check_box, read_card

    folder, box = options.model or default_model(), options.open()
    kinds = ("lodi", "halogen") if paints_haloes(box) else ("lodi",)
    for kind in kinds:
        check_box(folder, read_card(folder, kind), box)


def painter_of(options: PaintOptions, tiling: Tiling, device: str, threads: int) -> Painter:
    return make_painter(
        options.painter,
        seed=options.seed,
        realization=options.realization,
        overlap_method=options.overlap_method,
        sampler=options.sampler,
        steps=options.steps,
        tile=tiling.tile,
        box_shape=tiling.shape,
        device=device,
        threads=threads,
        seconds_per_tile=options.seconds_per_tile,
        model=options.model,
        compile=options.compile,
    )


def check_alike(identities: list[dict[str, Any]]) -> None:
    """That all ranks would paint the same bytes. Raises BadInput."""
    for rank, identity in enumerate(identities):
        for key, value in identity.items():
            if value != identities[0][key]:
                raise BadInput(
                    f"{key}: {identities[0][key]!r} on rank 0, {value!r} on rank {rank}; tiles of "
                    "one painting come from one kind of device and software: start it on equal "
                    "nodes" + (", or with --compile off" if key == "compiled" else "")
                )


def halo_painter_of(options: PaintOptions, device: str, threads: int) -> HaloPainter:
    return make_halo_painter(
        options.painter,
        stride=options.halo_stride,
        weighting=options.halo_weighting,
        device=device,
        threads=threads,
        seconds_per_window=options.seconds_per_window,
        model=options.model,
        compile=options.compile,
    )
