"""The painters that there are: one row each, and the class named as text until it is asked for.

A painter is a class with a classmethod `from_settings(PainterSettings)` and what
`bigbox.painters.base.Painter` has; one of haloes has `from_settings(HaloSettings)` and what
`HaloPainter` has. To add one: a module, and a row of ROWS; or in another package a row of its own,
named by an entry point of the group `bigbox.painters` under the painter's name:

    my-painter = "my_package.rows:ROW"

Names are listed without importing that module. It should import no torch, which is for the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigbox.data import default_model
from bigbox.diffusion.overlap import overlap_method
from bigbox.errors import BadInput
from bigbox.extensions import installed, load, load_installed
from bigbox.names import DEFAULT_OVERLAP_METHOD
from bigbox.networks.card import read_card
from bigbox.painters.base import HaloPainter, Painter
from bigbox.painters.settings import HaloSettings, PainterSettings

GROUP = "bigbox.painters"
MB = 1_000_000
# Inputs of tiles that stay on a GPU from step to step, at most: 4096 tiles.
KEPT_BYTES = 2 << 30


@dataclass(frozen=True)
class TileMemory:
    """What a painter asks of a rank's memory, as measured on CPUs."""

    # Bytes of a process that has imported what it needs and painted one tile, with about 30 MB that
    # the allocator holds on to between batches.
    libraries: int = 380 * MB
    channels: int = 4  # arrays of input, each (tile + 2 margin)^3 float32 a tile
    margin: int = 0
    work: int = 1000  # bytes of temporaries for each voxel of the tiles of one call
    tiles_per_call: int = 1  # on a CPU, whatever the engine's batch
    kept: int = 0  # bytes of inputs that stay on a GPU from step to step, at most


@dataclass(frozen=True)
class WindowMemory:
    """What a painter of haloes asks of a rank's memory; lengths in voxels."""

    margin: int = 9
    work: int = 250  # bytes of temporaries for each voxel of a window that is predicted
    channels: int = 4  # of haloes
    window: int = 64
    step: int = 64  # windows in smaller boxes are multiples of it
    stride: int = 32
    batch: int = 4  # windows at once


@dataclass(frozen=True)
class PainterRow:
    """All that is known of a painter before its class is imported.

    Seconds are those of one core, for tiles of 32^3 and windows of 64^3 voxels. Those of ROWS were
    measured on an AMD EPYC (batch 16, torch 2.13, networks of preset mini). Other machines differ,
    and a GPU much: `bigbox bench` measures.
    """

    name: str  # what --painter takes, and what stands in the painting's identity
    painter: str  # "module:Class"
    input: str  # the box's array that tiles are painted from: "dm", "halo", or "" for none
    help: str = ""  # one line for `bigbox paint --help`
    halo_painter: str = ""  # paints the haloes that `painter` takes; "": the box must have them
    stand_in: str | None = None  # what is painted in place of 21 cm brightness; None: trained
    needs_torch: bool = True  # it computes with torch, hence on a device
    overlap_method: str = "conditioned"  # where the user does not choose; joint needs a StepPainter
    model: str = ""  # kind of the model whose card tells the painting grid; "": any that is asked
    halo_model: str = ""  # kind of the model that paints the haloes
    memory: TileMemory = TileMemory()
    halo_memory: WindowMemory = WindowMemory()
    seconds_per_tile: float = 0.0  # beside the denoiser's calls
    seconds_per_call: float = 0.02
    seconds_per_window: float = 0.11


