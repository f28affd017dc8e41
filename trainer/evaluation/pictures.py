"""Frames of a scene with boxes drawn into them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw

from processing import PosedVideo
from processing.frame_order_ide3d import find_uniform_indices
from processing.token_grid import TokenGrid
from trainer.drawing.boxes import box_edges
from trainer.drawing.frames import tint_cells
from trainer.geometry import project_points

__all__ = ["draw_example"]

FRAMES = 4
WIDTH = 320  # of a frame, pixels
STYLES = {"meant": ("#22cc66", 5), "given": ("#3399ff", 3), "found": ("#ff5533", 2)}  # colour, width of a line
NAMES = {"meant": "green", "given": "blue", "found": "red"}
TINT = 70  # of 255
# Corners in the order of `order_corners`.
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
STEPS = 9  # points of an edge, so that one that passes the camera is drawn as far as it is seen


def _edge_points(box: Sequence[float]) -> np.ndarray:
    """Return points (12, STEPS, 3) along the edges of a box, in metres."""
    corners = np.asarray(box[:3]) + CORNERS * np.asarray(box[3:])
    ends = box_edges(corners)
    share = np.linspace(0, 1, STEPS)[:, None]
    return ends[:, :1] * (1 - share) + ends[:, 1:] * share


def _pixels(scene: PosedVideo, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return pixels (V, N, 12, STEPS, 2) of the edges of boxes, NaN behind the camera."""
    points = torch.from_numpy(np.stack([_edge_points(box) for box in boxes])).float()
    views = len(scene)
    cameras = torch.from_numpy(np.asarray(scene.intrinsics)).float()
    poses = torch.from_numpy(np.asarray(scene.camera_to_world)).float()
    pixels, _ = project_points(points.expand(views, *points.shape), cameras, poses)
    return pixels.numpy()


def _choose_frames(scene: PosedVideo, pixels: np.ndarray | None) -> list[int]:
    """Return the frames that show most of the boxes, else evenly spread ones."""
    count = min(FRAMES, len(scene))
    if pixels is None:
        return find_uniform_indices(len(scene), count).tolist()
    height, width = scene.frames.shape[1:3]
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    visible = inside.reshape(len(scene), -1).mean(-1)
    return sorted(np.argsort(-visible, kind="stable")[:count].tolist())


def draw_example(
    scene: PosedVideo,
    boxes: Mapping[str, Sequence[Sequence[float]]],
    masks: Mapping[str, np.ndarray],
    grid: TokenGrid,
) -> tuple[Image.Image, str]:
    """Plot up to four frames with boxes as wires and their tokens tinted.

    Args:
        scene: Frames; boxes are plotted where poses and intrinsics are known.
        boxes: Boxes (N, 6) by "meant" (green), "given" (blue) and "found" (red), metres, in the frame of the poses.
        masks: Region masks (N, V, rows, cols) of the boxes under the same names.
        grid: Token grid of the masks.

    Returns:
        The picture, and a caption.
    """
    has_cameras = scene.camera_to_world is not None and scene.intrinsics is not None
    drawn = [(name, list(box)) for name in STYLES for box in boxes.get(name, ()) if has_cameras]
    pixels = _pixels(scene, [box for _, box in drawn]) if drawn else None
    chosen = _choose_frames(scene, pixels)
    height, width = scene.frames.shape[1:3]
    scale, covered, whole = WIDTH / width, grid.covered_size, grid.image_size
    size = (WIDTH, max(1, round(height * scale)))
    sheet = Image.new("RGB", (size[0] * len(chosen), size[1]))
    for place, view in enumerate(chosen):
        frame = Image.fromarray(scene.frames[view]).resize(size)
        for name in STYLES:
            if name in masks:
                seen = (size[0] * covered[1] / whole[1], size[1] * covered[0] / whole[0])
                tint_cells(frame, masks[name][:, view].any(0), seen, ImageColor.getrgb(STYLES[name][0]), TINT)
        if pixels is not None:
            draw = ImageDraw.Draw(frame)
            for edges, (name, _) in zip(pixels[view], drawn, strict=True):
                _draw_edges(draw, (edges + 0.5) * scale, *STYLES[name])
        sheet.paste(frame, (place * size[0], 0))
    names = scene.frame_names or [str(index) for index in range(len(scene))]
    shown = [f"{name}: {NAMES[name]}" for name in STYLES if any(name == other for other, _ in drawn)]
    where = f" Boxes and their tokens {', '.join(shown)}." if shown else ""
    return sheet, f"Frames {', '.join(names[view] for view in chosen)}.{where}"


def _draw_edges(draw: ImageDraw.ImageDraw, edges: np.ndarray, colour: str, thickness: int) -> None:
    for edge in edges:
        for start, end in zip(edge[:-1], edge[1:], strict=True):
            # Far outside a picture coordinates grow without bound, which the drawing does not bear.
            if np.isfinite([start, end]).all() and np.abs([start, end]).max() < 1e5:
                draw.line([tuple(start), tuple(end)], fill=colour, width=thickness)
