"""Ask the shipped model, then fine-tune it, export it and ask again."""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard
from tqdm import tqdm

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.modeling_ide3d_geometry import GEOMETRY_PREFIXES
from processing import IDE3DProcessor
from processing.rooms import load_rooms
from processing.rooms.questions.baselines import Baselines
from processing.token_grid import TokenGrid
from processing.writing import write_json
from trainer import IDE3DTrainer, IDE3DTrainingArguments, export_inference_model
from trainer.model_card import create_model_card, list_loss_terms
from trainer.recipes import DataArguments, ModelArguments, room_options, train

from .checks import Part
from .tasks import (
    Answer,
    mark_answers,
    mean_gain,
    read_answers,
    score_grounding,
    score_table,
    write_scenes,
    write_tasks,
)

__all__ = ["Tuned", "fine_tune", "show_shipped"]

logger = logging.getLogger("demo")

STRANGER = Path(__file__).with_name("stranger.py")
SHIPPED_STYLE = "furnished"  # of those that the shipped model was trained on, the one that looks most like a room
NUM_TEST_ROOMS = 100
NUM_BASELINE_ROOMS = 400
NUM_DEPTH_ROOMS = 100  # training rooms that the constant depth of each pixel is fitted on


class Tuned(TypedDict):
    """Results of fine-tuning: scores, depth errors, numbers of parameters, and steps."""

    fine_tuned: Part
    depth: dict[str, float]
    parameters: dict[str, int]
    steps: int


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage of the demo."""
    logger.info("--- %s", name)
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)


def true_depth(room: dict) -> np.ndarray:
    """Return the depth (V, h, w) of a room in metres."""
    return np.stack([np.asarray(image) for image in room["depth"]])


@torch.inference_mode()
def measure_depth(
    model: IDE3DForConditionalGenerationWithGeometry, processor: IDE3DProcessor, rooms: Dataset, train_rooms: Dataset
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Measure the validator's depth on unseen rooms, beside the best constant of each pixel.

    Returns:
        Errors by name, and the predicted depth (V, h2, w2) of each room in metres.
    """
    model.eval()
    errors = {"abs_rel": [], "abs_rel_constant": [], "delta_1.25": []}
    typical = np.median(np.concatenate([true_depth(room) for room in train_rooms]), axis=0)
    predictions = []
    for room in tqdm(rooms, desc="Depth", unit="room"):
        frames = np.stack([np.asarray(image) for image in room["frames"]])
        pixels = processor.video_processor([frames], do_sample_frames=False, return_tensors="pt")
        predicted = model.predict_depth(pixels["pixel_values_videos"]).depth[0].numpy()
        stride = frames.shape[1] // predicted.shape[1]
        depth = true_depth(room)[:, stride // 2 :: stride, stride // 2 :: stride]
        constant = typical[stride // 2 :: stride, stride // 2 :: stride]
        errors["abs_rel"].append((np.abs(predicted - depth) / depth).mean())
        errors["abs_rel_constant"].append((np.abs(constant - depth) / depth).mean())
        errors["delta_1.25"].append((np.maximum(predicted / depth, depth / predicted) < 1.25).mean())
        predictions.append(predicted)
    return {name: round(float(np.mean(values)), 4) for name, values in errors.items()}, predictions


def ask_stranger(model: Path, inputs: Path, answers: Path) -> list[Answer]:
    """Return the answers of a separate, isolated process in an empty folder.

    Args:
        model: Folder of the model.
        inputs: Folder of `write_tasks`.
        answers: File that takes the answers.
    """
    nowhere = answers.parent / "nowhere"
    shutil.rmtree(nowhere, ignore_errors=True)
    nowhere.mkdir()
    shutil.copy(STRANGER, nowhere)
    paths = [str(path.resolve()) for path in (model, inputs, answers)]
    subprocess.run([sys.executable, "-I", STRANGER.name, *paths], cwd=nowhere, check=True)
    shutil.rmtree(nowhere)
    return read_answers(answers)


def make_card(trainer: IDE3DTrainer, processor: IDE3DProcessor, data: DataArguments) -> ModelCard:
    """Return the model card of the fine-tuned model."""
    return create_model_card(
        model_name="3D-IDE nano rooms, fine-tuned (demo)",
        model_id="outputs/demo/export",
        config=trainer.model.config,
        num_frames=processor.video_processor.num_frames,
        license="apache-2.0",
        language="en",
        training_data=f"The nano model of this repository, fine-tuned on {data.num_rooms} procedural rooms of the "
        f"style {data.room_style!r} ({data.num_frames} frames of {data.image_size} px each), with depth, poses and "
        "questions by templates.",
        losses=list_loss_terms(trainer),
        teacher=trainer.data_collator.teacher,
        limits=["Trained on rendered rooms: it shows the path, it does not know real homes."],
    )


def add_scores(export: Path, scores: Sequence[dict]) -> None:
    """Write the measured scores into the card of the export."""
    card = ModelCard.load(export / "README.md")
    card.data.eval_results = [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type="rooms",
            dataset_name="procedural rooms, test",
            metric_type="accuracy",
            metric_name=f"{entry['type']} accuracy",
            metric_value=round(entry["after"], 4),
        )
        for entry in scores
    ]
    card.save(export / "README.md")


def show_shipped(
    checkpoint: Path, grid: TokenGrid, data: DataArguments, output: Path, seconds: dict[str, float]
) -> Part:
    """Part 1: ask the shipped model about furnished rooms, which it was trained on."""
    options = room_options(replace(data, room_style=SHIPPED_STYLE))
    with stage("rooms of the model's style", seconds):
        rooms = load_rooms("test", NUM_TEST_ROOMS, **options)
        table = Baselines(load_rooms("train", NUM_BASELINE_ROOMS, **options)).score(rooms)
        tasks = write_tasks(rooms, grid, output / "inputs" / "shipped")
    with stage("answers of the shipped model", seconds):
        answers = ask_stranger(checkpoint, output / "inputs" / "shipped", output / "answers_shipped.jsonl")
    write_scenes(tasks, answers, output / "scenes" / "shipped")
    hits = {"model": mark_answers(tasks, answers)}
    return {"scores": score_table(hits, table), "grounding": score_grounding(tasks, hits)}


def fine_tune(
    model_arguments: ModelArguments,
    data: DataArguments,
    args: IDE3DTrainingArguments,
    grid: TokenGrid,
    output: Path,
    seconds: dict[str, float],
) -> Tuned:
    """Part 2: ask before, train with all losses, export, ask after.

    Args:
        model_arguments: Arguments of the model.
        data: Arguments of the rooms.
        args: Arguments of the training.
        grid: Token grid of the model.
        output: Output folder of the demo.
        seconds: Seconds by stage; this part's are added.
    """
    options, inputs = room_options(data), output / "inputs" / "fine_tuned"
    checkpoint, export = Path(model_arguments.model_name_or_path), output / "export"
    with stage("rooms of the other style", seconds):
        train_rooms = load_rooms("train", data.num_rooms, **options)
        load_rooms("validation", data.num_validation_rooms, **options)
        rooms = load_rooms("test", NUM_TEST_ROOMS, **options)
        fitted = train_rooms.select(range(min(NUM_BASELINE_ROOMS, len(train_rooms))))
        table = Baselines(fitted).score(rooms)
        tasks = write_tasks(rooms, grid, inputs)
    with stage("answers before fine-tuning", seconds):
        before = ask_stranger(checkpoint, inputs, output / "answers_before.jsonl")
    with stage("fine-tuning", seconds):
        trainer, processor = train(model_arguments, data, args)
    model = trainer.model
    write_json(output / "log_history.json", trainer.state.log_history)
    with stage("export", seconds):
        export_inference_model(model, processor, export, card=make_card(trainer, processor, data))
    with stage("answers after fine-tuning", seconds):
        after = ask_stranger(export, inputs, output / "answers_after.jsonl")
    with stage("depth", seconds):
        depth_rooms = fitted.select(range(min(NUM_DEPTH_ROOMS, len(fitted))))
        depth, predictions = measure_depth(model, processor, rooms, depth_rooms)
    write_scenes(tasks, after, output / "scenes" / "fine_tuned", before=before, depth=predictions)
    hits = {"before": mark_answers(tasks, before), "after": mark_answers(tasks, after)}
    scores, mean = score_table(hits, table), mean_gain(hits["before"], hits["after"])
    add_scores(export, scores)
    kept = (value.numel() for name, value in model.named_parameters() if not name.startswith(GEOMETRY_PREFIXES))
    return {
        "fine_tuned": {"scores": scores, "mean": mean, "grounding": score_grounding(tasks, hits)},
        "depth": depth,
        "parameters": {"training": sum(value.numel() for value in model.parameters()), "export": sum(kept)},
        "steps": trainer.state.global_step,
    }
