"""A case is one input of one door, and what is rightly expected of it; the outcome is found by code."""

import itertools
import logging
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["DOORS", "Case", "Door", "OtherPixelsError", "Outcome", "ToldError", "door", "judge", "run_case"]

PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer")
TESTS = Path(__file__).resolve().parents[1]
SECONDS = 20  # So long may a case compute.
STEP, PATIENCE = 1.0, 6  # So many seconds it may wait for a file, looked at each second.
# Methods of ours that call those of Transformers with what they were given.
HANDED_ON = (
    "from_pretrained",
    "generate",
    "__call__",
    "apply_chat_template",
    "prepare_inputs_layout",
    "validate_inputs",
)
# How Python and pathlib refuse what is no path; many a door hands it to them first.
PATH_TYPES = ("expected str, bytes or os.PathLike object", "argument should be a str or an os.PathLike object")
GOOD_OUTCOMES = ("clear", "warned", "taken", "inherited")

Expectation = Literal["refused", "taken", "warned", "either"]


class ToldError(ValueError):
    """What a door says without raising: the findings of the doctor, the one line of a command."""


class OtherPixelsError(AssertionError):
    """What was read differs from what was written: silent, unless a warning says so."""


class Hang(BaseException):
    """A case took too long. No `Exception`, so that nothing catches it."""


@dataclass(frozen=True)
class Case:
    """One input.

    Args:
        door: Name of the door.
        name: Name of the input.
        run: Function that takes an empty folder, makes the input and hands it to the door.
        expect: "refused" by a clear error (a warning is no silence), "warned", "taken", or "either" taken or refused
            clearly.
        words: Words of which the message holds one, whatever the case of letters: argument, file or id.
        reason: Reason why an error of a library that names the argument is left as it is, such as its argument being
            that library's own.
    """

    door: str
    name: str
    run: Callable[[Path], Any]
    expect: Expectation = "refused"
    words: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class Door:
    """A door: its public names, and its cases as a function that adds them."""

    name: str
    covers: tuple[str, ...]
    fill: Callable[[Callable[..., None]], None]
    cases: list[Case] = field(default_factory=list)

    def list_cases(self) -> list[Case]:
        """Return the cases; their names are unique."""
        if not self.cases:
            self.fill(self._add)
            names = [case.name for case in self.cases]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{self.name}: names of cases come twice: {sorted(twice)}.")
        return self.cases

    def _add(
        self, name: str, run: Callable[[Path], Any], *words: str, expect: Expectation = "refused", reason: str = ""
    ) -> None:
        self.cases.append(Case(self.name, name, run, expect, words, reason))


DOORS: dict[str, Door] = {}


