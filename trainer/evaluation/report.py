"""Report of a run: scores of both protocols with their bands, pictures of right and wrong answers, a model index."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from PIL import Image

from processing.benchmarks import load_scene
from processing.boxes import reaches
from processing.tables import format_band, format_number
from processing.token_grid import TokenGrid
from processing.writing import whole_file, write_text
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.pages import (
    Cell,
    Code,
    Figure,
    Items,
    Page,
    Section,
    Table,
    Text,
    render_html,
    render_markdown,
)
from trainer.evaluation.pictures import draw_example
from trainer.evaluation.results import EvaluationSettings
from trainer.evaluation.rgb_only import read_cells
from trainer.evaluation.tasks import EVALUATED_TASKS

__all__ = ["DATASET_IDS", "eval_results", "model_index", "score_rows", "write_report"]

EVAL_RESULTS = ".eval_results"  # the Hub's name of the folder, as in `trainer.model_card`
DATASET_IDS = {"vsibench": "nyu-visionx/VSI-Bench"}  # benchmarks whose own data set is on the Hub

EXAMPLES = 4  # right ones, and as many wrong ones
LEFT_OUT = ("scores", "versions", "later_versions", "scored_with", "main_score")
MODE_NOTES = {
    "proposals": ["Mode `proposals`: the model is given boxes, which were made with depth and poses."],
    "rgb_only": [
        "Mode `rgb_only`: to answer, frames alone were opened. The scorer brought the answers to the world by true "
        "depth and poses. Scores of the mode `proposals` are of another task."
    ],
}
FINDING_NOTES = {
    "regions": "Objects are found among regions that the model's own tokens propose.",
    "words": "Objects are found by the boxes that the model says in words.",
}
PROPOSALS = {"gt": "the annotated boxes", "pred": "boxes that a detector proposed on the mesh"}


def score_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of scores: overall scores, then those of each type."""
    clean, paper = results["scores"]["clean"], results["scores"]["paper"]
    names = [name for name in dict.fromkeys([*clean, *paper]) if name not in ("bands", "counts")]
    rows = []
    for name in sorted(names, key=lambda name: "/" in name and not name.startswith("leo/")):
        row = {"name": name, "is_main": name == results["main_score"]}
        row["count"] = next(scores["counts"][name] for scores in (clean, paper) if name in scores["counts"])
        for protocol, scores in (("clean", clean), ("paper", paper)):
            row[protocol] = format_number(scores.get(name))
            row[f"{protocol}_band"] = format_band(scores["bands"].get(name))
        rows.append(row)
    return rows


def model_index(results: Mapping[str, Any]) -> str:
    """Return the block of a model card that tells the Hub the scores, as YAML."""
    scores = results["scores"][results["protocol"]]
    values = [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type=results["task"],
            dataset_name=results["task"],
            dataset_split=results["split"],
            dataset_config=results["mode"],  # so that the Hub keeps scores of different modes apart
            metric_type=name,
            metric_name=f"{name} ({results['protocol']} protocol, {results['mode']})",
            metric_value=round(value, 2),
        )
        for name, value in scores.items()
        if name not in ("bands", "counts") and value is not None and ("/" not in name or name == results["main_score"])
    ]
    return ModelCardData(model_name=results["model"], eval_results=values).to_yaml() + "\n"


def eval_results(results: Mapping[str, Any], dataset_id: str) -> str:
    """Return the main score as the Hub's `.eval_results/*.yaml` has it.

    Notes say how it was measured: modes and protocols are apart by their notes, and by the names of their files.

    Args:
        results: Results as `run_evaluation` writes them.
        dataset_id: Name of the benchmark's data set on the Hub.
    """
    name, protocol, mode = (results[key] for key in ("main_score", "protocol", "mode"))
    attention = f"{results['attention_vision']} (vision) and {results['attention_language']} (language)"
    notes = [
        f"{name}, protocol {protocol}, mode {mode}",
        f"{results['split']}: {results['num_samples']} samples in {results['num_scenes']} scenes",
        f"{results['num_frames']} frames at most, {results['dtype']}, attention {attention}, {results['device']}",
    ]
    if results["variant"]:
        notes[0] += f", variant {results['variant']}"
    value = round(results["scores"][protocol][name], 2)
    entry = EvalResultEntry(dataset_id=dataset_id, task_id="default", value=value, notes="; ".join(notes))
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, width=1000)


