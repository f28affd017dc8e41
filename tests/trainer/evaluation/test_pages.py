"""One description of a page gives HTML and Markdown, and no word of a stranger becomes a tag of either."""

import base64
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

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
    embed_figure,
    render_html,
    render_markdown,
    share_cell,
)

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Tags of a page with their attributes; every tag must be closed in its turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    def classes(self, tag):
        return [attrs.get("class", "").split() for name, attrs in self.found if name == tag]


def page(*blocks, **options):
    return Page("Title", [Section("Part", blocks)], **options)


def test_every_block_is_in_both_forms():
    blocks = [
        Text("A sentence with `code` and **weight**.", "quiet"),
        Heading("Below"),
        Items(["first", "second"]),
        Table(["name", "n"], [["a", "5"], ["b", Cell("6.0", note="5 to 7")]], "lr"),
        Tiles([("12 %", "of something")]),
        Legend([("#ff0000", "found")]),
        Figure("pictures/00.jpg", "Frame 0.", "Right: 7", "right", [("answer", "red")]),
        Figure("data:image/png;base64,AA", "A curve."),
        Code("key: value\n", "yaml"),
    ]
    whole = page(*blocks, subtitle="12 rooms", badge=("PASSED", "right"), introduction=[Text("What this is.")])
    html, markdown = Reader(render_html(whole)), render_markdown(whole)
    for words in ("Below", "second", "5 to 7", "12 %", "found", "Right: 7", "Frame 0.", "A curve.", "key: value"):
        assert words in " ".join(html.words) and words in markdown, words
    for words in ("Title", "PASSED", "12 rooms", "What this is.", "Part"):
        assert words in " ".join(html.words) and words in markdown, words
    assert [attrs["src"] for tag, attrs in html.found if tag == "img"] == [
        "pictures/00.jpg",
        "data:image/png;base64,AA",
    ]
    assert ("code", {}) in html.found and ("strong", {}) in html.found
    assert "![Frame 0.](pictures/00.jpg)" in markdown and "```yaml\nkey: value\n```" in markdown
    assert "\n\n\n" not in markdown


def test_words_of_strangers_are_no_tags():
    word = '<script>alert("x")</script> `<i>` **<u>**'
    whole = Page(
        word,
        [
            Section(
                word,
                [
                    Text(word),
                    Items([word]),
                    Table([word], [[word], [Cell(word, note=word)]]),
                    Tiles([(word, word)]),
                    Figure(word, word, word, "wrong", [(word, word)]),
                    Code(word),
                ],
            )
        ],
        subtitle=word,
        badge=(word, "wrong"),
    )
    tags = {tag for tag, _ in Reader(render_html(whole)).found}
    assert not tags & {"script", "i", "u"} and "code" in tags
    markdown = render_markdown(Page("t", [Section("s", [Text("Is it <ground>? `<ground>`"), Table(["<b>"], [])])]))
    assert "Is it \\<ground>? `<ground>`" in markdown and "| \\<b> |" in markdown


def test_words_of_a_paragraph_have_tones_of_their_own():
    found = ["Found a <lamp>, ", Cell("`7`", "right", is_strong=True), ", ", Cell("said", note="2 of 3")]
    whole = page(Text(found, "quiet"))
    html = Reader(render_html(whole))
    assert "".join(html.words).split("Part")[1].split() == "Found a <lamp>, 7, said 2 of 3".split()
    assert ["quiet"] in html.classes("p") and ["strong", "right"] in html.classes("span")
    assert "Found a \\<lamp>, **`7`**, said 2 of 3\n" in render_markdown(whole)


def test_a_figure_is_embedded():
    class Plot:
        def savefig(self, file, format):
            file.write(f"a {format}".encode())

    assert embed_figure(Plot()) == "data:image/png;base64," + base64.b64encode(b"a png").decode()


def test_markup_stands_as_it_is():
    whole = page(Text(Markup("<em>own</em>")))
    assert "<em>own</em>" in render_html(whole) and "<em>own</em>" in render_markdown(whole)


def test_cells_have_bars_tones_and_sides():
    best = share_cell(0.25, is_main=True, is_strong=True, count=75)
    row = ["closer", best, Cell("worse", "wrong"), share_cell(None)]
    html = Reader(render_html(page(Table(["kind", "share", "verdict", "other"], [row], "lr"))))
    (bar,) = [attrs["style"] for tag, attrs in html.found if tag == "td" and "style" in attrs]
    assert "25.0%" in bar and "\u00b1 5" in html.words
    assert html.classes("td") == [[], ["r", "strong", "bar"], ["wrong"], ["quiet"]]
    assert html.classes("th") == [[], ["r"], [], []]


def test_a_table_without_titles_has_no_head():
    assert "<th" not in render_html(page(Table(["", ""], [["parameters", "5"]])))


def test_a_percentage_is_no_share():
    with pytest.raises(ValueError, match="from 0 to 1, got 63.0. Is it a percentage"):
        share_cell(63.0)
