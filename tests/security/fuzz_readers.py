"""Fuzz the readers of strangers' files, guided by coverage: what they raise must be ours and name the file.

    pip install atheris
    PYTHONPATH=.:tests python -m security.fuzz_readers png -max_total_time=60 -rss_limit_mb=4096

The first word is a format of `security.mutations`, or `json-text`, `zip` or `pickle`; what follows are options of
libFuzzer. The first inputs are right files. An input that is a fault lies in the current folder afterwards.
"""

import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["processing"]):
    import processing.benchmarks.readers.files as files
    import processing.image_wholeness_ide3d  # noqa: F401
    import processing.limits as limits
    import processing.region_files  # noqa: F401

from bad_inputs.cases import Case, judge
from security.mutations import FORMATS, write


def _text_of(path: Path) -> Any:
    return limits.load_json(path)


def _with(name: str, read: Callable[[Path], Any]) -> tuple[Callable[[Path], Path], Callable[[Path], Any]]:
    return functools.partial(write, name), read


TARGETS = {
    **FORMATS,
    "json-text": _with("json", _text_of),
    "pickle": _with("infos", files.load_pickle),
    "zip": _with("cloud", files.load_torch),
}


def check(path: Path, read: Callable[[Path], Any], data: bytes) -> None:
    """Read bytes as a file; raise what is no clear error."""
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except Exception as error:  # noqa: BLE001 - whatever comes is judged
        case = Case("fuzzing", path.name, lambda folder: None, "either", (path.stem, path.parent.name))
        if not judge(case, error, []).is_good:
            raise


def main() -> None:
    """Fuzz one target until a fault or the time is over."""
    name, folder = sys.argv[1], Path(tempfile.mkdtemp(prefix="fuzz-"))
    make, read = TARGETS[name]
    right, corpus = make(folder), folder / "corpus"
    corpus.mkdir()
    (corpus / "right").write_bytes(right.read_bytes())
    read(right)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], functools.partial(check, right, read))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