def _choose_examples(samples: Sequence[Mapping], answers: Sequence[Mapping], task: str) -> list[tuple[bool, int]]:
    """Return verdict and index of right and wrong answers, sampled with a fixed seed."""
    spec = EVALUATED_TASKS[task]
    is_right = [
        bool(reaches(spec.quality(sample, answer), 0.5)) for sample, answer in zip(samples, answers, strict=True)
    ]
    generator = random.Random(0)
    chosen = []
    for verdict in (True, False):
        indices = [index for index, right in enumerate(is_right) if right is verdict]
        chosen += [(verdict, index) for index in sorted(generator.sample(indices, min(EXAMPLES, len(indices))))]
    return chosen


def _lines(sample: Mapping[str, Any], answer: Mapping[str, Any], task: str) -> list[tuple[str, str]]:
    """Return label and text of each line below the picture of a sample."""
    spec = EVALUATED_TASKS[task]
    lines = [("question", sample["question"])] if sample["question"] else []
    if sample["question_type"]:
        lines.append(("type", sample["question_type"]))
    if spec.task.kind == "ground":
        found = spec.found_boxes(sample, answer, "clean")
        quality = "F1 at an overlap of 0.5" if task == "multi3drefer" else "overlap with what was meant"
        among = "" if "boxes" in answer else f" of {len(sample['candidate_boxes'])} candidates"
        lines.append(("found", f"{len(found)}{among}"))
        lines.append(("meant", f"{len(sample['gt_boxes'])}"))
        lines.append((quality, f"{spec.quality(sample, answer):.2f}"))
    else:
        lines.append(("answer", answer["text"] or "(none)"))
        lines.append(("right", " / ".join(sample["answers"])))
    return [(label, " ".join(text.split())) for label, text in lines]


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    settings: EvaluationSettings,
    grid: TokenGrid,
) -> None:
    """Write `report.md`, `report.html`, `model_index.yml` and the pictures that they show.

    Also a file in `.eval_results`, where the benchmark's data set has a name on the Hub.

    Args:
        folder: Output folder of the run.
        results: Results as `run_evaluation` writes them.
        samples: All samples of the run.
        answers: Answers of the model, in the order of the samples.
        settings: Settings of the run.
        grid: Token grid of the model.
    """
    examples = []
    for number, (is_right, index) in enumerate(_choose_examples(samples, answers, settings.task)):
        sample, answer = samples[index], answers[index]
        picture, caption = _draw_sample(sample, answer, results["num_frames"], settings, grid)
        name = f"pictures/{number:02d}.jpg"
        with whole_file(folder / name) as unfinished:
            picture.save(unfinished, format="JPEG", quality=88)
        verdict, tone = ("Right", "right") if is_right else ("Wrong", "wrong")
        lines = _lines(sample, answer, settings.task)
        examples.append(Figure(name, caption, f"{verdict}: {sample['id']}", tone, lines))
    index = model_index(results)
    page = Page(
        title=f"{results['task']} {results['split']}, {results['model']}",
        subtitle=f"Mode {results['mode']}, {results['num_samples']} samples in {results['num_scenes']} scenes.",
        sections=[
            _scores_section(results, settings),
            Section("Examples", examples),
            Section("Run", [Table(("Setting", "Value"), _facts(results))]),
            Section("For the model card", [Code(index, "yaml")]),
        ],
    )
    write_text(folder / "model_index.yml", index)
    dataset_id = settings.dataset_id or DATASET_IDS.get(results["task"])
    if dataset_id is not None and results["scores"][results["protocol"]][results["main_score"]] is not None:
        name = "-".join(results[key] for key in ("task", "split", "mode", "protocol"))
        write_text(folder / EVAL_RESULTS / f"{name}.yaml", eval_results(results, dataset_id))
    write_text(folder / "report.md", render_markdown(page))
    write_text(folder / "report.html", render_html(page))


