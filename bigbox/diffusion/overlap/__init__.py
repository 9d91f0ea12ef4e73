"""How a tile is made to agree with the voxels that earlier tiles have painted (paper section 2.4).

    +----+-----------------------+
    | k  |                       |      k: known. A method decides what the denoiser is shown of
    | n  |                       |      them, and what is done to z before each of its calls.
    | o  |       to paint        |      Whatever the method, the painter pastes the known voxels
    | w  |                       |      in at the end, which the paper leaves out.
    | n  |                       |
    +----+-----------------------+

One module of this package for each method, with a class of its name: `latents.py` has `Latents`.
Other packages add methods by entry points of the group `bigbox.overlap_methods`, each naming a
class. Modules of methods import torch where they use it, so that names and help are had without.
"""

from __future__ import annotations

from pkgutil import iter_modules
from typing import TYPE_CHECKING

from bigbox.diffusion.overlap.base import Known, OverlapMethod
from bigbox.errors import BadInput
from bigbox.extensions import installed, load, load_installed
from bigbox.names import DEFAULT_MARGIN, DEFAULT_OVERLAP, DEFAULT_OVERLAP_METHOD

if TYPE_CHECKING:
    from bigbox.scheduler.tiling import Tiling

__all__ = [
    "Known",
    "OverlapMethod",
    "overlap_help",
    "overlap_method",
    "overlap_methods",
    "tiling_for",
]

GROUP = "bigbox.overlap_methods"


def _own() -> dict[str, type[OverlapMethod]]:
    """Bigbox's methods by name."""
    names = (module.name for module in iter_modules(__path__) if module.name != "base")
    return {name: load(f"{__name__}.{name}:{name.capitalize()}") for name in names}


def overlap_methods() -> tuple[str, ...]:
    """Return the names that the command line offers, the default first."""
    offered = [name for name, method in _own().items() if method.offered]
    offered.sort(key=lambda name: name != DEFAULT_OVERLAP_METHOD)
    return (*offered, *(name for name in installed(GROUP) if name not in offered))


def overlap_help() -> str:
    """Return one line for each of bigbox's methods that are offered."""
    lines = (f"{name}: {method.help}" for name, method in _own().items() if method.offered)
    return ". ".join(lines)


def overlap_method(name: str) -> type[OverlapMethod]:
    """Return the method of that name. Raises BadInput."""
    method: type[OverlapMethod] | None = _own().get(name) or load_installed(GROUP, name)
    if method is None:
        offered = ", ".join(overlap_methods())
        raise BadInput(f"overlap method: {name!r} is not one of {offered}")
    return method


def tiling_for(
    name: str,
    shape: tuple[int, int, int],
    tile: int = 32,
    overlap: int | None = None,
    margin: int | None = None,
) -> Tiling:
    """Cut a periodic box of `shape` voxels as an overlap method wants it.

    overlap: least voxels that two tiles share; margin: voxels at each face of a tile that are a
    neighbour's, where all tiles go together. None: the default.

    Raises
    ------
    BadInput
        An option that the method does not take.
    TilingError
        A box that cannot be cut so.
    """
    from bigbox.scheduler.tiling import Tiling  # numpy: not needed to list names

    together = overlap_method(name).together
    if together and overlap is not None:
        raise BadInput(f"overlap: tiles of method {name} have a --margin, leave out --overlap")
    if not together and margin is not None:
        raise BadInput(f"margin: tiles of method {name} have an --overlap, leave out --margin")
    if together:
        shared = 2 * (DEFAULT_MARGIN if margin is None else margin)
        return Tiling(shape, tile, shared, halved=True)
    return Tiling(shape, tile, DEFAULT_OVERLAP if overlap is None else overlap)
