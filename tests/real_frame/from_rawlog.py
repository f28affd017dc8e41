"""Write the frame of this folder from MRPT's `tests_rgbd.rawlog`.

    apt-get download mrpt-common && dpkg-deb -x mrpt-common_*.deb mrpt
    python tests/real_frame/from_rawlog.py mrpt/usr/share/mrpt/datasets/tests_rgbd.rawlog tests/real_frame

`--picture docs/assets/real_frame.jpg` draws colour and depth beside each other, half as large.

The log is gzip around one serialised `CObservation3DRangeScan` of version 9. What is read of it: the range image
(uint16 with a unit in metres; ranges along the axis of the camera, registered to the colour image), the colour image
(raw BGR), and the parameters of the colour camera.
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

MAX_BYTES = 64 << 20
CLASS = b"CObservation3DRangeScan\x09"


def read_rawlog(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return colour (h, w, 3) uint8, depth (h, w) uint16 in millimetres, and intrinsics (3, 3) of the colour image.

    Raises:
        ValueError: If the bytes are no log of this class and version, or depth has another unit.
    """
    if CLASS not in data[:64]:
        raise ValueError(f"Expected one observation of class and version {CLASS!r}, got {data[:40]!r}.")
    at = data.index(b"\x88", data.index(b"CPose3D")) + 2  # behind the pose's end: points follow
    (points,) = struct.unpack_from("<I", data, at)
    at += 4 + points * (3 * 4 + 2 * 2) + 1  # x, y, z, and their pixels; then the flag of the range image
    unit, rows, cols = struct.unpack_from("<fII", data, at)
    if abs(unit - 0.001) > 1e-9:
        raise ValueError(f"Expected ranges in millimetres, got steps of {unit} m.")
    depth = np.frombuffer(data, "<u2", rows * cols, at + 12).reshape(rows, cols)
    shape = struct.pack("<ii", -cols, -rows)  # negative: pixels are not compressed
    at = data.index(shape, at + 12 + 2 * rows * cols) + len(shape)
    colour = np.frombuffer(data, np.uint8, rows * cols * 3, at).reshape(rows, cols, 3)[..., ::-1]
    first = data.index(b"TCamera\x04", at + colour.size)
    second = data.index(b"TCamera\x04", first + 1) + len(b"TCamera\x04")
    fx, fy, cx, cy = struct.unpack_from("<4d", data, second + 72)
    return colour, depth, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def main() -> None:
    """Write 00000.jpg, 00000.png and intrinsic.txt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rawlog", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    with gzip.open(args.rawlog) as file:
        colour, depth, intrinsics = read_rawlog(file.read(MAX_BYTES))
    Image.fromarray(colour).save(args.folder / "00000.jpg", quality=92, subsampling=0)
    Image.fromarray(depth).save(args.folder / "00000.png", optimize=True)
    np.savetxt(args.folder / "intrinsic.txt", intrinsics, fmt="%.6f")
    if args.picture is not None:
        grey = np.where(depth > 0, 255 - 220 * (depth / depth.max()), 0).astype(np.uint8)
        both = Image.fromarray(np.concatenate([colour, grey[..., None].repeat(3, -1)], 1))
        both.resize((both.width // 2, both.height // 2), Image.Resampling.LANCZOS).save(args.picture, quality=85)


if __name__ == "__main__":
    main()
