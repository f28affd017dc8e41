"""Scenes of visitors, each seen by its own alone, and the models that they share; both are bounded."""

import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from ide3d.app.settings import PageSettings
from trainer.drawing import Drawing
from trainer.session import VideoScene, load_inference_model, show_video

__all__ = ["NoSceneError", "OpenScene", "SceneShelf", "Turn"]

logger = logging.getLogger(__name__)

MAX_MODELS = 2  # in memory at once
MAX_SIDE = 768  # pixels of a frame that is kept for the eyes; the model has seen the whole one


class NoSceneError(ValueError):
    """The visitor has no open scene."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Args:
        question: Question as the model reads it.
        answer: Words of the model.
        regions: Objects that the question points at, bool (N, V, rows, cols); None without any.
    """

    question: str
    answer: str
    regions: torch.Tensor | None = None


@dataclass
class OpenScene:
    """A video that a visitor shows, and what was marked and said.

    Args:
        scene: Opened video; its frames are those kept for the eyes.
        model: Name of the model.
        title: Name of the video.
        marked: Cells of the object that the visitor clicked, bool (V, rows, cols); None before.
        drawing: Frames with all that lights up in them.
        turns: Questions and answers so far.
    """

    scene: VideoScene
    model: str
    title: str
    marked: torch.Tensor | None = None
    drawing: Drawing = field(init=False)
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self):
        self.drawing = self.draw([])

    def draw(self, marks: list[Any], notes: list[str] | None = None, **known: Any) -> Drawing:
        """Return a drawing of the frames with these marks."""
        return Drawing(
            frames=self.scene.frames,
            marks=marks,
            title=self.title,
            notes=notes or [],
            grid=self.scene.session.token_grid,
            frame_names=[str(index) for index in self.scene.frame_indices],
            **known,
        )


class SceneShelf:
    """Open scenes by visitor.

    Args:
        settings: Models and limits.
    """

    def __init__(self, settings: PageSettings):
        self.settings = settings
        self._scenes: OrderedDict[str, OpenScene] = OrderedDict()
        self._models: OrderedDict[str, tuple] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._scenes)

    def open(self, visitor: str, model: str, video: str | Path, title: str) -> OpenScene:
        """Show a video of a visitor to a model, in place of an earlier one.

        Args:
            visitor: Key of the visitor.
            model: Folder or name on the Hub.
            video: File, or folder of images.
            title: Name of the video.

        Raises:
            ValueError: If the video or the model cannot be read or is not allowed, or the video is too long.
            OSError: If a file is damaged or missing.
        """
        self.close(visitor)
        loaded, processor = self._load(model)
        limits = self.settings
        scene = show_video(
            loaded,
            processor,
            video,
            num_frames=limits.num_frames,
            max_seconds=limits.max_seconds,
            max_memory=limits.max_memory,
        )
        opened = OpenScene(replace(scene, frames=shrink(scene.frames)), model, title)
        with self._lock:
            self._scenes[visitor] = opened
            while len(self._scenes) > limits.max_users:
                self._scenes.popitem(last=False)
        return opened

    def get(self, visitor: str) -> OpenScene:
        """Return the scene of a visitor.

        Raises:
            NoSceneError: If there is none, or it had to make room.
        """
        with self._lock:
            if visitor not in self._scenes:
                raise NoSceneError(
                    "No video is open. Upload or record one, or take a room. A video that nobody asked about for a "
                    f"while makes room for others: {self.settings.max_users} are kept."
                )
            self._scenes.move_to_end(visitor)
            return self._scenes[visitor]

    def close(self, visitor: str) -> None:
        """Forget the scene of a visitor, if there is one."""
        with self._lock:
            self._scenes.pop(visitor, None)

    def _load(self, name: str) -> tuple:
        """Return a model and its processor.

        Where there are too many, the one that waits longest makes room, with its scenes.
        """
        if name not in self.settings.models and not self.settings.any_model:
            raise ValueError(f"This page offers the models {', '.join(self.settings.models)}, got {name!r}.")
        if name not in self._models:
            loaded = load_inference_model(name, device=self.settings.device)
            logger.info("Loaded the model %s.", name)
            with self._lock:
                while len(self._models) >= MAX_MODELS:
                    gone, _ = self._models.popitem(last=False)
                    for visitor in [key for key, opened in self._scenes.items() if opened.model == gone]:
                        del self._scenes[visitor]
                self._models[name] = loaded
        self._models.move_to_end(name)
        return self._models[name]


def shrink(frames: np.ndarray) -> np.ndarray:
    """Return frames (V, h, w, 3), uint8, whose longer side is at most 768 px."""
    height, width = frames.shape[1:3]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])
