"""Task of a model in each benchmark, and the way from its answers to the inputs of the metric."""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from processing.benchmarks import TASKS, Task, build_chat, requirements_for
from processing.benchmarks.readers.tasks import SPATIAL_TASKS
from trainer.data.scene_regions import RegionSource, SceneRegions
from trainer.evaluation.metrics.answers import normalise_answer, score_spatial_answer
from trainer.evaluation.metrics.boxes import box_iou, choose_object, choose_objects, matched_f1
from trainer.evaluation.metrics.columns import read_box, read_boxes, read_id, read_text, read_texts
from trainer.evaluation.metrics.scores import Protocol
from trainer.session.scene_session import SceneSession

__all__ = ["EVALUATED_TASKS", "EvaluatedTask", "check_answers"]

NAMES = ("id", "scene_id")
# What a score reads of a sample, beside its names.
SCORED_FIELDS = {
    "scanrefer": ("question_type", "candidate_boxes", "gt_boxes"),
    "multi3drefer": ("question_type", "candidate_boxes", "gt_boxes"),
    "scan2cap": ("answers", "input_box", "gt_boxes"),
    "scanqa": ("answers",),
    "sqa3d": ("answers", "question_type"),
    **dict.fromkeys(SPATIAL_TASKS, ("answers", "question_type")),
}


