"""From the numbers of a validation to its figures and its page.

out/  numbers.json   every number     *.png   the figures     index.html   all of it, to read
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.analysis import figures
from bigbox.analysis.fields import Field
from bigbox.analysis.page import Section, Shown, write_page
from bigbox.errors import BadInput
from bigbox.plot import Channel, owner_edges, slab_image, slab_of
from bigbox.scheduler.tiling import Tiling
from bigbox.store.fields import AXES, known_field

Numbers = Mapping[str, Any]

THICKNESS = 0.9  # Mpc/h that the maps are averaged over, as in the paper's figure 5


@dataclass(frozen=True)
class View:
    """The slab that the maps show: axis x, y or z; at and thickness in Mpc/h (None: the middle,
    and 0.9 Mpc/h); mark_tiles: crosses at the corners of the tiles."""

    axis: str = "z"
    at: float | None = None
    thickness: float | None = None
    mark_tiles: bool = False


@contextmanager
def made_folder(out: Path | None) -> Iterator[None]:
    """The folder of a report, made now so that a long run does not end at a closed door.

    Removed again where the work inside ends in an error and nothing was written.
    """
    if out is None:
        yield
        return
    existed = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(
            f"{out}: is no folder that can be written to ({error.strerror or error});"
            " choose another with --out"
        ) from None
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise


def write_report(
    out: Path,
    numbers: Numbers,
    field: Field,
    truth: Field | None,
    tiling: Tiling | None,
    view: View,
) -> None:
    """Write numbers.json, the figures and index.html into the folder `out`."""
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    sections = [
        _maps(out, numbers, field, truth, tiling, view),
        _spectra(out, numbers),
        _distribution(out, numbers),
    ]
    if numbers["seams"] is not None:
        sections.append(_seams(out, numbers))
    else:
        sections.append(Section("Seams", numbers["seam_words"]))
    if numbers["halo"] is not None:
        sections.append(_halo(out, numbers, field, truth, view))
    sections.append(_made_of(numbers))
    write_page(out / "index.html", numbers, sections, numbers["notes"])


def corners(tiling: Tiling, axis: int, voxel: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places (Mpc/h) of the tiles' edges on the two axes that a map across `axis` shows."""
    across, up = (a for a in range(3) if a != axis)
    return owner_edges(tiling, across) * voxel, owner_edges(tiling, up) * voxel


def _maps(
    out: Path,
    numbers: Numbers,
    field: Field,
    truth: Field | None,
    tiling: Tiling | None,
    view: View,
) -> Section:
    sides, shown = field.box_size, []
    slab, place = _slab(field, view)
    marks = None
    if view.mark_tiles and tiling is not None:
        marks = corners(tiling, slab.axis, field.voxel)
    options: dict[str, Any] = {"axis": slab.axis, "sides": sides, "slab": place}
    if field.box is not None and field.box.has("dm"):
        image = slab_image(field.box.require("dm"), slab)
        figures.maps(out / "map_dm.png", {"dark matter": image}, "dm", **options)
        shown.append(Shown(out / "map_dm.png", "map of the dark matter", "Dark matter, 1 + δ."))
    kind = numbers["box"]["array"]
    images = {"this box": slab_image(field.array, slab)}
    if truth is not None:
        images["truth"] = slab_image(truth.array, slab)
    words = {"this box": "The field of this box", "truth": "The truth, in the same colours"}
    options |= {"corners": marks, "label": _label(field), "scale": np.stack(list(images.values()))}
    for title, image in images.items():
        file = out / f"map_{title.split()[-1]}.png"
        figures.maps(file, {title: image}, kind, **options)
        more = "; crosses mark the corners of the tiles" if marks else ""
        shown.append(Shown(file, f"map of {title}", f"{words[title]}{more}."))
    if truth is not None:
        figures.maps(out / "maps.png", images, kind, **options)
    axis = AXES[slab.axis]
    return Section(
        "Maps",
        f"Means over {axis} = {place[0]:.3g} to {place[1]:.3g} Mpc/h."
        + ("" if view.mark_tiles else " With --mark-tiles the corners of the tiles are marked."),
        figures=shown,
    )


def _label(field: Field) -> str | None:
    """Of the colours; None where the array's own is known."""
    name = Path(field.name).name
    return None if known_field(name) else f"{name}  [{field.unit or '1'}]"


