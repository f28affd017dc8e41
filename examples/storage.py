"""Read and write files of the study and the demo, whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["load_json", "whole_file", "write_json"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; at the end it takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.incomplete")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write a JSON file."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def load_json(path: Path, advice: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: JSON file.
        advice: Last sentence of the error, which says what to do about a damaged file.

    Raises:
        ValueError: If the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. {advice}") from error
