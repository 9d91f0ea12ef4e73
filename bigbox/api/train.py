"""`bigbox.train`: networks of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

PathLike = str | Path


@dataclass(frozen=True)
class Trained:
    """A network that `train` made, and how its training went."""

    kind: str
    model: Path  # the folder
    card: dict[str, Any] = field(repr=False)  # what the network says of itself
    curve: tuple[dict[str, float], ...] = field(repr=False)  # a row for each validation

    @property
    def measured(self) -> dict[str, Any]:
        """Errors in validation, of the card."""
        found: dict[str, Any] = self.card["measured"]
        return found

    def to_xarray(self) -> xarray.Dataset:
        """Return the curve over the optimiser's step: rate, training, validation, errors."""
        import xarray

        names = dict.fromkeys(name for row in self.curve for name in row if name != "step")
        steps = ("step", [int(row["step"]) for row in self.curve])
        columns = {n: ("step", [row.get(n, float("nan")) for row in self.curve]) for n in names}
        return xarray.Dataset(columns, {"step": steps})

    def plot(self, ax: Axes | None = None, **line: Any) -> Axes:
        """Draw the loss in training and validation; return the axes, new ones if None."""
        from bigbox.analysis.spectra.shown import axes_of

        place, curve = axes_of(ax), self.to_xarray()
        for name in ("training", "validation"):
            if name in curve:
                place.plot(curve.step, curve[name], label=name, **line)
        place.set(xlabel="optimiser step", ylabel="loss")
        place.legend(frameon=False)
        return place


def train(
    kind: Literal["halogen", "lodi"],
    boxes: Sequence[PathLike],
    out: PathLike,
    *,
    preset: str = "mini",
    held_out: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    hours: float | None = None,
    within: float | None = None,
    compile: str = "auto",
    loss: str | None = None,
    parametrisation: str | None = None,
    further: PathLike | None = None,
    halogen: PathLike | None = None,
    halogen_share: float | None = None,
    float32_weights: bool = False,
) -> Trained:
    """Train HALOgen (haloes from dark matter) or LODI (T_b from haloes) on boxes with the truth.

    The same call goes on where an earlier one was stopped.

    Parameters
    ----------
    kind : Which network.
    boxes : Boxes with dm and halo, or halo and tb, of one voxel size, redshift and smoothing.
    out : Folder of the model, for `bigbox.paint(.., model=out)`.
    preset : "mini", or "paper": the published networks, which need a GPU for days.
    held_out : How many of the last simulations validate. None: a quarter.
    steps, batch, rate : Of the optimiser. None: the preset's.
    within : End within so many hours, the schedule fitted to them.
    hours : Stop after so many hours; the same call goes on.
    seed, device, threads, compile, loss, parametrisation, further, halogen, halogen_share,
    float32_weights : As the options of `bigbox train`.

    Raises
    ------
    BadInput
        A ValueError: boxes that cannot be trained on, another training's checkpoint in `out`.
    StoppedEarly
        A RuntimeError: a signal, or the time limit. The same call goes on.

    Examples
    --------
    >>> import bigbox
    >>> made = bigbox.train("lodi", ["a.zarr", "b.zarr"], "model", within=4)  # doctest: +SKIP
    >>> made.plot()  # doctest: +SKIP
    """
    asked = {**locals(), "boxes": [Path(one) for one in boxes], "out": Path(out)}
    for name in ("further", "halogen"):
        asked[name] = None if asked[name] is None else Path(asked[name])

    from bigbox.training.curve import Curve
    from bigbox.training.options import TrainOptions
    from bigbox.training.train import train as run

    card = run(TrainOptions(**asked))
    model = Path(out)
    return Trained(kind, model, card, tuple(Curve(model / f"{kind}.csv").rows()))
