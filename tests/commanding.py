"""Run the command `ide3d` inside the tests, as a person would type it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as transformers_logging
from typer.testing import CliRunner, Result

from ide3d.command import app

__all__ = ["run_command"]

LOGGERS = ("modeling_ide3d", "processing", "trainer")


def run_command(*words: str | int | float | Path, code: int = 0) -> Result:
    """Run a command and check its exit code.

    Args:
        *words: Words behind `ide3d`.
        code: Exit code that is expected.

    Returns:
        Result with `stdout` and `stderr`.
    """
    with _own_messages():
        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="ide3d")
    assert result.exit_code == code, f"exit code {result.exit_code}\n{result.stdout[-2000:]}{result.stderr[-4000:]}"
    return result


@contextmanager
def _own_messages() -> Iterator[None]:
    """Levels of loggers, and filters of warnings, are afterwards those of before."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    verbosity, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        (transformers_logging.enable_progress_bar if has_bars else transformers_logging.disable_progress_bar)()
