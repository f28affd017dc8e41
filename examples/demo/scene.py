"""Read a scene of the demo: a test room, answers, and the truth."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage import load_json

__all__ = ["ADVICE", "Scene"]

ADVICE = "Run the demo again."
SCENE_KEYS = {"scene_id", "request", "found", "truth", "is_right", "answers"}
ANSWER_KEYS = {"type", "question", "answer", "truth", "is_right"}
ARRAYS = ("frames", "depth", "found_mask", "true_mask")
OPTIONAL_ARRAYS = ("predicted_depth",)


@dataclass(frozen=True)
class Scene:
    """A test room: what was asked, what the model said and found, and the truth.

    `facts` and its answers may hold `before`: what was found and said before fine-tuning.

    Shape:
        frames:          (V, h, w, 3), uint8, RGB.
        depth:           (V, h, w), metres, z-depth; 0 means no measurement.
        found_mask:      (V, rows, cols), bool; the region the model chose, empty for "no such object".
        true_mask:       (V, rows, cols), bool; the region it should choose.
        predicted_depth: (V, h2, w2), metres; by the validator, None for a model that has none.
    """

    facts: dict
    frames: np.ndarray
    depth: np.ndarray
    found_mask: np.ndarray
    true_mask: np.ndarray
    predicted_depth: np.ndarray | None = None

    @classmethod
    def load(cls, file: Path) -> "Scene":
        """Read `<name>.json` and the arrays of `<name>.npz` beside it.

        Raises:
            FileNotFoundError: If there are no arrays beside the file.
            ValueError: If a file is damaged, misses an entry, or holds an array of the wrong shape.
        """
        arrays_file = file.with_suffix(".npz")
        if not arrays_file.is_file():
            raise FileNotFoundError(f"{file} has no {arrays_file.name} beside it. {ADVICE}")
        facts = load_json(file, ADVICE)
        try:
            with np.load(arrays_file, allow_pickle=False) as data:
                arrays = {name: data[name] for name in ARRAYS + OPTIONAL_ARRAYS if name in data}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{arrays_file} is damaged: {error}. {ADVICE}") from error
        missing = sorted((SCENE_KEYS - set(facts)) | (set(ARRAYS) - set(arrays)))
        missing += sorted(
            {f"answers: {key}" for answer in facts.get("answers", []) for key in ANSWER_KEYS - set(answer)}
        )
        if missing:
            raise ValueError(f"{file} and {arrays_file.name} miss {', '.join(missing)}. {ADVICE}")
        scene = cls(facts, **arrays)
        scene.check_shapes(file.stem)
        return scene

    def check_shapes(self, name: str) -> None:
        """Check that the arrays belong together.

        Raises:
            ValueError: If an array has the wrong shape.
        """
        if (
            self.frames.ndim != 4
            or self.frames.shape[-1] != 3
            or self.frames.dtype != np.uint8
            or not self.frames.size
        ):
            raise ValueError(
                f"{name}: frames must be (V, h, w, 3) uint8, got {self.frames.shape} {self.frames.dtype}."
            )
        views, grid = len(self.frames), self.true_mask.shape[1:]
        expected = {
            "depth": self.frames.shape[:3],
            "true_mask": (views, *grid[:2]),
            "found_mask": (views, *grid[:2]),
        }
        if self.predicted_depth is not None:
            expected["predicted_depth"] = (views, *self.predicted_depth.shape[1:3])
        for key, shape in expected.items():
            if getattr(self, key).shape != shape:
                raise ValueError(
                    f"{name}: {key} must have shape {shape} for {views} frames, "
                    f"got {getattr(self, key).shape}. {ADVICE}"
                )

    def depth_range(self) -> tuple[float, float]:
        """Return the range of depth to show in metres.

        It is that of all measurements but the farthest 1 %.
        """
        measured = self.depth[self.depth > 0]
        if not measured.size:
            raise ValueError(f"{self.facts['scene_id']}: depth has no measurement above 0 metres.")
        return float(measured.min()), float(max(np.quantile(measured, 0.99), measured.min() + 0.1))