def _slab(field: Field, view: View) -> tuple[Any, tuple[float, float]]:
    if field.box is None:
        raise BadInput(f"{field.name}: is no box")
    side = field.box_size[AXES.index(view.axis)] if view.axis in AXES else THICKNESS
    thickness = min(THICKNESS, side) if view.thickness is None else view.thickness
    slab = slab_of(field.box, view.axis, view.at, thickness)
    low, high = slab.first * field.voxel, (slab.first + slab.count) * field.voxel
    return slab, (low, high)


def _spectra(out: Path, numbers: Numbers) -> Section:
    found = numbers["spectra"]
    shown = [
        _draw(
            out,
            "spectra",
            figures.spectra,
            numbers,
            "power spectrum",
            "Power spectrum; the band is one standard deviation. Below: over the truth; the grey"
            " band is the limit, the dotted line the largest k that is judged."
            if found["ratio"]
            else "Power spectrum; the band is one standard deviation.",
        ),
        _draw(
            out,
            "dimensionless",
            figures.dimensionless,
            numbers,
            "dimensionless power spectrum",
            "Dimensionless power of the field over its mean.",
        ),
    ]
    if found["ratio"]:
        shown.append(
            _draw(
                out,
                "agreement",
                figures.agreement,
                numbers,
                "correlation coefficient and transfer function",
                "Correlation coefficient with the truth, and transfer function √(P/P_truth). Two"
                " realizations of one box are not the same on small scales: r(k) falls there.",
            )
        )
    if found["matter"]:
        shown.append(
            _draw(
                out,
                "matter",
                figures.matter,
                numbers,
                "correlation with the matter",
                "Correlation coefficient of the field with the matter density.",
            )
        )
    if numbers["cylinder"] is not None:
        axis = numbers["cylinder"]["axis"]
        shown.append(
            _draw(
                out,
                "cylinder",
                figures.cylinder,
                numbers,
                "cylindrical power spectrum",
                f"Power along {axis} (line of sight) and across it. In real space a field without"
                " seams has circles here.",
            )
        )
    if numbers["bispectrum"] is not None:
        shown.append(
            _draw(
                out,
                "bispectrum",
                figures.bispectrum,
                numbers,
                "reduced bispectrum",
                "Reduced bispectrum Q = B / (P₁P₂ + P₂P₃ + P₃P₁) by the triangle's longest side."
                " Open marks: the truth. Errors are those of a Gaussian field.",
            )
        )
    return Section("Spectra", _spectra_words(numbers), _spectra_table(numbers), shown)


def _spectra_words(numbers: Numbers) -> str:
    window = numbers["spectra"]["window"]
    return (
        f"No shot noise is subtracted; {'the ' + window if window else 'no'} mass-assignment window"
        " is divided out."
    )


def _spectra_table(numbers: Numbers, rows: int = 8) -> list[list[str]]:
    found = numbers["spectra"]
    ratio = found["ratio"]
    unit = found["units"]["power"].replace("^3", "³").replace("^2", "²")
    table = [["k [h/Mpc]", "modes", f"P [{unit}]"] + (["P / P_truth", "r"] if ratio else [])]
    filled = [i for i, modes in enumerate(found["modes"]) if modes]
    for i in sorted({filled[round(j)] for j in np.linspace(0, len(filled) - 1, rows)}):
        error = (found["box"]["errors"] or [None] * len(found["k"]))[i]
        row = [f"{found['k'][i]:.3g}", f"{found['modes'][i]:,}"]
        row.append(f"{found['box']['power'][i]:.3g}" + ("" if error is None else f" ± {error:.1g}"))
        if ratio:
            value, error = ratio["value"][i], ratio["error"][i]
            row.append(f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}"))
            r = found["correlation"][i]
            row.append("" if r is None else f"{r:.3f}")
        table.append(row)
    return table


def _distribution(out: Path, numbers: Numbers) -> Section:
    found = numbers["onepoint"]
    unit = numbers["box"]["unit"]
    shown = [
        _draw(out, "onepoint", figures.onepoint, numbers, "distribution", "One-point distribution.")
    ]
    if found["box"]["log"] is not None:
        shown.append(
            _draw(
                out,
                "onepoint_log",
                figures.onepoint_log,
                numbers,
                "distribution of the logarithm",
                "The same of the logarithm, where the field is above zero.",
            )
        )
    names = [name for name in ("box", "truth") if found.get(name)]
    table = [["", *("this box" if name == "box" else "truth" for name in names)]]
    for key, title in (
        ("mean", f"mean [{unit}]"),
        ("std", f"standard deviation [{unit}]"),
        ("skewness", "skewness [1]"),
        ("kurtosis", "excess kurtosis [1]"),
        ("least", f"least [{unit}]"),
        ("most", f"largest [{unit}]"),
        ("positive", "part of the voxels above zero [1]"),
    ):
        table.append([title, *(f"{found[name][key]:.4g}" for name in names)])
    return Section("Distribution", "", table, shown)


