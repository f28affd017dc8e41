"""Parts and files that a task opens in a mode: the one rule for readers, runs and the doctor."""

from dataclasses import dataclass

from processing.argument_rules import check_choice
from processing.benchmarks.readers.tasks import BOX_SOURCES, FRAME_RULES, NO_BOXES, Layout, Task, find_task

__all__ = ["MODES", "REGION_SOURCES", "Requirements", "check_box_source", "list_modes", "requirements_for"]

# Parts of a scene that masks of 3D boxes are made from.
REGION_SOURCES = {
    "depth": ("frames", "poses", "depth"),
    "poses": ("frames", "poses"),
}
# "proposals" uses what was made beforehand with depth and poses: candidate boxes, regions of boxes, chosen frames.
# "rgb_only" opens frames alone.
MODES = ("proposals", "rgb_only")
_WHY = {
    "proposals": "It opens frames alone, and chooses among no boxes.",
    "rgb_only": "Take frames='uniform': other lists of frames were made with depth and poses.",
}
_SCENE = "<dataset>/posed_images/<scene>"
_PART_FILES = {
    "frames": (f"{_SCENE}/<frame>.jpg",),
    "poses": (f"{_SCENE}/<frame>.txt", f"{_SCENE}/intrinsic.txt", f"{_SCENE}/depth_intrinsic.txt"),
    "depth": (f"{_SCENE}/<frame>.png",),
}


@dataclass(frozen=True)
class Requirements:
    """Parts and files that a task opens in one mode, until its answers are written.

    Attributes:
        parts: Parts of the data, of `PARTS`.
        files: Paths below the benchmark folder. `<dataset>`, `<scene>` and `<frame>` stand for names.
        reads_boxes: Whether the boxes in the annotation file are read.
        needs_clicks: Whether a file of clicks says which objects are meant.
    """

    parts: tuple[str, ...]
    files: tuple[str, ...]
    reads_boxes: bool
    needs_clicks: bool


def list_modes(task: str, frames: str = "uniform") -> tuple[str, ...]:
    """Return the modes that a task has, its default first.

    Questions in words need frames alone, so that their mode is "rgb_only". Frames by the rules "listed" and "coverage"
    were chosen with depth and poses, or from the file that holds cameras: their mode is "proposals", for every task.

    Args:
        task: Key of `TASKS`.
        frames: Rule of the shown frames, of `FRAME_RULES`.

    Raises:
        TypeError: A name that is no text.
        ValueError: No such task or rule.
    """
    spec = find_task(task)
    check_choice(frames, FRAME_RULES, "frames")
    if frames != "uniform" or not spec.has_prompt:
        return ("proposals",)
    return ("rgb_only",) if spec.kind == "answer" else MODES


def requirements_for(
    task: str,
    mode: str | None = None,
    *,
    split: str | None = None,
    frames: str = "uniform",
    regions: str = "depth",
    boxes: str | None = None,
) -> Requirements:
    """Return what a task opens in a mode to answer.

    Scores of "rgb_only" compare boxes too: they are a step of their own, which opens what "proposals" opens.

    Args:
        task: Key of `TASKS`.
        mode: "proposals" or "rgb_only"; default: the first of `list_modes`.
        split: Split of the benchmark; default: the one that papers report.
        frames: Rule of the shown frames, of `FRAME_RULES`.
        regions: Source of the masks of boxes in the mode "proposals", of `REGION_SOURCES`.
        boxes: Candidates of grounding in that mode, "gt" or "pred"; default: "gt" in training and "pred" otherwise.

    Raises:
        TypeError: A name that is no text.
        ValueError: An unknown name, or a mode that the task does not have.

    Example:
        >>> requirements_for("scanrefer", "rgb_only").parts
        ('frames',)
        >>> requirements_for("scanrefer", "proposals", regions="poses").parts
        ('frames', 'boxes', 'poses')
    """
    spec = find_task(task, split)
    check_choice(regions, REGION_SOURCES, "regions")
    boxes = check_box_source(boxes, split or spec.eval_split)
    modes = list_modes(task, frames)
    mode = modes[0] if mode is None else mode
    check_choice(mode, MODES, "mode")
    if mode not in modes:
        why = _WHY[mode] if spec.has_prompt else "There is no prompt of it: stored results alone can be scored."
        raise ValueError(f"{task} has the mode {modes[0]!r} with frames={frames!r}, got mode={mode!r}. {why}")
    without = set() if regions == "depth" else {"depth"}
    parts = ("frames",) if mode == "rgb_only" else tuple(part for part in spec.needs if part not in without)
    files = _list_files(spec, split or spec.eval_split, parts, frames, boxes)
    reads_boxes = mode == "proposals" and spec.kind != "answer"
    return Requirements(parts, files, reads_boxes, mode == "rgb_only" and spec.kind == "describe")


def check_box_source(boxes: str | None, split: str) -> str:
    """Return the source of candidates, by default the original's choice for the split."""
    if boxes is None:
        return "gt" if split == "train" else "pred"
    check_choice(boxes, (*BOX_SOURCES, NO_BOXES), "boxes")
    return boxes


def _list_files(spec: Task, split: str, parts: tuple[str, ...], frames: str, boxes: str) -> tuple[str, ...]:
    """Return the paths, below the benchmark folder, of the files that a task opens."""
    layout = Layout(".")
    opened = [layout.annotations(spec, split)[0]]
    if frames == "coverage":
        opened.append(layout.selected_frames)
    if "poses" in parts or frames == "listed":
        opened += [layout.infos(name)[0] for name in ("train", "val", "test")]
    if "boxes" in parts and boxes != NO_BOXES:
        opened.append(layout.boxes(split, boxes))
    scene = [name for part in parts for name in _PART_FILES.get(part, ())]
    if spec.name == "vsibench":
        scene = ["vsibench/<dataset>/<scene>.mp4", *scene]
    elif spec.name == "revsi":
        scene = [f"revsi/{split}/<scene>.mp4"]
    return (*(path.as_posix() for path in opened), *scene)
