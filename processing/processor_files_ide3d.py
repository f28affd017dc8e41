"""Files of a processor: those that cannot be read are named."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "config.json")
TEMPLATE_FILE = "chat_template.jinja"


@contextmanager
def naming_damaged_files(folder: str | os.PathLike) -> Iterator[None]:
    """Name the file of a local folder because of which the block fails.

    A name on the Hub passes.

    Args:
        folder (`str` or `os.PathLike`): Folder of a processor.

    Raises:
        OSError: The block failed, and a file is missing or damaged, or the files do not make a processor.
    """
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


__all__ = ["naming_damaged_files"]
