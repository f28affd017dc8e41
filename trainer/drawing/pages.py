"""A self-contained page of a drawing: frames, a table of what is marked, and a 3D view of our own."""

import base64
import hashlib
import io
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.drawing.boxes import box_size
from trainer.drawing.drawing import Drawing
from trainer.drawing.frames import choose_frames, describe_frame, draw_frame
from trainer.drawing.spaces import PALETTE, Space, list_spaces, mark_colour, text_colour

__all__ = ["render_page"]

PAGE_FRAMES = 48
FRAME_WIDTH = 640  # pixels, at most
PAGE_POINTS = 100_000  # of all spaces; about 12 bytes each
STEPS = 65_535  # of a coordinate, along the longest side of a space's points


def render_page(drawing: Drawing) -> str:
    """Return a page as HTML that needs no network.

    Words are escaped, the page's own policy forbids every address, and its 3D view can be used by keys and buttons.
    Up to 48 frames are shown, and up to 100,000 points; the page says where it leaves some out.
    """
    spaces = list_spaces(drawing)
    chosen = choose_frames(drawing, PAGE_FRAMES)
    script, style = _template("viewer.js"), _template("page.css") + _colour_rules()
    total = sum(len(space.positions) for space in spaces)
    data = {"spaces": [_space_entry(space, drawing, min(1.0, PAGE_POINTS / max(total, 1))) for space in spaces]}
    return _environment().get_template("page.html").render(
        title=drawing.title,
        notes=drawing.notes,
        frames=[_frame_entry(drawing, frame) for frame in chosen],
        total_frames=len(drawing.frames),
        objects=_object_rows(drawing),
        colours=len(PALETTE),
        spaces=[space.name for space in spaces],
        total_points=total,
        page_points=PAGE_POINTS,
        summary=_summary(drawing, spaces),
        data=Markup(_script_json(data)),
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
    )  # fmt: skip


def _frame_entry(drawing: Drawing, frame: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture = draw_frame(drawing, frame, min(FRAME_WIDTH, max(320, drawing.frames.shape[2])))
    picture.save(buffer, "JPEG", quality=88, subsampling=0)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"source": source, "words": describe_frame(drawing, frame), "size": picture.size}


def _object_rows(drawing: Drawing) -> list[dict[str, Any]]:
    """Return what the table says of each mark and box."""
    rows = []
    for number, mark in enumerate(drawing.marks):
        seen = [] if mark.masks is None else np.flatnonzero(mark.masks.any((1, 2))).tolist()
        row = {"number": number + 1, "label": mark.label, "score": mark.score, "corners": mark.corners}
        row["frames"] = "" if mark.masks is None else ", ".join(drawing.frame_names[v] for v in seen) or "none"
        row["axes"] = "" if mark.corners is None else f"camera of frame {drawing.frame_names[mark.frame]}"
        rows.append(row)
    for index, box in enumerate(drawing.boxes):
        number = len(drawing.marks) + index + 1
        entry = {"number": number, "label": box.label, "score": None, "corners": box.corners}
        rows.append(entry | {"frames": "", "axes": "world"})
    for row in rows:
        corners = row.pop("corners")
        row["score"] = "" if row["score"] is None else f"{row['score']:.3f}"
        row["centre"] = row["size"] = ""
        if corners is not None:
            row["centre"] = ", ".join(f"{value:.2f}" for value in corners.mean(0))
            row["size"] = " \u00d7 ".join(f"{value:.2f}" for value in box_size(corners))
        row["colour"] = (row["number"] - 1) % len(PALETTE)
    return rows


def _summary(drawing: Drawing, spaces: list[Space]) -> str:
    """Say in words what the 3D view shows."""
    boxes, points = sum(len(space.boxes) for space in spaces), sum(len(space.positions) for space in spaces)
    cameras = sum(len(space.cameras) for space in spaces)
    parts = [f"{count:,} {noun}" + ("" if count == 1 else "es" if noun == "box" else "s")
             for count, noun in ((boxes, "box"), (cameras, "camera"), (points, "point")) if count]  # fmt: skip
    return f"3D view of {drawing.title}: {', '.join(parts) or 'nothing'}."


def _space_entry(space: Space, drawing: Drawing, share: float) -> dict[str, Any]:
    """Return a space as the script reads it, with some of its points."""
    boxes = [
        {
            "label": f"{box.number + 1} {box.label}",
            "colour": list(mark_colour(box.number)),
            "lines": _rounded(box.edges),
            "anchor": _rounded(box.corners[(box.corners @ space.up).argmax()]),
        }
        for box in space.boxes
    ]
    cameras = [
        {
            "name": drawing.frame_names[camera.frame],
            "centre": _rounded(camera.pose[:3, 3]),
            "forward": _rounded(camera.pose[:3, 2]),
            "lines": _rounded(camera.lines),
        }
        for camera in space.cameras
    ]
    return {"up": _rounded(space.up), "boxes": boxes, "cameras": cameras, "points": _pack_points(space, share)}


def _pack_points(space: Space, share: float) -> dict[str, Any] | None:
    count = len(space.positions)
    if not count:
        return None
    # Sampled, as points in equal steps would be stripes.
    keep = np.sort(np.random.default_rng(0).permutation(count)[: max(1, int(count * share))])
    positions, origin = space.positions[keep], space.positions[keep].min(0)
    step = max(float((positions - origin).max()), 1e-6) / STEPS
    packed = np.rint((positions - origin) / step).astype("<u2")
    return {
        "origin": _rounded(origin),
        "step": step,
        "positions": base64.b64encode(packed.tobytes()).decode("ascii"),
        "colours": base64.b64encode(np.ascontiguousarray(space.colours[keep]).tobytes()).decode("ascii"),
    }


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, np.float64), 4).tolist()


def _script_json(content: Any) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _colour_rules() -> str:
    return "".join(
        f".c{index} {{ background: rgb{colour}; color: rgb{text_colour(index)}; }}\n"
        for index, colour in enumerate(PALETTE)
    )


def _template(name: str) -> str:
    return files("trainer.drawing").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("trainer.drawing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
