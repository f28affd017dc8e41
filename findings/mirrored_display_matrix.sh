#!/usr/bin/env bash
# PyAV's `frame.rotation` calls a picture that is mirrored left to right one that is turned by half, and torchcodec
# shows it unmirrored: both take the angle of the display matrix and drop its reflection.
#
# Front cameras write such matrices. One would guess that a mirrored MP4 has the rotation 0 and a mirror elsewhere, and
# that a decoder that applies the matrix shows what players show. PyAV says -180, so whoever turns by it gets a picture
# that stands on its head; for a picture mirrored top to bottom it says 0. torchcodec's VideoDecoder, which does apply
# quarter and half turns, takes the same angles. The matrix itself is there, as side data of PyAV's frame.
#
# Seen with PyAV 18.1.0, torchcodec 0.17.0 and the FFmpeg libraries of PyAV's wheel, torch 2.14.1 (6 GB, 2 minutes):
#   plain:                  PyAV's rotation    0, torchcodec shows the white quarter at the upper left
#   mirrored left to right: PyAV's rotation -180, torchcodec shows the white quarter at the lower right
#   mirrored top to bottom: PyAV's rotation    0, torchcodec shows the white quarter at the upper left
#   a player shows it at the upper left, upper right, lower left
#
# Exits with 0 while this is so, with 1 if it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet av==18.1.0 numpy torch==2.14.1 torchcodec==0.17.0
venv/bin/python -m pip list 2>/dev/null | grep -E '^(av|torch|torchcodec) '
# torchcodec brings no FFmpeg: it takes the libraries of PyAV's wheel, by the names that it looks for.
mkdir libraries
for file in venv/lib/python3*/site-packages/av.libs/lib{av,sw}*; do
    name=$(basename "$file" | sed -E 's/^(lib[a-z]+)-[^.]*\.so\.([0-9]+).*/\1.so.\2/')
    ln -s "$folder/$file" "libraries/$name"
done
cat > mirrors.py <<'PYTHON'
import struct
import sys

import av
import numpy as np
from torchcodec.decoders import VideoDecoder

ONE = 1 << 16
picture = np.zeros((48, 64, 3), np.uint8)
picture[:24, :32] = 255
matrices = {
    "plain": (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    "mirrored left to right": (-ONE, 0, 0, 0, ONE, 0, 64 * ONE, 0, 1 << 30),
    "mirrored top to bottom": (ONE, 0, 0, 0, -ONE, 0, 0, 48 * ONE, 1 << 30),
}
shown_by_players = ["upper left", "upper right", "lower left"]
seen = []
for name, matrix in matrices.items():
    with av.open("video.mp4", "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    data = bytearray(open("video.mp4", "rb").read())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", *matrix)
    open("video.mp4", "wb").write(data)
    with av.open("video.mp4") as container:
        frame = next(container.decode(video=0))
    decoded = VideoDecoder("video.mp4", dimension_order="NHWC")[0].numpy()
    quarters = {"upper left": decoded[:24, :32], "upper right": decoded[:24, 32:],
                "lower left": decoded[24:, :32], "lower right": decoded[24:, 32:]}
    where = next(place for place, part in quarters.items() if part.mean() > 200)
    print(f"{name:22}: PyAV's rotation {frame.rotation:4}, torchcodec shows the white quarter at the {where}")
    seen.append((frame.rotation, where))
print("a player shows it at the", ", ".join(shown_by_players))
rotations, places = zip(*seen)
as_recorded = rotations == (0, -180, 0) and places[1] != "upper right" and places[2] != "lower left"
sys.exit(not as_recorded)
PYTHON
LD_LIBRARY_PATH="$folder/libraries" venv/bin/python mirrors.py
