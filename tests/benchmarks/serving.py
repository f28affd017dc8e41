"""Times of ten questions about one video, asked of `ide3d serve` by the client `openai`.

    python tests/benchmarks/serving.py

The video is a rendered room of 600 frames, 1920 x 1080. Each line has the time to the first and to the last word of
the answer, question and answer. It needs the extra `serve`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serving import MODEL, serve

from examples.ask_server import main as ask_all
from ide3d import nano_model
from ide3d.serving.server import build_server
from processing.rooms import load_rooms
from trainer.session import load_inference_model

QUESTIONS = [
    f"Is there a {colour} {kind}?"
    for kind in ("chair", "table")
    for colour in ("red", "blue", "green", "white", "brown")
]


def write_film(path: Path, num_frames: int, width: int, height: int) -> None:
    """Write a video of a room that shows each of four frames for a quarter of the time."""
    with tempfile.TemporaryDirectory() as folder:
        (row,) = load_rooms("test", 1, image_size=64, num_frames=4, cache_dir=folder)
        pictures = [np.asarray(frame.resize((width, height), Image.Resampling.BICUBIC)) for frame in row["frames"]]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            picture = pictures[index * len(pictures) // num_frames]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def main(words: list[str] | None = None) -> None:
    """Serve the nano model, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), metavar=("WIDTH", "HEIGHT"))
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "room.mp4"
        write_film(video, args.num_frames, *args.size)
        with serve(build_server(MODEL, *load_inference_model(nano_model()))) as address:
            ask_all([str(video), *QUESTIONS, "--url", f"{address}/v1"])


if __name__ == "__main__":
    main()