def door(name: str, *covers: str) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a function, which adds cases, a door that covers these public names."""

    def register(fill: Callable) -> Callable:
        if name in DOORS:
            raise ValueError(f"Two doors are called {name!r}.")
        DOORS[name] = Door(name, covers, fill)
        return fill

    return register


@dataclass(frozen=True)
class Outcome:
    """What a case led to.

    Args:
        kind: "clear", "warned", "taken", "inherited", "unclear", "silent", "refused" (of a right input), "hang" or
            "crash".
        error: Type of the error; empty: none.
        message: Message of the error, or the first warning.
        told: Whether something was said though nothing was raised.
    """

    kind: str
    error: str = ""
    message: str = ""

    @property
    def is_good(self) -> bool:
        """Whether this is as it should be."""
        return self.kind in GOOD_OUTCOMES


def run_case(case: Case, folder: Path) -> Outcome:
    """Run a case in an empty folder and return what it led to."""
    said: list[str] = []
    error: BaseException | None = None
    with _heard(said), _time_limit(SECONDS):
        try:
            case.run(folder)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever comes is the outcome
            error = raised
    return judge(case, error, said)


def judge(case: Case, error: BaseException | None, said: list[str]) -> Outcome:
    """Return the outcome of a case that raised `error` (None: nothing) and said `said`."""
    heard = [text for text in said if _names(text, case.words)]
    if isinstance(error, OtherPixelsError):
        return Outcome("warned" if heard else "silent", "", heard[0] if heard else str(error))
    if error is None:
        if case.expect in ("taken", "either"):
            return Outcome("warned" if heard else "taken", "", heard[0] if heard else "")
        return Outcome("warned", "", heard[0]) if heard else Outcome("silent", "", said[0] if said else "")
    kind, text = type(error).__name__, re.sub(r"/[^\s'\",:)]*/tmp[^\s'\",:)]*/", "PATH/", str(error))
    if isinstance(error, Hang):
        return Outcome("hang", kind, text)
    if case.expect == "taken":
        return Outcome("refused", kind, text)
    if isinstance(error, MemoryError) and not text:
        return Outcome("crash", kind, text)
    if isinstance(error, TypeError) and text.startswith(PATH_TYPES):
        return Outcome("inherited", kind, text)
    if not _names(text, case.words):
        return Outcome("unclear", kind, text)
    if type(error).__module__ == "huggingface_hub.errors" and kind.startswith("StrictDataclass"):
        return Outcome("inherited", kind, text)  # It names field, type and value, and is what configs document.
    if not (type(error).__module__ == "builtins" or isinstance(error, ToldError)):
        return Outcome("unclear", kind, text)
    origin = _origin(error)
    # The system's own error names the file. The doctor tells and never raises.
    if isinstance(error, OSError) and error.filename and not case.door.startswith("doctor"):
        origin = "ours"
    if origin == "ours":
        return Outcome("clear", kind, text)
    return Outcome("inherited" if origin == "inherited" or case.reason else "unclear", kind, text)


def _names(text: str, words: tuple[str, ...]) -> bool:
    return not words or any(word.lower() in text.lower() for word in words)


def _origin(error: BaseException) -> Literal["ours", "inherited", "foreign"]:
    """Say who raised: our code (or Python at our signature), a library before our code, or one behind it."""
    if isinstance(error, ToldError):
        return "ours"
    frames = traceback.extract_tb(error.__traceback__)
    # This function raises for the line that calls it.
    frames = list(itertools.takewhile(lambda frame: frame.name != "torch_compilable_check", frames))
    # Where the last line is one of these, it raises itself.
    frames = [frame for frame in frames[:-1] if frame.name not in HANDED_ON] + frames[-1:]
    files = [Path(frame.filename) for frame in frames]
    files = [file for file in files if TESTS not in file.parents]
    if not files or _is_ours(files[-1]):
        return "ours"
    return "foreign" if any(map(_is_ours, files)) else "inherited"


def _is_ours(file: Path) -> bool:
    if file.name.endswith("_ide3d.py") or "evaluate_modules" in file.parts:  # a copy in an export, or of a metric
        return True
    import processing

    root = Path(processing.__file__).resolve().parents[1]
    return root in file.resolve().parents and file.resolve().relative_to(root).parts[0] in PACKAGES


class _Ear(logging.Handler):
    """Collects what our packages log as a warning."""

    def __init__(self, said: list[str]):
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in PACKAGES or record.name.startswith("transformers_modules"):
            self.said.append(record.getMessage())


@contextmanager
def _heard(said: list[str]) -> Iterator[None]:
    """Collect the warnings of our packages, also those that are said once."""
    from transformers.utils import logging as transformers_logging

    for name in ("warning_once", "info_once"):
        if hasattr(once := getattr(transformers_logging, name, None), "cache_clear"):
            once.cache_clear()
    ear = _Ear(said)
    loggers = [logging.getLogger(name) for name in (None, *PACKAGES)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.addHandler(ear)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(ear)
            said += [str(warning.message) for warning in caught if _is_ours(Path(warning.filename))]


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise `Hang` in what takes so many seconds of the processor, or waits without using it: a busy machine is none."""
    start = time.process_time()
    last, idle = start, 0

    def look(*_: Any) -> None:
        nonlocal last, idle
        now = time.process_time()
        idle = idle + 1 if now - last < 0.01 else 0
        last = now
        if now - start > seconds:
            raise Hang(f"It computed for more than {seconds} s.")
        if idle * STEP >= PATIENCE:
            raise Hang(f"It waited for {PATIENCE} s.")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, STEP, STEP)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
