"""Samples about a rendered room in the form of the public annotation files, one function per benchmark."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from processing.benchmarks.prompts import GROUND, format_source_text
from processing.boxes import box_iou, reaches
from processing.rooms.questions.asking import CLEAR_SHARE
from processing.rooms.questions.wording import article, object_phrase, plural, whereabouts

__all__ = ["RoomScene", "llava_records", "rounded_box"]

_NUMBER_WORDS = ("zero", "one", "two", "three", "four")
_SITUATIONS = ("I stand where the video begins and look straight ahead.", "I have just come in and face the room.")
_SQA_TYPES = ("what", "is", "how", "can", "which")
_MIN_INPUT_IOU = 0.5  # The original describes an object only if a proposal overlaps it by this much.


def rounded_box(box: Sequence[float]) -> list[float]:
    """Return a box (6,) as the annotation files have it, to a tenth of a millimetre."""
    return [round(float(x), 4) for x in box]


class RoomScene:
    """Facts of a room that samples are made of.

    Args:
        scene_id: Name such as "scannet/room0000_00".
        row: Row as `processing.rooms.generate.make_room` gives it.
        instance_ids: Object of each pixel (V, h, w), 0 = none.
        predicted_boxes: Proposals (N, 6), world metres.

    Attributes:
        clear: Objects that some frame shows well, in order; only these are asked about.
    """

    def __init__(self, scene_id: str, row: dict, instance_ids: np.ndarray, predicted_boxes: np.ndarray):
        self.scene_id, self.objects, self.questions = scene_id, row["objects"], row["questions"]
        self.predicted_boxes = predicted_boxes
        count = len(self.objects) + 1
        shares = np.stack([np.bincount(frame.ravel(), minlength=count) / frame.size for frame in instance_ids])
        self.clear = [thing for thing in self.objects if shares[:, thing["id"]].max() >= CLEAR_SHARE]
        self.first_frame = {thing["id"]: int(np.argmax(shares[:, thing["id"]] >= CLEAR_SHARE)) for thing in self.clear}
        self.kinds = Counter(thing["category"] for thing in self.objects)

    def whereabouts(self, thing: dict) -> str:
        """Return the place of an object in words."""
        return whereabouts(self.objects, thing)

    def captions(self, thing: dict) -> list[str]:
        """Return two descriptions of an object."""
        name = article(f"{thing['colour']} {thing['category']}")
        feature = f" {thing['feature']}" if thing["feature"] else ""
        where = self.whereabouts(thing)
        return [f"this is {name}{feature}. it is {where}.", f"{name}{feature}, {where}."]


def llava_records(task: str, split: str, scene: RoomScene) -> list[dict[str, Any]]:
    """Return samples of a room for one of the five tasks of the original.

    Args:
        task: Key of `TASKS` other than VSI-Bench.
        split: Name of the split.
        scene: Room.

    Returns:
        Records of the annotation file; those of files that count their samples have no `id` yet.
    """
    make = {"scanrefer": _scanrefer, "multi3drefer": _multi3drefer, "scan2cap": _scan2cap, "scanqa": _scanqa}
    return make.get(task, _sqa3d)(split, scene)


def _record(scene: RoomScene, source_text: str, answer: str, metadata: dict, **parts: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": source_text}, {"from": "gpt", "value": answer}]
    return {"video": scene.scene_id, "conversations": turns, "metadata": metadata, **parts}


def _index(thing: dict) -> int:
    """Return the object id of the public layout: the index of its box."""
    return thing["id"] - 1


def _scanrefer(split: str, scene: RoomScene) -> list[dict]:
    named = [(thing, object_phrase(scene.objects, thing)) for thing in scene.clear]
    named = [(thing, phrase) for thing, phrase in named if phrase]
    mentioned = Counter(thing["category"] for thing, _ in named)
    records = []
    for thing, phrase in named:
        question = f"{phrase} {scene.whereabouts(thing)}."
        kind = "unique" if mentioned[thing["category"]] == 1 else "multiple"
        metadata = {"dataset": "scanrefer", "question_type": kind, "ann_id": "0", "object_id": str(_index(thing))}
        text = format_source_text("scanrefer", question=question)
        records.append(_record(scene, text, GROUND, metadata, box=rounded_box(thing["box"])))
    return records


def _multi3drefer(split: str, scene: RoomScene) -> list[dict]:
    asked: list[tuple[str, str, list[dict]]] = []
    absent = next((kind for kind in ("toilet", "bathtub") if kind not in scene.kinds), "")
    asked.append((f"the {absent}", "zt_wo_d", []))
    for kind in sorted({thing["category"] for thing in scene.clear}):
        same = [thing for thing in scene.objects if thing["category"] == kind]
        if any(thing not in scene.clear for thing in same):
            continue
        if len(same) == 1:
            asked.append((f"the {kind}", "st_wo_d", same))
            if kind != "plant":
                other = next(colour for colour in ("red", "blue") if colour != same[0]["colour"])
                asked.append((f"the {other} {kind}", "zt_w_d", []))
            continue
        asked.append((f"all {plural(kind)}", "mt", same))
        asked += [(phrase, "st_w_d", [thing]) for thing in same if (phrase := object_phrase(scene.objects, thing))]
    return [
        _record(
            scene,
            format_source_text("multi3drefer", question=words),
            GROUND,
            {"dataset": "multi3drefer", "question_type": kind, "object_id": [_index(thing) for thing in things]},
            box=[rounded_box(thing["box"]) for thing in things],
        )
        for words, kind, things in asked
    ]


def _scan2cap(split: str, scene: RoomScene) -> list[dict]:
    records = []
    for thing in scene.clear:
        box = rounded_box(thing["box"])
        given: list[float] | None = box
        if split != "train":
            overlaps = box_iou([box], scene.predicted_boxes)[0]
            best = int(np.argmax(overlaps))
            given = rounded_box(scene.predicted_boxes[best]) if reaches(overlaps[best], _MIN_INPUT_IOU) else None
        kind = "unique" if scene.kinds[thing["category"]] == 1 else "multiple"
        metadata = {"dataset": "scan2cap", "question_type": kind, "object_id": str(_index(thing))}
        text = format_source_text("scan2cap", point=given[:3] if given else None)
        captions = scene.captions(thing)
        if split == "train":
            records += [_record(scene, text, c, metadata, box_input=given, gt_box=box) for c in captions]
        else:
            parts = {"box_input": given, "gt_box": box, "annotations": captions}
            records.append(_record(scene, text, captions[0], metadata, **parts))
    return records


def _spoken(question: dict) -> bool:
    return question["reference"] == "word" and question["type"] not in ("grounding", "description", "position")


def _answers(question: dict) -> list[str]:
    answer = question["answer"]
    return [answer, _NUMBER_WORDS[int(answer)]] if question["type"] == "counting" else [answer]


def _scanqa(split: str, scene: RoomScene) -> list[dict]:
    records = []
    for number, question in enumerate(filter(_spoken, scene.questions)):
        answers = _answers(question)
        text = format_source_text("scanqa", question=question["question"])
        name = f"scanqa_{split}-{scene.scene_id.split('/')[1]}-{number}"
        metadata = {"dataset": "scanQA", "question_type": "unknow"}
        if split == "train":
            records += [_record(scene, text, a, metadata, id=f"{name}_{k}") for k, a in enumerate(answers)]
        else:
            metadata = {**metadata, "answers": answers}
            records.append(_record(scene, text, answers[0], metadata, id=f"{name}_0"))
    return records


def _sqa3d(split: str, scene: RoomScene) -> list[dict]:
    records = []
    for question in filter(_spoken, scene.questions):
        words = question["question"]
        kind = next((start for start in _SQA_TYPES if words.lower().startswith(start)), "others")
        metadata = {"dataset": "sqa3d", "question_type": kind}
        for situation in _SITUATIONS if split == "train" else _SITUATIONS[:1]:
            text = format_source_text("sqa3d", question=f"{situation} {words}")
            records.append(_record(scene, text, question["answer"], metadata))
    return records
