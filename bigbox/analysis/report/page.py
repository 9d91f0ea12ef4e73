"""Write the report of a validation: its numbers, its figures, and one HTML page of both.

out/  numbers.json   every number     *.png   the figures     index.html   all of it, to read

The page needs nothing but itself: figures are inline PNGs, the numbers an inline download. It is
one column on a phone and a grid on a laptop. Its words stand in page.html; its head, style and end,
which other pages have as well, in layout.html.
"""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from bigbox.analysis.maps.panel import tile_edges
from bigbox.analysis.maps.slab import Slab, slab_image, slab_of
from bigbox.analysis.maps.titles import slab_words
from bigbox.analysis.report import figures
from bigbox.analysis.report.fields import Field
from bigbox.analysis.report.style import sheet
from bigbox.errors import BadInput
from bigbox.ingest.workfolder import sweep, work_folder
from bigbox.scheduler.tiling import Tiling
from bigbox.store.fields import AXES, known_field

Numbers = Mapping[str, Any]
Table = list[list[str]]

THICKNESS = 0.9  # Mpc/h that the maps are averaged over, as in the paper's figure 5
TITLES = {"box": "this box", "truth": "truth"}


@dataclass(frozen=True)
class View:
    """The slab that the maps show; at, thickness: Mpc/h (None: the middle, and 0.9 Mpc/h)."""

    axis: str = "z"
    at: float | None = None
    thickness: float | None = None
    mark_tiles: bool = False

    def slab(self, field: Field) -> Slab:
        """Return the voxels of the slab."""
        if field.box is None:
            raise BadInput(f"{field.name}: is no box")
        side = field.box_size[AXES.index(self.axis)] if self.axis in AXES else THICKNESS
        thickness = min(THICKNESS, side) if self.thickness is None else self.thickness
        return slab_of(field.box, self.axis, self.at, thickness)


@contextmanager
def made_folder(out: Path) -> Iterator[None]:
    """Make the folder of a report first; remove it where the work inside fails with it empty."""
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


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a folder; at the end its files take their places in `out`, index.html last.

    Where the work inside fails, an older report is as it was. Raises BadInput for what the disk
    refuses.
    """
    place = out / "report"
    sweep(place)
    work = work_folder(place)
    try:
        work.mkdir()
        yield work
        for path in sorted(work.iterdir(), key=lambda path: path.name == "index.html"):
            os.replace(path, out / path.name)
    except OSError as error:
        raise BadInput(
            f"{out}: the report cannot be written ({error.strerror or error}); make room, or choose"
            " another folder with --out"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_report(
    out: Path, numbers: Numbers, fields: Mapping[str, Field], tiling: Tiling | None, view: View
) -> None:
    """Write numbers.json, the figures and index.html into `out`; fields: "box" and "truth"."""
    text = json.dumps(numbers, indent=1)
    (out / "numbers.json").write_text(text + "\n", encoding="utf-8")
    slab = view.slab(fields["box"])
    place = slab.extent(fields["box"].voxel)
    edges = None
    if view.mark_tiles and tiling is not None:
        edges = tile_edges(tiling, slab.axis, fields["box"].voxel, fields["box"].grid)
    options = {"axis": slab.axis, "sides": fields["box"].box_size}
    drawn = _maps(out, fields, slab, edges, options)
    halo = _halo_maps(out, numbers, fields, slab, options)
    for name, (height, draw) in figures.drawings(numbers).items():
        with sheet(out / f"{name}.png", height) as figure:
            draw(figure, numbers)
        drawn.append(name)

    page = render(
        Path(__file__).with_suffix(".html"),
        out,
        command="validate",
        title=numbers["box"]["name"],
        headline=numbers["headline"],
        notes=numbers["notes"],
        numbers=numbers,
        drawn=drawn,
        halo=halo,
        where=slab_words(AXES[slab.axis], *place),
        mark_tiles=view.mark_tiles,
        marked=edges is not None,
        tables=_tables(numbers),
        made_of=_made_of(numbers),
        json=b64encode(text.encode()).decode(),
    )
    (out / "index.html").write_text(page, "utf-8", errors="backslashreplace")


def render(template: Path, out: Path, **context: Any) -> str:
    """Return a page: a template that fills in layout.html, which says what it must be given.

    out: the folder of the figures that the page holds.
    """

    def inline(name: str) -> str:
        return f"data:image/png;base64,{b64encode((out / f'{name}.png').read_bytes()).decode()}"

    places = [template.parent, Path(__file__).parent]
    loader = jinja2.FileSystemLoader(places)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = inline
    return environment.get_template(template.name).render(**context)


def _maps(
    out: Path, fields: Mapping[str, Field], slab: Slab, edges: Any, options: dict[str, Any]
) -> list[str]:
    """Draw the maps of the matter, the field and the truth; return the files' names."""
    box, name, drawn = fields["box"].box, Path(fields["box"].name).name, []
    if box is not None and box.has("dm"):
        image = slab_image(box.require("dm"), slab)
        figures.maps(out / "map_dm.png", {"dark matter": image}, "dm", **options)
        drawn.append("map_dm")
    images = {TITLES[key]: slab_image(one.array, slab) for key, one in fields.items()}
    label = None if known_field(name) else f"{name}  [{fields['box'].unit or '1'}]"
    scale = np.stack(list(images.values()))
    options = {**options, "label": label, "scale": scale}
    for key in fields:
        shown = {TITLES[key]: images[TITLES[key]]}
        tiled = edges if key == "box" else None
        figures.maps(out / f"map_{key}.png", shown, name, edges=tiled, **options)
        drawn.append(f"map_{key}")
    if len(images) > 1:
        figures.maps(out / "maps.png", images, name, edges=edges, **options)
    return drawn


