"""Files of chats as `datasets`: a memory-mapped table, or a stream."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Features, Value
from datasets.exceptions import DatasetGenerationError

from processing.argument_rules import as_path, check_texts
from processing.chats.dialects import Chat, parse_chat
from processing.chats.files import read_rows
from processing.limits import check_file

__all__ = ["FEATURES", "check_chat_files", "load_chats", "stream_chats", "unpack_chat"]

FEATURES = Features({"where": Value("string"), "folder": Value("string"), "chat": Value("large_string")})
_FORM = 1  # of a row in the table; a new form is another table


def load_chats(files: Sequence[str], *, cache_dir: str | Path | None = None) -> datasets.Dataset:
    """Load files of chats into a memory-mapped table on disk, every row checked.

    The files are read once, a few rows at a time. The table takes about the disk space of their text, and is used
    again until a file changes.

    Args:
        files: Paths of files that end with .json, .jsonl or .parquet, in order.
        cache_dir: Folder where `datasets` keeps the table. Default: its own cache.

    Returns:
        Dataset with a row for each chat: `where`, the place of the row; `folder`, the folder of its file; and `chat`,
        which `unpack_chat` returns as `Chat`.

    Raises:
        TypeError: If the files are no list of texts.
        FileNotFoundError: If one of them does not exist.
        ValueError: If there is none, one has no rows or is broken, or a row is no chat (see `parse_chat`).
    """
    paths = check_chat_files(files)
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(repr((_FORM, facts)).encode()).hexdigest()[:16]
    try:
        return datasets.Dataset.from_generator(
            _rows,
            features=FEATURES,
            cache_dir=None if cache_dir is None else str(as_path(cache_dir, "cache_dir")),
            gen_kwargs={"files": [str(path) for path in paths]},
            fingerprint=f"chats{key}",
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, (ValueError, FileNotFoundError)):
            raise error.__cause__ from None
        raise


def stream_chats(files: Sequence[str]) -> datasets.IterableDataset:
    """Stream files of chats: nothing is written, and a row is checked when it comes.

    Args:
        files: Paths of files, as in `load_chats`.

    Returns:
        Stream of the rows of `load_chats`, file by file.

    Raises:
        TypeError: If the files are no list of texts.
        FileNotFoundError: If one of them does not exist.
        ValueError: If there is none; and while rows are read, as in `load_chats`.
    """
    paths = [str(path) for path in check_chat_files(files)]
    return datasets.IterableDataset.from_generator(_rows, features=FEATURES, gen_kwargs={"files": paths})


def unpack_chat(row: dict[str, str]) -> Chat:
    """Return the chat of a row of `load_chats` or `stream_chats`."""
    chat = json.loads(row["chat"])
    return Chat(chat["messages"], chat["video"], tuple(chat["images"]))


def check_chat_files(files: Any) -> list[Path]:
    """Return the paths of files of chats, which must be there.

    Raises:
        TypeError: If they are no list of texts.
        FileNotFoundError: If one of them does not exist.
        ValueError: If there is none, one comes twice, or one is no regular file.
    """
    paths = [as_path(file, "files") for file in check_texts(files, "files", is_ordered=True)]
    if not paths:
        raise ValueError("`files` must name at least one file of chats, got none.")
    for path in paths:
        check_file(path, None)
    places = [path.resolve() for path in paths]
    if twice := [str(path) for place, path in enumerate(paths) if places[place] in places[:place]]:
        raise ValueError(f"`files` names {twice[0]} twice. Leave one of them out.")
    return paths


def _rows(files: list[str]) -> Iterator[dict[str, str]]:
    for file in files:
        is_empty = True
        folder = str(Path(file).resolve().parent)
        for where, row in read_rows(file):
            is_empty = False
            chat = vars(parse_chat(row, where))  # `asdict` would copy all of it
            yield {"where": where, "folder": folder, "chat": json.dumps(chat)}
        if is_empty:
            raise ValueError(f"{file} holds no row. Expected a chat on each line, or a list of chats.")
