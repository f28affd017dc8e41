#!/usr/bin/env bash
# SVT-AV1 at its fast preset 12 encodes a picture with a whole block of another picture's colour.
#
# Twelve pictures of 96 x 64 pixels, each with six blocks that are black or white by the bits of its number. One would
# guess that a fast preset costs sharpness. At preset 12 and crf 20 a block of 16 x 32 pixels of one picture is black
# where it should be white, also with temporal filtering off; with preset 8 all are right.
# Whoever makes test videos with it for a reader of single frames looks for the fault in the reader.
#
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2, its own SVT-AV1); light, no torch:
#   preset 12:                       read 0 1 2 3 4 5 4 7 8 9 10 11
#   preset 12, no temporal filter:   read 0 1 2 3 4 5 4 7 8 9 10 11
#   preset 8:                        read 0 1 2 3 4 5 6 7 8 9 10 11
#
# Exits with 0 while this is so, with 1 if it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet av==18.1.0 numpy
venv/bin/python -m pip list 2>/dev/null | grep -E '^(av|numpy) '
cat > blocks.py <<'PYTHON'
import sys

import av
import numpy as np


def read_back(options):
    with av.open("video.mp4", "w") as out:
        stream = out.add_stream("libsvtav1", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            picture = np.full((64, 96, 3), 60, np.uint8)
            picture[:32, :48], picture[:32, 48:] = 235, (200, 40, 40)
            for bit in range(6):
                picture[32:, 16 * bit : 16 * bit + 16] = 230 if number >> bit & 1 else 20
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    with av.open("video.mp4") as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    blocks = [[frame[40:56, 16 * bit + 4 : 16 * bit + 12].mean() > 128 for bit in range(6)] for frame in frames]
    return [sum(int(block) << bit for bit, block in enumerate(row)) for row in blocks]


fast = read_back({"preset": "12", "crf": "20"})
unfiltered = read_back({"preset": "12", "crf": "20", "svtav1-params": "enable-tf=0"})
slower = read_back({"preset": "8", "crf": "20"})
for name, numbers in (("preset 12", fast), ("preset 12, no temporal filter", unfiltered), ("preset 8", slower)):
    print(f"{name + ':':32} read", *numbers)
sys.exit(not (fast != list(range(12)) and slower == list(range(12))))
PYTHON
venv/bin/python blocks.py 2>/dev/null
