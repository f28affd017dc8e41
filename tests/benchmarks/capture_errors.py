"""Write a room in every format of captures, read it back, and print how far the two are apart.

`python tests/benchmarks/capture_errors.py` takes a minute. A reprojection error is the largest distance in pixels,
over all frames, of where both see the points that the written depth, or the read one, measures.
"""

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from capture_rooms import CAMERA, look, reprojection_error  # noqa: E402
from capture_writers import write_posed_images, write_scannet, write_sens, write_seven_scenes, write_tum  # noqa: E402
from capture_writers_phones import write_arkitscenes, write_polycam, write_record3d, write_stray_scanner  # noqa: E402
from capture_writers_posed import write_colmap, write_nerfstudio  # noqa: E402
from capture_writers_rendered import write_hypersim, write_replica  # noqa: E402
from capture_writers_ros import write_ros_bag  # noqa: E402

from processing.captures import open_capture  # noqa: E402

KINECT = (np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]]), (480, 640), 2)
WRITERS: dict[str, tuple[Callable, float]] = {  # and the step of depth, in metres
    "scannet": (write_scannet, 1e-3), "posed_images": (write_posed_images, 1e-3), "sens": (write_sens, 1e-3),
    "tum": (write_tum, 1 / 5000), "7scenes": (write_seven_scenes, 1e-3), "nerfstudio": (write_nerfstudio, 1e-3),
    "colmap": (write_colmap, 0), "record3d": (write_record3d, 0), "stray_scanner": (write_stray_scanner, 1e-3),
    "polycam": (write_polycam, 1e-3), "arkitscenes": (lambda f, room: write_arkitscenes(f, room, quarters=1), 1e-3),
    "replica": (write_replica, 1 / 6553.5), "hypersim": (write_hypersim, 0), "ros_bag": (write_ros_bag, 1e-3),
}  # fmt: skip


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print("| Format | Written to read, px | Read to written, px | Largest error of depth, mm |\n|---|---|---|---|")  # noqa: T201
    for name, (write, step) in WRITERS.items():
        room = look(*(KINECT if name == "7scenes" else ()), step=step)
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "room", room)
            read = open_capture(path, **({"intrinsics": CAMERA} if name == "tum" else {}))
        there, back, depth = reprojection_error(room, read), None, None
        if read.depth is not None:
            back, depth = reprojection_error(read, room), 1000 * float(np.abs(read.depth - room.depth).max())
        cells = [
            f"{there:.1e}",
            "no depth" if back is None else f"{back:.1e}",
            "" if depth is None else f"{depth:.1e}",
        ]
        print(f"| `{name}` | {' | '.join(cells)} |")  # noqa: T201


if __name__ == "__main__":
    main()