def _seams(out: Path, numbers: Numbers) -> Section:
    found = numbers["seams"]
    best = found["views"][found["shown"]]
    shown = [
        _draw(
            out,
            "seam_ratio",
            figures.seam_ratio,
            numbers,
            "seam ratio by axis",
            "Mean squared difference of neighbouring voxels across tile edges over the same inside"
            " tiles: 1 without seams. The grey band is the limit.",
        )
    ]
    for what in ("mean", "variance"):
        shown.append(
            _draw(
                out,
                f"seam_{what}",
                lambda file, n, what=what: figures.seam_profile(file, n, what),
                numbers,
                f"{what} by distance from the tile edge",
                f"{what.capitalize()} of {best['words']} by distance from the nearest tile edge,"
                " folded over all tiles; to the right is the tile that was painted later.",
            )
        )
    shown.append(
        _draw(
            out,
            "seam_harmonics",
            figures.seam_harmonics,
            numbers,
            "excess power at the tile period",
            f"Excess power of {best['words']} at the tile period and its harmonics, along each"
            " axis.",
        )
    )
    if found["stages"] is not None:
        shown.append(
            _draw(
                out,
                "seam_stages",
                figures.stages,
                numbers,
                "residual by stage",
                "Difference from the truth by the stage of the tile: later tiles are conditioned on"
                " more neighbours and should be no worse.",
            )
        )
    table = [["strongest signals", "axis", "found", "no seam", "σ"]]
    tests = [(view["label"], one) for view in found["views"].values() for one in view["tests"]]
    for label, one in sorted(tests, key=lambda t: t[1]["p"])[:6]:
        table.append(
            [f"{one['name']} ({label})", one["axis"], f"{one['value']:.3g}"]
            + [f"{one['expected']:.3g}", f"{one['z']:+.1f}"]
        )
    looked = ", ".join(view["words"] for view in found["views"].values())
    words = (
        f"{numbers['seam_words']} Looked for in {looked}. Of all boxes without seams a part of"
        f" {found['false_alarm_rate']:.2g} would raise an alarm. Orders are multiples of the tile"
        " frequency."
    )
    return Section("Seams", words, table, shown)


def _halo(out: Path, numbers: Numbers, field: Field, truth: Field | None, view: View) -> Section:
    slab, place = _slab(field, view)
    shown = []
    for at, channel in enumerate(numbers["halo"]["channels"]):
        images = {}
        for name, one in (("this box", field), ("truth", truth)):
            if one is not None and one.box is not None and one.box.has("halo"):
                images[name] = slab_image(Channel(one.box.require("halo"), at), slab)
        file = out / f"map_halo_{at}.png"
        figures.maps(file, images, "halo", axis=slab.axis, sides=field.box_size, slab=place)
        title = channel["title"]
        shown.append(Shown(file, f"map of {title}", f"{title}: {', '.join(images)}."))
        file = out / f"halo_{at}.png"
        figures.halo_distribution(file, channel)
        shown.append(Shown(file, f"distribution of {title}", f"{title}: distribution of voxels."))
    return Section("Halo channels", "", figures=shown)


def _made_of(numbers: Numbers) -> Section:
    box = numbers["box"]
    rows = [["", ""]]
    rows.append(["box", box["path"]])
    rows.append(["voxels", " × ".join(map(str, box["shape"]))])
    rows.append(["size [Mpc/h]", " × ".join(f"{s:g}" for s in box["box_size"])])
    rows.append(["voxel [Mpc/h]", f"{box['voxel']:.4g}"])
    rows.append(["redshift", f"{box['redshift']:g}"])
    for key, value in (numbers["painting"] or {}).items():
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            rows.append([key.replace("_", " "), f"{value}"])
    if numbers["truth"] is not None:
        rows.append(["truth", numbers["truth"]])
    for path in numbers["realizations"]:
        rows.append(["realization", path])
    return Section("What was looked at", "", rows)


def _draw(out: Path, name: str, draw: Any, numbers: Numbers, title: str, caption: str) -> Shown:
    file = out / f"{name}.png"
    draw(file, numbers)
    return Shown(file, title, caption)
