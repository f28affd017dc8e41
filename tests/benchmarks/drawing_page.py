"""A page of what the shipped nano model finds in a rendered room, and a picture of it.

    PYTHONPATH=.:tests python tests/benchmarks/drawing_page.py --picture docs/assets/drawing.jpg

The model chooses among the true regions. Boxes, poses and depth of the page are those of the rendering. The room is of
the validation split, the first in which the three objects that fill most cells are all found. The picture needs
Chromium (`--browser` names it).

    PYTHONPATH=.:tests python tests/benchmarks/drawing_page.py --found docs/assets/found.jpg

This writes the same room's pictures, and nothing else that is known of it, to the folder `--frames`. It then looks for
the same objects and one that is not there by `ide3d find --save`: the model proposes the regions itself.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ide3d import PosedVideo, SceneSession, load_rooms, nano_model
from ide3d.commands.scenes import NANO_REQUEST
from processing.region_files import NamedRegions
from processing.regions import regions_from_ids
from trainer.drawing import Cameras, PointCloud, WorldBox, draw_found, save_drawing
from trainer.geometry import unproject_depth
from trainer.session import VideoScene, load_inference_model

BITS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
WORDS = 3  # objects that are looked for
NOT_THERE = "the red sofa"
SIZE, FRAMES = 378, 6


def build_page(path: Path, room: int) -> list[str]:
    """Find objects of a room of the validation split and draw them; return the words for them."""
    (row,) = load_rooms("validation", 1, start=room, image_size=SIZE, num_frames=FRAMES)
    video = PosedVideo.from_room(row)
    model, processor = load_inference_model(nano_model(), device="cpu")
    session = SceneSession(model, processor, video.frames, do_sample_frames=False)
    scene = VideoScene(session, tuple(range(FRAMES)), FRAMES, video.frames)
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    masks = regions_from_ids(ids, [thing["id"] for thing in row["objects"]], session.token_grid)
    seen = [index for index, mask in enumerate(masks) if mask.any()]
    names = [f"object {row['objects'][index]['id']}" for index in seen]
    regions = NamedRegions(tuple(names), masks[torch.tensor(seen)])
    largest = sorted(seen, key=lambda index: -int(masks[index].sum()))[:WORDS]
    things = [row["objects"][index] for index in largest]
    words = [f"the {thing['colour']} {thing['category']}" for thing in things]
    found = scene.find(words, regions, template=NANO_REQUEST)
    boxes = [
        WorldBox(f"true box of {word}", thing["center"] + BITS * thing["size"])
        for word, thing in zip(words, things, strict=True)
    ]
    points = unproject_depth(torch.from_numpy(video.depth), torch.from_numpy(video.intrinsics)).reshape(-1, 3).numpy()
    kept = np.flatnonzero(np.isfinite(points).all(1))
    frame_of = np.repeat(np.arange(FRAMES), len(points) // FRAMES)
    cloud = PointCloud(points[kept], video.frames.reshape(-1, 3)[kept], frame_of[kept])
    cameras = Cameras(video.intrinsics, video.camera_to_world)
    drawing = draw_found(scene, found, regions, title="Found in a rendered room", cameras=cameras, points=cloud)
    save_drawing(dataclasses.replace(drawing, boxes=boxes), path)
    return words


def find_in_frames(folder: Path, room: int, words: list[str], picture: Path) -> None:
    """Write the pictures of a room of the validation split, and what the command finds in them."""
    (row,) = load_rooms("validation", 1, start=room, image_size=SIZE, num_frames=FRAMES)
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(row["frames"]):
        frame.save(folder / f"{index}.png")
    with tempfile.TemporaryDirectory() as own:
        sheet = Path(own) / "found.png"
        subprocess.run([sys.executable, "-m", "ide3d", "find", folder, *words, "--save", sheet], check=True)
        save_small(sheet, picture)


def save_small(picture: Path, target: Path) -> None:
    """Write a picture at three quarters of its size, as JPEG."""
    whole = Image.open(picture).convert("RGB")
    size = (whole.width * 3 // 4, whole.height * 3 // 4)
    whole.resize(size, Image.Resampling.LANCZOS).save(target, quality=85, optimize=True)


def take_picture(page: Path, picture: Path, browser: str) -> None:
    """Write what Chromium shows of a page."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
        size = ["--window-size=1160,1640", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run([browser, *options, *size], check=True, capture_output=True, timeout=240)
        save_small(shot, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--room", type=int, default=4, help="Number of the room in the validation split.")
    parser.add_argument("--page", type=Path, default=Path("outputs/drawing.html"))
    parser.add_argument("--picture", type=Path, help="Picture of the page to write.")
    parser.add_argument("--frames", type=Path, default=Path("outputs/room"), help="Folder of the room's pictures.")
    parser.add_argument("--found", type=Path, help="Picture to write of what is found in the pictures alone.")
    parser.add_argument("--browser", default="chromium", help="Name or path of Chromium.")
    arguments = parser.parse_args()
    words = build_page(arguments.page, arguments.room)
    if arguments.found is not None:
        find_in_frames(arguments.frames, arguments.room, [*words, NOT_THERE], arguments.found)
    if arguments.picture is not None:
        take_picture(arguments.page, arguments.picture, arguments.browser)


if __name__ == "__main__":
    main()