ROWS = (
    PainterRow(
        "lodi",
        painter="bigbox.painters.lodi:LodiPainter",
        halo_painter="bigbox.painters.halogen:HalogenPainter",
        input="halo",
        memory=TileMemory(kept=KEPT_BYTES),
        halo_memory=WindowMemory(step=16, stride=48),
        overlap_method=DEFAULT_OVERLAP_METHOD,
        model="lodi",
        halo_model="halogen",
        help="trained networks, haloes from dm where the box has none (HALOgen), tb from haloes "
        "(LODI; the default)",
    ),
    PainterRow(
        "gaussian",
        painter="bigbox.painters.gaussian:GaussianPainter",
        input="dm",
        overlap_method=DEFAULT_OVERLAP_METHOD,
        help="a Gaussian field of known power spectrum around a filter of the density, denoised "
        "exactly; a reference for tests, not a model of the sky",
        stand_in="a Gaussian random field around the smoothed matter density",
        memory=TileMemory(310 * MB, channels=1, margin=6, work=120),
        seconds_per_call=0.0016,
    ),
    PainterRow(
        "trivial",
        painter="bigbox.testing.painters:TrivialPainter",
        input="dm",
        overlap_method=DEFAULT_OVERLAP_METHOD,
        help="the density plus noise, for tests of scale",
        stand_in="the matter density plus white noise",
        needs_torch=False,
        memory=TileMemory(150 * MB, channels=1, margin=1, work=120),
        seconds_per_tile=0.006,
        seconds_per_call=0.0,
    ),
    PainterRow(
        "trivial-halo",
        painter="bigbox.testing.painters:TrivialOnHaloes",
        halo_painter="bigbox.testing.painters:TrivialHaloes",
        input="halo",
        overlap_method=DEFAULT_OVERLAP_METHOD,
        help="the same from haloes, which it paints first where the box has none",
        stand_in="bits of the haloes plus white noise",
        needs_torch=False,
        memory=TileMemory(150 * MB, work=160),
        halo_memory=WindowMemory(margin=1, work=40, stride=16),
        seconds_per_tile=0.006,
        seconds_per_call=0.0,
        seconds_per_window=0.03,
    ),
)
_OWN = {row.name: row for row in ROWS}


def painter_names() -> tuple[str, ...]:
    """Return the names of all painters, those of other packages last; imports none of them."""
    return (*_OWN, *(name for name in installed(GROUP) if name not in _OWN))


def painter_help() -> str:
    """Return one line for each of bigbox's own painters, the default first."""
    return ". ".join(f"{row.name}: {row.help}" for row in ROWS)


def painter_row(name: str) -> PainterRow:
    """Return the row of a painter. Raises BadInput where there is none of that name."""
    row: PainterRow | None = _OWN.get(name) or load_installed(GROUP, name)
    if row is None:
        raise BadInput(f"painter: {name!r} is not one of {', '.join(painter_names())}")
    if row.name != name:
        raise BadInput(f"painter {name}: its row is named {row.name!r}; give both one name")
    return row


def method_of(name: str, asked: str | None) -> str:
    """Return the overlap method that was asked for, or that a painter has where none was."""
    return asked or painter_row(name).overlap_method


def stand_in(name: str) -> str | None:
    """Return what a painter paints in place of 21 cm brightness; None: it is trained, or unknown.

    name: as an identity has it, perhaps of a painter that is not installed here.
    """
    return painter_row(name).stand_in if name in painter_names() else None


def painting_grid_of(name: str, model: Path | None, asked: int | None) -> int:
    """Return on how many voxels of dm on an axis the painter of that name has one of its own.

    Without importing it; model: its folder, by default the one that bigbox ships; asked: by the
    user, of whom a model takes no other than its own. Raises BadInput.
    """
    kind = painter_row(name).model
    if not kind:
        return asked or 1
    folder = model or default_model()
    grid: int = read_card(folder, kind).get("grid", 1)
    if asked not in (None, grid):
        raise BadInput(
            f"painting grid: {asked} was asked for, model {folder} has one voxel for {grid} of dm "
            "on each axis; leave it out, or use another --model"
        )
    return grid


def _check_grid(painter: Any, asked: int | None) -> None:
    own = getattr(painter, "grid", 1)
    if asked not in (None, own):
        raise BadInput(
            f"{painter.name} painter: has one voxel for {own} of dm on each axis, the painting "
            f"grid one for {asked}; what paints haloes and tb of a box works on one grid"
        )


def make_painter(name: str, **settings: Any) -> Painter:
    """Return the painter of that name, ready to paint; settings: PainterSettings'. Raises BadInput.

    The trivial painters import no torch: many ranks fit on one machine.
    """
    how = PainterSettings(**settings)
    painter: Painter = load(painter_row(name).painter).from_settings(how)
    _check_grid(painter, how.grid)
    if overlap_method(how.overlap_method).together and not hasattr(painter, "advance"):
        raise BadInput(
            f"painter {name}: cannot take tiles step by step, as method {how.overlap_method} asks;"
            " use --overlap-method conditioned"
        )
    return painter


def make_halo_painter(name: str, **settings: Any) -> HaloPainter:
    """Return the painter of haloes that goes with the painter of that name.

    settings: HaloSettings'. Raises BadInput, also where there is no such painter of haloes.
    """
    reference = painter_row(name).halo_painter
    if not reference:
        raise BadInput(
            f"painter {name}: paints no haloes, and the box has none: ingest it with --halos"
        )
    how = HaloSettings(**settings)
    painter: HaloPainter = load(reference).from_settings(how)
    _check_grid(painter, how.grid)
    return painter
