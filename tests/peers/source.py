"""Transformers' own tests, from the source distribution of the installed version; nothing of them is kept here."""

import os
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import transformers
from PIL import Image

# Folder `tests` of a checkout of the same version. It has the mixins of generation and of exporters too, which a
# source distribution leaves out; `exceptions.py` knows none of their tests.
CHECKOUT = "IDE3D_TRANSFORMERS_TESTS"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ide3d" / "transformers-tests"
PACKAGE = "transformers_tests"  # `tests` is the name of our own folder
# Files that the mixins import and a source distribution lacks, with a stand-in for what they take from them.
STAND_INS = {
    "exporters/test_export.py": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "utils/test_configuration_utils.py": {"config_common_kwargs": {}},
    "generation/test_utils.py": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
}


def find_tests() -> Path:
    """Return the folder of the tests, downloaded if it is not yet in the cache.

    Raises:
        LookupError: There is no source distribution of this version, or the package index is out of reach.
    """
    if os.environ.get(CHECKOUT):
        return Path(os.environ[CHECKOUT])
    version = transformers.__version__
    folder = CACHE / version
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # pip compares the file with the checksum of the index.
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", scratch]
        command = [sys.executable, "-m", "pip", "download", *options, f"transformers=={version}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        archives = list(Path(scratch).glob("transformers-*.tar.gz"))
        if run.returncode or not archives:
            raise LookupError(f"no source distribution of transformers {version}: {run.stderr.strip()[-300:]}")
        with tarfile.open(archives[0]) as archive:
            root = f"transformers-{version}/tests/"
            archive.extractall(scratch, [item for item in archive if item.name.startswith(root)], filter="data")
        Path(scratch, root, "__init__.py").touch()  # a checkout has one; the tests of configurations read it
        try:
            Path(scratch, root).rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def import_mixins(folder: Path) -> None:
    """Make `transformers_tests` importable; for a process of its own."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    for file, names in STAND_INS.items():
        if not (folder / file).is_file():
            parent, _, child = file.removesuffix(".py").partition("/")
            for name, members in ((parent, {"__path__": []}), (f"{parent}.{child}", names)):
                sys.modules[f"{PACKAGE}.{name}"] = module = ModuleType(f"{PACKAGE}.{name}")
                vars(module).update(members)
    sys.modules["fetch_hub_objects_for_ci"] = script = ModuleType("fetch_hub_objects_for_ci")
    script.url_to_local_path = make_file_for


@cache
def make_file_for(url: str) -> str:
    """Write a file that stands for one of the Hub: a video of 11 frames, 30 a second, or a picture; the path."""
    path = Path(tempfile.mkdtemp(), Path(url).name)
    frames = np.random.default_rng(0).integers(0, 256, (11, 48, 64, 3), np.uint8)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(frames[0]).save(path)
    elif path.suffix == ".mp4":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.width, stream.height = 64, 48
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return str(path)
