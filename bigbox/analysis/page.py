"""The report of `bigbox validate` as one HTML page that needs nothing but itself.

Figures are inline PNGs, the numbers an inline download. The layout is one column on a phone and a
grid on a laptop: every figure is drawn one column wide, so that its text keeps its size.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2


@dataclass(frozen=True)
class Shown:
    """A figure: its PNG file, what it shows (the alternative text), and what to look for."""

    file: Path
    title: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, words under it, rows of a table (the first row is its head), and figures."""

    title: str
    words: str = ""
    table: Sequence[Sequence[str]] = ()
    figures: Sequence[Shown] = ()


def write_page(
    out: Path, numbers: Mapping[str, Any], sections: Sequence[Section], notes: Sequence[str]
) -> None:
    """Write `out`; numbers: the whole report (see `bigbox.analysis.validate`); notes: warnings."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    text = environment.from_string(_PAGE).render(
        numbers=numbers,
        sections=sections,
        notes=notes,
        json=_base64(json.dumps(numbers, indent=1).encode()),
    )
    out.write_text(text, encoding="utf-8")


def _inline(file: Path) -> str:
    return "data:image/png;base64," + _base64(file.read_bytes())


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ numbers.box.name }}: bigbox validate</title>
<style>
:root { --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --good: #0b6e4f; --bad: #a4133c;
        --warn-bg: #fff6da; --warn: #6b4e00; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1240px; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 36px 0 4px; padding-top: 12px; border-top: 1px solid var(--line); }
p { max-width: 72ch; margin: 8px 0; }
.soft, figcaption { color: var(--soft); }
.verdict { margin: 16px 0; padding: 12px 16px; border-left: 6px solid; border-radius: 4px;
           background: #f6f8fa; }
.verdict strong { font-size: 1.15rem; }
.verdict.pass { border-color: var(--good); } .verdict.fail { border-color: var(--bad); }
.pass strong, td.pass { color: var(--good); } .fail strong, td.fail { color: var(--bad); }
td.pass, td.fail { font-weight: 600; }
.note { margin: 16px 0; padding: 12px 16px; border-radius: 4px; background: var(--warn-bg);
        color: var(--warn); }
.note p { margin: 0; }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { font-weight: 600; }
.figures { display: grid; gap: 20px; margin: 16px 0;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); }
figure { margin: 0; }
figure img { display: block; width: 100%; max-width: 560px; height: auto; }
figcaption { font-size: 0.9rem; line-height: 1.4; margin-top: 4px; max-width: 60ch; }
a { color: #0a58a6; }
footer { margin-top: 40px; padding-top: 12px; border-top: 1px solid var(--line);
         color: var(--soft); font-size: 0.9rem; }
@media print { figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>{{ numbers.box.name }}</h1>
<p class="soft">{{ numbers.headline }}</p>
</header>
{% for note in notes %}
<div class="note"><p>{{ note }}</p></div>
{% endfor %}
<div class="verdict {{ 'pass' if numbers.pass else 'fail' }}">
<strong>{{ 'Pass' if numbers.pass else 'Fail' }}</strong>: {{ numbers.verdict }}
</div>
<div class="wide"><table>
<tr><th>Check</th><th>Found</th><th>Limit</th><th>Verdict</th></tr>
{% for check in numbers.checks %}
<tr><td>{{ check.what }}</td><td>{{ check.found }}</td><td>{{ check.allowed }}</td>
{% set word = 'pass' if check.passed else 'fail' %}
<td class="{{ word }}">{{ word }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">{{ numbers.errors }}</p>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.words %}<p>{{ section.words }}</p>{% endif %}
{% if section.table %}
<div class="wide"><table>
<tr>{% for cell in section.table[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.table[1:] %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if section.figures %}
<div class="figures">
{% for figure in section.figures %}
<figure><img src="{{ figure.file | inline }}" alt="{{ figure.title }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
</section>
{% endfor %}
<footer>
Made by bigbox {{ numbers.bigbox }} on {{ numbers.made }}.
<a download="numbers.json" href="data:application/json;base64,{{ json }}">All numbers as JSON</a>
</footer>
</body>
</html>
"""
