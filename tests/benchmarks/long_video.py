"""What 32 frames out of a long video cost: decoding everything, seeking, and seeking with frames resized at once.

    PYTHONPATH=. python tests/benchmarks/long_video.py [--minutes 20] [--threads 1] [--skip-sequential]

The video is of 720p, 30 frames a second, H.264 with B-frames and a key frame every 250 frames; two such groups are
encoded and repeated. Each arm is a process of its own: processor time of the reading, and its peak of memory beyond
that of the imports. torchcodec's own decoder stands beside, where it is installed, with the FFmpeg of PyAV's wheel.
It prints JSON; Linux alone tells the peak. `same_as_sequential` compares the frames bit for bit.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_table import link_ffmpeg

RATE, WIDTH, HEIGHT, GROUP, NUM_FRAMES, SIZE = 30, 1280, 720, 250, 32, 384
ARMS = ("sequential", "seeking", "seeking_resized")


def write_video(path: Path, minutes: float) -> None:
    """Write textures that move over each other, encoded once for two groups and repeated."""
    noise = np.random.default_rng(0)
    near, far = (
        np.kron(noise.integers(0, 256, (HEIGHT // side * 2, WIDTH // side * 2, 3), np.uint8),
                np.ones((side, side, 1), np.uint8))
        for side in (24, 8)
    )  # fmt: skip
    part = path.with_name("part.mp4")
    with av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": str(GROUP), "crf": "23",
                                                               "x264-params": "scenecut=0"})  # fmt: skip
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(2 * GROUP):
            picture = far[2 * index % HEIGHT :, 3 * index % WIDTH :][:HEIGHT, :WIDTH].copy()
            picture[200:520, 300:980] = near[index % 300 :, 5 * index % 400 :][:320, :680]
            grain = np.kron(
                noise.integers(0, 16, (HEIGHT // 2, WIDTH // 2, 1), np.uint8), np.ones((2, 2, 1), np.uint8)
            )
            picture = picture // 2 + 32 + grain  # as in films: half of the bits are spent on what no motion predicts
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    with av.open(str(path), "w") as out, av.open(str(part)) as first:
        copy, offset = out.add_stream_from_template(first.streams.video[0]), 0
        for _ in range(max(1, round(minutes * 60 * RATE / (2 * GROUP)))):
            with av.open(str(part)) as again:
                stream = again.streams.video[0]
                for packet in again.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                        out.mux(packet)
                offset += round(Fraction(2 * GROUP, RATE) / stream.time_base)
    part.unlink()


def measure(path: str, backend: str, arm: str, threads: int) -> None:
    """Read the frames in this process, and print time, memory and a digest of the pixels."""
    import torch

    from processing import IDE3DVideoProcessor
    from processing.frame_order_ide3d import find_uniform_indices
    from processing.option_rules_ide3d import find_resize
    from processing.video_reading_ide3d import read_video

    torch.set_num_threads(1)
    processor = IDE3DVideoProcessor(size={"height": SIZE, "width": SIZE})

    def resize(picture: np.ndarray) -> np.ndarray:
        return processor._resize_picture(picture, **find_resize(processor, {}))

    resize(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    if backend == "torchcodec":
        from torchcodec.decoders import VideoDecoder
    before, start = _start_peak(), time.process_time()
    if arm == "own":
        decoder = VideoDecoder(path, num_ffmpeg_threads=threads)
        indices = find_uniform_indices(decoder.metadata.num_frames, NUM_FRAMES).tolist()
        frames = decoder.get_frames_at(indices).data.numpy()
    else:
        frames, _ = read_video(
            path, lambda metadata: find_uniform_indices(metadata.total_num_frames, NUM_FRAMES), backend,
            seeks=arm != "sequential", num_threads=threads, transform=resize if arm == "seeking_resized" else None,
        )  # fmt: skip
    row = {"cpu_s": round(time.process_time() - start, 2), "peak_mb": round(_peak() - before)}
    if arm != "own":
        whole = frames if arm == "seeking_resized" else np.stack([resize(frame) for frame in frames])
        row["resized_sha256"] = hashlib.sha256(whole.tobytes()).hexdigest()
        row["sha256"] = None if arm == "seeking_resized" else hashlib.sha256(frames.tobytes()).hexdigest()
    sys.stdout.write(f"\n{json.dumps(row)}\n")


def _start_peak() -> float:
    """Forget the peak so far, which imports left; return the memory of now in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run(path: Path, backend: str, arm: str, threads: int, libraries: str) -> dict:
    """Return the row of an arm, measured in a new process."""
    command = [sys.executable, __file__, "--arm", str(path), backend, arm, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{backend} {arm} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure all arms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-sequential", action="store_true", help="leave out the arm of minutes")
    parser.add_argument("--arm", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        measure(*given.arm, given.threads)
        return
    has_torchcodec = find_spec("torchcodec") is not None
    arms = [("pyav", arm) for arm in ARMS]
    if has_torchcodec:
        arms += [("torchcodec", arm) for arm in ("own", "seeking", "seeking_resized")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_video(path, given.minutes)
        libraries = link_ffmpeg(Path(folder)) if has_torchcodec else os.environ.get("LD_LIBRARY_PATH", "")
        rows = {
            f"{backend} {arm}": run(path, backend, arm, given.threads, libraries)
            for backend, arm in arms
            if not (given.skip_sequential and arm == "sequential")
        }
        size = path.stat().st_size
    result = {"minutes": given.minutes, "threads": given.threads, "bytes": size, "arms": rows}
    own = rows.get("torchcodec own")
    for name, row in rows.items():
        if own and name != "torchcodec own":
            row["time_by_torchcodec"] = round(row["cpu_s"] / own["cpu_s"], 3)
        if "pyav sequential" in rows and "resized_sha256" in row:
            first = rows["pyav sequential"]
            row["time_by_sequential"] = round(row["cpu_s"] / first["cpu_s"], 4)
            row["same_as_sequential"] = row["resized_sha256"] == first["resized_sha256"] and (
                row["sha256"] in (None, first["sha256"])
            )
    sys.stdout.write(f"{json.dumps(result, indent=1)}\n")


if __name__ == "__main__":
    main()
