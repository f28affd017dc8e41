"""The table of the video zoo, file x door x backend: `python tests/video_table.py` prints it as markdown."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import video_zoo
from transformers.video_utils import VideoMetadata

from processing.video_reading_ide3d import read_video

BACKENDS = ("pyav", "torchcodec")
DOORS = {
    "path": lambda path, url: str(path),
    "file URL": lambda path, url: path.as_uri(),
    "http URL": lambda path, url: url,
    "bytes": lambda path, url: path.read_bytes(),
    "file object": lambda path, url: open(path, "rb"),  # noqa: SIM115 (closed by `read`)
    "datasets value": lambda path, url: {"path": None, "bytes": path.read_bytes()},
}


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def read(path: Path, door: str, backend: str, address: str = "") -> tuple[np.ndarray, VideoMetadata]:
    """Read all frames of a file through one door."""
    source = DOORS[door](path, f"{address}/{path.name}")
    try:
        return read_video(source, lambda metadata: range(metadata.total_num_frames), backend=backend)
    finally:
        if hasattr(source, "close"):
            source.close()


def find_fault(file: video_zoo.ZooFile, door: str, backend: str, address: str = "") -> str:
    """Return what is wrong with a file read by a door and backend; empty if frames, times and pixels are right."""
    try:
        frames, metadata = read(file.path, door, backend, address)
        fault = video_zoo.find_fault(file, frames, metadata.timestamps)
        if not fault and (door, backend) != ("path", "pyav"):
            expected, plain = read(file.path, "path", "pyav")
            if not np.array_equal(frames, expected):
                fault = f"pixels differ by up to {np.abs(frames.astype(int) - expected).max()} from PyAV's by path"
            elif metadata.timestamps != plain.timestamps:
                fault = "times differ from PyAV's by path"
    except (OSError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    return fault


def find_faults(folder: Path, backend: str, doors: list[str]) -> dict[str, dict[str, str]]:
    """Return the fault, or "", of every file of a new zoo through every door."""
    files = video_zoo.make_zoo(folder)
    with serve(folder) as address:
        return {file.name: {door: find_fault(file, door, backend, address) for door in doors} for file in files}


def find_faults_of_torchcodec(doors: list[str]) -> dict[str, dict[str, str]]:
    """Return `find_faults` of a fresh process, in which torchcodec loads the FFmpeg libraries of PyAV's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LD_LIBRARY_PATH": link_ffmpeg(Path(folder)), "SVT_LOG": "0"}
        (Path(folder) / "zoo").mkdir()
        command = [sys.executable, __file__, "torchcodec", str(Path(folder) / "zoo"), *doors]
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise RuntimeError(f"torchcodec's table ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def link_ffmpeg(folder: Path) -> str:
    """Give the libraries of PyAV's wheel the names that torchcodec asks for; return a search path with them.

    Wheels for Linux hold them in `av.libs`, as `libavcodec-HASH.so.62.28.102` for `libavcodec.so.62`.
    """
    libraries = Path(av.__file__).parents[1] / "av.libs"
    for library in [*libraries.glob("libav*.so.*"), *libraries.glob("libsw*.so.*")]:
        name, version = library.name.split(".so.")
        (folder / f"{name.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(library)
    return os.pathsep.join([str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)


def to_markdown(faults: dict[str, dict[str, dict[str, str]]]) -> str:
    """Return faults by backend, file and door as a table: `ok`, or the fault."""
    lines = [f"| file | {' | '.join(f'{backend}: {door}' for backend in faults for door in DOORS)} |"]
    lines.append("| --- " * lines[0].count(" | ") + "| --- |")
    for name in next(iter(faults.values())):
        cells = [faults[backend][name][door] or "ok" for backend in faults for door in DOORS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the table; with a backend, a folder and doors, the faults of one backend as JSON."""
    logging.disable(logging.WARNING)
    if arguments:
        backend, folder, *doors = arguments
        sys.stdout.write(f"\n{json.dumps(find_faults(Path(folder), backend, doors))}\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        faults = {"pyav": find_faults(Path(folder), "pyav", list(DOORS))}
    if find_spec("torchcodec"):
        faults["torchcodec"] = find_faults_of_torchcodec(list(DOORS))
    sys.stdout.write(f"{to_markdown(faults)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
