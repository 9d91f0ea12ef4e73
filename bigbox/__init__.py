"""Paint 21 cm brightness temperature onto dark-matter boxes far larger than memory.

    ingest     a snapshot, a halo catalogue or a density grid becomes a box
    plan       what painting a box will take
    paint      paint T_b onto a box; the same call goes on where it was stopped
    open       a box as an xarray data set, with spectra and pictures at `box.bigbox`
    validate   judge a painted box
    plot       a picture of a slab
    simulate   a small dark-matter simulation, for those who have none
    train      networks of your own
    evaluate   how good networks are

The commands of the same names parse their options and call these functions. A wrong value raises
`BadInput`, a ValueError; a stop, `StoppedEarly`: the same call goes on from there.

>>> import bigbox
>>> bigbox.ingest("quickstart", "box.zarr").shape
(128, 128, 128)
>>> box = bigbox.open("box.zarr")
>>> box.dm.attrs["units"], box.attrs["box_size"]
('1', [12.5, 12.5, 12.5])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigbox.api.evaluate import evaluate as evaluate
    from bigbox.api.ingest import ingest as ingest
    from bigbox.api.opening import open as open
    from bigbox.api.paint import paint as paint
    from bigbox.api.plan import plan as plan
    from bigbox.api.plot import plot as plot
    from bigbox.api.simulate import simulate as simulate
    from bigbox.api.train import train as train
    from bigbox.api.validate import validate as validate
    from bigbox.errors import BadInput as BadInput
    from bigbox.errors import BigboxError as BigboxError
    from bigbox.errors import MissingPackage as MissingPackage
    from bigbox.errors import StoppedEarly as StoppedEarly

__version__ = "0.1.0"

# Imported when asked for, so that `import bigbox`, and with it every command, stays quick.
_WHERE = {
    **{
        name: f"bigbox.api.{name}"
        for name in ("ingest", "plan", "paint", "validate", "plot", "simulate", "train", "evaluate")
    },
    "open": "bigbox.api.opening",
    **dict.fromkeys(("BadInput", "BigboxError", "MissingPackage", "StoppedEarly"), "bigbox.errors"),
}

if not TYPE_CHECKING:  # a type checker goes by the imports above: a wrong name is an error

    def __getattr__(name):
        """Return a function of the package, imported now (PEP 562)."""
        if name not in _WHERE:
            raise AttributeError(f"module 'bigbox' has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return found

    def __dir__():
        return sorted({*globals(), *_WHERE})
