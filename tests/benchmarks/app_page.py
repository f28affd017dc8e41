"""Pictures of the page of `ide3d app`, and its memory over many uploads, in a real browser.

    python tests/benchmarks/app_page.py --pictures docs/assets
    python tests/benchmarks/app_page.py --uploads 50

Needs the extra `app`, playwright and a Chromium.
"""

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
from browsing import Visitor, serve_page, start_browser  # noqa: E402
from exporting import write_frames  # noqa: E402
from PIL import Image  # noqa: E402

from processing.rooms import load_rooms  # noqa: E402

HEIGHT = 2200  # pixels of the window: what lies below it is not drawn
SHORT = 1000  # pixels of a window whose lower part shows nothing yet
EVERY = 10  # uploads between two lines of the table


def draw_pictures(folder: Path) -> None:
    """Write pictures of the page: a rendered room asked, clicked and searched; an upload; a broken file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as videos, serve_page() as (url, _), start_browser() as browser:
        visitor = Visitor(browser, url, HEIGHT)
        visitor.page.get_by_role("button", name="Room 1").click()
        visitor.read("status", "Room 1 is open.")
        visitor.ask("What colour is the armchair?")
        visitor.click_frame(0.75, 0.72)
        visitor.press("How far is what is marked?")
        visitor.find("the blue table")
        canvas = visitor.page.frame_locator("#view iframe").locator("canvas")
        canvas.wait_for()
        canvas.evaluate("canvas => canvas.scrollIntoView()")
        visitor.page.wait_for_timeout(3000)
        save_picture(visitor, folder / "app.jpg")
        (row,) = load_rooms("test", 1, image_size=64, num_frames=8)
        video = write_room(Path(videos) / "phone.mp4", row)
        visitor = Visitor(browser, url, SHORT)
        visitor.upload(video)
        visitor.read("status", "phone.mp4 is open.")
        visitor.ask("How many chairs are in the room?")
        save_picture(visitor, folder / "app_upload.jpg", is_whole=False)
        (Path(videos) / "broken.mp4").write_bytes(video.read_bytes()[:700])
        visitor.upload(Path(videos) / "broken.mp4")
        visitor.read("status", "broken.mp4")
        save_picture(visitor, folder / "app_broken.jpg", is_whole=False)


def write_room(path: Path, row: dict, mark: int | None = None) -> Path:
    """Write the frames of a room, 384 x 384, as a video; a mark in its first row makes it another file."""
    frames = np.stack([np.asarray(frame) for frame in row["frames"]])
    if mark is not None:
        frames[:, 0, 0] = mark
    return write_frames(path, frames.repeat(6, 1).repeat(6, 2), "libx264")  # browsers play it, and not mpeg4


def save_picture(visitor: Visitor, path: Path, is_whole: bool = True) -> None:
    """Write what the page shows from its top, the whole of it or what the window shows."""
    visitor.page.evaluate("window.scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(visitor.page.screenshot(full_page=is_whole))).convert("RGB")
    picture.save(path, quality=70, optimize=True)
    sys.stdout.write(f"{path}: {picture.width} x {picture.height}\n")


def measure_uploads(count: int) -> None:
    """Print the memory of the server after uploads of so many different videos, each asked about once."""
    rows = load_rooms("test", 2, image_size=64, num_frames=8)
    with tempfile.TemporaryDirectory() as folder, serve_page() as (url, handlers), start_browser() as browser:
        visitor = Visitor(browser, url)
        sys.stdout.write("| Uploads | Memory of the server, MB | Open scenes |\n|---|---|---|\n")
        for number in range(1, count + 1):
            visitor.upload(write_room(Path(folder) / f"room{number}.mp4", rows[number % 2], mark=number))
            visitor.read("status", f"room{number}.mp4 is open.")
            visitor.ask("Is there a red chair in the room?")
            if number == 1 or number % EVERY == 0:
                status = Path("/proc/self/status").read_text(encoding="ascii")
                memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024
                sys.stdout.write(f"| {number} | {memory} | {len(handlers.shelf)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder to write the pictures into, such as docs/assets")
    parser.add_argument("--uploads", type=int, default=0, help="videos to upload")
    given = parser.parse_args()
    if given.pictures is not None:
        draw_pictures(given.pictures)
    if given.uploads:
        measure_uploads(given.uploads)