def _halo_maps(
    out: Path, numbers: Numbers, fields: Mapping[str, Field], slab: Slab, options: dict[str, Any]
) -> list[tuple[str, str]]:
    """Draw map and distribution of each mass bin; return its title and what the map shows."""
    shown = []
    boxes = {TITLES[key]: one.box for key, one in fields.items()}
    channels = (numbers["halo"] or {"channels": ()})["channels"]
    every = [
        {
            name: slab_image(box.view("halo"), slab, channel=at)
            for name, box in boxes.items()
            if box is not None and box.has("halo")
        }
        for at in range(len(channels))
    ]
    # One scale for all mass bins.
    scale = np.array([image for images in every for image in images.values()])
    options = {**options, "scale": scale, "empty": "haloes"}
    for at, (channel, images) in enumerate(zip(channels, every, strict=True)):
        figures.maps(out / f"map_halo_{at}.png", images, "halo", **options)
        with sheet(out / f"halo_{at}.png", 3.6) as figure:
            figures.halo_distribution(figure, channel)
        shown.append((channel["title"], ", ".join(images)))
    return shown


def _tables(numbers: Numbers) -> dict[str, Table]:
    """Make the page's tables; the first row of each is its head."""
    found, unit, seams = numbers["onepoint"], numbers["box"]["unit"], numbers["seams"]
    values = [["", *(TITLES[name] for name in found)]]
    for key, title in (
        ("mean", f"mean [{unit}]"),
        ("std", f"standard deviation [{unit}]"),
        ("skewness", "skewness [1]"),
        ("kurtosis", "excess kurtosis [1]"),
        ("least", f"least [{unit}]"),
        ("most", f"largest [{unit}]"),
        ("positive", "part of the voxels above zero [1]"),
    ):
        values.append([title, *(f"{one[key]:.4g}" for one in found.values())])
    signals = [["strongest signals", "axis", "found", "no seam", "σ"]]
    views = seams["views"].values() if seams else ()
    tests = [(view["label"], one) for view in views for one in view["tests"]]
    for label, one in sorted(tests, key=lambda t: t[1]["p"])[:6]:
        signals.append(
            [f"{one['name']} ({label})", one["axis"], f"{one['value']:.3g}"]
            + [f"{one['expected']:.3g}", f"{one['z']:+.1f}"]
        )
    spectra = _spectra_table(numbers["spectra"], numbers["limits"]["k_max"])
    return {"spectra": spectra, "values": values, "signals": signals}


def _spectra_table(found: Numbers, k_max: float, rows: int = 8) -> Table:
    """Return some bins of the spectra; beyond k_max there is nothing to compare."""
    ratio = found["ratio"]
    unit = found["units"]["power"].replace("^3", "³").replace("^2", "²")
    table = [["k [h/Mpc]", "modes", f"P [{unit}]"] + (["P / P_truth", "r"] if ratio else [])]
    filled = [i for i, modes in enumerate(found["modes"]) if modes]
    for i in sorted({filled[round(j)] for j in np.linspace(0, len(filled) - 1, rows)}):
        error = (found["box"]["errors"] or [None] * len(found["k"]))[i]
        row = [f"{found['k'][i]:.3g}", f"{found['modes'][i]:,}"]
        row.append(f"{found['box']['power'][i]:.3g}" + ("" if error is None else f" ± {error:.1g}"))
        if ratio and found["k"][i] > k_max:
            row += ["–", "–"]
        elif ratio:
            value, error, r = ratio["value"][i], ratio["error"][i], found["correlation"][i]
            row.append(f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}"))
            row.append("" if r is None else f"{r:.3f}")
        table.append(row)
    return table


def _made_of(numbers: Numbers) -> Table:
    box = numbers["box"]
    rows = [
        ["", ""],
        ["box", box["path"]],
        ["voxels", " × ".join(map(str, box["shape"]))],
        ["size [Mpc/h]", " × ".join(f"{s:g}" for s in box["box_size"])],
        ["voxel [Mpc/h]", f"{box['voxel']:.4g}"],
        ["redshift", f"{box['redshift']:g}"],
    ]
    for key, value in (numbers["painting"] or {}).items():
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            rows.append([key.replace("_", " "), f"{value}"])
    others = [("truth", numbers["truth"]), *(("realization", r) for r in numbers["realizations"])]
    return rows + [[name, path] for name, path in others if path is not None]
