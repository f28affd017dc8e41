"""Rows of a file of chats, one at a time: JSON lines, a JSON list, or parquet; memory holds a few rows."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet

from processing.limits import check_bound, check_file, parse_json

__all__ = ["MAX_ROW", "SUFFIXES", "read_rows"]

SUFFIXES = (".json", ".jsonl", ".parquet")
MAX_ROW = 2**24  # characters of one row; the longest chats of the public sets have some 100 kB
_CHUNK = 2**16  # bytes of a list that are read at a time
_BEGINNING = 2**16  # bytes among which the first sign stands, spaces before it
_BATCH = 64  # rows of a parquet file that are read at a time
_SPACE = " \t\r\n"

Tell = Callable[[str, str], None]


def read_rows(path: str | Path, tell: Tell | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file, each with its place, such as "chats.jsonl, line 3".

    The content tells a list from lines; a file of either kind may end with .json or .jsonl.

    Args:
        path: File that ends with .json, .jsonl or .parquet.
        tell: Function that gets place and fault of a row that cannot be read; reading goes on behind it. None raises.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these kinds, cut off or broken, or a row is no object or too long.
    """
    path = Path(path)
    check_file(path, None)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end with {', '.join(SUFFIXES)}: chats are JSON lines, a JSON list or parquet.")
    if path.suffix.lower() == ".parquet":
        yield from _read_parquet(path)
        return
    with path.open("rb") as file:
        start = file.read(_BEGINNING).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        file.seek(0)
        if start == b"[":
            yield from _read_list(path, file)
        elif start == b"{":
            yield from _read_lines(path, file, tell)
        elif start:
            raise ValueError(f"{path} must hold a list of rows, or a row on each line; it begins with {start!r}.")


def _read_lines(path: Path, file: BinaryIO, tell: Tell | None) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    while line := file.readline(MAX_ROW + 1):
        number += 1
        where = f"{path}, line {number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        if len(line) > MAX_ROW:
            raise ValueError(
                f"{where} has more than {MAX_ROW} bytes. Is it a list or an indented file? Write a row a line."
            )
        try:
            row = _check_row(parse_json(line, where), where)
        except ValueError as error:
            if tell is None:
                raise
            tell(where, str(error))
            continue
        yield where, row


def _read_list(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _Text(path, file)
    text.skip("[")
    number = 0
    while text.peek() != "]":
        if number:
            text.skip(",")
        number += 1
        where = f"{path}, row {number}"
        if (first := text.peek()) != "{":
            raise ValueError(f"{where} must be an object with a chat, it begins with {first!r}.")
        yield where, _check_row(parse_json(text.take_value(where).encode(), where), where)
    text.skip("]")
    if text.peek():
        raise ValueError(f"{path} goes on behind the end of its list, with {text.peek()!r}. Write it again.")


class _Text:
    """Text of a JSON file; only the part that is looked at lies in memory."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file = path, file
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.scan = json.JSONDecoder().raw_decode
        self.rest, self.place, self.is_whole = "", 0, False

    def read(self) -> bool:
        """Read on, at least as much as is there; return whether there was more."""
        if self.is_whole:
            return False
        content = self.file.read(max(_CHUNK, len(self.rest) - self.place))
        self.is_whole = not content
        try:
            self.rest = self.rest[self.place :] + self.decode(content, self.is_whole)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is no text in UTF-8: {error}. Save it as UTF-8.") from error
        self.place = 0
        return True

    def peek(self) -> str:
        """Return the next sign that is no space; empty at the end of the file."""
        while True:
            while self.place < len(self.rest):
                if (sign := self.rest[self.place]) not in _SPACE:
                    return sign
                self.place += 1
            if not self.read():
                return ""

    def skip(self, sign: str) -> None:
        """Go behind a sign that must come next."""
        if (found := self.peek()) != sign:
            problem = "it is cut off" if not found else f"got {found!r}"
            raise ValueError(f"{self.path} is no complete JSON list: expected {sign!r}, {problem}. Write it again.")
        self.place += 1

    def take_value(self, where: str) -> str:
        """Return the text of the value that begins here, and go behind it."""
        while True:
            try:
                end = self.scan(self.rest, self.place)[1]
            except RecursionError as error:
                raise ValueError(f"{where} is nested too deeply.") from error
            except ValueError as error:
                is_too_long = len(self.rest) - self.place > MAX_ROW
                if is_too_long or not self.read():
                    problem = f"longer than {MAX_ROW} characters, or broken" if is_too_long else "cut off or broken"
                    raise ValueError(f"{where} is {problem}: {error}. Write it again.") from error
                continue
            value, self.place = self.rest[self.place : end], end
            return value


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        with path.open("rb") as stream, pyarrow.parquet.ParquetFile(stream, pre_buffer=False) as file:
            facts = file.metadata
            for index in range(facts.num_row_groups):
                size = max(facts.row_group(index).total_byte_size, facts.row_group(index).num_rows)
                check_bound(size, "IDE3D_MAX_UNPACKED_BYTES", f"{path}, row group {index}, unpacked,")
            for batch in file.iter_batches(batch_size=_BATCH):  # A short dictionary may stand for long columns.
                check_bound(batch.nbytes, "IDE3D_MAX_UNPACKED_BYTES", f"{path}, {_BATCH} rows, unpacked,")
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", _without_nulls(row)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a complete parquet file, copy it again: {error}.") from error


def _without_nulls(value: Any) -> Any:
    """Return a value without the keys that only other rows of its column have."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _check_row(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object with a chat, got {type(row).__name__}.")
    return row
