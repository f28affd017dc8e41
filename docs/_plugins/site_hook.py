"""MkDocs hook: one site that is whole without a network.

- The start page is README.md.
- A page may link to files outside `docs/`, as it does on the forge: the site gets a copy of each.
- A page that loads a script, a style sheet, a font or a picture from elsewhere is a warning.
- So is a page of the API that lacks a public name.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import read_public_names

logger = logging.getLogger("mkdocs.hooks.site_hook")

LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
PICTURES = (".png", ".svg", ".jpg")
LOADED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")
CODE_FOLDER = "code"  # of the site; browsers show .txt files and would save others


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make README.md the start page."""
    text = (_root(config) / "README.md").read_text(encoding="utf-8")
    moved = _each_link(text, lambda target: posixpath.relpath(target, "docs") + "/" * target.endswith("/"))
    files.append(File.generated(config, "index.md", content=moved))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Copy the files outside `docs/` that a page links to into the site, and link to the copies."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(target: str) -> str:
        path = posixpath.normpath(posixpath.join(here, target))
        if not path.startswith("../"):
            return target
        if path == "../README.md":
            return posixpath.relpath("index.md", here or ".")
        source = _root(config) / path.removeprefix("../")
        if not source.is_file():
            logger.warning("%s links to %s, which is no file.", page.file.src_uri, target)
            return target
        copy = posixpath.join(CODE_FOLDER, path.removeprefix("../"))
        copy += "" if copy.endswith(PICTURES) else ".txt"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(source)))
        return posixpath.relpath(copy, here or ".")

    return _each_link(_without_folder_links(markdown), inside)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Warn of classes and functions of a package that its page of the API does not show."""
    for package in re.findall(r"^::: ([\w.]+)$", page.markdown or "", re.MULTILINE):
        names = read_public_names(_root(config).joinpath(*package.split("."), "__init__.py"))
        shown = set(re.findall(rf'id="{re.escape(package)}\.(\w+)"', html))
        missing = sorted(name for name in set(names) - shown if not name.isupper())
        if missing or not names:
            logger.warning("%s does not show %s of %s.", page.file.src_uri, missing or "any name", package)
    return html


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn of what the page would load from the network."""
    for address in sorted(set(LOADED.findall(output))):
        logger.warning("%s loads %s from the network.", page.file.src_uri, address)
    return output


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _each_link(markdown: str, change) -> str:
    """The text with the target of every relative link changed, code blocks left as they are."""
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: change(link[1]) + (link[2] or ""), part) for part in parts[::2]]
    return "".join(parts)


def _without_folder_links(markdown: str) -> str:
    """The text with links to folders as plain words: a site of files cannot list a folder."""
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!\w+:)[^)\s#]*/\)", r"\1", markdown)
