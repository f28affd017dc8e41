"""Words of data and models are no markup in any report."""

import re
from html.parser import HTMLParser

import pytest

from trainer.evaluation.pages import (
    Cell,
    Code,
    Figure,
    Heading,
    Items,
    Legend,
    Page,
    Section,
    Table,
    Text,
    Tiles,
    render_html,
    render_markdown,
)

WORDS = [
    '<script>alert("x")</script>',
    "<img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "'><iframe src=javascript:alert(1)>",
    "</title></style><script>x</script>",
    "{{ 7 * 7 }} {% raw %} &lt;script&gt;",
    "`<i>` **<u>** ``<script>`",
    "\\`<script>`",
    "a`b``c`<script>`",
    "`one\n\n<script>`",
    "![x](http://127.0.0.1/a.png) [y](javascript:alert(1))",
]


def page_of(word: str) -> Page:
    """A page with a word in every place that data or a model can reach."""
    cell = Cell(word, note=word)
    blocks = [
        Text(word),
        Text([word, cell]),
        Heading(word),
        Items([word]),
        Table([word], [[word], [cell]]),
        Tiles([(word, word)]),
        Legend([("#ff0000", word)]),
        Figure("pictures/00.jpg", word, word, "wrong", [(word, word)]),
        Code(word),
    ]
    return Page(word, [Section(word, blocks)], subtitle=word, badge=(word, "wrong"), introduction=[Text(word)])


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.found |= {name for name, value in attrs if name.startswith("on")}
        self.found |= {value for name, value in attrs if name in ("src", "href") and value}


@pytest.mark.parametrize("word", WORDS)
def test_no_word_becomes_a_tag_of_the_page(word):
    plain = Tags(render_html(page_of("plain `code` **strong**"))).found
    assert Tags(render_html(page_of(word))).found <= plain
    assert "49" not in render_html(page_of("{{ 7 * 7 }}"))


def without_code(markdown: str) -> str:
    """Markdown without its code: fences, then spans between runs of backticks of one length."""
    text = re.sub(r"(?ms)^(`{3,})[^`\n]*\n.*?^\1`*$", "", markdown)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(re.sub(r"(?<![`\\])(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", part, flags=re.S) for part in paragraphs)


@pytest.mark.parametrize("word", WORDS)
def test_no_word_becomes_a_tag_a_link_or_a_picture_of_markdown(word):
    left = without_code(render_markdown(page_of(word)))
    assert not re.findall(r"(?<!\\)<[a-zA-Z/!]", left)
    assert set(re.findall(r"\]\(([^)]*)\)", left)) <= {"pictures/00.jpg"}
