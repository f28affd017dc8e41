"""Interface of a teacher: frames in, features on the token grid out, with their origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from processing.scene_names import check_name, check_names
from processing.token_grid import TokenGrid
from trainer.geometry.checks import Protocol as GeometryProtocol
from trainer.teachers.pseudo_rules import Alignment
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = ["FrameSource", "GeometrySource", "Teacher", "check_source", "check_teacher"]

FACTS = ("name", "version", "licence", "preprocessing", "protocol", "feature_size")


@dataclass(frozen=True)
class FrameSource:
    """Names of the frames, for teachers that look features up instead of computing them.

    Args:
        scene_id: Name of the scene, such as "scannet/scene0000_00".
        frame_names: One name a frame, such as "00010", in the order of the frames.

    Raises:
        TypeError: If `frame_names` are no sequence.
        ValueError: If a name is no text, or would lead out of its folder.
    """

    scene_id: str
    frame_names: tuple[str, ...]

    def __post_init__(self):
        check_name(self.scene_id)
        names = check_names(self.frame_names, "frame_names", "name of a frame", is_ordered=True)
        object.__setattr__(self, "frame_names", tuple(names))

    @classmethod
    def of_sample(cls, sample: Mapping[str, Any]) -> "FrameSource | None":
        """Return the source of a training sample, None without `scene_id` or `frame_names`."""
        scene_id, names = sample.get("scene_id"), sample.get("frame_names")
        return None if scene_id is None or names is None else cls(str(scene_id), tuple(names))


class Teacher(Protocol):
    """Frames in, features on the token grid out.

    Its facts go into stored features and model cards.

    Args:
        name: Name of the teacher, such as that of its weights on the Hub.
        version: Version of weights and code.
        licence: Licence of the weights; it may bind models that are trained with the features.
        preprocessing: Way from frames to the teacher's input. Features of two ways are not mixed in one store.
        protocol: Rule that averages patches over tokens, see `pool_teacher_features`; a training of another protocol
            refuses it. None: the teacher has no patches.
        feature_size: Number of channels C.
    """

    name: str
    version: str
    licence: str
    preprocessing: str
    protocol: GeometryProtocol | None
    feature_size: int

    def compute_features(
        self,
        frames: Any,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor | None:
        """Compute the features of the frames of one video.

        Args:
            frames: Frames (V, h, w, 3) uint8, or a list of PIL images.
            geometry: `depth`, `intrinsics` and `camera_to_world` on the pixels of the vision input, where they are
                known.
            grid: Token grid of the model.
            source: Names of the frames, where they are known.

        Returns:
            Tensor (V, rows, cols, feature_size), float32, detached; all zero where a token has none. None if the video
            has none at all.
        """


class GeometrySource(Protocol):
    """Frames in, pseudo geometry out: a network, a reconstruction, or arrays that somebody made.

    Args:
        name: Name of the source, such as that of its weights on the Hub.
        version: Version of weights and code.
        licence: Licence of the weights; it may bind models that are trained with the geometry.
        preprocessing: Way from frames to the source's input.
        alignment: Alignment that its geometry needs, see `ALIGNMENTS`.
    """

    name: str
    version: str
    licence: str
    preprocessing: str
    alignment: Alignment

    def compute_geometry(self, frames: Any, source: FrameSource) -> PseudoGeometry:
        """Compute the geometry of the frames of one video.

        Args:
            frames: Frames (V, h, w, 3) uint8.
            source: Scene and names of the frames.
        """


def check_source(source: Any) -> None:
    """Raise TypeError unless an object has what `GeometrySource` asks for."""
    needed = ("name", "version", "licence", "preprocessing", "alignment", "compute_geometry")
    missing = [name for name in needed if not hasattr(source, name)]
    if missing or isinstance(source, type):
        raise TypeError(
            f"`source` must be a source of geometry, as `load_geometry_source` makes one, got {source!r:.100} without "
            f"{missing}."
        )


def check_teacher(teacher: Any) -> None:
    """Raise TypeError unless an object has what `Teacher` asks for."""
    missing = [name for name in (*FACTS, "compute_features") if not hasattr(teacher, name)]
    if missing or isinstance(teacher, type):
        raise TypeError(
            f"`teacher` must be a teacher, as `load_teacher` makes one, got {teacher!r:.100} without {missing}."
        )
