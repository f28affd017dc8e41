"""One run of the emergence study: a row of a seed is trained, asked about a split, and probed.

    python -m examples.emergence.run examples/recipes/emergence.yaml --seed 9 --row all --split validation

The study starts these, side by side. What is done is kept in the folder of the run, phase by phase: a run that
was killed goes on behind its last phase.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import set_seed

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.modeling_ide3d_geometry import GEOMETRY_PREFIXES
from processing import IDE3DProcessor
from processing.regions import TokenGrid
from processing.rooms import load_rooms
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.nano import build_nano_config, build_nano_model, build_nano_processor, standardize_regions
from trainer.nano_lessons import without_layers
from trainer.teachers.point_map import PointMapTeacher

from .files import (
    RunFiles,
    check_settings,
    describe_lesson,
    describe_run,
    load_json,
    save_weights,
    write_json,
)
from .recipe import Phase, Row, Study, read_study
from .rooms import (
    RoomArrays,
    StudyCollator,
    StudySteps,
    draw_flat_questions,
    draw_questions,
    say_boxes,
    study_texts,
)
from .scores import read_asked, score_split, store_asked

__all__ = ["build_model", "evaluate_run", "load_run", "open_split", "store_questions", "take_lesson", "train_run"]

logger = logging.getLogger("emergence")

NUM_LOGS = 20  # of a phase
READING_ROOMS = 600  # each of their views is seen two or three times
STANDARD_VIEWS, BATCH = 160, 8  # whose regions the projector is standardised by
LESSON_SEED = 0
WARMUP_SHARE, MAX_WARMUP = 0.2, 40  # of the steps of a phase


def study_grid(study: Study) -> TokenGrid:
    """Token grid of the models."""
    return TokenGrid(study.image_size, study.patch_size, 1)


def build_processor(study: Study) -> IDE3DProcessor:
    """Processor whose words do not depend on the rooms, so that all runs share it."""
    return build_nano_processor(
        study_texts(), image_size=study.image_size, patch_size=study.patch_size, num_frames=study.num_frames
    )


def build_teacher(study: Study) -> PointMapTeacher:
    """The analytic teacher of all rows that have one."""
    return PointMapTeacher(study.teacher_wavelengths, study.teacher_camera)


def build_model(
    study: Study, row: Row, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Training model with the initial weights of a seed; heads that a row does not use are there and idle."""
    set_seed(seed)
    config = build_nano_config(processor, hidden_size=study.hidden_size, text_layers=study.text_layers)
    return build_nano_model(
        config,
        teacher_size=build_teacher(study).feature_size,
        validator={"output_stride": 2, "protocol": "clean", **row.validator},
    )


