"""The numbers of speed.py as tables in Markdown."""

from __future__ import annotations

from typing import Any

SIDES = ("reference", "bigbox")
TITLES = {
    "bench": "`bigbox bench`: seconds; operations and bytes, a second",
    "exact": "The fast path against float64, the same noise",
    "large": "The same in a larger box, against float32",
    "linear": "Copies of the shipped box, dm to T_b",
}


def markdown(results: dict[str, Any]) -> str:
    """The tables, as SPEED.md has them, of what speed.py left in its JSON file."""
    lines: list[str] = []
    rows = [(name, box, row) for name in SIDES for box, row in results.get(name, {}).items()]
    if rows:
        lines += ["## dm to T_b: the paper's recipe, and `bigbox paint`", ""]
        lines += _heads(["", "box", "s", "voxels a second"], rows[0][2])
        for name, box, row in rows:
            start = f"{name} | {box} | {row['seconds']:.0f} | {row['voxels a second']:,.0f}"
            lines.append(f"| {start} | {_judged(row)} |")
        lines += ["", _meaning(rows[0][2]["draws"]), ""]
        took = {n: sum(row["seconds"] for m, _, row in rows if m == n) for n in SIDES}
        if all(took.values()):
            ratio = took["reference"] / took["bigbox"]
            lines += [f"bigbox paints {ratio:.1f} times as fast.", ""]
    if two := results.get("old"):
        lines += ["## dm to T_b: the shipped model, and another", ""]
        heads = ["", "weights", "tiles", "wall time, s", "CPU time, s"]
        lines += _heads(heads, two["shipped"])
        for name, row in two.items():
            took = [", ".join(f"{s:.1f}" for s in row[one]) for one in ("wall", "cpu")]
            start = f"{name} | {row['weights']} | {row['tiles']} | {took[0]} | {took[1]}"
            lines.append(f"| {start} | {_judged(row)} |")
        meaning = _meaning(two["shipped"]["draws"])
        lines += [
            "",
            f"`mpirun -n {two['shipped']['ranks']} bigbox paint`, in turns. {meaning}",
            "",
        ]
    for name, title in TITLES.items():
        if name in results:
            lines += [f"## {title}", "", "| | |", "|---|---|"]
            told = {k: v for k, v in results[name].items() if k not in ("host", "model", "date")}
            lines += [f"| {key} | {_text(value)} |" for key, value in told.items()]
            lines.append("")
    return "\n".join(lines)


def _heads(first: list[str], row: dict[str, Any]) -> list[str]:
    heads = [*first, "seam", "mean", *(f"k = {x:.1f}" for x in row["k"])]
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]


def _judged(row: dict[str, Any]) -> str:
    pairs = zip(row["ratio"], row["r"], strict=True)
    cells = [f"{row['seam']:.3f}", f"{row['mean']:.2f}", *(f"{p:.2f} ({r:.2f})" for p, r in pairs)]
    return " | ".join(cells)


def _meaning(draws: int) -> str:
    of = f"that of {draws} draws of the truth's HI" if draws > 1 else "the truth's"
    return f"P(k) over {of}, in brackets r(k) with the truth; k in h/Mpc; a seam of 1 is none."


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(_text(v) for v in value) if isinstance(value, list) else str(value)
