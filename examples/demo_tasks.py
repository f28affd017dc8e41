"""What the demo hands to a stranger (RGB frames, region masks, questions), and how the answers are scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from train import REGION_QUESTIONS, DataArguments

from processing.regions import TokenGrid
from processing.rooms import score_answer
from processing.rooms.samples import room_samples

NUM_VIDEOS = 5  # scenes that the stranger gets as .mp4 and the report shows
NUM_REQUESTS = 4


def write_video(frames: np.ndarray, path: Path) -> None:
    """Frames (V, h, w, 3) uint8 as an .mp4, enlarged four times so that the codec keeps the colours."""
    import av

    large = frames.repeat(4, axis=1).repeat(4, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = *large.shape[1:3], "yuv420p"
        stream.options = {"crf": "8"}
        for frame in large:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_tasks(rooms: Any, grid: TokenGrid, folder: Path, data: DataArguments) -> list[dict]:
    """Videos, region masks and `tasks.json` for the stranger; returns the same with the truth, which stays here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks, given = [], []
    for index, room in enumerate(tqdm(rooms, desc="Questions", unit="room")):
        name = room["scene_id"].replace("/", "-")
        talk = [
            sample
            for sample in room_samples(room, grid, reference="region", types=REGION_QUESTIONS)
            if "region_targets" not in sample
        ]
        ground = room_samples(room, grid, types=("grounding",), max_questions=NUM_REQUESTS)
        if not talk or not ground:
            continue
        frames = talk[0]["frames"]
        if len(given) < NUM_VIDEOS:
            video = f"{name}.mp4"
            write_video(frames, folder / video)
        else:
            video = name
            (folder / video).mkdir()
            for view, image in enumerate(room["frames"]):
                image.save(folder / video / f"{view:04d}.png")
        np.savez_compressed(
            folder / f"{name}.npz", pointed=talk[0]["region_masks"], candidates=ground[0]["region_masks"]
        )
        task = {"name": name, "video": video, "questions": [], "requests": []}
        references = talk[0]["region_references"].tolist()
        truth = {"room": room, "talk": talk[0], "ground": ground, "ids": {}, "index": index}
        for number, entry in enumerate(talk[0]["questions"]):
            count = len(entry["region_objects"])
            key = f"{name}/q{number}"
            task["questions"].append({"id": key, "text": entry["question"], "regions": references[:count]})
            truth["ids"][key] = (entry, references[:count])
            references = references[count:]
        for number, sample in enumerate(ground):
            key = f"{name}/g{number}"
            task["requests"].append({"id": key, "text": sample["questions"][0]["question"]})
            truth["ids"][key] = (sample, None)
        given.append(task)
        tasks.append({"task": task, "truth": truth})
    (folder / "tasks.json").write_text(json.dumps(given, indent=1))
    return tasks


def score_answers(
    tasks: list[dict], answers: list[dict], table: list[dict], depth: list[np.ndarray], folder: Path
) -> tuple[list[dict], dict]:
    """Accuracy per question type beside its baselines, grounding beside chance; writes the scenes of the report."""
    by_id = {answer["id"]: answer for answer in answers}
    hits: dict[str, list[bool]] = {}
    found, chance = [], []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, entry in enumerate(tasks):
        shown = []
        for key, (question, regions) in entry["truth"]["ids"].items():
            if regions is None:
                targets = question["region_targets"]
                found.append(bool(targets[by_id[key]["choice"]]))
                chance.append(targets.mean())
                continue
            is_right = score_answer(question, by_id[key]["answer"])
            hits.setdefault(question["type"], []).append(is_right)
            shown.append((question, regions, by_id[key]["answer"], is_right))
        if number < NUM_VIDEOS:
            # A room without questions has a depth, but no task.
            write_scene(entry, by_id, shown, depth[entry["truth"]["index"]], folder)
    baselines = {row["type"]: row for row in table if row["reference"] == "region"}
    scores = [
        {
            "type": kind,
            "n": len(values),
            "model": float(np.mean(values)),
            **{name: baselines[kind][name] for name in ("majority", "text", "mean_row", "bottom_row")},
        }
        for kind, values in sorted(hits.items())
    ]
    grounding = {"n": len(found), "accuracy": float(np.mean(found)), "chance": float(np.mean(chance))}
    return scores, grounding


def write_scene(entry: dict, by_id: dict[str, dict], shown: list, predicted: np.ndarray, folder: Path) -> None:
    """One scene of the report: frames, the found and the true region, depth, and a few answers of each type."""
    task, truth = entry["task"], entry["truth"]
    names = {thing["id"]: f"{thing['colour']} {thing['category']}" for thing in truth["room"]["objects"]}
    samples = {request["id"]: sample for request, sample in zip(task["requests"], truth["ground"], strict=True)}
    # One request: the first that has a target, found rather than missed.
    order = sorted(
        samples, key=lambda key: (samples[key]["region_targets"][-1], not _is_found(samples[key], by_id[key]))
    )
    key, sample = order[0], samples[order[0]]
    choice = by_id[key]["choice"]
    nothing = np.zeros((1, *sample["region_masks"].shape[1:]), bool)
    masks = np.concatenate([sample["region_masks"], nothing])
    labels = [*(names[int(number)] for number in sample["object_ids"]), "no such object"]
    answers, pointed = [], []
    for kind in dict.fromkeys(question["type"] for question, *_ in shown):
        for question, regions, text, is_right in [item for item in shown if item[0]["type"] == kind][:2]:
            answers.append(
                {
                    "type": kind,
                    "question": question["question"],
                    "answer": text,
                    "truth": question["answer"],
                    "is_right": bool(is_right),
                    "regions": [names[number] for number in question["region_objects"]],
                }
            )
            pointed += [truth["talk"]["region_masks"][region] for region in regions]
    content = {
        "scene_id": truth["room"]["scene_id"],
        "request": sample["questions"][0]["question"],
        "found": labels[choice],
        "truth": ", ".join(label for label, hit in zip(labels, sample["region_targets"], strict=True) if hit),
        "is_right": _is_found(sample, by_id[key]),
        "answers": answers,
    }
    (folder / f"{task['name']}.json").write_text(json.dumps(content, indent=1))
    np.savez_compressed(
        folder / f"{task['name']}.npz",
        frames=sample["frames"],
        depth=sample["depth"],
        predicted_depth=predicted,
        found_mask=masks[choice],
        true_mask=masks[sample["region_targets"]].any(0),
        region_masks=np.stack(pointed) if pointed else nothing[:0],
    )


def _is_found(sample: dict, answer: dict) -> bool:
    return bool(sample["region_targets"][answer["choice"]])
