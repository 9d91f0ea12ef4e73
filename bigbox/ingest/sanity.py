"""Whether snapshot, catalogue and grid can be what they are said to be: one line each where not."""

from __future__ import annotations

from bigbox.errors import BadInput
from bigbox.ingest.snapshot import GAS, Snapshot
from bigbox.physics.cosmology import CRITICAL_DENSITY
from bigbox.scheduler.tiling import Tiling, TilingError


def check_mass(snapshot: Snapshot, mass: float, omega_m: float | None) -> None:
    """Raise BadInput where the dark matter's mass (code units) is not that of such a box."""
    header = snapshot.header
    if omega_m is None:
        return
    omega = mass * header.mass / header.box_size**3 / CRITICAL_DENSITY
    # With baryons of their own the dark matter is what they leave, at least a half.
    least = 0.5 if snapshot.total(GAS) else 0.95
    if not least * omega_m <= omega <= 1.05 * omega_m:
        raise BadInput(
            f"{snapshot}: its dark matter in a box of {header.box_size:g} Mpc/h has the density "
            f"{omega:.4g} over critical, but Omega_m is {omega_m:g}: units other than "
            f"{header.length:g} Mpc/h and {header.mass:g} M_sun/h, or a part of the particles"
        )


def check_haloes(catalogue: str, dense: float, whole: float, volume: float) -> None:
    """Raise BadInput where the haloes are not in dense places: of other initial conditions.

    `dense` and `whole` are the halo mass in voxels above the mean density and in all, `volume` is
    the share of such voxels: of haloes strewn at random, a share like it is there.
    """
    if whole > 0 and dense / whole < 0.5 * (1.0 + volume):
        raise BadInput(
            f"{catalogue}: only {100 * dense / whole:.0f} % of the haloes' mass is where matter is "
            f"denser than its mean ({100 * volume:.0f} % of the volume is): a catalogue of another "
            "simulation"
        )


def tile_warnings(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return what a user should know of a box that the default tile does not fit into."""
    try:
        Tiling(shape)
    except TilingError as error:
        tile = tile_for(shape)
        smaller = f"paint it with a smaller tile (--tile {tile}) or " if tile else ""
        return (f"{error}; {smaller}ingest a finer grid",)
    return ()


def tile_for(shape: tuple[int, int, int]) -> int:
    """Return the tile that paints such a small box at least cost, 0 where none can be laid."""
    costs = {}
    for tile in range(min(*shape, Tiling.tile), 1, -1):
        try:
            costs[tile] = Tiling(shape, tile).size * tile**3
        except TilingError:
            continue
    return min(costs, key=lambda tile: costs[tile], default=0)
