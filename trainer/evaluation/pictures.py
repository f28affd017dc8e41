"""Frames of a scene with boxes drawn into them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from processing import PosedVideo
from trainer.geometry import project_points

__all__ = ["draw_example"]

FRAMES = 4
WIDTH = 320  # of a frame, pixels
MEANT, FOUND, GIVEN = "#22cc66", "#ff5533", "#3399ff"
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]
STEPS = 9  # points of an edge, so that one that passes the camera is drawn as far as it is seen


def _edge_points(box: Sequence[float]) -> np.ndarray:
    """(12, STEPS, 3): points along the edges of a box, metres."""
    corners = np.asarray(box[:3]) + CORNERS * np.asarray(box[3:])
    ends = np.array([[corners[a], corners[b]] for a, b in EDGES])
    share = np.linspace(0, 1, STEPS)[:, None]
    return ends[:, :1] * (1 - share) + ends[:, 1:] * share


def _pixels(scene: PosedVideo, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(V, N, 12, STEPS, 2): where the edges of boxes are seen, NaN behind the camera."""
    points = torch.from_numpy(np.stack([_edge_points(box) for box in boxes])).float()
    views = len(scene)
    cameras = torch.from_numpy(np.asarray(scene.intrinsics)).float()
    poses = torch.from_numpy(np.asarray(scene.camera_to_world)).float()
    pixels, _ = project_points(points.expand(views, *points.shape), cameras, poses)
    return pixels.numpy()


def _choose_frames(scene: PosedVideo, pixels: np.ndarray | None) -> list[int]:
    """Frames that show most of the boxes, in order of time; spread evenly where there are none."""
    count = min(FRAMES, len(scene))
    if pixels is None:
        return np.linspace(0, len(scene) - 1, count).astype(int).tolist()
    height, width = scene.frames.shape[1:3]
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    visible = inside.reshape(len(scene), -1).mean(-1)
    return sorted(np.argsort(-visible, kind="stable")[:count].tolist())


def draw_example(
    scene: PosedVideo,
    *,
    meant: Sequence[Sequence[float]] = (),
    found: Sequence[Sequence[float]] = (),
    given: Sequence[Sequence[float]] = (),
) -> tuple[Image.Image, str]:
    """Up to four frames side by side, with the true boxes (green), those found (red), and that given (blue).

    Args:
        scene: Frames; boxes are drawn where poses and intrinsics are known.
        meant: (N, 6), metres, in the frame of the poses.
        found: The same.
        given: The same.

    Returns:
        The picture, and what it shows in words.
    """
    layers = [(meant, MEANT, 5), (given, GIVEN, 3), (found, FOUND, 2)]
    has_cameras = scene.camera_to_world is not None and scene.intrinsics is not None
    boxes = [list(box) for group, _, _ in layers for box in group] if has_cameras else []
    pixels = _pixels(scene, boxes) if boxes else None
    chosen = _choose_frames(scene, pixels)
    height, width = scene.frames.shape[1:3]
    scale = WIDTH / width
    size = (WIDTH, max(1, round(height * scale)))
    sheet = Image.new("RGB", (size[0] * len(chosen), size[1]))
    for place, view in enumerate(chosen):
        frame = Image.fromarray(scene.frames[view]).resize(size)
        if pixels is not None:
            draw = ImageDraw.Draw(frame)
            styles = [style for group, *style in layers for _ in group]
            for edges, (colour, thickness) in zip(pixels[view], styles, strict=True):
                _draw_edges(draw, (edges + 0.5) * scale, colour, thickness)
        sheet.paste(frame, (place * size[0], 0))
    names = scene.frame_names or [str(index) for index in range(len(scene))]
    shown = [word for group, word in ((meant, "meant: green"), (given, "given: blue"), (found, "found: red")) if group]
    where = f" Boxes {', '.join(shown)}." if boxes else ""
    return sheet, f"Frames {', '.join(names[view] for view in chosen)}.{where}"


def _draw_edges(draw: ImageDraw.ImageDraw, edges: np.ndarray, colour: str, thickness: int) -> None:
    for edge in edges:
        for start, end in zip(edge[:-1], edge[1:], strict=True):
            # Far outside a picture coordinates grow without bound, which the drawing does not bear.
            if np.isfinite([start, end]).all() and np.abs([start, end]).max() < 1e5:
                draw.line([tuple(start), tuple(end)], fill=colour, width=thickness)
