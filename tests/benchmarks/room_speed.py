"""How many rooms a CPU second are rendered, by this checkout and by another one, and whether they are the same.

    PYTHONPATH=. python tests/benchmarks/room_speed.py [--against FOLDER] [--rooms 12]

FOLDER is a checkout of another version. Both render the same rooms, one after the other in turn, in processes of their
own. Printed as JSON, for two sizes: CPU milliseconds a room, its peak memory beyond that of the imports, and for the
other version also rooms a CPU second by those of it and whether all pixels and questions are the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SIZES = ((64, 4), (126, 8))  # of `rooms_nano.yaml`, and the default of `load_rooms`
REPOSITORY = Path(__file__).parents[2]
# Runs in both versions, so it names nothing that is new.
RENDER = """
import hashlib, io, json, resource, sys, time
import numpy as np
from PIL import Image
from processing.rooms.generate import make_room
size, frames, rooms = map(int, sys.argv[1:])
make_room("train", 1, 0, size, frames)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
rows = [make_room("train", 0, index, size, frames)[1] for index in range(rooms)]
seconds = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
digest = hashlib.sha256()
for row in rows:
    for key in ("frames", "depth", "instance_ids"):
        for image in row[key]:
            pixels = np.asarray(Image.open(io.BytesIO(image["bytes"])))
            digest.update(str(pixels.dtype).encode() + pixels.tobytes())
    digest.update(row["intrinsics"].tobytes() + row["camera_to_world"].tobytes())
    digest.update(json.dumps([row["objects"], row["questions"]]).encode())
print(json.dumps([1e3 * seconds / rooms, peak / 1024, digest.hexdigest()]))
"""


def render(folder: Path, size: int, frames: int, rooms: int) -> tuple[float, float, str]:
    """Render rooms by a checkout; milliseconds a room, megabytes, and a digest of what is in them."""
    words = [sys.executable, "-c", RENDER, *map(str, (size, frames, rooms))]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rooms", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folders = [REPOSITORY, *([options.against.resolve()] if options.against else [])]
    report = []
    for size, frames in SIZES:
        runs = {folder: [] for folder in folders}
        for _ in range(options.repeats):
            for folder in folders:
                runs[folder].append(render(folder, size, frames, options.rooms))
        times = [statistics.median(run[0] for run in runs[folder]) for folder in folders]
        entry = {"image_size": size, "num_frames": frames, "cpu_ms": times[0], "peak_mb": runs[REPOSITORY][0][1]}
        if options.against:
            entry["rooms_a_cpu_second_by_other"] = times[1] / times[0]
            entry["same"] = len({run[2] for folder in folders for run in runs[folder]}) == 1
        report.append(entry)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
