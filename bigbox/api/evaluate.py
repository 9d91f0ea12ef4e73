"""`bigbox.evaluate`: how good networks are, on simulations that no training saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbox.errors import BadInput

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

PathLike = str | Path
Paths = PathLike | Sequence[PathLike]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found, as in numbers.json."""

    page: Path  # index.html
    models: tuple[str, ...]
    truths: tuple[str, ...]
    numbers: dict[str, Any] = field(repr=False)

    @property
    def checks(self) -> tuple[dict[str, Any], ...]:
        """What is asked of the models: truth, model, name, found, allowed, kept."""
        return tuple(
            {"truth": truth["name"], "model": model, **check}
            for truth in self.numbers["truths"]
            for model, rows in truth["models"].items()
            for check in rows["checks"]
        )

    def to_xarray(self) -> xarray.Dataset:
        """Return P / P of the truth's draws, and r(k), over truth, model, part and k (h/Mpc)."""
        import xarray

        parts = [part for part in ("lodi", "pipeline") if any(self._of(part))]
        found: Any = {}
        for part in parts:
            for truth, model, rows in self._of(part):
                found[truth, model, part] = rows
        k = np.array(next(iter(found.values()))["k"], float)
        shape = (len(self.truths), len(self.models), len(parts), len(k))
        values = {name: np.full(shape, np.nan) for name in ("power", "power_error", "correlation")}
        for (truth, model, part), rows in found.items():
            at = self.truths.index(truth), self.models.index(model), parts.index(part)
            values["power"][at] = np.array(rows["power"]["ratio"], float)
            values["power_error"][at] = np.array(rows["power"]["error"], float)
            values["correlation"][at] = np.array(rows["r"]["value"], float)
        dims = ("truth", "model", "part", "k")
        about = {"k": ("k", k, {"units": "h/Mpc"}), "truth": list(self.truths)}
        about |= {"model": list(self.models), "part": parts}
        return xarray.Dataset({name: (dims, v) for name, v in values.items()}, about)

    def plot(self, ax: Axes | None = None, part: str = "lodi", **line: Any) -> Axes:
        """Draw P(k) over that of the truth's draws with bands; return the axes, new if None.

        part: "lodi", on the true haloes, or "pipeline", from dark matter alone.
        """
        from bigbox.analysis.spectra.shown import BAND, axes_of

        place = axes_of(ax)
        for truth, model, rows in self._of(part):
            k = np.array(rows["k"], float)
            ratio, error = (np.array(rows["power"][name], float) for name in ("ratio", "error"))
            (curve,) = place.plot(k, ratio, label=f"{model} on {truth}", **line)
            low, high = ratio - error, ratio + error
            place.fill_between(k, low, high, color=curve.get_color(), alpha=BAND, linewidth=0)
        place.axhline(1, color="0.5", linewidth=0.8)
        place.set(xscale="log", xlabel="$k$  [h/Mpc]", ylabel="$P / P$ of the truth")
        place.legend(frameon=False)
        return place

    def _of(self, part: str) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (truth["name"], model, rows[part])
            for truth in self.numbers["truths"]
            for model, rows in truth["models"].items()
            if part in rows
        ]


def evaluate(
    models: Paths,
    truths: Paths,
    *,
    realizations: int = 5,
    draws: int | None = None,
    halos: PathLike | None = None,
    out: PathLike = "evaluation",
    parts: Sequence[str] = ("lodi", "pipeline"),
    write_card: bool = False,
    keep_boxes: bool = False,
    force: bool = False,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    overlap_method: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory: float = 1.0,
) -> Evaluation:
    """Paint simulations whose T_b is known with models, and compare with draws of the truth.

    Parameters
    ----------
    models : Folders, or names that `bigbox models` lists; "default" is the one that bigbox ships.
    truths : Boxes with dm, halo and tb. Those with the same haloes are draws of one simulation.
    realizations : Paintings of each truth.
    draws, halos : How many draws of the truth; the catalogue to make them of.
    out : Folder of the report.
    parts : "lodi", painted on the true haloes; "pipeline", from dark matter alone.
    write_card : Keep the numbers in the models' cards.
    keep_boxes : Keep what was painted, in out/boxes.
    force : Also where a model is not for a truth.
    seed, sampler, steps, overlap_method, device, threads : How it is painted, as for `paint`.
    memory : That the blocks in work may take, GiB.

    Raises
    ------
    BadInput
        A ValueError: a truth that is none, a model that is not for it, draws that cannot be made.
    StoppedEarly
        A RuntimeError: a stop was asked for; the same call goes on.

    Examples
    --------
    >>> import bigbox
    >>> found = bigbox.evaluate("default", "truth.zarr", halos="groups_000")  # doctest: +SKIP
    >>> found.plot(part="pipeline")  # doctest: +SKIP
    """
    from bigbox.evaluation.run import EvaluateOptions
    from bigbox.evaluation.run import evaluate as run
    from bigbox.names import DEFAULT_SAMPLER
    from bigbox.painters.models import named_model

    boxes = _several(truths)
    if not boxes:
        raise BadInput("evaluate: names no box with a truth; make one with: bigbox ingest")
    numbers = run(
        EvaluateOptions(
            models=[named_model(one) for one in _several(models)],
            truths=boxes,
            out=Path(out),
            realizations=realizations,
            draws=draws,
            catalogue=None if halos is None else Path(halos),
            parts=parts,
            write_card=write_card,
            keep_boxes=keep_boxes,
            force=force,
            memory=int(memory * 2**30),
            how={
                "seed": seed,
                "steps": steps,
                "sampler": sampler or DEFAULT_SAMPLER,
                "overlap_method": overlap_method,
                "device": device,
                "threads": threads,
            },
        )
    )
    return Evaluation(
        Path(out) / "index.html",
        tuple(model["name"] for model in numbers["models"]),
        tuple(truth["name"] for truth in numbers["truths"]),
        numbers,
    )


def _several(given: Paths) -> list[Path]:
    return [Path(one) for one in ([given] if isinstance(given, (str, Path)) else given)]
