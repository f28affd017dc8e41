"""Draw a sheet of rooms of one style with their depth, and measure how fast rooms of each style are made.

python tests/benchmarks/furnished_sheet.py docs/assets/furnished_rooms.jpg
python tests/benchmarks/furnished_sheet.py --speed
"""

import argparse
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from processing.rooms.furnished.casting import default_engine
from processing.rooms.furnished.catalogue import read_catalogue
from processing.rooms.generate import make_room
from processing.rooms.scene.styles import STYLES

FAR = 7.0  # metres of depth that are drawn black


def decoded(image: dict) -> Image.Image:
    """Open an encoded image of a row."""
    return Image.open(io.BytesIO(image["bytes"]))


def draw_sheet(style: str, size: int, columns: int = 4, rows: int = 4) -> Image.Image:
    """Draw frame 0 of the first test rooms, each with its depth to the right: near is white."""
    sheet = Image.new("RGB", (2 * columns * size, rows * size))
    for number in range(columns * rows):
        row = make_room("test", 0, number, size, 2, style)[1]
        x, y = number % columns * 2 * size, number // columns * size
        sheet.paste(decoded(row["frames"][0]), (x, y))
        near = 255 * np.clip(1 - np.asarray(decoded(row["depth"][0])) / FAR, 0, 1)
        sheet.paste(Image.fromarray(near.astype(np.uint8)), (x + size, y))
    return sheet


def measure_speed(style: str, num_rooms: int, size: int, num_frames: int) -> dict:
    """Return rooms in a second of one core's time, and of the clock."""
    make_room("test", 1, 0, 32, 1, style)
    read_catalogue()
    start, clock = time.process_time(), time.perf_counter()
    for index in range(num_rooms):
        make_room("test", 0, index, size, num_frames, style)
    spent, passed = time.process_time() - start, time.perf_counter() - clock
    return {
        "style": style,
        "caster": default_engine() if style == "furnished" else "solids",
        "rooms_per_cpu_second": round(num_rooms / spent, 2),
        "rooms_per_second": round(num_rooms / passed, 2),
    }


def main() -> None:
    """Draw a sheet, or measure all styles."""
    parser = argparse.ArgumentParser(description="A sheet of rooms, or their speed.")
    parser.add_argument("output", type=Path, nargs="?", help="picture to write")
    parser.add_argument("--style", choices=STYLES, default="furnished")
    parser.add_argument("--image-size", type=int, default=0, help="pixels; 112 for the sheet, 64 for the speed")
    parser.add_argument("--num-frames", type=int, default=4)
    parser.add_argument("--num-rooms", type=int, default=24)
    parser.add_argument("--speed", action="store_true", help="measure the styles rather than draw one")
    arguments = parser.parse_args()
    if arguments.speed:
        for style in STYLES:
            told = measure_speed(style, arguments.num_rooms, arguments.image_size or 64, arguments.num_frames)
            sys.stdout.write(json.dumps(told) + "\n")
    if arguments.output:
        draw_sheet(arguments.style, arguments.image_size or 112).save(arguments.output, quality=88)


if __name__ == "__main__":
    main()
