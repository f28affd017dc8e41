"""What `make docs` adds to MkDocs; skipped where the extra `docs` is not installed."""

import importlib
import sys

import pytest
from doc_pages import REPOSITORY

pytest.importorskip("mkdocs")
pytest.importorskip("griffe")


@pytest.fixture(scope="module")
def plugins():
    """The modules of docs/_plugins, which MkDocs loads by their path."""
    sys.path.insert(0, str(REPOSITORY / "docs" / "_plugins"))
    try:
        yield importlib.import_module("reference"), importlib.import_module("site_hook")
    finally:
        sys.path.pop(0)


def test_shapes_become_a_list_and_examples_a_section(plugins):
    reference, _ = plugins
    shape = "Shape:\n    depth: (N, H), metres;\n        0 = none.\n    output:  scalar.\n"
    docstring = f"Mean.\n\n{shape}\nExample:\n    >>> 1\n    1\n"
    rendered = reference.render_blocks(docstring)
    assert "Shape:\n    - `depth`: (N, H), metres;\n        0 = none.\n    - `output`: scalar.\n" in rendered
    assert rendered.endswith("Examples:\n    >>> 1\n    1\n")


@pytest.mark.parametrize("package", ["processing", "trainer", "trainer.losses", "modeling_ide3d"])
def test_public_names_are_those_of_the_package(plugins, package):
    reference, _ = plugins
    init = REPOSITORY.joinpath(*package.split("."), "__init__.py")
    assert sorted(reference.read_public_names(init)) == sorted(importlib.import_module(package).__all__)


def test_links_out_of_code_blocks_are_changed_alone(plugins):
    _, hook = plugins
    text = "[a](../x.py#y) ![b](c.png) [d](https://e.f)\n\n```text\n[a](../x.py)\n```\n"
    changed = hook._each_link(text, lambda target: target.upper())
    assert changed == "[a](../X.PY#y) ![b](C.PNG) [d](https://e.f)\n\n```text\n[a](../x.py)\n```\n"


@pytest.mark.parametrize(
    ("html", "address"),
    [
        ('<script src="https://a.b/c.js"></script>', ["https://a.b/c.js"]),
        ('<link rel="stylesheet" href=//a.b/c.css>', ["//a.b/c.css"]),
        ('<a href="https://a.b">', []),
        ('<img src="assets/c.png">', []),
    ],
)
def test_what_a_page_would_load_from_the_network_is_found(plugins, html, address):
    _, hook = plugins
    assert hook.LOADED.findall(html) == address
