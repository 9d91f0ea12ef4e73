"""`bigbox.validate`: judge a painted box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

PathLike = str | Path
Paths = PathLike | Sequence[PathLike]


@dataclass(frozen=True)
class Validation:
    """What `validate` found: the verdict, its checks, and every number."""

    box: Path
    passed: bool
    verdict: str  # one line
    checks: tuple[dict[str, Any], ...]  # what was asked, found, allowed
    notes: tuple[str, ...]  # what a reader must know before the first number
    page: Path | None  # index.html, where a report was written
    numbers: dict[str, Any] = field(repr=False)  # as in numbers.json

    def __bool__(self) -> bool:
        return self.passed

    def to_xarray(self) -> xarray.Dataset:
        """Return P(k) of the box and, where there is one, of the truth over k (h/Mpc)."""
        import xarray

        found = self.numbers["spectra"]
        units = {"units": found["units"]["power"]}
        columns: dict[str, Any] = {
            "power": (found["box"]["power"], units),
            "error": (found["box"]["errors"], {**units, "long_name": found["error_kind"]}),
            "modes": (found["modes"], {}),
        }
        if found["truth"]:
            columns["power_of_truth"] = (found["truth"]["power"], units)
            columns["ratio"] = (found["ratio"]["value"], {"long_name": "P / P of the truth"})
            columns["ratio_error"] = (found["ratio"]["error"], {})
            columns["correlation"] = (found["correlation"], {"long_name": "r(k) with the truth"})
        variables = {
            name: ("k", np.array(values, float), about)
            for name, (values, about) in columns.items()
            if values is not None
        }
        k = ("k", np.array(found["k"], float), {"units": "h/Mpc"})
        return xarray.Dataset(variables, {"k": k}, {"k_nyquist": found["k_nyquist"]})

    def plot(self, ax: Axes | None = None, **line: Any) -> Axes:
        """Draw P(k) of the box with its band, and of the truth; return the axes, new if None.

        line: of the box's curve, as for `Axes.plot`.
        """
        from bigbox.analysis.spectra.modes import Spectrum

        found = self.numbers["spectra"]
        edges, modes = np.array(found["edges"], float), np.array(found["modes"], np.int64)
        units = found["units"]["power"]

        def of(power: Any, errors: Any) -> Spectrum:
            k, values = np.array(found["k"], float), np.array(power, float)
            return Spectrum(
                k, values, modes, edges, units, None if errors is None else np.array(errors, float)
            )

        box = of(found["box"]["power"], found["box"]["errors"])
        place = box.plot(ax, **{"label": self.box.name, **line})
        if found["truth"]:
            truth = found["truth"]["power"]
            place.plot(found["k"], truth, color="black", linestyle="--", label="truth")
        place.legend(frameon=False)
        return place


def validate(
    box: PathLike,
    *,
    truth: PathLike | None = None,
    realizations: Sequence[PathLike] = (),
    realization: int = 0,
    array: str = "tb",
    out: PathLike | None = None,
    draws: int = 24,
    halos: Paths = (),
    against_card: bool = False,
    model: PathLike | None = None,
    axis: str = "z",
    at: float | None = None,
    thickness: float | None = None,
    mark_tiles: bool = False,
    memory: float = 1.0,
    scratch: PathLike | None = None,
    **limits: float | None,
) -> Validation:
    """Measure a painted box and judge it: spectra, distributions, seams.

    Parameters
    ----------
    box : The painted box.
    truth : What it should be: a box, or an array (.npy, HDF5 file:/name, zarr) of the same grid and
        unit.
    realizations : Other paintings of the same matter, for the error bars.
    realization : Of the box.
    array : Of the box.
    out : Folder of the report: index.html, numbers.json, figures. None: none is written.
    draws, halos : Draws of the truth that the box is judged beside, and their halo catalogue.
    against_card, model : Judge by the errors that the card of the model tells.
    axis, at, thickness, mark_tiles : The slab that the report shows; Mpc/h.
    memory : That the blocks in work may take, GiB.
    scratch : Folder for 4 bytes a voxel and field. None: the system's.
    **limits : As the options of `bigbox validate`, such as max_power_error=0.1, and k_max in h/Mpc
        (see `bigbox.analysis.report.judge.Limits`).

    Returns
    -------
    Validation
        True where the box passes.

    Raises
    ------
    BadInput
        A ValueError: a box that is not painted to its end, a truth of another grid, a limit that
        is none.

    Examples
    --------
    >>> import bigbox
    >>> found = bigbox.validate("painted.zarr", truth="painted.zarr", draws=0)
    >>> bool(found), float(found.to_xarray().ratio[0])
    (True, 1.0)
    """
    from bigbox.analysis.report.judge import Limits
    from bigbox.analysis.report.page import View
    from bigbox.analysis.report.validate import Beside
    from bigbox.analysis.report.validate import validate as measure
    from bigbox.errors import BadInput
    from bigbox.store.box import Box, realization_path

    for name in limits.keys() - {one.name for one in fields(Limits)}:
        known = ", ".join(one.name for one in fields(Limits))
        raise BadInput(f"validate: {name} is none of its limits: {known}")
    catalogue = [halos] if isinstance(halos, (str, Path)) else halos
    if truth is None and catalogue:
        raise BadInput("--halos is the catalogue of the truth: give --truth")
    place = Box.open(realization_path(box, realization)).place
    given: dict[str, Any] = dict(limits)
    numbers = measure(
        place,
        truth=None if truth is None else str(truth),
        realizations=realizations,
        array=array,
        out=out,
        limits=Limits(**given),
        beside=Beside(
            draws,
            tuple(map(Path, catalogue)),
            against_card,
            None if model is None else Path(model),
        ),
        view=View(axis, at, thickness, mark_tiles),
        memory=int(memory * 2**30),
        scratch=scratch,
    )
    return Validation(
        place,
        numbers["pass"],
        numbers["verdict"],
        tuple(numbers["checks"]),
        tuple(numbers["notes"]),
        None if out is None else Path(out) / "index.html",
        numbers,
    )
