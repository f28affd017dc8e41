"""Read files of the study and the demo."""

import json
from pathlib import Path
from typing import Any

__all__ = ["load_json"]


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
