"""Clicks that say which object is meant: their file, and the harness that makes one from given boxes.

A file of clicks is JSON. It names where the clicks come from, and for each sample a point in one of the frames shown,
or null where the object has none:

    {"source": "a person",
     "clicks": {"0": {"scene_id": "scannet/scene0000_00", "frame": "00010", "frame_size": [968, 1296],
                      "point": [640.5, 400.5]},
                "1": null}}

A point is (x, y) in pixels of that frame, between pixel edges; `frame_size` is (height, width). A model that is told
an object by a click needs neither its box nor depth or poses. `make_clicks` needs them: it runs beforehand.
"""

import logging
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from processing import PosedVideo
from processing.argument_rules import as_path
from processing.benchmarks import load_scene, load_task, requirements_for
from processing.limits import load_json
from processing.proposals.marks import Mark
from processing.writing import write_json
from trainer.data.scene_regions import RegionSource, measured_points
from trainer.geometry import project_points

__all__ = ["Clicks", "make_clicks", "read_clicks"]

logger = logging.getLogger(__name__)

_TASK = "scan2cap"
_SEEN = 0.97  # share of width and height that clicks are made in: vision towers leave out up to 1.6 % at the far edges
_FIELDS = ("scene_id", "frame", "frame_size", "point")


@dataclass(frozen=True)
class Clicks:
    """Clicks of the samples of a run.

    Args:
        source: Origin of the clicks, in words.
        marks: Click of each sample by its id, the frame counted among the frames shown; None for an object without.
    """

    source: str
    marks: Mapping[str, Mark | None]

    def as_rows(self) -> list[list[Any]]:
        """Return id, frame and point of each click, as JSON holds them."""
        return [
            [name, mark and [mark.frame, list(mark.frame_size), list(mark.point)]] for name, mark in self.marks.items()
        ]

    def check_frames(self, scene: PosedVideo, samples: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError where a click is of a frame of another size than the scene's.

        Args:
            scene: Scene of the samples.
            samples: Samples of the scene.
        """
        size = tuple(scene.frames.shape[1:3])
        for sample in samples:
            mark = self.marks[sample["id"]]
            if mark is not None and tuple(mark.frame_size) != size:
                raise ValueError(
                    f"The click of sample {sample['id']!r} is of a frame of {tuple(mark.frame_size)} px, the frames "
                    f"of {scene.scene_id} have {size} (height, width). Make the clicks on these frames."
                )


def read_clicks(path: str | Path, samples: Sequence[Mapping[str, Any]]) -> Clicks:
    """Read the clicks of samples from a file; entries of other samples are passed over.

    Args:
        path: File of clicks.
        samples: Samples as `load_task` gives them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of clicks. Also if a click is missing, of another scene or of a frame that is not
            shown, or lies outside of its frame; the message names the sample.
    """
    path = as_path(path, "clicks")
    content = load_json(path)
    if not isinstance(content, dict) or set(content) != {"source", "clicks"}:
        keys = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must hold `source` and `clicks`, got {keys}. `ide3d clicks` writes such a file.")
    source, clicks = content["source"], content["clicks"]
    if not isinstance(source, str) or not source.strip():
        raise ValueError(f"`source` in {path} must say where the clicks come from, got {reprlib.repr(source)}.")
    if not isinstance(clicks, dict):
        raise ValueError(f"`clicks` in {path} must map the ids of samples to clicks, got {reprlib.repr(clicks)}.")
    if missing := [sample["id"] for sample in samples if sample["id"] not in clicks]:
        raise ValueError(
            f"{path} has no click for {len(missing)} of {len(samples)} samples, the first is {missing[0]!r}. Click "
            "into a frame that shows the object, or write null for an object that no frame shows."
        )
    marks = {}
    for sample in samples:
        try:
            marks[sample["id"]] = _read_click(clicks[sample["id"]], sample)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, sample {sample['id']!r}: {error}") from None
    return Clicks(source, marks)


def _read_click(entry: Any, sample: Mapping[str, Any]) -> Mark | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
        raise ValueError(f"a click must have exactly {', '.join(_FIELDS)}, or be null, got {reprlib.repr(entry)}.")
    if entry["scene_id"] != sample["scene_id"]:
        raise ValueError(
            f"the click is of the scene {entry['scene_id']!r:.100}, the sample is of {sample['scene_id']!r}. Make the "
            "clicks for this split."
        )
    names = list(sample["frame_names"])
    if entry["frame"] not in names:
        raise ValueError(
            f"the click is of the frame {entry['frame']!r:.100}, which is not shown; shown are {', '.join(names)}. "
            "Click into one of these, and show as many frames as the clicks were made for."
        )
    size, point = (tuple(v) if isinstance(v, list) else v for v in (entry["frame_size"], entry["point"]))
    return Mark(names.index(entry["frame"]), size, point)


def make_clicks(
    data_dir: str | Path,
    target: str | Path,
    *,
    split: str | None = None,
    num_frames: int = 32,
    regions: RegionSource = "depth",
    skip_invalid_poses: bool = False,
    scenes: Collection[str] | None = None,
) -> Clicks:
    """Write a click on each box that Scan2Cap gives, where a frame shows it.

    With depth, the pixels of an object are those whose measured points lie in the box. The click is the middle one, in
    the frame that has most of them. With poses alone it is the projected centre of the box, in the frame that has it
    nearest to its middle: what stands before the object is not known.

    Args:
        data_dir: Benchmark folder in the public layout.
        target: File to write, JSON.
        split: Split of Scan2Cap; default: the one that papers report.
        num_frames: Largest number of frames of a scene; that of the run.
        regions: "depth" or "poses".
        skip_invalid_poses: Whether to leave out frames whose pose is not finite instead of raising an error.
        scenes: Names of scenes; None: all.

    Returns:
        The clicks, as `read_clicks` reads them.

    Raises:
        FileNotFoundError: If the annotations, or a file that they need, do not exist.
        ValueError: If a name is unknown, or data are broken.
    """
    target = as_path(target, "target")
    needed = requirements_for(_TASK, "proposals", split=split, regions=regions)
    split = split or "val"
    samples = load_task(_TASK, split, data_dir, num_frames=num_frames, scenes=scenes).to_list()
    by_scene: dict[str, list[dict]] = {}
    for sample in samples:
        by_scene.setdefault(sample["scene_id"], []).append(sample)
    entries: dict[str, dict | None] = {}
    for scene_id, own in tqdm(by_scene.items(), desc="Clicks", unit="scene", delay=2, disable=None):
        scene = load_scene(
            data_dir,
            scene_id,
            frame_names=own[0]["frame_names"],
            parts=[part for part in needed.parts if part != "boxes"],
            skip_invalid_poses=skip_invalid_poses,
        )
        points = measured_points(scene) if regions == "depth" else None
        for sample in own:
            box = np.asarray(sample["input_box"], np.float64)
            found = None if not len(box) else _on_points(points, box) if regions == "depth" else _on_centre(scene, box)
            entries[sample["id"]] = None if found is None else _as_entry(scene, *found)
    made = sum(entry is not None for entry in entries.values())
    logger.info("%s: clicks on %d of %d objects; no frame shows the others.", target, made, len(entries))
    parts = "boxes, poses and depth" if regions == "depth" else "boxes and poses"
    write_json(target, {"source": f"given {parts}", "clicks": entries})
    return read_clicks(target, samples)


def _as_entry(scene: PosedVideo, view: int, x: float, y: float) -> dict[str, Any]:
    """Return a click at shares (x, y) of a frame's width and height."""
    height, width = scene.frames.shape[1:3]
    point = [round(x * width, 2), round(y * height, 2)]
    frame_size = [int(height), int(width)]
    return {"scene_id": scene.scene_id, "frame": scene.frame_names[view], "frame_size": frame_size, "point": point}


def _on_points(points: torch.Tensor, box: np.ndarray) -> tuple[int, float, float] | None:
    """Return frame and place of the middle pixel in a box; None without any.

    Args:
        points: World point (V, h, w, 3) of every pixel, metres.
        box: Box (6,), metres.
    """
    low, high = (torch.from_numpy(box[:3] + sign * box[3:] / 2).float() for sign in (-1, 1))
    inside = ((points >= low) & (points <= high)).all(-1)
    height, width = inside.shape[1:]
    inside[:, int(_SEEN * height) :] = inside[:, :, int(_SEEN * width) :] = False
    counts = inside.flatten(1).sum(1)
    view = int(counts.argmax())
    if not counts[view]:
        return None
    pixels = inside[view].nonzero().double()
    v, u = pixels[(pixels - pixels.mean(0)).square().sum(1).argmin()].tolist()
    return view, (u + 0.5) / width, (v + 0.5) / height


def _on_centre(scene: PosedVideo, box: np.ndarray) -> tuple[int, float, float] | None:
    """Return frame and place of a box's projected centre; None where no frame has it."""
    height, width = scene.frames.shape[1:3]
    cameras, poses = (torch.from_numpy(np.asarray(x, np.float64)) for x in (scene.intrinsics, scene.camera_to_world))
    pixels, _ = project_points(torch.from_numpy(box[:3]).expand(len(scene), 3), cameras, poses)
    places = (pixels + 0.5) / torch.tensor([width, height], dtype=torch.float64)
    is_seen = ((places > 0) & (places < _SEEN)).all(1)  # NaN, behind the camera, is not seen
    if not is_seen.any():
        return None
    distances = torch.where(is_seen, (places - 0.5).square().sum(1), torch.inf)
    view = int(distances.argmin())
    return view, *places[view].tolist()
