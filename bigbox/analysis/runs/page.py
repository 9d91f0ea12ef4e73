"""Write the page of a run from what its first rank wrote down: see `bigbox.store.watch`.

::

    rank 0  ████▒▒██████░░░   a column for each look, darker the more of it the rank painted
    rank 1  ███████████████
    done    ............///   units done over time
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import bigbox
from bigbox.analysis.report.page import render
from bigbox.errors import BadInput
from bigbox.store.box import Box

Float = npt.NDArray[np.float64]

MOST_ROWS = 64  # of the timeline; more ranks share rows
WIDTH, ROW, MARGIN = 1000.0, 14.0, 80.0  # of the drawing, pixels


@dataclass(frozen=True)
class Cell:
    """A part of the timeline: place, size, opacity, and what is told of it."""

    x: float
    y: float
    width: float
    height: float
    share: float
    said: str


def busy_shares(found: Mapping[str, Any]) -> tuple[Float, Float]:
    """Return the moments between looks (n + 1,) in seconds, and busy shares (n, ranks), 0 to 1."""
    line = found["timeline"]
    moments = np.concatenate([[0.0], np.asarray(line["seconds"], float)])
    busy = np.asarray(line["busy"], float).reshape(-1, found["ranks"])
    busy = np.vstack([np.zeros(found["ranks"]), busy])
    keep = np.concatenate([[True], np.diff(moments) > 0])
    moments, busy = moments[keep], busy[keep]
    return moments, np.clip(np.diff(busy, axis=0) / np.diff(moments)[:, None], 0.0, 1.0)


def rows_of(ranks: int) -> list[slice]:
    """Return the ranks that share each row of the timeline."""
    each = -(-ranks // MOST_ROWS)
    return [slice(low, min(low + each, ranks)) for low in range(0, ranks, each)]


def write_page(box: Box, found: Mapping[str, Any], out: Path) -> None:
    """Write the page. Raises BadInput where it cannot be."""
    moments, shares = busy_shares(found)
    rows = rows_of(found["ranks"])
    span = float(moments[-1]) or 1.0
    scale = (WIDTH - MARGIN) / span
    cells = [
        Cell(
            MARGIN + scale * float(moments[column]),
            number * ROW,
            scale * float(moments[column + 1] - moments[column]),
            ROW - 1,
            float(shares[column, row].mean()),
            f"{_name(row)}, {moments[column]:.0f} to {moments[column + 1]:.0f} s: busy"
            f" {100 * shares[column, row].mean():.0f} %",
        )
        for number, row in enumerate(rows)
        for column in range(len(shares))
    ]
    names = [(_name(row), number * ROW + ROW - 3) for number, row in enumerate(rows)]
    text = json.dumps(found, indent=1)
    state = found["state"] + (f": {found['said']}" if found["said"] else "")
    page = render(
        Path(__file__).with_name("page.html"),
        out.parent,
        command="status --report",
        title=f"Run {found['run']} of {box.place.name}",
        headline=f"{state}, {found['ranks']} ranks, {found['seconds']:.0f} s, on {found['host']}",
        notes=_notes(found),
        numbers={"bigbox": bigbox.__version__, "made": found["time"]},
        made_of=[("what", "value"), ("box", str(box.place)), ("last written", found["time"])],
        json=b64encode(text.encode()).decode(),
        drawn=[],
        cells=cells,
        names=names,
        width=WIDTH,
        height=len(rows) * ROW,
        span=f"{span:.0f} s",
        curves=_curves(found, span),
        work=_work(found),
        ranks=_ranks(found),
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None


def _name(row: slice) -> str:
    last = row.stop - 1
    return f"rank {row.start}" if last == row.start else f"ranks {row.start}-{last}"


def _notes(found: Mapping[str, Any]) -> list[str]:
    about = found["now"]
    said = [f"rank {rank} takes {times:.1f} times the usual" for rank, times in
            about["slow"].items()]  # fmt: skip
    said += [f"rank {rank} has said nothing for {s:.0f} s" for rank, s in about["silent"].items()]
    return ["; ".join(said)] if said else []


def _work(found: Mapping[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("unit", "done", "in all", "a second")]
    for one in found["now"]["work"]:
        if one["noun"] and one["total"]:
            done, total = f"{one['done']:,}", f"{one['total']:,}"
            rows.append((f"{one['noun']}s", done, total, f"{one['rate']:.2f}"))
    return rows


def _ranks(found: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return a row for each rank; of very many those that were least busy."""
    units = np.array([one["done"] for one in found["work"]]).reshape(-1, found["ranks"])
    busy = np.asarray(found["busy"], float)
    nouns = [one["noun"] or "other" for one in found["work"]]
    order = np.argsort(busy, kind="stable")[:256] if len(busy) > 256 else np.arange(len(busy))
    seconds = float(found["seconds"]) or 1.0
    rows: list[Sequence[str]] = [("rank", "busy", *(f"{noun}s" for noun in nouns))]
    for rank in order.tolist():
        share = f"{100 * busy[rank] / seconds:.1f} %"
        rows.append((str(rank), share, *(f"{count:,}" for count in units[:, rank].tolist())))
    return rows


def _curves(found: Mapping[str, Any], span: float) -> list[dict[str, str]]:
    """Return lines of units done over time, each scaled to its own total."""
    line, curves = found["timeline"], []
    for number, one in enumerate(found["work"]):
        if not (one["noun"] and one["total"]):
            continue
        points = [(0.0, one["already"] / one["total"])]
        for moment, done in zip(line["seconds"], line["done"], strict=True):
            new = sum(of_rank[number] for of_rank in done)
            points.append((moment / span, (one["already"] + new) / one["total"]))
        places = (f"{MARGIN + (WIDTH - MARGIN) * x:.1f},{150 - 140 * y:.1f}" for x, y in points)
        curves.append({"noun": f"{one['noun']}s", "points": " ".join(places)})
    return curves
