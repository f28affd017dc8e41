"""Questions about rooms in the prompts of the public benchmarks, so that a nano model knows these words."""

from collections.abc import Iterator

import numpy as np

from processing.benchmarks.prompts import build_prompt
from processing.rooms.lessons import say_at_times_otherwise
from processing.rooms.questions.wording import find_template, whereabouts

__all__ = ["say_as_benchmark"]

_SITUATIONS = (
    "I stand where the video begins and look straight ahead.",
    "I have just come in and face the room.",
    "I am standing at the door.",
)
_DESCRIPTIONS = {"one": "{a}", "several": "all {a}", "of_colour": "all {a} things"}


def say_as_benchmark(question: dict, row: dict, rng: np.random.Generator, *, share: float) -> str:
    """Word a question about a room as a benchmark does, in the clean prompts.

    Requests to find become those of ScanRefer, which has one object, and Multi3DRefer; all others those of ScanQA and
    SQA3D. What a request names keeps its words; ScanRefer adds half of the time where the object stands.

    Args:
        question: Question in words of `load_rooms` or `retake_room`.
        row: Its room.
        rng: Generator of the draws.
        share: Share of the questions that are worded so, 0 to 1; of the others a third is reworded as in
            `LessonSamples`.
    """
    prompts = list(_benchmark_prompts(question, row, rng)) if rng.random() < share else []
    return prompts[int(rng.integers(len(prompts)))] if prompts else say_at_times_otherwise(question, row, rng)


def _benchmark_prompts(question: dict, row: dict, rng: np.random.Generator) -> Iterator[str]:
    """Make the prompts that fit a question; none for a request that no template says."""
    text = question["question"]
    if question["type"] != "grounding":
        yield build_prompt("scanqa", {"question": text})
        situation = _SITUATIONS[int(rng.integers(len(_SITUATIONS)))]
        yield build_prompt("sqa3d", {"question": f"{situation} {text}"})
        return
    name, named = find_template(text) or ("", {})
    if name not in _DESCRIPTIONS:
        return
    description = _DESCRIPTIONS[name].format(**named)
    yield build_prompt("multi3drefer", {"question": description.capitalize()})
    meant = [thing for thing in row["objects"] if thing["id"] in question["target_objects"]]
    if len(meant) == 1:
        place = f" {whereabouts(row['objects'], meant[0])}." if rng.integers(2) else "."
        yield build_prompt("scanrefer", {"question": (description + place).capitalize()})
