"""Benchmarks, the parts of the data that each needs, and their paths in the public layout."""

from dataclasses import dataclass
from pathlib import Path

from processing.argument_rules import as_path, check_choice, check_text
from processing.scene_names import check_name

__all__ = [
    "BOX_SOURCES",
    "FRAME_RULES",
    "NO_BOXES",
    "PARTS",
    "REVSI_SUBSETS",
    "SPATIAL_TASKS",
    "TASKS",
    "VSI_SUBSETS",
    "Layout",
    "Task",
    "find_task",
    "is_video_file",
]

PARTS = ("frames", "boxes", "poses", "depth")
BOX_SOURCES = ("gt", "pred")
NO_BOXES = "none"  # in place of a source of candidates, where samples are read to be scored
FRAME_RULES = ("uniform", "listed", "coverage")


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: Key of `TASKS`.
        kind: "ground" (choose among boxes), "describe" (say what a box holds) or "answer" (a question in words).
        splits: Splits of the public layout; "debiased" and "pruned" are subsets of VSI-Bench's "test",
            those of ReVSI are its subsets by number of frames.
        eval_split: Split that papers report.
        needs: Parts of the data without which it cannot run as in the original, of `PARTS`. Grounding and description
            need depth only to make region masks; masks from boxes and poses do without.
        file_stems: Names of the annotation file in `processed/`, before `_<split>_llava_style.json`.
        has_prompt: Whether there is a prompt; False where only the scoring is supported.
    """

    name: str
    kind: str
    splits: tuple[str, ...]
    eval_split: str
    needs: tuple[str, ...]
    file_stems: tuple[str, ...]
    has_prompt: bool = True


# Halves of the test split: what is left without the questions that text alone answers, and these questions.
VSI_SUBSETS = ("debiased", "pruned")
# A subset holds the questions that its frames can answer, with their answers; its videos hold these frames alone.
REVSI_SUBSETS = ("16_frame", "32_frame", "64_frame", "all_frame")
SPATIAL_TASKS = ("vsibench", "revsi")  # Questions in a parquet file about video files
_WITH_GEOMETRY = ("frames", "boxes", "poses", "depth")

TASKS = {
    task.name: task
    for task in (
        Task("scanrefer", "ground", ("train", "val"), "val", _WITH_GEOMETRY, ("scanrefer_vg", "scanrefer")),
        Task("multi3drefer", "ground", ("train", "val"), "val", _WITH_GEOMETRY, ("multi3drefer", "multi3drefer_vg")),
        Task("scan2cap", "describe", ("train", "val"), "val", ("frames", "poses", "depth"), ("scan2cap",)),
        Task("scanqa", "answer", ("train", "val"), "val", ("frames",), ("scanqa",)),
        Task("sqa3d", "answer", ("train", "val", "test"), "test", ("frames",), ("sqa3d",)),
        Task("vsibench", "answer", ("test", *VSI_SUBSETS), "test", ("frames",), ()),
        Task("revsi", "answer", REVSI_SUBSETS, "32_frame", ("frames",), ()),
        # Scored from result files of others; no prompt of it is published with this method.
        Task("nr3d", "ground", ("val",), "val", _WITH_GEOMETRY, ("nr3d",), has_prompt=False),
    )
}


def is_video_file(scene_id: str) -> bool:
    """Return whether a scene id names a video file, such as "vsibench/scannet/scene0000_00"."""
    return scene_id.startswith(tuple(f"{name}/" for name in SPATIAL_TASKS))


def find_task(name: str, split: str | None = None) -> Task:
    """Return the task of a name, checked to have the split.

    Args:
        name: Key of `TASKS`.
        split: Name of a split; None checks none.

    Raises:
        TypeError: A name that is no text.
        ValueError: No such task, or no such split of it.
    """
    check_choice(name, sorted(TASKS), "task")
    split = None if split is None else check_text(split, "split")
    task = TASKS[name]
    if split is not None and split not in task.splits:
        raise ValueError(f"{name} has the splits {', '.join(task.splits)}, got {split!r}.")
    return task


@dataclass(frozen=True)
class Layout:
    """Paths of the layout that 3D-IDE, 3DRS and Video-3D-LLM share.

    Nothing is opened or checked here. `scene_id` is "scannet/scene0000_00", the folder of a data set and a scene in
    it. A video file of VSI-Bench is "vsibench/scannet/scene0000_00", one of ReVSI "revsi/32_frame/scene0000_00". An id
    that would lead out of the folder raises ValueError by `check_name`.
    """

    root: Path

    def __init__(self, root: str | Path):
        object.__setattr__(self, "root", as_path(root, "data_dir"))

    def annotations(self, task: Task, split: str) -> list[Path]:
        """Return the files that may hold the samples; the first that exists counts."""
        if task.name == "vsibench":
            whole = ("test-00000-of-00001.parquet", "test.jsonl")
            names = (f"test_{split}.parquet",) if split in VSI_SUBSETS else whole
            return [self.root / "vsibench" / name for name in names]
        if task.name == "revsi":
            return [self.root / "revsi" / split / "test-00000-of-00001.parquet"]
        return [self.root / "processed" / f"{stem}_{split}_llava_style.json" for stem in task.file_stems]

    def boxes(self, split: str, source: str) -> Path:
        """Return the file of the boxes of a split; `source` is "gt" or "pred"."""
        return self.root / "metadata" / f"scannet_{split}_{source}_box.json"

    def infos(self, split: str) -> list[Path]:
        """Return the files of a split's image lists, cameras and alignment, pickle-free first."""
        return [self.root / "embodiedscan" / f"embodiedscan_infos_{split}.{suffix}" for suffix in ("json", "pkl")]

    @property
    def selected_frames(self) -> Path:
        """File of the frames by maximum coverage."""
        return self.root / "metadata" / "scannet_select_frames.json"

    def frames(self, scene_id: str) -> Path:
        """Return the folder of `NNNNN.jpg`, `NNNNN.png`, `NNNNN.txt` and the intrinsics of one scene."""
        dataset, scene = _split_id(scene_id)
        return self.root / dataset / "posed_images" / scene

    def video(self, scene_id: str) -> Path:
        """Return the video file of a scene id; see `is_video_file`."""
        return self.root / f"{check_name(scene_id)}.mp4"

    def masks(self, scene_id: str) -> Path:
        """Return the file of the instance proposals on the mesh of one scene."""
        dataset, scene = _split_id(scene_id)
        return self.root / dataset / "mask" / f"{scene}.mask.npz"

    def point_clouds(self, scene_id: str, split: str) -> list[Path]:
        """Return the files of one scene's point cloud with instances, pickle-free first."""
        dataset, scene = _split_id(scene_id)
        folder = self.root / dataset / "pcd_with_object_aabbs" / split
        return [folder / f"{scene}{suffix}" for suffix in (".safetensors", ".pth")]

    def teacher(self, scene_id: str) -> Path:
        """Return the file of the stored teacher features of one scene."""
        dataset, scene = _split_id(scene_id)
        return self.root / dataset / "posed_images_3d_feature_vggt" / scene / "vggt_sliced.npy"


def _split_id(scene_id: str) -> tuple[str, str]:
    """Return the data set of a scene, which may be empty, and its name."""
    dataset, _, scene = check_name(scene_id).rpartition("/")
    return dataset, scene
