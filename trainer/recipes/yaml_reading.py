"""A recipe's YAML file, read strictly: arguments once each by their full names, and nothing that grows or runs."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.field_rules import find_near

__all__ = ["Place", "read_words"]

MAX_BYTES = 1 << 20  # a recipe is a page of text
MAX_DEPTH = 20


@dataclass(frozen=True)
class Place:
    """Contents that the line of an argument may have.

    Args:
        is_list: Whether it is a list.
        takes_list: Whether a list of one value stands for that value.
        takes_null: Whether it may be left empty, which is its default.
        is_text: Whether it is a name or a path, of which a number would be a slip.
        takes_mapping: Whether it is a mapping of options.
    """

    is_list: bool = False
    takes_list: bool = False
    takes_null: bool = True
    is_text: bool = False
    takes_mapping: bool = False


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses doubled keys, aliases of collections, and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """See `yaml.composer.Composer`."""
        if self.check_event(yaml.AliasEvent) and not isinstance(
            self.anchors.get(self.peek_event().anchor, yaml.ScalarNode("", "")), yaml.ScalarNode
        ):
            self._refuse("aliases of lists and mappings are not read: write them out", self.peek_event())
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels", self.peek_event())
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                name = str(key.value).replace("-", "_")
                if name in seen:
                    self._refuse(f"{key.value!r} is there twice", key)
                seen.add(name)
        return node

    @staticmethod
    def _refuse(problem: str, place: Any) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_words(path: str | Path, places: Mapping[str, Place]) -> list[str]:
    """Read a recipe as words of a command line.

    Args:
        path: File of lines `argument: value`. A null leaves an argument that may be None at its default; a mapping
            is JSON text, as `TrainingArguments` reads it.
        places: Contents that each argument may have, by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file of text, too large, no YAML, or holds no keys with values. A key is there twice or no
            argument, or a value is nested. It names file and line.
    """
    loader = None
    try:
        loader = _Loader(_read_text(Path(path)))
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            kind = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise ValueError(f"{path} must hold lines of `argument: value`, got {kind}.")
        words: list[str] = []
        for key, value in node.value:
            place = f"{path}, line {key.start_mark.line + 1}"
            name = _check_key(key, places, place)
            try:
                content = loader.construct_object(value, deep=True)
            except (ArithmeticError, AttributeError, TypeError, ValueError) as error:  # a thirteenth month, say
                raise ValueError(f"{place}: the value of {name} cannot be read ({error}).") from error
            if content is False and value.value.lower() == "no" and not places[name].is_text:
                content = "no"  # a strategy of Transformers, and false on its command line too
            words += _as_words(name, content, places[name], place)
        return words
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{place}: {problem}. Expected YAML, a line `argument: value` for each argument.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _read_text(path: Path) -> str:
    try:
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError) as error:  # a name that cannot be one
        raise ValueError(f"{str(path)[:100]!r} is no path of a recipe: {error}.") from error
    if not is_file:
        if exists:
            raise ValueError(f"{path} is no regular file. A recipe is a YAML file of lines `argument: value`.")
        raise FileNotFoundError(f"There is no recipe {path}. It is a YAML file of lines `argument: value`.")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_BYTES} bytes. A recipe is a YAML file of lines `argument: value`."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}). Save it as UTF-8.") from error


def _check_key(key: yaml.Node, known: Collection[str], place: str) -> str:
    name = str(key.value).replace("-", "_")
    if not isinstance(key, yaml.ScalarNode) or name not in known:
        raise ValueError(
            f"{place}: {key.value!r} is no argument.{find_near(name, known)} `ide3d train --list-arguments` lists all."
        )
    return name


def _as_words(name: str, value: Any, kind: Place, place: str) -> list[str]:
    """Return the command-line words of an argument; none for a null."""
    if value is None:
        if not kind.takes_null:
            raise ValueError(f"{place}: {name} has no value. Give one, or leave the line out for the default.")
        return []
    if isinstance(value, dict):
        if not kind.takes_mapping:
            raise ValueError(f"{place}: {name} takes no mapping, got {value!r}.")
        try:
            return [f"--{name}={json.dumps(value)}"]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: the value of {name} is no JSON ({error}).") from error
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if kind.is_text and not isinstance(entry, str):
            raise ValueError(
                f"{place}: {name} must be a text, got {entry!r}. Quote it if it is meant: {name}: '{entry}'."
            )
        if not isinstance(entry, (str, int, float, bool)) and not hasattr(entry, "isoformat"):
            raise ValueError(f"{place}: {name} holds {entry!r}; expected a number, a text or a list of them.")
        if isinstance(entry, str) and isinstance(value, list) and entry.startswith("--"):
            raise ValueError(f"{place}: {name} holds {entry!r}, which looks like another argument.")
        if isinstance(entry, float) and not math.isfinite(entry):
            raise ValueError(f"{place}: {name} must be finite, got {entry}.")
    if isinstance(value, list) and not kind.is_list and not (kind.takes_list and len(value) == 1):
        raise ValueError(f"{place}: {name} takes one value, got {value}.")
    if kind.is_list and not entries:
        raise ValueError(f"{place}: {name} is an empty list. Leave it out for its default.")
    if kind.is_list:
        return [f"--{name}", *(str(entry) for entry in entries)]
    return [f"--{name}={entries[0]}"]
