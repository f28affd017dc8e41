"""Measure the rooms: how fast they are generated, and what shortcuts score on their questions."""

import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

from processing.rooms.dataset import load_rooms
from processing.rooms.questions.baselines import Baselines, format_table

__all__ = ["RoomMeasurement", "measure_rooms"]


@dataclass(frozen=True)
class RoomMeasurement:
    """Speed of the generator, and scores of predictors that do not look.

    Args:
        split: Split of the scored rooms.
        num_scenes: Number of scored rooms, and of the training rooms that the predictors are fitted on.
        style: Style of the rooms.
        seed: Family of rooms.
        image_size: Side of a frame in pixels.
        num_frames: Frames of a room.
        num_proc: Processes that generated the rooms; None for as many as there are cores.
        seconds: Time that the scored rooms took.
        rooms_per_second: Rooms generated in a second.
        baselines: Rows of `Baselines.score`.
    """

    split: str
    num_scenes: int
    style: str
    seed: int
    image_size: int
    num_frames: int
    num_proc: int | None
    seconds: float
    rooms_per_second: float
    baselines: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    def as_text(self) -> str:
        """Return speed and scores as text."""
        speed = (
            f"{self.num_scenes} rooms of {self.num_frames} frames at {self.image_size} px in {self.seconds:.1f} s: "
            f"{self.rooms_per_second:.1f} rooms/s"
        )
        return f"{speed}\nAnswers right without looking, in percent:\n{format_table(self.baselines)}"


def measure_rooms(
    split: str = "test",
    num_scenes: int = 200,
    *,
    style: str = "plain",
    seed: int = 0,
    image_size: int = 126,
    num_frames: int = 8,
    num_proc: int | None = None,
) -> RoomMeasurement:
    """Generate rooms anew in a temporary folder, and score the predictors on them.

    Args:
        split: Split of the scored rooms.
        num_scenes: Rooms to score; the predictors are fitted on as many training rooms.
        style: Style of the rooms.
        seed: Family of rooms.
        image_size: Side of a frame in pixels.
        num_frames: Frames of a room.
        num_proc: Processes; default: one for each core.

    Raises:
        ValueError: See `load_rooms`.
    """
    shape = {
        "style": style,
        "seed": seed,
        "image_size": image_size,
        "num_frames": num_frames,
        "num_proc": num_proc,
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        scored = load_rooms(split, num_scenes, cache_dir=folder, **shape)
        seconds = time.perf_counter() - start
        # Another seed where the scored rooms are training rooms themselves.
        fit_seed = seed + (split == "train")
        fitted = load_rooms("train", num_scenes, cache_dir=folder, **{**shape, "seed": fit_seed})
        columns = ["instance_ids", "questions"]
        table = Baselines(fitted.select_columns(columns)).score(scored.select_columns(columns))
    return RoomMeasurement(
        split, num_scenes, **shape, seconds=seconds, rooms_per_second=num_scenes / seconds, baselines=table
    )
