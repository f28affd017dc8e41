"""Examine a benchmark folder: the splits that can be used, the faults, and how to mend them.

    ide3d doctor data
    ide3d doctor data --task scanqa --json

    ide3d doctor scans/kitchen

The exit code is 0 if the task that is named can be evaluated; without a name, if every split that is there can be used
and at least one is. The pictures that are shown are decoded, and nine depth maps a scene. Of a
folder that holds the frames of one scene all depth maps are read, at most 64.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from processing.argument_rules import check_choice, check_texts
from processing.benchmarks.doctor.findings import KINDS, Finding
from processing.benchmarks.doctor.scene_checks import check_folder, check_scene, tried
from processing.benchmarks.doctor.task_checks import check_boxes, check_samples
from processing.benchmarks.readers.files import read_boxes, read_infos, read_selected_frames
from processing.benchmarks.readers.records import video_scene
from processing.benchmarks.readers.requirements import MODES, list_modes, requirements_for
from processing.benchmarks.readers.scenes import uniform_names
from processing.benchmarks.readers.tasks import (
    PARTS,
    REVSI_SUBSETS,
    SPATIAL_TASKS,
    TASKS,
    VSI_SUBSETS,
    Layout,
    Task,
    find_task,
)
from processing.geometry_rules import is_pose
from processing.scene_folders import list_frame_names

__all__ = ["Diagnosis", "SplitState", "examine"]

_SPLITS = ("train", "val", "test")
_EXAMPLES = 3  # Places that the text names per kind.
_MAX_MAPS = 64  # Depth maps of a single scene that are read whole.


@dataclass
class SplitState:
    """State of one split of a task.

    Attributes:
        task: Key of `TASKS`.
        split: Name of the split.
        needs: Parts of the data that it was judged by.
        mode: Mode that it was judged for, see `requirements_for`.
        is_there: Whether its annotations exist.
        can_run: Whether no finding stops it.
        samples: Number of samples.
        scenes: Scene ids of its samples.
        stopped_by: Number of findings that stop it, by kind.
    """

    task: str
    split: str
    needs: tuple[str, ...]
    mode: str = ""
    is_there: bool = False
    can_run: bool = False
    samples: int = 0
    scenes: list[str] = field(default_factory=list)
    stopped_by: dict[str, int] = field(default_factory=dict)


@dataclass
class Diagnosis:
    """All findings on a folder, and what follows for each split of each task.

    Attributes:
        folder: Path of the folder.
        splits: States of all splits that were examined.
        findings: All faults.
        extras: Number of scenes with teacher features, masks and point clouds, which only some uses need.
    """

    folder: str
    splits: list[SplitState]
    findings: list[Finding]
    extras: dict[str, int]

    def can_run(self, task: str | None = None, split: str | None = None) -> bool:
        """Return whether a split of a task can be used.

        Args:
            task: Key of `TASKS`; None asks for every split that exists.
            split: Name of the split; None asks for the one that papers report.

        Raises:
            ValueError: No such task, or no such split of it.
        """
        if task is None:
            there = [state for state in self.splits if state.is_there]
            return bool(there) and all(state.can_run for state in there)
        if task not in {state.task for state in self.splits}:
            find_task(task, split)
        split = split or (TASKS[task].eval_split if task in TASKS else "all")
        return any(state.can_run for state in self.splits if (state.task, state.split) == (task, split))

    def as_dict(self) -> dict:
        """Return the report of `--json`: splits, and findings grouped by kind with their fixes."""
        groups = [
            {"kind": kind, "stops": KINDS[kind].stops, "part": KINDS[kind].part, "count": len(found),
             "fix": KINDS[kind].fix, "findings": [asdict(finding) for finding in found]}
            for kind, found in self._grouped().items()
        ]  # fmt: skip
        splits = [asdict(state) for state in self.splits]
        return {"folder": self.folder, "splits": splits, "extras": self.extras, "kinds": groups}

    def as_text(self) -> str:
        """Return the report as text for people."""
        lines = [f"{'task':14}{'split':7}{'samples':>8}{'scenes':>8}  state"]
        for state in self.splits:
            mark = "can be used" if state.can_run else "cannot be used" if state.is_there else "not there"
            reasons = ", ".join(f"{kind} ({count})" for kind, count in state.stopped_by.items())
            reasons = f": {reasons}" if reasons and state.is_there else ""
            lines.append(f"{state.task:14}{state.split:7}{state.samples:8}{len(state.scenes):8}  {mark}{reasons}")
        if self.extras:
            lines += ["", "Scenes with " + ", ".join(f"{name}: {count}" for name, count in self.extras.items()) + "."]
        for kind, found in self._grouped().items():
            weight = "stops a task" if KINDS[kind].stops else "note"
            lines += ["", f"{kind} ({weight}, {len(found)}). Fix: {KINDS[kind].fix}."]
            lines += [f"    {finding.path}: {finding.detail}" for finding in found[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                lines.append(f"    and {len(found) - _EXAMPLES} more (--json lists all)")
        return "\n".join(lines)

    def _grouped(self) -> dict[str, list[Finding]]:
        groups: dict[str, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda f: list(KINDS).index(f.kind)):
            groups.setdefault(finding.kind, []).append(finding)
        return groups


def examine(
    data_dir: str | Path,
    *,
    tasks: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    without: Collection[str] = (),
    mode: str | None = None,
) -> Diagnosis:
    """Look at everything that the tasks need.

    Nothing is changed, and no fault of the data raises.

    Args:
        data_dir: Folder in the public layout; or, without `tasks`, of the frames of one scene, which is examined as
            the task "scene".
        tasks: Keys of `TASKS`; None takes all that have an annotation format.
        splits: Names of the splits to look at; None takes all of each task.
        without: Parts to do without, such as "depth" if region masks come from boxes and poses.
        mode: Mode of the tasks, see `requirements_for`; None takes the default of each.

    Raises:
        TypeError: An argument of another kind.
        ValueError: An unknown task, split, part or mode, or a list of tasks or splits that is empty. Also a mode
            that a named task does not have.
    """
    without = check_texts(without, "without", PARTS)
    if mode is not None:
        check_choice(mode, MODES, "mode")
    tasks = None if tasks is None else _check_some(tasks, "tasks", sorted(TASKS))
    splits = None if splits is None else _check_some(splits, "splits", (*_SPLITS, *VSI_SUBSETS, *REVSI_SUBSETS))
    try:
        layout = Layout(data_dir)
    except ValueError as error:
        finding = Finding("folder-missing", str(data_dir)[:200], str(error))
        return Diagnosis(str(data_dir)[:200], [], [finding], {})
    if tasks is None and os.path.isdir(data_dir):
        try:
            names = list_frame_names(Path(data_dir))
        except (ValueError, OSError) as error:
            finding = Finding("frame-names-bad", str(data_dir), str(error))
            state = SplitState("scene", "all", ("frames",), is_there=True, stopped_by={finding.kind: 1})
            return Diagnosis(str(data_dir), [state], [finding], {})
        if names:
            return _examine_frames(Path(data_dir), names, without)
    chosen = [find_task(name) for name in (tasks or _list_tasks(mode))]
    findings: list[Finding] = []
    states: list[SplitState] = []
    findings += _check_root(layout)
    for task in chosen:
        for split in task.splits:
            # Few folders have all subsets of a benchmark; nobody misses them who did not ask.
            is_extra = task.name in SPATIAL_TASKS and split != task.eval_split
            is_meant = not is_extra or os.path.lexists(layout.annotations(task, split)[0])
            if is_meant if splits is None else split in splits:
                required = requirements_for(task.name, mode, split=split)
                needs = tuple(part for part in required.parts if part not in without)
                state = SplitState(task.name, split, needs, mode or list_modes(task.name)[0])
                states.append(state)
                path = layout.annotations(task, split)[0]
                with _reported(findings, path, task=task.name, split=split):
                    _look_at_split(layout, task, state, findings, required.reads_boxes)
    findings += _overlaps(states)
    needed: dict[str, set[str]] = {}
    for state in states:
        for scene_id in state.scenes:
            needed.setdefault(scene_id, set()).update(state.needs)
    infos: dict[str, dict] = {}
    with _reported(findings, layout.infos("val")[1].parent):
        infos = _look_at_infos(layout, states, findings)
    has_poses = any("poses" in state.needs for state in states)
    boxes = _true_boxes(layout, findings) if has_poses else {}
    for scene_id, parts in tqdm(needed.items(), desc="scenes", disable=len(needed) < 50):
        with _reported(findings, scene_id, scene_id=scene_id):
            findings += check_scene(layout, scene_id, infos.get(scene_id), parts, boxes.get(scene_id, ()))
    with _reported(findings, layout.selected_frames):
        findings += _check_selection(layout, set(needed))
    for state in states:
        _judge(state, findings)
    extras = {
        "teacher features": sum(os.path.isfile(layout.teacher(scene_id)) for scene_id in needed),
        "proposal masks": sum(os.path.isfile(layout.masks(scene_id)) for scene_id in needed),
        "point clouds": sum(_has_cloud(layout, scene_id) for scene_id in needed),
    }
    return Diagnosis(str(data_dir), states, findings, extras)


def _list_tasks(mode: str | None) -> list[str]:
    """Return the tasks with an annotation format that have the mode."""
    return [name for name, task in TASKS.items() if task.has_prompt and mode in (None, *list_modes(name))]


@contextlib.contextmanager
def _reported(findings: list[Finding], path: Path | str, **context: str) -> Iterator[None]:
    """Make a finding of an error that no check foresaw."""
    try:
        yield
    except Exception as error:
        text = f"examining it failed with {type(error).__name__}: {str(error)[:300]}"
        findings.append(Finding("unreadable", str(path), text, **context))


def _examine_frames(folder: Path, names: list[str], without: Collection[str]) -> Diagnosis:
    """Return the diagnosis of a folder that holds the frames of one scene."""
    parts = {"poses": ".txt", "depth": ".png"}
    there = [
        part
        for part, suffix in parts.items()
        if part not in without and any(os.path.isfile(folder / f"{name}{suffix}") for name in names)
    ]
    scene_id = folder.resolve().name
    state = SplitState("scene", "all", ("frames", *there), is_there=True, samples=len(names), scenes=[scene_id])
    findings: list[Finding] = []
    with _reported(findings, folder):
        findings += check_folder(folder, names, uniform_names(names, _MAX_MAPS), scene_id, None, there)
    _judge(state, findings)
    return Diagnosis(str(folder), [state], findings, {})


def _true_boxes(layout: Layout, findings: list[Finding]) -> dict[str, list[list[float]]]:
    """Return the true boxes of all scenes; note files that cannot be read."""
    boxes: dict[str, list[list[float]]] = {}
    told = {finding.path for finding in findings}
    for split in _SPLITS:
        path = layout.boxes(split, "gt")
        if os.path.lexists(path) and str(path) not in told:

            def broken(text: str, path: Path = path) -> Finding:
                return Finding("true-boxes-broken", str(path), text)

            boxes.update(tried(broken, findings, read_boxes, path) or {})
    return boxes


def _check_some(names: Collection[str], name: str, choices: Collection[str]) -> tuple[str, ...]:
    chosen = check_texts(names, name, choices)
    if not chosen:
        raise ValueError(f"`{name}` must name at least one of {', '.join(choices)}, or be None for all of them.")
    return chosen


def _has_cloud(layout: Layout, scene_id: str) -> bool:
    splits = ("train", "val", "test")
    return any(os.path.isfile(path) for split in splits for path in layout.point_clouds(scene_id, split))


def _check_root(layout: Layout) -> list[Finding]:
    root = layout.root
    if not os.path.isdir(root):
        return [Finding("folder-missing", str(root), "it is not a folder")]
    findings = []
    if not (root / "processed").is_dir() and not (root / "vsibench").is_dir():
        inner = next((folder.parent for folder in sorted(root.glob("*/processed"))), None)
        if inner is not None:
            findings.append(Finding("folder-nested", str(root), f"the data lie in {inner.name}/"))
        elif (root / "prcoessed").is_dir():  # The instructions of a parent project spell it so.
            findings.append(Finding("folder-misspelt", str(root / "prcoessed"), "the readers look for processed/"))
    if "jpg" in str(root.resolve()):
        findings.append(Finding("path-holds-jpg", str(root.resolve()), "its path holds 'jpg'"))
    return findings


def _look_at_split(layout: Layout, task: Task, state: SplitState, findings: list[Finding], reads_boxes: bool) -> None:
    """Fill the state of a split from its annotations, and add findings on them."""
    split = state.split
    found, records = check_samples(layout, task, split, reads_boxes)
    state.is_there = all(finding.kind != "annotations-missing" for finding in found)
    if records is not None:
        state.samples = len(records)
        state.scenes = list(dict.fromkeys(_scene_of(layout, task, record, split) for record in records))
        found += _replaced_videos(layout, task, state)
        if "boxes" in state.needs:
            found += check_boxes(layout, task, split, "gt" if split == "train" else "pred", records)
    findings += found


def _replaced_videos(layout: Layout, task: Task, state: SplitState) -> list[Finding]:
    """Return notes on scenes of VSI-Bench whose frames are shown instead of a video."""
    scenes = [scene for scene in state.scenes if task.name == "vsibench" and not scene.startswith("vsibench/")]
    kind, text = "video-replaced", "it does not exist"
    return [Finding(kind, str(layout.video(f"vsibench/{scene}")), text, scene, task.name) for scene in scenes]


def _scene_of(layout: Layout, task: Task, record: dict, split: str) -> str:
    if task.name not in SPATIAL_TASKS:
        return record["video"]
    video = video_scene(task, record, split)
    if task.name == "revsi":
        return video
    scene_id = video.removeprefix("vsibench/")
    return scene_id if layout.frames(scene_id).is_dir() and not layout.video(video).is_file() else video


def _overlaps(states: list[SplitState]) -> list[Finding]:
    findings = []
    train = {state.task: set(state.scenes) for state in states if state.split == "train"}
    for state in states:
        both = sorted(train.get(state.task, set()) & set(state.scenes)) if state.split != "train" else []
        if both:
            detail = f"{len(both)} scenes of {state.split} such as {both[0]}"
            findings.append(
                Finding("split-overlap", f"{state.task} train", detail, task=state.task, split=state.split)
            )
    return findings


def _look_at_infos(layout: Layout, states: list[SplitState], findings: list[Finding]) -> dict[str, dict]:
    """Return EmbodiedScan's facts of all splits if poses are needed, and add findings on them."""
    needing = [scene_id for state in states if "poses" in state.needs for scene_id in state.scenes]
    infos: dict[str, dict] = {}
    if not needing:
        return infos
    is_there = False
    for split in ("train", "val", "test"):
        copy, pickled = layout.infos(split)
        path = copy if os.path.lexists(copy) else pickled
        if not os.path.lexists(path):
            continue
        is_there = True
        if os.path.isfile(copy) and os.path.isfile(pickled) and copy.stat().st_mtime < pickled.stat().st_mtime:
            findings.append(Finding("infos-stale", str(copy), "older than the pickle beside it", split=split))

        def broken(text: str, path=path) -> Finding:
            kind = "infos-unsafe" if "neither numpy nor a plain builtin" in text else "infos-broken"
            return Finding(kind, str(path), text)

        infos.update(tried(broken, findings, read_infos, path) or {})
    if not is_there:
        findings.append(Finding("infos-missing", str(layout.infos("val")[1]), "no split has one"))
        return infos
    for scene_id in dict.fromkeys(needing):
        where = str(layout.root / "embodiedscan")
        if scene_id not in infos:
            findings.append(Finding("infos-scene-missing", where, f"{scene_id} is in no file", scene_id))
        elif not is_pose(infos[scene_id]["axis_align_matrix"]):
            findings.append(Finding("alignment-bad", where, f"axis_align_matrix of {scene_id}", scene_id))
    return infos


def _check_selection(layout: Layout, scenes: set[str]) -> list[Finding]:
    path, findings = layout.selected_frames, []
    if not os.path.lexists(path):
        return []
    selected = tried(lambda text: Finding("selection-broken", str(path), text), findings, read_selected_frames, path)
    for scene_id in sorted(scenes & set(selected or ())):
        folder = layout.frames(scene_id)
        absent = [name for name in selected[scene_id]["frame_names"] if not os.path.isfile(folder / f"{name}.jpg")]
        if absent:
            findings.append(Finding("selection-frame-missing", str(path), f"{scene_id}: {absent[:3]}", scene_id))
    return findings


def _judge(state: SplitState, findings: list[Finding]) -> None:
    """Count by kind what stops this split."""
    scenes = set(state.scenes)
    for finding in findings:
        kind = KINDS[finding.kind]
        touches = (
            kind.stops
            and kind.part in ("annotations", *state.needs)
            and finding.task in (None, state.task)
            and finding.split in (None, state.split)
            and (finding.scene_id is None or finding.scene_id in scenes)
        )
        if touches:
            state.stopped_by[finding.kind] = state.stopped_by.get(finding.kind, 0) + 1
    state.can_run = state.is_there and not state.stopped_by
