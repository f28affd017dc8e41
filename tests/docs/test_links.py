"""What README and docs point at is there: files, headings, tests, names, error messages."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from doc_pages import DOCS, PAGES, README, REPOSITORY, find_anchors, find_links, quoted, read

ALL_PAGES = sorted({*PAGES, *(REPOSITORY / "docs").rglob("*.md")} - set((REPOSITORY / "docs" / "api").glob("*.md")))
PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer")
API = sorted((REPOSITORY / "docs" / "api").glob("*.md"))


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    missing = []
    for _, target in find_links(page):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        is_there = path.is_dir() if name.endswith("/") else path.is_file()
        if not is_there or (anchor and anchor not in find_anchors(path)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_every_page_is_reached_from_the_readme_and_in_the_site(page):
    assert (f"docs/{page.name}") in {target.partition("#")[0] for _, target in find_links(README)}
    assert f" {page.name}\n" in read(REPOSITORY / "mkdocs.yml")


def test_site_has_an_api_page_for_each_package_that_is_public():
    site = read(REPOSITORY / "mkdocs.yml")
    for page in API:
        assert f" api/{page.name}\n" in site
        names = re.findall(r"^::: ([\w.]+)$", read(page), re.MULTILINE)
        assert names and all(importlib.import_module(name).__all__ for name in names)
    assert {page.stem for page in API} >= {*PACKAGES, "trainer.losses", "trainer.session", "trainer.geometry"}


def test_named_tests_are_in_the_linked_files():
    links = [(page, text.strip("`"), target) for page in PAGES for text, target in find_links(page)]
    named = [(page.parent / target, text) for page, text, target in links if re.match(r"test_\w+(\.py)?$", text)]
    functions = [(path, name) for path, name in named if not name.endswith(".py")]
    assert functions and len(named) > len(functions)
    for path, name in functions:
        assert f"def {name}(" in path.read_text(encoding="utf-8"), name
    for path, name in set(named) - set(functions):
        assert path.name == name


def find(name: str):
    """What a dotted name means: a module, or something inside one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_dotted_names_exist(page):
    pattern = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
    for text in quoted(page):
        text = text.removesuffix("()")
        if pattern.fullmatch(text) and not text.endswith(".py"):
            assert find(text) is not None, text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_exist(page):
    folders = "|".join((*PACKAGES, "examples", "tests", "docs"))
    for text in quoted(page):
        if re.fullmatch(rf"(?:{folders})/[\w./-]*\w\.(?:py|md|yaml)", text):
            assert (REPOSITORY / text).is_file(), text


@cache
def messages() -> str:
    """All text in the code of the packages, pieces of f-strings one by one."""
    files = [file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")]
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in files)
    return "\n".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def quoted_messages() -> list[str]:
    """First cells of the tables of troubleshooting that hold a message in backquotes."""
    rows = re.findall(r"^\| `(.+?)` \| ", read(REPOSITORY / "docs" / "troubleshooting.md"), re.MULTILINE)
    return [row.strip("`").strip() for row in rows]


@pytest.mark.parametrize("message", quoted_messages())
def test_message_is_one_of_ours(message):
    pieces = [piece.strip() for piece in message.split("...") if piece.strip(" .:")]
    assert pieces and all(piece in messages() for piece in pieces)


def test_workflows_call_what_is_there():
    for name in ("ci", "weekly"):
        workflow = yaml.safe_load(read(REPOSITORY / ".github" / "workflows" / f"{name}.yml"))
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                words = step.get("run", "").split()
                for before, word in zip([None, *words], words, strict=False):
                    if word.startswith(".ci/"):
                        assert (REPOSITORY / word).is_file()
                    if before == "make":
                        assert re.search(rf"^{word}:", read(REPOSITORY / "Makefile"), re.MULTILINE)
    assert "make install-test" in read(REPOSITORY / ".github" / "workflows" / "weekly.yml"), "pytest is of that extra"
    assert ".ci/run" in read(REPOSITORY / ".github" / "workflows" / "ci.yml")
