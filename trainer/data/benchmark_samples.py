"""Training samples of the benchmarks, read from the public layout when they are asked for."""

import logging
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from processing import IDE3DProcessor, PosedVideo
from processing.argument_rules import check_whole
from processing.benchmarks import TASKS, build_chat, load_scene, load_task, requirements_for
from processing.benchmarks.readers.teacher import load_teacher_features
from processing.token_grid import TokenGrid
from trainer.data.chat_packs import count_own_tokens, pack_rows
from trainer.data.scene_regions import REGION_SOURCES, RegionSource, SceneRegions
from trainer.geometry.checks import Protocol
from trainer.teachers import TeacherStore

__all__ = ["BenchmarkDataset", "read_teacher_features"]

logger = logging.getLogger(__name__)


def read_teacher_features(data_dir: str | Path, scene: PosedVideo, grid: TokenGrid, protocol: Protocol) -> np.ndarray:
    """Read stored teacher features (V, rows, cols, C), float32, of the frames of a scene.

    Raises:
        FileNotFoundError: If there is no store of this scene.
        ValueError: If the store is broken, or lacks one of the frames.
    """
    return load_teacher_features(data_dir, scene.scene_id, scene.frame_names, grid, protocol)


class BenchmarkDataset(Dataset):
    """Samples of a benchmark as `IDE3DDataCollator` takes them.

    A scene is opened anew for each sample, or is one of the `kept_scenes`. Grounding samples have the
    annotated boxes of their scene as candidates, as in the original. Captions whose object has no box are left out.
    A sample holds one chat, or with `packed_tokens` several chats of one scene: its gradients are those of a batch of
    these chats one by one.

    Args:
        task: Key of `processing.benchmarks.TASKS`.
        split: Split of the benchmark, usually "train".
        data_dir: Folder in the public layout.
        grid: Token grid of the model.
        protocol: Protocol of prompts and regions.
        frames: Rule of the shown frames: "uniform", "listed" or "coverage".
        num_frames: Number of frames of a scene at most.
        has_geometry: Whether samples bring depth, intrinsics and poses.
        has_teacher: Whether samples bring stored teacher features.
        regions: Source of the masks of boxes, "depth" as in the original, or "poses" alone.
        skip_invalid_poses: Whether to leave out frames whose pose is not finite instead of raising an error, where
            poses are read.
        scenes: Names of scenes; None: all.
        pseudo_geometry: Store of pseudo geometry, which the collator reads: samples of its scenes bring no measured
            geometry. None: all is measured.
        packed_tokens: Most text tokens of the chats of a scene that share one sample, and one visual prefix: its
            memory grows with them. 0: each chat is a sample of its own, as in the original.
        processor: Processor of the model, which counts these tokens.
        kept_scenes: Number of scenes that each process keeps in memory, with their regions, for the samples that come
            next. It pays where samples come scene by scene, or a data set has few scenes: a scene of ScanNet takes
            up to 200 MB.

    Raises:
        FileNotFoundError: If the annotations, or a file that they need, do not exist.
        TypeError: If `packed_tokens` or `kept_scenes` is no integer.
        ValueError: If a name is unknown, annotations are broken, or no sample is left. If chats are packed without a
            processor or under "paper".
    """

    def __init__(
        self,
        task: str,
        split: str,
        data_dir: str | Path,
        grid: TokenGrid,
        *,
        protocol: Protocol = "clean",
        frames: str = "uniform",
        num_frames: int = 32,
        has_geometry: bool = True,
        has_teacher: bool = False,
        regions: RegionSource = "depth",
        skip_invalid_poses: bool = False,
        scenes: Collection[str] | None = None,
        pseudo_geometry: TeacherStore | None = None,
        packed_tokens: int = 0,
        processor: IDE3DProcessor | None = None,
        kept_scenes: int = 0,
    ):
        if regions not in REGION_SOURCES:
            raise ValueError(f"`regions` must be one of {sorted(REGION_SOURCES)}, got {regions!r}.")
        parts = requirements_for(task, split=split, frames=frames, regions=regions).parts
        self.task_parts = set(parts) - {"boxes"}
        self.parts = ({"poses", "depth"} if has_geometry else set()) | self.task_parts
        self.task, self.data_dir, self.grid, self.protocol = task, data_dir, grid, protocol
        self.num_frames, self.regions, self.skip_invalid_poses = num_frames, regions, skip_invalid_poses
        self.has_geometry, self.has_teacher, self.pseudo_geometry = has_geometry, has_teacher, pseudo_geometry
        options = {"frames": frames, "num_frames": num_frames, "scenes": scenes}
        self.rows = load_task(task, split, data_dir, boxes="gt", **options)
        self.kind = TASKS[task].kind
        if self.kind == "describe":
            boxes = self.rows["input_box"]
            kept = [index for index, box in enumerate(boxes) if len(box)]
            if len(kept) < len(boxes):
                logger.warning("%s %s: %d of %d samples have no box.", task, split, len(boxes) - len(kept), len(boxes))
            if not kept:
                raise ValueError(f"No sample of {task} {split} in {data_dir} has a box to describe.")
            self.rows = self.rows.select(kept)
        self.kept_scenes = check_whole(kept_scenes, "kept_scenes", 0)
        self._keep_scenes()
        self.is_packed = check_whole(packed_tokens, "packed_tokens", 0) > 0
        self.packs = self._pack(packed_tokens, processor) if self.is_packed else [[i] for i in range(len(self.rows))]

    def _pack(self, packed_tokens: int, processor: IDE3DProcessor | None) -> list[list[int]]:
        """Return the rows of each sample."""
        if self.protocol == "paper" or processor is None:
            raise ValueError(
                f"`packed_tokens={packed_tokens}` needs protocol 'clean' and the `processor` of the model, got "
                f"{self.protocol!r} and {processor!r:.40}. 0 gives each chat a sample of its own."
            )
        rows = self.rows.select_columns(["id", "question", "options", "answers", "input_box"])
        chats = [build_chat(self.task, row, protocol=self.protocol, stage="train") for row in rows]
        return pack_rows(self.rows["scene_id"], count_own_tokens(chats, processor), packed_tokens)

    def _keep_scenes(self) -> None:
        self._open = lru_cache(maxsize=self.kept_scenes)(self._open_scene)

    def __getstate__(self) -> dict[str, Any]:
        # Scenes cannot be sent to a worker process; each keeps its own.
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep_scenes()

    def _open_scene(
        self, scene_id: str, frame_names: tuple[str, ...], parts: frozenset[str]
    ) -> tuple[PosedVideo, SceneRegions]:
        scene = load_scene(
            self.data_dir,
            scene_id,
            frame_names=frame_names,
            parts=parts,
            num_frames=self.num_frames,
            skip_invalid_poses=self.skip_invalid_poses and "poses" in parts,
        )
        return scene, SceneRegions(scene, self.grid, self.regions, self.protocol)

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read the scene of a sample and put the sample together."""
        rows = [self.rows[place] for place in self.packs[index]]
        row = rows[0]
        is_pseudo = self.pseudo_geometry is not None and self.pseudo_geometry.has_scene(row["scene_id"])
        is_measured = self.has_geometry and not is_pseudo
        parts = self.task_parts if is_pseudo else self.parts
        scene, regions = self._open(row["scene_id"], tuple(row["frame_names"]), frozenset(parts))
        chats = [build_chat(self.task, row, protocol=self.protocol, stage="train") for row in rows]
        sample = {
            "messages": chats if self.is_packed else chats[0],
            "scene_id": scene.scene_id,
            "frame_names": scene.frame_names,
            "frames": scene.frames,
            **self._find_regions(rows, regions),
        }
        if is_measured:
            sample |= {key: getattr(scene, key) for key in ("depth", "intrinsics", "camera_to_world")}
        if self.has_teacher:
            sample["teacher_features"] = read_teacher_features(self.data_dir, scene, self.grid, self.protocol)
        return sample

    def _find_regions(self, rows: list[dict[str, Any]], regions: SceneRegions) -> dict[str, Any]:
        """Make masks of the candidates with their truth, or of the boxes to describe."""
        if self.kind == "answer":
            return {}
        if self.kind == "describe":
            boxes, references = np.unique([row["input_box"] for row in rows], axis=0, return_inverse=True)
        else:
            boxes = rows[0]["candidate_boxes"]  # those of the scene
        masks = regions.masks(boxes)
        if self.kind == "describe":
            return {"region_masks": masks, "region_references": references.flatten()}
        targets = torch.zeros(len(rows), len(boxes) + 1, dtype=torch.bool)
        for target, row in zip(targets, rows, strict=True):
            target[row["object_ids"] or [-1]] = True  # the last: no such object
        return {"region_masks": masks, "region_targets": targets if self.is_packed else targets[0]}
