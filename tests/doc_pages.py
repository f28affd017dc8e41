"""Pages of the documentation, read for the tests of `tests/docs`: code blocks by name, links, headings, tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
# Hand-written pages. Those of the API are made from docstrings; of `docs/study/` only links are checked, because what
# its pages name was there when the study ran.
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
ROOT_PAGES = [
    README,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "GPU.md",
    REPOSITORY / "SECURITY.md",
    REPOSITORY / "examples" / "README.md",
]
PAGES = ROOT_PAGES + DOCS

FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n\n?)?^```(?P<language>\w*)(?: title=\"(?P<name>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block.

    Args:
        page: File that holds it.
        language: "python", "bash" and so on.
        name: Its title; None if it has none.
        code: Its lines.
        reason: Why it is not run, from the comment before it; None where it is.
    """

    page: Path
    language: str
    name: str | None
    code: str
    reason: str | None


def read(page: Path) -> str:
    """Text of a page."""
    return page.read_text(encoding="utf-8")


def find_blocks(*languages: str, pages: list[Path] | None = None) -> list[Block]:
    """Code blocks of these languages, in the order of the pages."""
    return [
        Block(page, fence["language"], fence["name"], fence["code"], fence["reason"])
        for page in (PAGES if pages is None else pages)
        for fence in FENCE.finditer(read(page))
        if fence["language"] in languages
    ]


def prose(page: Path) -> str:
    """Text of a page without its code blocks."""
    return FENCE.sub("", read(page))


def find_links(page: Path) -> list[tuple[str, str]]:
    """Pairs of text and target, pictures included."""
    return re.findall(r"\[([^\]]*)\]\(([^)]+)\)", prose(page))


def find_anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_table(page: str, heading: str, index: int = 0) -> list[list[str]]:
    """Cells of a table under a heading of a page of `docs`, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", read(REPOSITORY / "docs" / page), flags=re.MULTILINE)[1]
    rows = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[index].splitlines()[2:]
    return [[cell.strip() for cell in row.strip().strip("|").split(" | ")] for row in rows]


def quoted(page: Path) -> Iterator[str]:
    """What stands in backquotes in the prose of a page."""
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))