def _scores_section(results: Mapping[str, Any], settings: EvaluationSettings) -> Section:
    """Return the table of scores with what a reader has to know about it."""
    words = (
        f"In percent, with 95 % bands over the {results['num_scenes']} scenes. `{results['main_score']}` "
        "is the score that papers report first. `paper` repeats the original's scoring, `clean` is what it should be. "
        f"Both score the same answers, which were made with the `{results['protocol']}` prompts."
    )
    keys = ("name", "count", "clean", "clean_band", "paper", "paper_band")
    rows = [[Cell(str(row[key]), is_strong=row["is_main"]) for key in keys] for row in score_rows(results)]
    table = Table(("Score", "Samples", "clean", "band", "paper", "band"), rows, "lrrrrr")
    notes = _notes(results, settings)
    return Section("Scores", [Text(words), *([Items(notes)] if notes else []), table])


def _notes(results: Mapping[str, Any], settings: EvaluationSettings) -> list[str]:
    notes = []
    if EVALUATED_TASKS[settings.task].has_meteor and "meteor" not in results["scores"]["clean"]:
        reason = "as was asked" if settings.meteor is False else "it needs Java, and there is none"
        notes.append(f"METEOR is left out: {reason}.")
    notes += MODE_NOTES[results["mode"]] if EVALUATED_TASKS[settings.task].needs_regions else []
    if results["frames"] != "uniform":
        notes.append(f"Frames are chosen by the rule `{results['frames']}`, whose lists were made with geometry.")
    if results["finding"]:
        notes.append(FINDING_NOTES[results["finding"]])
    if results["clicks"]:
        notes.append(f"The model is shown what to describe by clicks: {results['clicks']}.")
    if results.get("unparsable"):
        notes.append(f"{results['unparsable']} texts are no boxes in words, and find nothing.")
    if results["proposals"]:
        notes.append(f"Objects are chosen among {PROPOSALS[results['proposals']]}.")
    if results["region_source"]:
        notes.append(f"The model is shown where boxes are by masks made from {results['region_source']}.")
    return notes


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [(name, str(value)) for name, value in results.items() if name not in LEFT_OUT and value is not None]
    for number, versions in enumerate([results["versions"], *results.get("later_versions", ())]):
        of_later = f", later answers {number}" if number else ""
        for name, text in versions.items():
            facts.append((f"{name}{'' if name == 'hardware' else ' version'}{of_later}", text))
    return facts + [(f"{name} version, scores", text) for name, text in results["scored_with"].items()]


def _draw_sample(
    sample: Mapping[str, Any],
    answer: Mapping[str, Any],
    num_frames: int,
    settings: EvaluationSettings,
    grid: TokenGrid,
) -> tuple[Image.Image, str]:
    """Return a picture of the boxes that are meant, given and found, and its caption."""
    spec = EVALUATED_TASKS[settings.task]
    scene = load_scene(
        settings.data,
        sample["scene_id"],
        frame_names=sample["frame_names"],
        parts=spec.parts("proposals" if spec.needs_regions else settings.mode, settings.frames, settings.lifted_by),
        num_frames=num_frames,
        skip_invalid_poses=settings.skip_invalid_poses,
    )
    is_given = len(sample["input_box"]) > 0 and not settings.is_rgb_only
    boxes = {"meant": sample["gt_boxes"], "given": [sample["input_box"]] if is_given else []}
    is_found = spec.task.kind == "ground" or settings.is_rgb_only
    boxes["found"] = spec.found_boxes(sample, answer, "clean") if is_found else []
    regions = SceneRegions(scene, grid, settings.lifted_by, settings.protocol)
    masks = {name: regions.masks(group).numpy() for name, group in boxes.items() if group}
    if answer.get("regions"):  # the cells that the model found, not those of the box around them
        cells = [read_cells(row, scene.frame_names, grid).numpy() for row in answer["regions"]]
        masks["found"] = np.stack(cells)
    return draw_example(scene, boxes, masks, grid)
