"""Write pages for a browser from sections of words, tables, tiles and pictures.

Whoever builds a page computes its words first and hands them over as the parts below. HTML and style stand here alone.
A page needs no other file and no network.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment
from matplotlib.figure import Figure

__all__ = [
    "RIGHT",
    "WRONG",
    "Cell",
    "Heading",
    "Legend",
    "Picture",
    "Section",
    "Table",
    "Tiles",
    "Words",
    "write_page",
]

RIGHT, WRONG = "#13804a", "#c02a2a"

PAGE = """\
{%- macro styled(cell) -%}
{{ cell.text }}{% if cell.note %} <span class="note">{{ cell.note }}</span>{% endif %}
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style|safe }}</style></head><body><main>
{% for section in sections %}
<section>
<div class="head"><h{{ 1 if loop.first else 2 }}>{{ section.title }}</h{{ 1 if loop.first else 2 }}>
{%- if section.badge %} <span class="badge {{ section.badge.kind }}">{{ section.badge.text }}</span>
{%- if section.badge.note %} <span class="quiet">{{ section.badge.note }}</span>{% endif %}{% endif -%}
</div>
{% for part in section.parts %}
{% if part.name == "heading" %}
<h3>{{ part.text }}</h3>
{% elif part.name == "words" %}
<p{% if part.is_quiet %} class="quiet"{% endif %}>
{%- for piece in part.pieces %}<span class="{{ piece.kind }}">{{ styled(piece) }}</span>{% endfor %}</p>
{% elif part.name == "legend" %}
<p class="quiet">
{%- for colour, text in part.entries %}
<span class="key" style="color: {{ colour }}"></span> {{ text }}
{% endfor %}</p>
{% elif part.name == "picture" %}
<img alt="{{ part.alt }}" src="{{ part.source }}">
{% elif part.name == "tiles" %}
<div class="tiles">
{%- for value, text in part.entries %}<div class="tile"><b>{{ value }}</b> <span>{{ text }}</span></div>{% endfor -%}
</div>
{% elif part.name == "table" %}
<div class="scroll"><table><tr>{% for text in part.head %}<th>{{ text }}</th>{% endfor %}</tr>
{% for line in part.lines %}
<tr>{% for cell in line %}<td class="{{ cell.kind }}"{% if cell.bar %} style="{{ cell.bar }}"{% endif %}>
{{- styled(cell) }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main></body></html>
"""
STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f3f5f9; color: #1d2433; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 27px; margin: 0; letter-spacing: -0.01em; }} h2 {{ font-size: 19px; margin: 0; }}
h3 {{ font-size: 15px; margin: 18px 0 6px; }}
section {{ background: #fff; border: 1px solid #e3e7ee; border-radius: 12px; padding: 20px 24px; margin-top: 18px; }}
p {{ margin: 0 0 10px; }} .quiet {{ color: #667085; font-size: 13.5px; }} .scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th {{ text-align: left; font-size: 12.5px; font-weight: 600; color: #667085; vertical-align: bottom; }}
th, td {{ padding: 6px 10px; border-bottom: 1px solid #edf0f5; }} tr:last-child td {{ border-bottom: 0; }}
td.bar {{ min-width: 92px; white-space: nowrap; }}
td.bar {{ background-repeat: no-repeat; background-size: 100% 72%; background-position: 0 50%; }}
.strong, td.best {{ font-weight: 700; }} .note {{ color: #667085; font-weight: 400; font-size: 12px; }}
.right {{ color: {RIGHT}; font-weight: 600; }} .wrong {{ color: {WRONG}; font-weight: 600; }}
.verdict {{ white-space: nowrap; }}
.head {{ display: flex; gap: 16px; align-items: center; flex-wrap: wrap; margin: 0 0 12px; }}
.badge {{ border-radius: 999px; padding: 4px 14px; color: #fff; font-weight: 700; }}
.badge.right {{ background: {RIGHT}; }} .badge.wrong {{ background: {WRONG}; }}
.tiles {{ display: flex; gap: 12px; flex-wrap: wrap; }}
.tile {{ flex: 1 1 150px; background: #f7f8fb; border-radius: 10px; padding: 12px 14px; }}
.tile b {{ display: block; font-size: 21px; }} .tile span {{ color: #667085; font-size: 13px; }}
.key {{ display: inline-block; width: 22px; height: 0; border-top: 4px solid; vertical-align: middle; }}
img {{ display: block; width: 100%; height: auto; margin: 8px 0; }}
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table, or a piece of a paragraph.

    Args:
        text: Words.
        kind: Classes of the style sheet, such as `right`, `wrong`, `quiet`, `strong`, `best` or `verdict`.
        note: Small words behind the text.
        bar: Background of the cell, see `Cell.with_bar`.
    """

    text: str
    kind: str = ""
    note: str = ""
    bar: str = ""

    @classmethod
    def with_bar(cls, text: str, share: float, colour: str, kind: str = "", note: str = "") -> "Cell":
        """Return a cell over a bar, whose length is a share of its width."""
        length = f"{100 * share:.0f}%"
        return cls(
            text, f"bar {kind}", note, f"background-image: linear-gradient(90deg, {colour} {length}, #0000 {length})"
        )


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    name: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Words:
    """A paragraph; pieces that are strings have no style."""

    name: ClassVar[str] = "words"
    text: str | Sequence[str | Cell]
    is_quiet: bool = False

    @property
    def pieces(self) -> list[Cell]:
        """All pieces as cells."""
        pieces = [self.text] if isinstance(self.text, str) else self.text
        return [Cell(piece) if isinstance(piece, str) else piece for piece in pieces]


@dataclass(frozen=True)
class Legend:
    """Colours and what they mean."""

    name: ClassVar[str] = "legend"
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tiles:
    """Large figures, each with its meaning below."""

    name: ClassVar[str] = "tiles"
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table; cells that are strings have no style."""

    name: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]

    @property
    def lines(self) -> list[list[Cell]]:
        """All rows as cells."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Picture:
    """A figure of matplotlib, with words for readers who cannot see it."""

    name: ClassVar[str] = "picture"
    alt: str
    figure: Figure

    @property
    def source(self) -> str:
        """The picture as a `data:` address."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Section:
    """A box of the page; the first one has the title of the page.

    Args:
        title: Heading of the section.
        parts: Parts from top to bottom.
        badge: Verdict beside the heading, of kind `right` or `wrong`.
    """

    title: str
    parts: Sequence[Heading | Words | Legend | Tiles | Table | Picture]
    badge: Cell | None = None


def write_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write a page and return its path."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    path.write_text(template.render(title=title, style=STYLE, sections=sections), encoding="utf-8")
    return path
