"""State of a store of teacher features and pseudo geometry: what it holds, and what of it can be trained on."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from processing.argument_rules import path_text
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.pseudo_rules import mask_disagreements
from trainer.teachers.store import TeacherStore, has_header, read_scene
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = [
    "MANY_DISAGREEMENTS",
    "SceneState",
    "StoreDiagnosis",
    "examine_store",
    "is_store",
    "measure_disagreement",
]

MANY_DISAGREEMENTS = 0.2  # Share of the pixels; rooms of exact depth have 0.002, at borders of objects.
LITTLE_DEPTH = 0.01  # Share of the pixels; sparse points of a reconstruction cover more.
_EXAMPLES = 5  # Scenes that the text names.


@dataclass
class SceneState:
    """State of one scene of a store.

    Attributes:
        scene_id: Name of the scene; of a file that cannot be read, its path in the folder.
        frames: Number of frames.
        with_depth: Share of the pixels that have depth; None: no geometry.
        contradicted: Share of the pixels with depth at which views contradict each other; None: no poses.
        confidence: Confidence of the pixels with depth, quantiles 0.1, 0.5 and 0.9; None: not known.
        problem: Reason why it cannot be used; empty: it can.
        note: Remark on what can be used all the same.
    """

    scene_id: str
    frames: int = 0
    with_depth: float | None = None
    contradicted: float | None = None
    confidence: tuple[float, ...] | None = None
    problem: str = ""
    note: str = ""


@dataclass
class StoreDiagnosis:
    """State of a store.

    Attributes:
        folder: Path of the store.
        identity: Facts of the store; None: no file can be read.
        scenes: States of all scenes.
    """

    folder: str
    identity: StoreIdentity | None
    scenes: list[SceneState] = field(default_factory=list)

    def can_run(self) -> bool:
        """Return whether all scenes can be used, and there is one."""
        return bool(self.scenes) and not any(scene.problem for scene in self.scenes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report of `--json`."""
        identity = None if self.identity is None else asdict(self.identity)
        return {"folder": self.folder, "identity": identity, "scenes": [asdict(scene) for scene in self.scenes]}

    def as_text(self) -> str:
        """Return the report as text for people."""
        lines = [f"{self.folder}: {len(self.scenes)} scenes, {sum(scene.frames for scene in self.scenes)} frames"]
        if self.identity is not None:
            facts = self.identity
            features = f"features for {facts.image_size[0]} x {facts.image_size[1]} px" if facts.has_features else ""
            geometry = f"pseudo geometry, alignment {facts.alignment}" if facts.alignment else ""
            lines.append(f"of {facts.teacher} ({facts.version}), licence {facts.licence}")
            lines.append("holds " + " and ".join(filter(None, (features, geometry))))
        for name, words in (("with_depth", "pixels with depth"), ("contradicted", "pixels where views contradict")):
            values = [getattr(scene, name) for scene in self.scenes if getattr(scene, name) is not None]
            if values:
                lines.append(f"{words}: median {np.median(values):.1%}, from {min(values):.1%} to {max(values):.1%}")
        for kind, title in (("problem", "cannot be used"), ("note", "look at these")):
            found = [scene for scene in self.scenes if getattr(scene, kind)]
            if found:
                lines += ["", f"{title} ({len(found)}):"]
                lines += [f"    {scene.scene_id}: {getattr(scene, kind)}" for scene in found[:_EXAMPLES]]
                lines += [f"    and {len(found) - _EXAMPLES} more (--json lists all)"] * (len(found) > _EXAMPLES)
        return "\n".join(lines)


def examine_store(folder: str | Path) -> StoreDiagnosis:
    """Look at every file of a store.

    Nothing is changed, and no fault of a file raises.

    Args:
        folder: Folder that `ide3d teachers` or `ide3d geometry` filled.

    Raises:
        FileNotFoundError: If the folder holds no file of a store.
        TypeError: If `folder` is no path.
    """
    folder = Path(path_text(folder, "folder"))
    paths = sorted(folder.rglob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no store: no file of it ends with .safetensors.")
    diagnosis = StoreDiagnosis(str(folder), None)
    for path in tqdm(paths, desc="scenes", delay=2, disable=None):
        try:
            header = read_scene(path)
            if diagnosis.identity is None:
                diagnosis.identity = header.identity
            header.identity.check_equal(diagnosis.identity, path)
            diagnosis.scenes.append(_examine_scene(folder, header.scene_id, header.frame_names, header.identity))
        except (ValueError, OSError) as error:
            diagnosis.scenes.append(SceneState(str(path.relative_to(folder)), problem=str(error)))
    return diagnosis


def is_store(folder: str | Path) -> bool:
    """Return whether a folder holds files of a store, and no benchmark."""
    folder = Path(folder)
    if not folder.is_dir() or (folder / "processed").is_dir() or any(folder.glob("*/posed_images")):
        return False
    paths = (path for pattern in ("*.safetensors", "*/*.safetensors") for path in sorted(folder.glob(pattern)))
    return any(has_header(path) for path in paths)


def _examine_scene(folder: Path, scene_id: str, names: tuple[str, ...], identity: StoreIdentity) -> SceneState:
    """Return the state of a scene; raise ValueError or OSError if it cannot be read."""
    store, state = TeacherStore(folder), SceneState(scene_id, len(names))
    store.identity, store.alignment = identity, identity.alignment
    if identity.has_features:
        store.load_features(scene_id, names, identity.grid)
    if identity.alignment is None:
        return state
    geometry = store.load_geometry(scene_id, names)
    has_depth = geometry.depth > 0
    state.with_depth = float(has_depth.mean())
    if geometry.confidence is not None and has_depth.any():
        state.confidence = tuple(np.quantile(geometry.confidence[has_depth], (0.1, 0.5, 0.9)).round(4).tolist())
    state.contradicted = measure_disagreement(geometry)
    empty = [name for name, frame in zip(names, has_depth, strict=True) if not frame.any()]
    notes = []
    if empty:
        notes.append(f"{len(empty)} frames such as {empty[0]} have no depth")
    elif state.with_depth < LITTLE_DEPTH:
        notes.append(f"only {state.with_depth:.2%} of the pixels have depth")
    if state.contradicted is not None and state.contradicted > MANY_DISAGREEMENTS:
        notes.append(
            f"views contradict each other at {state.contradicted:.0%} of the pixels, which are left out; do depth and "
            "poses belong together?"
        )
    state.note = "; ".join(notes)
    return state


def measure_disagreement(geometry: PseudoGeometry) -> float | None:
    """Return the share of the pixels with depth at which views contradict each other.

    It is None without poses. Pixels of confidence 0 count as without depth.
    """
    if geometry.camera_to_world is None or geometry.intrinsics is None:
        return None
    depth = geometry.depth if geometry.confidence is None else geometry.depth * (geometry.confidence > 0)
    kept = mask_disagreements(depth, geometry.intrinsics, geometry.camera_to_world)
    return 1 - float((kept > 0).sum() / max(1, (depth > 0).sum()))
