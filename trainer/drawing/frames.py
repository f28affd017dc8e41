"""Frames with regions tinted and outlined, and with boxes where the camera sees them."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from processing.frame_order_ide3d import find_uniform_indices
from trainer.drawing.boxes import box_edges, project_lines
from trainer.drawing.drawing import Drawing
from trainer.drawing.spaces import DARK, mark_colour, text_colour

__all__ = ["choose_frames", "describe_frame", "draw_frame", "draw_sheet", "shorten", "tint_cells"]

MAX_LABEL = 48  # letters of a label in a picture
SHEET_FRAMES = 12
SHEET_WIDTH = 420  # pixels of a frame on a sheet
TINT = 70  # of 255
MARGIN, LINE_HEIGHT = 12, 20
INK, PAPER, QUIET = (29, 36, 51), (255, 255, 255), (90, 98, 115)
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels
# Pillow's own font knows Latin letters alone; of these the first that the system has draws others.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf")


def shorten(text: str, length: int = MAX_LABEL) -> str:
    """Return a text on one line, cut to so many letters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}\u2026"


def choose_frames(drawing: Drawing, limit: int) -> list[int]:
    """Return up to `limit` frames, those that show most marks.

    Where nothing is marked they are spread evenly.
    """
    count = len(drawing.frames)
    if count <= limit:
        return list(range(count))
    shows = np.zeros(count)
    for mark in drawing.marks:
        if mark.masks is not None:
            cells = mark.masks.reshape(count, -1).sum(1)
            shows += (cells > 0) + cells / max(cells.max(), 1)
        if mark.frame is not None:
            shows[mark.frame] += len(drawing.marks) * 2
    if not shows.any():
        return find_uniform_indices(count, limit).tolist()
    return sorted(np.argsort(-shows, kind="stable")[:limit].tolist())


