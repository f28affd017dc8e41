"""What a teacher is: frames in, features on the token grid out, and who made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from processing.token_grid import TokenGrid
from trainer.geometry.checks import Protocol as GeometryProtocol


@dataclass(frozen=True)
class FrameSource:
    """Which frames these are, for teachers that look their features up instead of computing them.

    Args:
        scene_id: "scannet/scene0000_00".
        frame_names: One name a frame, such as "00010", in the order of the frames.
    """

    scene_id: str
    frame_names: tuple[str, ...]

    @classmethod
    def of_sample(cls, sample: Mapping[str, Any]) -> "FrameSource | None":
        """That of a training sample with `scene_id` and `frame_names`; None for one that lacks either."""
        scene_id, names = sample.get("scene_id"), sample.get("frame_names")
        return None if scene_id is None or names is None else cls(str(scene_id), tuple(names))


class Teacher(Protocol):
    """Frames in, features on the token grid out; with what a model card and a stored feature have to state.

    Args:
        name: What the teacher is called, such as the name of its weights on the Hub.
        version: Which one of that name: of weights and code.
        licence: Licence of the weights; whoever trains with their features should know it.
        preprocessing: How frames become its input. Features of two preprocessings are not mixed in one store.
        protocol: How it averages patches over tokens, see `pool_teacher_features`; a training of another protocol
            refuses it. None: it has no patches.
        feature_size: Channels C.
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
        """Features of the frames of one video.

        Args:
            frames: (V, h, w, 3) uint8, or a list of PIL images.
            geometry: `depth`, `intrinsics` and `camera_to_world` on the pixels of the vision input, where they are
                known.
            grid: Token grid of the model.
            source: Which frames these are, where it is known.

        Returns:
            Tensor (V, rows, cols, feature_size), float32, detached; all zero where a token has none. None if the
            video has none at all.
        """


__all__ = ["FrameSource", "Teacher"]
