"""The scorer's way from answers of frames to boxes in the world, by true depth and poses: here and nowhere before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from processing import PosedVideo
from processing.benchmarks import load_scene, load_task, requirements_for
from processing.benchmarks.readers.tasks import NO_BOXES
from processing.boxes_in_words import NumberStyle, parse_boxes
from processing.oriented_boxes import box_in_world, enclosing_boxes
from processing.token_grid import TokenGrid
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.results import EvaluationSettings
from trainer.evaluation.rgb_only import read_cells

__all__ = ["lift_answers", "load_truth"]


def load_truth(settings: EvaluationSettings, split: str, num_frames: int) -> list[dict[str, Any]]:
    """Return the samples of a run with their true boxes, and without candidates.

    Args:
        settings: Settings of the run.
        split: Split of the benchmark.
        num_frames: Largest number of frames of a scene.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If samples lack their boxes; the message names the first.
    """
    options = {"num_frames": num_frames, "scenes": settings.scenes, "mode": "proposals"}
    with _told(settings):
        return load_task(settings.task, split, settings.data, boxes=NO_BOXES, **options).to_list()


@contextmanager
def _told(settings: EvaluationSettings) -> Iterator[None]:
    """Say in errors that the answers are kept, and how to score them."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"{error} The answers are stored in {settings.output}: score them by the same command with a folder that "
            "holds the truth as `data`, or leave scores out by `answer_only`."
        ) from error


def lift_answers(
    settings: EvaluationSettings,
    samples: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    grid: TokenGrid,
) -> tuple[list[dict[str, Any]], int]:
    """Return answers with their boxes in the world, and how many cannot be parsed.

    Each answer gets `boxes` (N, 6), (cx, cy, cz, dx, dy, dz), metres. A region becomes the box around the measured
    points of its cells, see `SceneRegions.enclosing_box`; a box in words the axis-aligned box around it. A text that
    cannot be parsed finds nothing, and so does a region where nothing was measured.

    Args:
        settings: Settings of the run.
        samples: Samples with their true boxes.
        answers: Answers as they are stored, in the order of the samples.
        grid: Token grid of the model.

    Raises:
        FileNotFoundError: If a scene lacks depth or poses.
    """
    by_scene: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_scene.setdefault(sample["scene_id"], []).append(index)
    needed = requirements_for(settings.task, "proposals", regions=settings.lifted_by)
    parts = [part for part in needed.parts if part != "boxes"]
    lifted: dict[int, dict[str, Any]] = {}
    unparsable = 0
    for scene_id, indices in tqdm(by_scene.items(), desc="Lifting", unit="scene", delay=2, disable=None):
        frame_names = samples[indices[0]]["frame_names"]
        with _told(settings):
            scene = load_scene(
                settings.data,
                scene_id,
                frame_names=frame_names,
                parts=parts,
                skip_invalid_poses=settings.skip_invalid_poses,
            )
        regions = SceneRegions(scene, grid, settings.lifted_by, "clean")
        for index in indices:
            answer = answers[index]
            if "regions" in answer:
                masks = [read_cells(row, scene.frame_names, grid) for row in answer["regions"]]
                boxes = [box for mask in masks if (box := regions.enclosing_box(mask)) is not None]
            else:
                boxes = _from_words(answer["text"], frame_names, scene, settings.numbers)
                unparsable += boxes is None
            lifted[index] = {**answer, "boxes": boxes or []}
    return [lifted[index] for index in range(len(samples))], unparsable


def _from_words(
    text: str, frame_names: Sequence[str], scene: PosedVideo, numbers: NumberStyle
) -> list[list[float]] | None:
    """Return the axis-aligned boxes (N, 6) of boxes in words; None where the text is no answer."""
    try:
        found = parse_boxes(text, numbers=numbers, num_frames=len(frame_names))
    except ValueError:
        return None
    poses = dict(zip(scene.frame_names, np.asarray(scene.camera_to_world, np.float64), strict=True))
    turned = [box_in_world(box, poses[frame_names[box.frame]]) for box in found if frame_names[box.frame] in poses]
    return enclosing_boxes(np.array(turned).reshape(-1, 7)).tolist()