def phase_arguments(phase: Phase, row: Row, scale: float, seed: int, output: Path) -> IDE3DTrainingArguments:
    """Arguments of a phase; `scale` is a factor of the weights of the row's losses."""
    return IDE3DTrainingArguments(
        output_dir=str(output),
        max_steps=phase.steps,
        per_device_train_batch_size=1,  # an item is all samples of a step
        learning_rate=phase.learning_rate * row.learning_rate,
        vision_learning_rate=phase.vision_learning_rate * row.learning_rate,
        frozen_parts=[] if phase.vision_learning_rate else ["vision"],
        geometry_learning_rate=(phase.geometry_learning_rate or phase.learning_rate) * row.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(MAX_WARMUP, int(WARMUP_SHARE * phase.steps)),
        weight_decay=0.05,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        depth_weight=scale * row.depth,
        cross_view_weight=scale * row.cross_view,
        distillation_weight=scale * row.teacher,
        pair_mode="random",
        pairs_per_frame=1,
        consistency_weight=0.0,
        overlap_weight=0.0,
        grounding_weight=0.0,
        save_strategy="no",
        logging_steps=max(1, phase.steps // NUM_LOGS),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
    )


def train_phase(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: StudyCollator,
    steps: StudySteps,
    args: IDE3DTrainingArguments,
    has_layers: bool,
) -> dict[str, Any]:
    """Train; returns losses and cost.

    Args:
        model: Trained in place.
        collator: Of the steps.
        steps: What each step is made of.
        args: Of the phase.
        has_layers: False takes the layers out of the language model meanwhile, so that words and the teacher's
            features have to be in the visual tokens.
    """
    set_seed(args.seed)
    start = time.perf_counter(), time.process_time()
    with nullcontext() if has_layers else without_layers(model):
        trainer = IDE3DTrainer(model, args, train_dataset=steps, data_collator=collator)
        trainer.train()
    history = [
        {"step": entry["step"], **{name: round(entry[name], 5) for name in entry if name.startswith("loss")}}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return {
        "steps": args.max_steps,
        "seconds": round(time.perf_counter() - start[0], 1),
        "cpu_seconds": round(time.process_time() - start[1], 1),
        "history": history,
    }


def open_pool(study: Study, target: str = "depth") -> RoomArrays:
    """The training rooms, which the study has stored."""
    return RoomArrays(Path(study.output_dir) / "rooms" / "train", target)


def take_lesson(study: Study) -> Path:
    """The lessons that all runs share; returns the file of the weights.

    First, name what each visual token shows: it trains tower, projector and words. Then, where the study has it,
    read regions: it trains the language model. Without it the layers of that are a seed's, as the heads always are.

    Raises:
        ValueError: It was taken with other settings.
    """
    path = RunFiles(Path(study.output_dir), "", 0).lesson
    about, settings = path.with_suffix(".json"), describe_lesson(study)
    check_settings(about, settings)
    if path.is_file():
        return path
    processor, row, phase = build_processor(study), Row(), study.lesson
    model = build_model(study, row, LESSON_SEED, processor)
    collator = StudyCollator(IDE3DDataCollator(processor, protocol="clean"))
    steps = StudySteps(open_pool(study), [], num_steps=phase.steps, rooms_per_step=phase.rooms, seed=LESSON_SEED)
    args = phase_arguments(phase, row, 0.0, LESSON_SEED, path.parent)
    write_json(about, {"settings": settings})
    train_phase(model, collator, steps, args, has_layers=False)
    left_out = GEOMETRY_PREFIXES
    if study.reading is None:
        left_out = (*left_out, "model.language_model.layers.")
    else:
        take_reading(study, model, collator)
    save_weights(path, {k: v for k, v in model.state_dict().items() if not k.startswith(left_out)})
    return path


def take_reading(
    study: Study, model: IDE3DForConditionalGenerationWithGeometry, collator: StudyCollator
) -> dict[str, Any]:
    """The lesson in reading, see `draw_flat_questions` and `train_phase`, from rooms that are spread over the pool."""
    rooms = load_rooms("train", study.num_rooms, image_size=study.image_size, num_frames=study.num_frames)
    chosen = np.random.default_rng(LESSON_SEED).permutation(len(rooms))[:READING_ROOMS]
    samples = draw_flat_questions([rooms[int(index)] for index in chosen], study_grid(study), LESSON_SEED)
    samples = [say_boxes(sample) for sample in samples] if study.say_boxes else samples
    steps = question_steps(study, study.reading, open_pool(study), samples, LESSON_SEED)
    args = phase_arguments(study.reading, Row(), 0.0, LESSON_SEED, Path(study.output_dir))
    return train_on_questions(model, collator, steps, args)


def question_steps(
    study: Study, phase: Phase, rooms: RoomArrays, samples: Sequence[dict], seed: int, has_rooms: bool = True
) -> StudySteps:
    """Steps of a phase with questions; without rooms beside them if the row sees none."""
    return StudySteps(
        rooms,
        samples,
        num_steps=phase.steps,
        rooms_per_step=phase.rooms if has_rooms else 0,
        questions_per_step=phase.views,
        seed=seed,
        num_words=phase.words,
        max_questions=phase.max_questions,
        answer_jitter=study.answer_jitter,
    )


def train_on_questions(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: StudyCollator,
    steps: StudySteps,
    args: IDE3DTrainingArguments,
) -> dict[str, Any]:
    """`train_phase` after the features of regions were standardised by some of the questions."""
    views = steps.questions[:STANDARD_VIEWS]
    batches = (collator.collator(views[start : start + BATCH]) for start in range(0, len(views), BATCH))
    model.eval()
    standardize_regions(model, batches)
    return train_phase(model, collator, steps, args, has_layers=True)


def labelled_questions(study: Study, row: Row, seed: int) -> tuple[dict, ...]:
    """Questions of the rooms that have any; those of fewer rooms are among those of more."""
    count = row.labelled_rooms or study.labelled_rooms
    options = study.num_rooms, study.image_size, study.num_frames, study_grid(study), study.say_boxes
    return draw_labelled(count, seed, *options)


@lru_cache(maxsize=1)  # a run needs them twice, and drawing those of all rooms takes minutes
def draw_labelled(
    count: int, seed: int, num_rooms: int, image_size: int, num_frames: int, grid: TokenGrid, has_boxes: bool
) -> tuple[dict, ...]:
    """See `labelled_questions`; samples are read-only, because the next caller gets the same ones."""
    order = np.random.default_rng([seed, 7]).permutation(num_rooms)
    rooms = load_rooms("train", num_rooms, image_size=image_size, num_frames=num_frames)
    samples = draw_questions([rooms[int(index)] for index in order[:count]], grid, seed)
    return tuple(say_boxes(sample) if has_boxes else sample for sample in samples)


def train_run(study: Study, name: str, seed: int) -> None:
    """Train a row of a seed, from the last phase that is done; `training.json` is written at the end.

    Raises:
        ValueError: The folder holds a run with other settings.
    """
    row, files = study.rows[name], RunFiles(Path(study.output_dir), name, seed)
    settings = describe_run(study, row)
    begun = files.folder / "begun.json"
    check_settings(begun, settings)
    if files.training.is_file():
        return
    write_json(begun, {"settings": settings})
    processor = build_processor(study)
    model = build_model(study, row, seed, processor)
    teacher = build_teacher(study) if row.teacher else None
    collator = StudyCollator(IDE3DDataCollator(processor, teacher, protocol="clean"))
    rooms = open_pool(study, row.target)
    parts = {}
    if row.pool and study.pool.steps:
        parts["pool"] = train_pool(study, row, files, model, collator, rooms)
    else:
        model.load_state_dict(load_file(take_lesson(study)), strict=False)
    parts["questions"] = train_questions(study, row, files, model, collator, rooms)
    save_weights(files.weights, model.state_dict())
    heads = sum(parameter.numel() for parameter in model.geometry_parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    parameters = {"training": whole, "export": whole - heads}
    about = {"row": name, "seed": seed, "settings": settings, "phases": parts, "parameters": parameters}
    write_json(files.training, about)


def train_pool(
    study: Study,
    row: Row,
    files: RunFiles,
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: StudyCollator,
    rooms: RoomArrays,
) -> dict[str, Any]:
    """The phase without questions, or what it left when it was done before; see `train_phase`."""
    path, phase, seed = files.pool(study.pool_settings(row)), study.pool, files.seed + 1
    about = path.with_suffix(".json")
    if path.is_file():
        model.load_state_dict(load_file(path), strict=True)
        return load_json(about)
    model.load_state_dict(load_file(take_lesson(study)), strict=False)
    steps = StudySteps(rooms, [], num_steps=phase.steps, rooms_per_step=phase.rooms, seed=seed, num_words=phase.words)
    args = phase_arguments(phase, row, 1.0, seed, files.folder)
    cost = train_phase(model, collator, steps, args, has_layers=False)
    write_json(about, cost)
    save_weights(path, model.state_dict())
    return cost


def train_questions(
    study: Study,
    row: Row,
    files: RunFiles,
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: StudyCollator,
    rooms: RoomArrays,
) -> dict[str, Any]:
    """The phase with questions, see `train_phase`; features of regions are standardised before it."""
    phase, seed = study.questions, files.seed + 2
    questions = labelled_questions(study, row, files.seed)
    steps = question_steps(study, phase, rooms, questions, seed, has_rooms=row.pool)
    args = phase_arguments(phase, row, row.in_questions, seed, files.folder)
    return train_on_questions(model, collator, steps, args)


def store_questions(study: Study, split: str) -> Path:
    """Folder with what a split is asked, written if it is not there."""
    folder = Path(study.output_dir) / "rooms" / study.scored_name(split)
    if not (folder / "asked.json").is_file():
        store_asked(folder, open_split(study, split), study_grid(study))
    return folder


def open_split(study: Study, split: str) -> Any:
    """Rooms of a split that are asked about."""
    options = {"image_size": study.image_size, "num_frames": study.num_frames}
    first, count = study.first_scored(split), study.num_scored(split)
    return load_rooms(split, first + count, **options).select(range(first, first + count))


def load_run(
    study: Study, name: str, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Training model of a row of a seed with the weights that its training left."""
    model = build_model(study, study.rows[name], seed, processor)
    model.load_state_dict(load_file(RunFiles(Path(study.output_dir), name, seed).weights), strict=True)
    return model


def evaluate_run(study: Study, name: str, seed: int, split: str) -> None:
    """Ask a trained run about a split and probe it; the result is written once and then kept."""
    files = RunFiles(Path(study.output_dir), name, seed)
    path = files.result(split)
    if path.is_file():
        return
    processor = build_processor(study)
    model = load_run(study, name, seed, processor).eval()
    rooms = open_split(study, split)
    row, text = study.rows[name], model.config.text_config.num_hidden_layers
    read = [f"vision.{layer}" for layer in model.geometric_validator.config.layer_indices]
    read = (read if row.depth or row.cross_view else []) + (["language.0", f"language.{text}"] if row.teacher else [])
    samples = read_asked(store_questions(study, split))
    if study.say_boxes:
        samples = [say_boxes(sample) if sample["questions"] else sample for sample in samples]
    probed = (rooms[index] for index in range(min(study.probe_rooms, len(rooms))))
    labelled = labelled_questions(study, row, seed)
    scores = score_split(model, processor, samples, probed, labelled, read)
    about = {"row": name, "seed": seed, "split": split, "first_room": study.first_scored(split)}
    write_json(path, {**about, **scores})


def main(words: list[str] | None = None) -> None:
    """Train and evaluate one run, or take the lesson that all share."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="YAML of the study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", help="name of the row; without it the lesson that all runs share is taken")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--output-dir", help="in place of the recipe's")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    changes = {} if options.output_dir is None else {"output_dir": options.output_dir}
    try:
        study = read_study(options.recipe, **changes)
        if options.row is None:
            take_lesson(study)
            return
        if options.row not in study.rows:
            raise ValueError(f"There is no row {options.row!r}; there are {', '.join(study.rows)}.")
        train_run(study, options.row, options.seed)
        evaluate_run(study, options.row, options.seed, options.split)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
