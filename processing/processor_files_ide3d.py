"""Files of a processor: those that cannot be read are named."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id

PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "config.json")
TEMPLATE_FILE = "chat_template.jinja"
# What Transformers looks for beside those; it passes over what is there and is no file.
FURTHER_FILES = (
    "preprocessor_config.json", "video_preprocessor_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip


def check_place(name: Any) -> None:
    """Check that a name is a folder, a file, or possible on the Hub.

    Raises:
        TypeError: It is neither text nor path.
        OSError: It is a path at which there is nothing, or something else than a folder.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"pretrained_model_name_or_path must be a folder or a name on the Hub, got {name!r:.100}.")
    text = os.fspath(name)
    shown = text if len(text) < 300 else f"{text[:100]}..."
    if os.path.isdir(text) or os.path.isfile(text):
        return
    if os.path.lexists(text):
        raise OSError(f"{shown!r} is no folder but a pipe, a device or a link to nothing. Give the folder of a model.")
    try:
        validate_repo_id(text)
    except ValueError as error:
        raise FileNotFoundError(f"There is no folder {shown!r}, and no model on the Hub can be called so.") from error


@contextmanager
def naming_damaged_files(folder: str | os.PathLike) -> Iterator[None]:
    """Name the file of a local folder because of which the block fails.

    A name on the Hub passes.

    Args:
        folder (`str` or `os.PathLike`): Folder of a processor.

    Raises:
        OSError: A file is a folder, a pipe or a link to nothing. Or the block failed, and a file is missing or
            damaged, or the files do not make a processor.
    """
    for name in (*PROCESSOR_FILES, TEMPLATE_FILE, *FURTHER_FILES):
        path = os.path.join(folder, name)
        if os.path.lexists(path) and not os.path.isfile(path):
            raise OSError(
                f"{path} must be a regular file, it is a folder, a pipe, a device or a link to nothing. It was not "
                "opened: copy or download the file again."
            )
    try:
        yield
    except Exception as error:
        path = Path(folder)
        if not path.is_dir():
            raise
        if fault := _find_fault(path):
            raise OSError(fault) from error
        if isinstance(error, (OSError, ImportError)) or type(error) is ValueError:
            raise
        raise OSError(
            f"The files of the processor in {path} cannot be read ({type(error).__name__}: {error}). Copy or download "
            f"{', '.join(PROCESSOR_FILES[:3])} again, or write them by `save_pretrained`."
        ) from error


def _find_fault(folder: Path) -> str | None:
    for file in (folder / name for name in PROCESSOR_FILES):
        try:
            content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except (ValueError, RecursionError) as error:
            return f"{file} is damaged or no JSON file ({error}). Copy or download it again."
        if not isinstance(content, dict):
            return f"{file} must hold a JSON object, got a {type(content).__name__}. Copy or download it again."
    template = folder / TEMPLATE_FILE
    try:
        template.read_text(encoding="utf-8") if template.is_file() else ""
    except ValueError as error:
        return f"{template} is no text in UTF-8 ({error}). Copy or download it again."
    missing = [name for name in ("processor_config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        return (
            f"{folder} has no {' and no '.join(missing)}. Expected the folder of a processor, as `save_pretrained` "
            "writes it: copy or download it again."
        )
    return None


__all__ = ["check_place", "naming_damaged_files"]
