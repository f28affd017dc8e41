"""Tasks of lmms-eval over the public benchmark folder, scored by our metrics under both protocols."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import config as datasets_config
from lmms_eval.api.task import ConfigurableMessagesTask

from ide3d.lmms_eval.model import DATA_COLUMN
from processing.benchmarks import build_prompt, load_task
from processing.benchmarks.export.rooms import export_rooms
from processing.benchmarks.readers.tasks import Layout
from trainer.evaluation import score_answers
from trainer.evaluation.tasks import EVALUATED_TASKS

__all__ = ["DATA_VARIABLE", "BenchmarkTask"]

DATA_VARIABLE = "IDE3D_BENCHMARKS"  # environment variable: the folder of the benchmarks
ROOM_PIXELS = 126
OWN_KEYS = ("benchmark", "num_frames", "rooms", "scores", "class")


class BenchmarkTask(ConfigurableMessagesTask):
    """A benchmark in lmms-eval.

    Its task file says `benchmark`, `num_frames` of a scene, the `scores` of each protocol, and `rooms` where rendered
    rooms stand in for the public data. An answer is a text; of grounding, JSON with the scores of the candidates as
    our model gives them, and any other text finds nothing.

    Args:
        config: Content of the task file.

    Raises:
        ValueError: If the folder of the benchmarks is not named, or the benchmark is unknown.
    """

    def __init__(self, config: Mapping[str, Any]):
        own = {key: config.get(key) for key in OWN_KEYS}
        self.benchmark, self.num_frames, self.rooms = own["benchmark"], own["num_frames"], own["rooms"]
        if self.benchmark not in EVALUATED_TASKS:
            raise ValueError(f"`benchmark` of a task file must be one of {sorted(EVALUATED_TASKS)}, got {own}.")
        self.evaluated = EVALUATED_TASKS[self.benchmark]
        self.split = self.evaluated.task.eval_split
        names = [(protocol, name) for protocol, listed in own["scores"].items() for name in listed]
        super().__init__(
            config={
                **{key: value for key, value in config.items() if key not in OWN_KEYS},
                "test_split": self.split,
                "output_type": "generate_until",
                "doc_to_text": partial(build_prompt, self.benchmark),
                "doc_to_target": "question_type",
                "doc_to_messages": self.build_messages,
                "process_results": partial(pair_answer, names),
                "generation_kwargs": {"max_new_tokens": max(self.evaluated.max_new_tokens, 1), "do_sample": False},
                "metric_list": [
                    {
                        "metric": f"{protocol}:{name}",
                        "aggregation": partial(aggregate, self.benchmark, protocol, name),
                        "higher_is_better": True,
                    }
                    for protocol, name in names
                ],
            }
        )

    def download(self, dataset_kwargs: Any = None) -> None:
        """Read the samples of the benchmark, or render rooms with theirs."""
        folder = self._find_folder()
        samples = load_task(self.benchmark, self.split, folder, num_frames=self.num_frames)
        samples = samples.add_column(DATA_COLUMN, [str(folder)] * len(samples))
        self.dataset = self.dataset_no_image = {self.split: samples}

    def doc_to_text(self, doc: Mapping[str, Any], *args: Any) -> str:
        """Return the prompt of a sample, empty if there is no box to describe."""
        if self.evaluated.task.kind == "describe" and not doc["input_box"]:
            return ""  # its prediction is empty too, as in `ide3d evaluate`
        return build_prompt(self.benchmark, doc)

    def build_messages(self, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return a chat with the frames of a sample as a video, and its prompt."""
        folder = Layout(doc[DATA_COLUMN]).frames(doc["scene_id"])
        pictures = [str(folder / f"{name}.jpg") for name in doc["frame_names"]]
        parts = [{"type": "video", "url": pictures}, {"type": "text", "text": self.doc_to_text(doc)}]
        return [{"role": "user", "content": parts}]

    def _find_folder(self) -> Path:
        if not self.rooms:
            if not os.environ.get(DATA_VARIABLE):
                raise ValueError(
                    f"Set {DATA_VARIABLE} to the folder of the benchmarks; docs/evaluate.md describes it."
                )
            return Path(os.environ[DATA_VARIABLE]).expanduser()
        name = f"ide3d_rooms_{self.rooms}_{self.num_frames}_{ROOM_PIXELS}"
        folder = Path(datasets_config.HF_DATASETS_CACHE) / name
        if not folder.exists():
            try:
                export_rooms(folder, num_scenes=self.rooms, num_frames=self.num_frames, image_size=ROOM_PIXELS)
            except FileExistsError:  # another process was faster
                pass
        return folder


def pair_answer(
    names: Sequence[tuple[str, str]], doc: Mapping[str, Any], results: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return a sample with its answer under the name of each score."""
    answer: dict[str, Any] = {"id": doc["id"]}
    if EVALUATED_TASKS[doc["task"]].task.kind == "ground":
        answer["scores"] = read_scores(results[0], len(doc["candidate_boxes"]) + 1)
    else:
        answer["text"] = results[0].strip()
    pair = {"sample": {key: value for key, value in doc.items() if key != DATA_COLUMN}, "answer": answer}
    return {f"{protocol}:{name}": pair for protocol, name in names}


def read_scores(text: str, count: int) -> list[float]:
    """Return the scores of candidates that an answer holds; another answer finds none of them."""
    try:
        scores = json.loads(text)["scores"]
        if isinstance(scores, list) and len(scores) == count:
            return [float(score) for score in scores]
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return [0.0] * (count - 1) + [1.0]


_computed: dict[str, dict[str, Any]] = {}  # one entry: lmms-eval asks for the scores of the same answers one by one


def aggregate(benchmark: str, protocol: str, name: str, pairs: Sequence[Mapping[str, Any]]) -> float:
    """Return a score of all answers.

    Args:
        benchmark: Name of the benchmark.
        protocol: "clean" or "paper".
        name: Name of the score, as `score_answers` gives it.
        pairs: Samples with their answers.
    """
    text = json.dumps([benchmark, protocol, *pairs], default=str)
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in _computed:
        samples, answers = [pair["sample"] for pair in pairs], [pair["answer"] for pair in pairs]
        _computed.clear()
        _computed[key] = score_answers(benchmark, samples, answers, protocol, meteor=False)
    return float(_computed[key].get(name, float("nan")))
