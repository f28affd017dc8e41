"""Pages for people: headings, words, tables, figures and bars, as HTML in one style and as Markdown.

A page is data (`Page`, `Section` and the blocks of a section), so that one description gives both forms. Words are
escaped. In them, `code` between backticks and **words between two stars** are marked; a `Markup` stands as it is.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from processing.tables import NOTHING, markdown_table

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "RIGHT",
    "WRONG",
    "Block",
    "Cell",
    "Code",
    "Figure",
    "Heading",
    "Items",
    "Legend",
    "Page",
    "Section",
    "Table",
    "Text",
    "Tiles",
    "Tone",
    "embed_figure",
    "render_html",
    "render_markdown",
    "share_cell",
]

RIGHT, WRONG = "#13804a", "#c02a2a"  # colours of what is right and wrong, for figures as well
CODE, STRONG = re.compile(r"`([^`]+)`"), re.compile(r"\*\*([^*]+)\*\*")

Tone = Literal["", "right", "wrong", "quiet"]


@dataclass(frozen=True)
class Cell:
    """Cell of a table, or words of a paragraph.

    Args:
        text: Words or a number.
        tone: Colour of the words.
        is_strong: Whether the words are bold, as the best number of a row is.
        bar: Length of a bar behind the words, from 0 to 1; None for no bar.
        is_main: Whether the bar has the stronger of two colours.
        note: Small words behind the text, such as a band.
    """

    text: str
    tone: Tone = ""
    is_strong: bool = False
    bar: float | None = None
    is_main: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{f'**{self.text}**' if self.is_strong else self.text} {self.note}".rstrip()


@dataclass(frozen=True)
class Table:
    """Table with a head.

    Args:
        head: Titles of the columns; no head is shown where all are empty.
        rows: Cells of each row: words, or a `Cell`.
        align: "l" or "r" for each column from the first; "l" for those that are not named.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    align: str = ""

    def cells(self) -> list[list[Cell]]:
        """Return the rows with a `Cell` at each place."""
        return [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Text:
    """Paragraph.

    Args:
        text: Words, or pieces of them; a `Cell` among the pieces has its own tone and weight, and no bar.
        tone: Colour of the words.
    """

    kind: ClassVar[str] = "text"
    text: str | Sequence[str | Cell]
    tone: Tone = ""

    def pieces(self) -> Sequence[str | Cell]:
        """Return the pieces of the text, which may be one."""
        return [self.text] if isinstance(self.text, str) else self.text


@dataclass(frozen=True)
class Heading:
    """Heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Items:
    """List of short sentences."""

    kind: ClassVar[str] = "items"
    entries: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text of a file, letter by letter; `language` colours it in Markdown."""

    kind: ClassVar[str] = "code"
    text: str
    language: str = ""


@dataclass(frozen=True)
class Tiles:
    """Large figures in a row, each with words below it."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Legend:
    """Colours of a figure, each with what it stands for."""

    kind: ClassVar[str] = "legend"
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """Picture with a caption; with a title it stands in a frame of its own.

    Args:
        source: Path beside the page, or a `data:` address.
        caption: Words below the picture, also for those who cannot see it.
        title: Words above the picture.
        tone: Colour of the frame.
        lines: Label and text of each line below the caption.
    """

    kind: ClassVar[str] = "figure"
    source: str
    caption: str
    title: str = ""
    tone: Tone = ""
    lines: Sequence[tuple[str, str]] = ()


Block = Table | Text | Heading | Items | Code | Tiles | Legend | Figure


@dataclass(frozen=True)
class Section:
    """Part of a page with a title."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """Page of sections.

    Args:
        title: Title of the page.
        sections: Sections from top to bottom.
        subtitle: Quiet words behind the title.
        badge: Verdict beside the title with its tone, such as ("passed", "right").
        introduction: Blocks below the title.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    badge: tuple[str, Tone] | None = None
    introduction: Sequence[Block] = ()


def share_cell(
    share: float | None, *, is_main: bool = False, is_strong: bool = False, count: int | None = None
) -> Cell:
    """Return a cell with a share as a percentage over a bar.

    Args:
        share: Share from 0 to 1; None where there is none.
        is_main: See `Cell`.
        is_strong: See `Cell`.
        count: Number of answers behind the share, for its standard error.

    Raises:
        ValueError: If the share lies outside 0 to 1.
    """
    if share is None:
        return Cell(NOTHING, tone="quiet")
    if not 0 <= share <= 1:
        raise ValueError(f"A share must be from 0 to 1, got {share!r}. Is it a percentage?")
    note = f"\u00b1 {100 * (share * (1 - share) / count) ** 0.5:.0f}" if count else ""
    return Cell(f"{100 * share:.0f}%", is_strong=is_strong, bar=share, is_main=is_main, note=note)


def embed_figure(figure: "matplotlib.figure.Figure") -> str:
    """Return a figure of matplotlib as a `data:` address, the source of a `Figure`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render_html(page: Page) -> str:
    """Return a page as one HTML file that needs nothing but the pictures it names."""
    return _environment("html").get_template("page.html").render(page=page, right=RIGHT, wrong=WRONG)


def render_markdown(page: Page) -> str:
    """Return a page as Markdown; colours and bars are left out."""
    text = _environment("markdown").get_template("page.md").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment(form: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.evaluation"),
        autoescape=form == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["words"] = _html_words if form == "html" else _markdown_words
    environment.globals |= {"markdown_table": _markdown_table, "markdown_text": _markdown_text, "fence": _fence}
    return environment


def _html_words(text: str) -> Markup:
    if isinstance(text, Markup):
        return text
    return Markup(STRONG.sub(r"<strong>\1</strong>", CODE.sub(r"<code>\1</code>", str(escape(text)))))


def _markdown_table(table: Table) -> str:
    rows = [[_markdown_words(str(cell)) for cell in row] for row in table.cells()]
    return markdown_table([_markdown_words(title) for title in table.head], rows, table.align)


def _markdown_text(block: Text) -> str:
    # Together: a backtick in one piece would end code in the next.
    pieces = block.pieces()
    return _markdown_words(pieces[0] if len(pieces) == 1 else "".join(map(str, pieces)))


def _fence(text: str) -> str:
    """Return the line that opens and closes code, longer than any such line in it."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _markdown_words(text: str) -> str:
    """Keep words from being taken for HTML, links or pictures, in code and `Markup` apart."""
    if isinstance(text, Markup):
        return str(text)
    # Where code begins and ends is plain only without such runs, escapes and lines.
    has_code = not any(mark in text for mark in ("``", "\\`", "\n"))
    parts = re.split(r"(`[^`]+`)", text) if has_code else [text]
    return "".join(
        part if index % 2 else part.replace("<", "\\<").replace("](", "]\\(") for index, part in enumerate(parts)
    )