def draw_frame(drawing: Drawing, frame: int, width: int | None = None) -> Image.Image:
    """Draw one frame with its regions and boxes.

    Boxes are drawn in the frame in whose camera they are; with poses, in all frames. Nothing hides a box.

    Args:
        drawing: Frames and marks.
        frame: Number of the frame, in [0, V).
        width: Width of the picture in pixels; default: that of the frame.
    """
    height, own_width = drawing.frames.shape[1:3]
    scale = 1.0 if width is None else width / own_width
    size = (max(1, round(own_width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(drawing.frames[frame]).resize(size, Image.Resampling.BICUBIC)
    thickness = max(2, round(size[0] / 220))
    named: list[tuple[int, tuple[float, float]]] = []
    for number, mark in enumerate(drawing.marks):
        if mark.masks is not None and mark.masks[frame].any():
            seen = _seen_size(drawing, size)
            tint_cells(picture, mark.masks[frame], seen, mark_colour(number), TINT)
            lines = _outline(mark.masks[frame], seen)
            _draw_lines(ImageDraw.Draw(picture), lines, mark_colour(number), max(1, thickness // 2))
            ends = lines.reshape(-1, 2)
            named.append((number, tuple(ends[np.lexsort((ends[:, 0], ends[:, 1]))[0]])))
    for number, corners in _boxes_in(drawing, frame):
        lines = project_lines(box_edges(corners), drawing.intrinsics[frame], (height, own_width))
        if len(lines):
            lines = (lines + 0.5) * scale
            _draw_lines(ImageDraw.Draw(picture), lines, mark_colour(number), thickness)
            top = lines.reshape(-1, 2)[lines.reshape(-1, 2)[:, 1].argmin()]
            if number not in [other for other, _ in named]:
                named.append((number, tuple(top)))
    taken: list[Rectangle] = []
    for number, place in named:
        taken.append(_draw_number(picture, number, place, taken))
    return picture


def describe_frame(drawing: Drawing, frame: int) -> str:
    """Say in words what is marked in a frame, for those who cannot see it."""
    height, width = drawing.frames.shape[1:3]
    shown: dict[int, list[str]] = {}
    for number, mark in enumerate(drawing.marks):
        if mark.masks is not None and mark.masks[frame].any():
            rows, cols = np.nonzero(mark.masks[frame])
            place = _name_place(rows.mean() / mark.masks.shape[1], cols.mean() / mark.masks.shape[2])
            shown.setdefault(number, []).append(f"region {place}")
    for number, corners in _boxes_in(drawing, frame):
        if len(project_lines(box_edges(corners), drawing.intrinsics[frame], (height, width))):
            shown.setdefault(number, []).append("box")
    labels = [entry.label for entry in (*drawing.marks, *drawing.boxes)]
    words = "; ".join(f"{number + 1} {labels[number]}: {', '.join(what)}" for number, what in shown.items())
    return f"Frame {drawing.frame_names[frame]}: {words or 'nothing is marked'}."


def draw_sheet(drawing: Drawing) -> Image.Image:
    """Draw up to twelve frames on one sheet, with title, notes and a legend."""
    chosen = choose_frames(drawing, SHEET_FRAMES)
    pictures = [draw_frame(drawing, frame, SHEET_WIDTH) for frame in chosen]
    wanted = math.sqrt(len(pictures) * 1.5)  # a sheet that is wider than high
    columns = min(range(1, 5), key=lambda number: -len(pictures) % number + abs(number - wanted))
    rows = -(-len(pictures) // columns)
    cell = (SHEET_WIDTH + MARGIN, pictures[0].height + LINE_HEIGHT + MARGIN)
    width = columns * cell[0] + MARGIN
    letters = max(20, width // 9)
    lines = [(shorten(note, letters), None) for note in drawing.notes]
    for number, entry in enumerate((*drawing.marks, *drawing.boxes)):
        score = getattr(entry, "score", None)
        words = f"{number + 1}  {entry.label}" + ("" if score is None else f", score {score:.3f}")
        lines.append((shorten(words, letters - 4), mark_colour(number)))
    if len(chosen) < len(drawing.frames):
        lines.append((f"{len(chosen)} of {len(drawing.frames)} frames are shown.", None))
    top = MARGIN + 30 + LINE_HEIGHT * len(lines) + MARGIN
    sheet = Image.new("RGB", (width, top + rows * cell[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    title = shorten(drawing.title, letters * 2 // 3)
    draw.text((MARGIN, MARGIN), title, INK, font=_font(20, not title.isascii()))
    for index, (words, colour) in enumerate(lines):
        y = MARGIN + 30 + LINE_HEIGHT * index
        if colour is not None:
            draw.rectangle([MARGIN, y + 2, MARGIN + 13, y + 15], fill=colour, outline=DARK)
        draw.text((MARGIN + (22 if colour else 0), y), words, INK, font=_font(14, not words.isascii()))
    for index, (frame, picture) in enumerate(zip(chosen, pictures, strict=True)):
        x, y = MARGIN + index % columns * cell[0], top + index // columns * cell[1]
        sheet.paste(picture, (x, y))
        name = f"Frame {shorten(drawing.frame_names[frame])}"
        draw.text((x, y + picture.height + 2), name, QUIET, font=_font(14, not name.isascii()))
    return sheet


def tint_cells(
    picture: Image.Image, cells: np.ndarray, seen: tuple[float, float], colour: tuple[int, int, int], share: int
) -> None:
    """Lay a colour over cells of the token grid, in place.

    Args:
        picture: Frame at any size.
        cells: Cells (rows, cols), bool.
        seen: Width and height in pixels, from the top left, over which the cells are spread.
        colour: Red, green and blue, 0 to 255.
        share: Share of the colour, of 255.
    """
    size = (max(1, round(seen[0])), max(1, round(seen[1])))
    mask = Image.fromarray(np.where(cells, share, 0).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    picture.paste(Image.new("RGB", size, colour), (0, 0), mask)


def _boxes_in(drawing: Drawing, frame: int) -> list[tuple[int, np.ndarray]]:
    """Return number and corners (8, 3), in a frame's camera, of its boxes."""
    if drawing.intrinsics is None:
        return []
    poses, found = drawing.camera_to_world, []
    for number, mark in enumerate(drawing.marks):
        if mark.corners is None or (poses is None and mark.frame != frame):
            continue
        found.append((number, mark.corners if mark.frame == frame else _to(poses, frame, mark.corners, mark.frame)))
    first = len(drawing.marks)
    return found + [(first + index, _to(poses, frame, box.corners)) for index, box in enumerate(drawing.boxes)]


def _to(poses: np.ndarray, frame: int, points: np.ndarray, source: int | None = None) -> np.ndarray:
    """Move points (N, 3) into the camera of a frame.

    They come from the world, or from the camera of the frame `source`.
    """
    target_from_source = np.linalg.inv(poses[frame].astype(np.float64))
    if source is not None:
        target_from_source = target_from_source @ poses[source]
    return points @ target_from_source[:3, :3].T + target_from_source[:3, 3]


def _seen_size(drawing: Drawing, size: tuple[int, int]) -> tuple[float, float]:
    """Return width and height in pixels of what the model sees of a picture."""
    if drawing.grid is None:
        return float(size[0]), float(size[1])
    (seen_height, seen_width), (height, width) = drawing.grid.covered_size, drawing.grid.image_size
    return size[0] * seen_width / width, size[1] * seen_height / height


def _outline(cells: np.ndarray, seen: tuple[float, float]) -> np.ndarray:
    """Return lines (N, 2, 2) as (x, y) between cells inside and outside of a region."""
    rows, cols = cells.shape
    framed = np.pad(cells, 1)
    lines = [[(x, y), (x, y + 1)] for y, x in np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1])]
    lines += [[(x, y), (x + 1, y)] for y, x in np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1])]
    return np.array(lines, np.float64) * (seen[0] / cols, seen[1] / rows)


def _draw_lines(draw: ImageDraw.ImageDraw, lines: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    """Draw lines (N, 2, 2) over a darker edge, so that they are seen on any ground."""
    for fill, width in ((DARK, thickness + 2), (colour, thickness)):
        for start, end in lines.tolist():
            draw.line([*start, *end], fill=fill, width=width)


def _draw_number(
    picture: Image.Image, number: int, place: tuple[float, float], taken: Sequence[Rectangle]
) -> Rectangle:
    """Write a mark's number on a ground of its colour, and return that ground.

    It lies inside the picture and beside the grounds that are `taken`.
    """
    draw, words = ImageDraw.Draw(picture), str(number + 1)
    font = _font(max(12, picture.width // 26), False)
    left, top, right, bottom = draw.textbbox((0, 0), words, font=font)
    width, height = right - left + 8, bottom - top + 8
    x = min(max(0, place[0]), max(0, picture.width - width))
    y = min(max(0, place[1] - height), max(0, picture.height - height))
    for _ in taken:  # each may push it once, to the right or at the border down
        for other in taken:
            if x <= other[2] and other[0] <= x + width and y <= other[3] and other[1] <= y + height:
                fits = other[2] + 1 + width <= picture.width
                x, y = (other[2] + 1, y) if fits else (x, min(other[3] + 1, max(0, picture.height - height)))
    draw.rectangle([x, y, x + width, y + height], fill=mark_colour(number), outline=DARK)
    draw.text((x + 4 - left, y + 4 - top), words, text_colour(number), font=font)
    return x, y, x + width, y + height


def _name_place(row: float, col: float) -> str:
    """Say where in a picture a point lies, given as shares of height and width."""
    across = ("left", "middle", "right")[min(2, int(col * 3))]
    return f"{('top', 'middle', 'bottom')[min(2, int(row * 3))]} {across}".replace("middle middle", "in the middle")


@cache
def _font(size: int, needs_more: bool) -> ImageFont.ImageFont:
    for name in FONTS if needs_more else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