@dataclass(frozen=True)
class EvaluatedTask:
    """Rules of a benchmark: its prompts, answers and scores.

    Args:
        task: Needs of the benchmark, and the places of its data.
        max_new_tokens: Largest number of tokens of an answer; decoding is greedy.
        main_score: Score that papers report first, by protocol.
        options: Arguments of the metric.
        variants: Variants that the metric has.
    """

    task: Task
    max_new_tokens: int
    main_score: Mapping[str, str]
    options: Mapping[str, Any]
    variants: tuple[str, ...] = ()

    @property
    def needs_regions(self) -> bool:
        """Whether the model is shown where boxes are."""
        return self.task.kind != "answer"

    @property
    def has_meteor(self) -> bool:
        """Whether METEOR belongs to the scores."""
        return self.task.name in ("scan2cap", "scanqa")

    def parts(self, mode: str, frames: str, source: RegionSource) -> tuple[str, ...]:
        """Return the parts of a scene that are opened in a mode; see `requirements_for`."""
        opened = requirements_for(self.task.name, mode, frames=frames, regions=source).parts
        return tuple(part for part in opened if part != "boxes")

    def predict(
        self,
        session: SceneSession,
        samples: Sequence[Mapping[str, Any]],
        scene: SceneRegions,
        max_new_tokens: int,
    ) -> list[dict[str, Any]]:
        """Return the answers to samples of one scene: {"scores": [...]} or {"text": ...}."""
        protocol = scene.protocol
        if self.task.kind == "ground":
            return self._ground(session, samples, scene)
        described = [self.task.kind == "answer" or len(sample["input_box"]) > 0 for sample in samples]
        asked = [sample for sample, is_asked in zip(samples, described, strict=True) if is_asked]
        regions = None
        if self.task.kind == "describe" and asked:
            boxes = [sample["input_box"] for sample in asked]
            regions = list(scene.masks(boxes).unsqueeze(1))
        chats = [build_chat(self.task.name, sample, protocol=protocol, stage="eval") for sample in asked]
        names = [f"sample {sample['id']}" for sample in asked]
        texts = iter(session.ask(chats, regions, max_new_tokens=max_new_tokens, names=names))
        # Without a box there is nothing to describe, in the original too: the prediction is empty.
        return [{"text": next(texts).strip() if is_asked else ""} for is_asked in described]

    def _ground(
        self, session: SceneSession, samples: Sequence[Mapping[str, Any]], scene: SceneRegions
    ) -> list[dict[str, Any]]:
        results: dict[int, dict[str, Any]] = {}
        by_boxes: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            by_boxes.setdefault(str(sample["candidate_boxes"]), []).append(index)
        for indices in by_boxes.values():
            boxes = samples[indices[0]]["candidate_boxes"]
            chats = [build_chat(self.task.name, samples[i], protocol=scene.protocol, stage="eval") for i in indices]
            names = [f"sample {samples[i]['id']}" for i in indices]
            scores = session.ground(chats, scene.masks(boxes), names=names).float().tolist()
            results.update({i: {"scores": row} for i, row in zip(indices, scores, strict=True)})
        return [results[index] for index in range(len(samples))]

    def find_fault(self, sample: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
        """Return what is wrong with an answer; None if nothing is.

        Answers of the mode "rgb_only" have been brought to the world before, see `lift_answers`: they have "boxes".
        """
        name = sample["id"]
        if "boxes" in answer and self.needs_regions:
            return self._find_fault_of_boxes(name, answer)
        if self.task.kind != "ground":
            return None if isinstance(answer.get("text"), str) else f'the answer to {name!r} must have a "text"'
        scores, count = answer.get("scores"), len(sample["candidate_boxes"]) + 1
        is_list = isinstance(scores, list) and len(scores) == count
        if is_list and all(type(score) in (int, float) and math.isfinite(score) for score in scores):
            return None
        return f'the answer to {name!r} must have "scores", {count} finite numbers'

    def _find_fault_of_boxes(self, name: str, answer: Mapping[str, Any]) -> str | None:
        if "scores" in answer:
            return f'the answer to {name!r} has "scores" and "boxes", of two modes'
        if self.task.kind == "describe" and not isinstance(answer.get("text"), str):
            return f'the answer to {name!r} must have a "text"'
        try:
            read_boxes(answer["boxes"])
        except (TypeError, ValueError) as error:
            return f'the answer to {name!r}: "boxes" {str(error).rstrip(".")}'
        return None

    def metric_inputs(
        self, sample: Mapping[str, Any], answer: Mapping[str, Any], protocol: Protocol
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return prediction and reference of a sample, as the metric takes them."""
        reference: dict[str, Any] = {"scene_id": sample["scene_id"]}
        name = self.task.name
        if name in ("scanrefer", "multi3drefer"):
            reference["question_type"] = sample["question_type"]
            found = self.found_boxes(sample, answer, protocol)
            if name == "multi3drefer":
                return {"boxes": found}, reference | {"boxes": sample["gt_boxes"]}
            return {"box": found[0] if found else []}, reference | {"box": sample["gt_boxes"][0]}
        if name == "scan2cap":
            given, true = _described_box(sample, answer), sample["gt_boxes"]
            overlap = float(box_iou([given], true)[0, 0]) if len(given) and len(true) else float(len(given) > 0)
            return {"text": answer["text"], "iou": overlap}, reference | {"texts": sample["answers"]}
        prediction = {"text": answer["text"]}
        if name == "scanqa":
            return prediction, reference | {"id": sample["id"], "texts": sample["answers"]}
        reference["question_type"] = sample["question_type"]
        if name == "sqa3d":
            return prediction, reference | {"texts": sample["answers"]}
        return prediction, reference | {"text": sample["answers"][0]}

    def quality(self, sample: Mapping[str, Any], answer: Mapping[str, Any]) -> float:
        """Return how right an answer is, from 0 to 1; a report asks for 0.5."""
        name = self.task.name
        if self.task.kind == "ground":
            found = self.found_boxes(sample, answer, "clean")
            if name == "multi3drefer":
                return matched_f1(found, sample["gt_boxes"], 0.5)
            return float(box_iou(found, sample["gt_boxes"])[0, 0]) if found else 0.0
        if name in SPATIAL_TASKS:
            return score_spatial_answer(answer["text"], sample["answers"][0], sample["question_type"])
        said = normalise_answer(answer["text"])
        accepted = [normalise_answer(text) for text in sample["answers"]]
        if self.task.kind == "answer":
            return float(said in accepted)
        return max((_word_overlap(said, text) for text in accepted), default=0.0)

    def found_boxes(
        self, sample: Mapping[str, Any], answer: Mapping[str, Any], protocol: Protocol
    ) -> list[list[float]]:
        """Return the boxes that grounding scores choose, or that were found without candidates.

        The protocol "paper" rounds them to float16, as the original's files do.
        """
        if "boxes" in answer:
            count = None if self.task.name == "multi3drefer" else 1
            boxes = [list(box) for box in answer["boxes"][:count]]
        elif self.task.name == "multi3drefer":
            chosen = choose_objects(answer["scores"], protocol=protocol)
            boxes = [list(sample["candidate_boxes"][index]) for index in chosen]
        else:
            best = choose_object(answer["scores"])
            boxes = [] if best is None else [list(sample["candidate_boxes"][best])]
        return np.float16(boxes).astype(float).tolist() if protocol == "paper" and boxes else boxes


def _described_box(sample: Mapping[str, Any], answer: Mapping[str, Any]) -> Sequence[float]:
    """Return the box that a caption is about: the given one, or the clicked region's."""
    if "boxes" not in answer:
        return sample["input_box"]
    return answer["boxes"][0] if answer["boxes"] else []


def _word_overlap(text: str, other: str) -> float:
    """Return the F1 of the words of two texts."""
    common = (Counter(text.split()) & Counter(other.split())).total()
    return 2 * common / max(len(text.split()) + len(other.split()), 1)


def check_answers(
    spec: EvaluatedTask, samples: Any, answers: Any
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return samples and their answers as lists, each answer checked against its sample.

    Raises:
        TypeError: If either is no sequence of mappings.
        ValueError: If they differ in number, a sample lacks what the score needs, or an answer is of another sample
            or not what the task needs.
    """
    lists = []
    for name, rows in {"samples": samples, "answers": answers}.items():
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise TypeError(f"`{name}` must be a list of dicts, got {reprlib.repr(rows)} ({type(rows).__name__}).")
        lists.append(list(rows))
        for number, row in enumerate(lists[-1]):
            if not isinstance(row, Mapping):
                raise TypeError(f"`{name}`[{number}] must be a dict, got {reprlib.repr(row)} ({type(row).__name__}).")
    if len(lists[0]) != len(lists[1]) or not lists[0]:
        raise ValueError(
            f"Expected an answer to each of the samples, at least one, got {len(lists[0])} `samples` and "
            f"{len(lists[1])} `answers`."
        )
    needed = (*NAMES, *SCORED_FIELDS[spec.task.name])
    for number, (sample, answer) in enumerate(zip(*lists, strict=True)):
        if missing := [field for field in needed if sample.get(field) is None]:
            raise ValueError(f"`samples`[{number}] lacks {missing}: take samples as `load_task` gives them.")
        _check_sample(number, sample, spec.task)
        if answer.get("id", sample["id"]) != sample["id"]:
            raise ValueError(
                f"`answers`[{number}] is of the sample {answer['id']!r:.100}, `samples`[{number}] is "
                f"{sample['id']!r:.100}. Give both in one order."
            )
        if fault := spec.find_fault(sample, answer):
            raise ValueError(f"`answers`[{number}]: {fault}.")
    if spec.needs_regions and len({"boxes" in answer for answer in lists[1]}) > 1:
        raise ValueError(
            '`answers` are of two modes: some have "boxes", as of "rgb_only", others not. Score each apart.'
        )
    return lists[0], lists[1]


def _check_sample(number: int, sample: Mapping[str, Any], task: Task) -> None:
    """Raise TypeError or ValueError for fields of a sample that no score can read."""
    rules = {
        **dict.fromkeys(NAMES, read_id),
        "answers": read_texts,
        "input_box": read_box,
        "gt_boxes": read_boxes,
        "candidate_boxes": read_boxes,
    }
    for field in (*NAMES, *SCORED_FIELDS[task.name]):
        try:
            value = rules.get(field, read_text)(sample[field])
            if field == "gt_boxes" and task.name == "scanrefer" and not value:
                raise ValueError("must hold the box that is meant, got none.")
        except (TypeError, ValueError) as error:
            raise type(error)(f"`samples`[{number}]: `{field}` {error}") from None


def _evaluated(
    name: str, max_new_tokens: int = 0, main: str | tuple[str, str] = "em", variants: tuple[str, ...] = (), **options
) -> EvaluatedTask:
    clean, paper = (main, main) if isinstance(main, str) else main
    return EvaluatedTask(TASKS[name], max_new_tokens, {"clean": clean, "paper": paper}, options, variants)


EVALUATED_TASKS = {
    "scanrefer": _evaluated("scanrefer", main="acc@0.5"),
    "multi3drefer": _evaluated("multi3drefer", main="f1@0.5"),
    "scan2cap": _evaluated("scan2cap", 128, main=("cider@0.5", "cider"), variants=("ptb",)),
    "scanqa": _evaluated("scanqa", 64, variants=("leo", "ptb"), variant="leo"),
    "sqa3d": _evaluated("sqa3d", 32, variants=("leo",), variant="leo"),
    "vsibench": _evaluated("vsibench", 32, main="macro"),
    "revsi": _evaluated("revsi", 16, main="macro"),
}
