"""Check how docstrings are written; `make lint` runs it over the packages.

The rules are those of CONTRIBUTING.md: an argument is a noun phrase, a first line is short and no question word, a
sentence has at most 25 words.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer", "examples")
MOST_WORDS_OF_FIRST_LINE = 15
MOST_WORDS_OF_SENTENCE = 25
QUESTION_WORDS = ("What", "Where", "Who", "Whoever", "Nobody", "Why", "How")
# Beginnings of fragments that no noun follows.
FRAGMENTS = tuple("Of At In By From Only Default: Say As To That Their Which Where Who What".split())
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Shape|Example|Examples|Note|Source|Inputs):\s*$")
ENTRY = re.compile(r"^\*{0,2}(?P<name>[\w, /*`]+?)\s*(?:\(.*?\))?:(?:\s+(?P<text>.*))?$")
TABLE_ROW = re.compile(r"[^:\s] {2,}\S")  # columns side by side; the description of an aligned entry follows a colon
END_OF_SENTENCE = re.compile(r"(?:(?<=[.!?:;])|(?<=[.!?:;][\"')*]))\s+")


def documented(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and docstring of a module, its classes and functions, private ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), getattr(node, "name", "module"), text


def argument_entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and description of the entries under `Args:` and `Attributes:`."""
    inside, indent = False, 0
    pending = None
    for line in text.splitlines():
        if SECTION.match(line.strip()) and not line.startswith("    "):
            inside, indent, pending = line.strip().rstrip(":") in ("Args", "Attributes"), 0, None
            continue
        if not inside or not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        if depth > indent:
            if pending is not None:
                yield pending, line.strip()
                pending = None
            continue
        if depth < indent:
            inside = False
            continue
        entry = ENTRY.match(line.strip())
        if entry and entry["text"]:
            yield entry["name"], entry["text"]
        elif entry:
            pending = entry["name"]


def prose_lines(text: str) -> Iterator[str]:
    """Yield the lines of a docstring without code, examples and tables; each of these is an empty line instead."""
    is_fenced, is_example = False, False
    for line in text.splitlines():
        stripped = line.strip()
        is_fenced ^= stripped.startswith("```")
        if stripped and not line.startswith(" "):
            section = SECTION.match(stripped)
            is_example = bool(section) and section[1].startswith("Example")
        is_code = is_fenced or is_example or stripped.startswith((">>>", "...", "|", "```"))
        yield "" if is_code or TABLE_ROW.search(stripped) else stripped


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a docstring's prose, where brackets and code count as one word."""
    paragraphs, current = [], []
    for line in prose_lines(text):
        entry = ENTRY.match(line)
        if line and not entry and not line.startswith(("- ", "* ")):
            current.append(line)
            continue
        paragraphs.append(" ".join(current))
        current = [entry["text"] or ""] if entry else [line[2:]]
    paragraphs.append(" ".join(current))
    for paragraph in paragraphs:
        yield from END_OF_SENTENCE.split(re.sub(r"\([^)]*\)|`[^`]*`", "code", paragraph.strip()))


def count_words(text: str) -> int:
    """Return the number of words; signs of a formula do not count."""
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def faults(source: str) -> list[tuple[int, str]]:
    """Return line and message of each fault in the docstrings of a file."""
    found = []
    for line, name, text in documented(ast.parse(source)):
        first = re.sub(r"\([^)]*\)", "", text.splitlines()[0])  # shapes and asides in brackets do not count
        if name != "module" and (count := count_words(first)) > MOST_WORDS_OF_FIRST_LINE:
            found.append((line, f"`{name}`: first line has {count} words, at most {MOST_WORDS_OF_FIRST_LINE}."))
        if first.split() and (word := first.split()[0]).rstrip(",:") in QUESTION_WORDS:
            found.append((line, f"`{name}`: first line begins with {word!r}; say what it returns or does."))
        for argument, description in argument_entries(text):
            if (word := description.split()[0]) in FRAGMENTS:
                found.append((line, f"`{name}`: {argument}: begins with {word!r}; use a noun phrase."))
        for sentence in sentences(text):
            if (count := count_words(sentence)) > MOST_WORDS_OF_SENTENCE:
                found.append((line, f"`{name}`: a sentence of {count} words: {sentence[:60]}..."))
    return found


def main() -> int:
    """Print the faults of all packages; the exit code is 1 where there are some."""
    files = [file for package in PACKAGES for file in sorted((REPOSITORY / package).rglob("*.py"))]
    count = 0
    for file in files:
        if "checkpoints" in file.parts:  # copies of the exported files
            continue
        for line, message in faults(file.read_text(encoding="utf-8")):
            count += 1
            sys.stdout.write(f"{file.relative_to(REPOSITORY)}:{line}: {message}\n")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
