"""Public collections of harmful pickles, read by our reader where a package brings them; none is kept here.

picklescan (github.com/mmaitre314/picklescan, `tests/data`, MIT) and fickling (github.com/trailofbits/fickling,
`test` and its hub files, LGPL) publish such files. Their wheels do not: install them from a source checkout, or set
`IDE3D_PICKLE_CORPUS` to a folder of pickles.
"""

import importlib.util
import os
from pathlib import Path

import pytest

from processing.benchmarks.readers.files import load_pickle, read_point_cloud

PACKAGES = {"picklescan": ("tests/data", "tests/data2"), "fickling": ("test", "tests", "hub")}
CORPUS = "IDE3D_PICKLE_CORPUS"
ENDINGS = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".p"}


def find_folders(package: str) -> list[Path]:
    """Return the folders of test files beside an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    root = Path(spec.submodule_search_locations[0])
    return [
        base / name
        for base in (root, root.parent, root.parent.parent)
        for name in PACKAGES[package]
        if (base / name).is_dir()
    ]


def find_files(folders: list[Path]) -> list[Path]:
    return sorted(
        file for folder in folders for file in folder.rglob("*") if file.suffix in ENDINGS and file.is_file()
    )


def check(files: list[Path], monkeypatch) -> None:
    """Each file is read as plain data or refused by name, and nothing runs."""

    def ran(*arguments, **options):
        raise AssertionError(f"Code ran: {arguments}")

    for name in ("system", "popen", "execv"):
        monkeypatch.setattr(os, name, ran)
    monkeypatch.setattr("builtins.eval", ran)
    for file in files:
        for read in (load_pickle, read_point_cloud):
            try:
                read(file)
            except (ValueError, OSError) as error:
                assert file.name in str(error), f"{file}: {error}"


@pytest.mark.parametrize("package", PACKAGES)
def test_harmful_pickles_of_a_package(package, monkeypatch):
    files = find_files(find_folders(package))
    if not files:
        pytest.skip(f"{package} is not installed with its test files")
    check(files, monkeypatch)


def test_harmful_pickles_of_a_folder(monkeypatch):
    if not os.environ.get(CORPUS):
        pytest.skip(f"{CORPUS} names no folder of pickles")
    check(find_files([Path(os.environ[CORPUS])]), monkeypatch)
